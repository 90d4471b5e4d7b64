"""Quality control of the source set itself, in place of anything that a model wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dgr_lightning.example import Example
from dgr_lightning.prompts.templates import ANSWER, TRACE
from dgr_lightning.refinement.outcome import Outcome
from dgr_lightning.refinement.quality import Judgement, QualityControl

SOURCE = "source"
"""The part of verdicts on source texts."""


def judge_sources(
    examples: Sequence[Example], control: QualityControl, outcomes: Mapping[str, Outcome]
) -> dict[str, Judgement]:
    """Judges the source texts in place of rewrites.

    Args:
        examples: the source set.
        control: judges.
        outcomes: by example id; gets the reason of each example that fails.

    Returns:
        Example id → verdict, for those that fail.
    """
    rejected = {}
    for example in examples:
        texts = {TRACE: example.trace, ANSWER: example.answer}
        candidate = control.candidate(example, {part: text for part, text in texts.items() if text.strip()})
        judgement = control.judge_candidate(candidate)
        if judgement.reason is not None:
            outcomes[example.id].reasons[SOURCE] = judgement.reason
            rejected[example.id] = judgement
    return rejected


def rejected_rows(rejected: Mapping[str, Judgement]) -> Iterator[dict[str, Any]]:
    """Yields a line, of part `source`, for every example whose source texts failed; the texts are in the source set."""
    for id_, judgement in rejected.items():
        yield {"id": id_, "part": SOURCE, "attempt": 0, **asdict(judgement), "nll": None, "text": None}
