"""The refined set: each example is put together from source and store when it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

from dgr_lightning.config import RefineConfig
from dgr_lightning.console import progress
from dgr_lightning.example import Example, RefinedExample
from dgr_lightning.models.chat import Chat
from dgr_lightning.refinement.length_matching import LengthMatch
from dgr_lightning.refinement.outcome import UNMATCHED, Outcome
from dgr_lightning.refinement.rewriter import Rewriter

# From this many examples on, tokenizing takes seconds and shows a progress bar.
_MANY = 1000


class RefinedSet:
    """The examples that are trained on, in source order.

    Attributes:
        num_refined: how many of them hold text by the target model.
    """

    def __init__(
        self,
        source: Sequence[Example],
        rewriter: Rewriter,
        outcomes: Mapping[str, Outcome],
        refine: RefineConfig,
        match: LengthMatch | None,
    ) -> None:
        """Decides which examples are kept; reads no text.

        Args:
            source: the source set.
            rewriter: reads accepted texts.
            outcomes: by example id, in source order.
            refine: `fallback_unit`, `on_failure` and `arm` are read.
            match: the arms of a length-matched comparison, outside of which examples are dropped; None for other strategies.
        """
        self._source, self._rewriter, self._outcomes, self._refine, self._match = source, rewriter, outcomes, refine, match
        kept = [index for index, id_ in enumerate(outcomes) if self._is_kept(id_)]
        self._kept = kept
        ids = list(outcomes)
        self.num_refined = sum(self._is_refined(ids[index]) for index in kept)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._kept)

    def __iter__(self) -> Iterator[RefinedExample]:
        """Yields the examples."""
        for index in self._kept:
            example = self._source[index]
            reason = self._outcomes[example.id].reason
            if self._is_refined(example.id):
                yield RefinedExample.of(example, refined=True, reason=reason, **self._rewriter.texts(index))
            else:
                yield RefinedExample.of(example, reason=reason)

    def reason(self, id_: str) -> str | None:
        """Returns why an example fell back or was dropped; None where nothing failed."""
        reason = self._outcomes[id_].reason
        if reason is None and self._match is not None and not self._is_kept(id_):
            return UNMATCHED
        return reason

    def _is_kept(self, id_: str) -> bool:
        if self._match is not None:
            return id_ in (self._match.originals if self._refine.arm == "originals" else self._match.rewrites)
        return self._refine.on_failure == "keep" or self._outcomes[id_].reason is None

    def _is_refined(self, id_: str) -> bool:
        """Whether any text of an example is by the target model."""
        outcome = self._outcomes[id_]
        whole = outcome.reason is None or self._refine.fallback_unit == "part"
        return bool(outcome.accepted) and whole and not (self._match is not None and self._refine.arm == "originals")


def target_tokens(examples: Iterable[Example], chat: Chat) -> Iterator[int]:
    """Yields the target tokens of each example, marks and end token included: what the loss and the NLL are taken over."""
    num_examples = len(examples) if isinstance(examples, Sized) else 0
    if num_examples < _MANY:
        yield from (len(chat.target_ids(example.trace, example.answer)) for example in examples)
        return
    with progress("counting tokens", total=num_examples) as advance:
        for example in examples:
            yield len(chat.target_ids(example.trace, example.answer))
            advance(1)
