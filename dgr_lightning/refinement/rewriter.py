"""The jobs of a refinement, one an example, and their results: accepted texts and verdicts, read from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dgr_lightning.config import RefineConfig
from dgr_lightning.example import Example
from dgr_lightning.generation.jobs import Job
from dgr_lightning.models.chat import Chat
from dgr_lightning.refinement.example_job import ExampleJob
from dgr_lightning.refinement.outcome import Outcome
from dgr_lightning.refinement.stored_step import StoredStep


class Rewriter:
    """A source set and the steps that it goes through."""

    def __init__(
        self,
        examples: Sequence[Example],
        refine: RefineConfig,
        chat: Chat,
        steps: Sequence[StoredStep],
        outcomes: Mapping[str, Outcome],
    ) -> None:
        """Starts no job.

        Args:
            examples: the source set.
            refine: how.
            chat: the target's chat format.
            steps: prompts for every example, in order.
            outcomes: by example id, in source order; jobs fill them in.
        """
        self._examples, self._refine, self._chat, self._outcomes = examples, refine, chat, outcomes
        self._steps = {step.part: step for step in steps}

    def job(self, index: int) -> Job:
        """Returns the job of an example."""
        return self._example_job(index).run()

    def texts(self, index: int) -> dict[str, str]:
        """Returns trace and answer of an example as accepted: the source's where nothing was."""
        return self._example_job(index).texts()

    def verdict_rows(self) -> Iterator[dict[str, Any]]:
        """Yields a line for every completion that was judged, in source order: the text only where it failed a check."""
        for index, outcome in enumerate(self._outcomes.values()):
            if not outcome.tried:
                continue
            job = self._example_job(index)
            for part, keys in outcome.tried.items():
                step = self._steps[part]
                for attempt, key in enumerate(keys):
                    verdict = step.judgement(job.example, key)
                    texts = step.candidate(job.example, key).texts if verdict.reason else None
                    row = {"id": job.example.id, "part": part, "attempt": attempt, **asdict(verdict)}
                    yield row | {
                        "nll": step.nll(key, job.trace()),
                        "text": None if texts is None else "\n\n".join(texts.values()),
                    }

    def _example_job(self, index: int) -> ExampleJob:
        example = self._examples[index]
        return ExampleJob(example, self._outcomes[example.id], self._steps, self._refine, self._chat)
