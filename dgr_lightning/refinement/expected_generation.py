"""What refinement will generate, guessed before it does: every rewrite as long as what it rewrites, accepted at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.decoding_time import Generation
from dgr_lightning.prompts.templates import ANSWER, RESPONSE, TRACE
from dgr_lightning.refinement.strategy import strategy_of


class PartTokens(Protocol):
    """Tokens of an example's prompt, trace and answer."""

    @property
    def prompt(self) -> int: ...  # noqa: D102
    @property
    def trace(self) -> int: ...  # noqa: D102
    @property
    def answer(self) -> int: ...  # noqa: D102


ASSUMPTION = (
    "a rewrite is as long as the source's own part, and the model thinks as long before it writes (refine.thinking); each is "
    "accepted at the first try"
)


def expected_generation(refine: RefineConfig, examples: Sequence[PartTokens]) -> Generation:
    """Returns the requests that a strategy is expected to make; none where it generates nothing.

    Args:
        refine: the strategy and its keys.
        examples: of the source set; an empty trace is not asked about.
    """
    strategy = strategy_of(refine)
    if not strategy.generates:
        return Generation()
    read = strategy.refine
    tries = read.tries if read.select == "nll" else 1
    num_prompts, prompts, outputs = 0, 0, 0
    longest = 0
    for step in strategy.steps():
        for example in examples:
            part = {TRACE: example.trace, ANSWER: example.answer, RESPONSE: example.trace + example.answer}[step.part]
            if not part:
                continue
            # With one request for both, what the model thinks is the trace.
            thought = part if read.thinking and step.part != RESPONSE else 0
            output = min(part + thought, read.max_new_tokens)
            num_prompts, prompts, outputs = num_prompts + 1, prompts + example.prompt + part, outputs + output
            longest = max(longest, output)
    share = tries * refine.fraction
    return Generation(round(num_prompts * share), prompts * share, outputs * share, longest)
