"""One step of a strategy with what is stored of it: completions, what quality control said of them, how likely they are.

A verdict or a likelihood that is stored is never computed again. Where another process is writing to the same shard, or the
cache can only be read, new ones are kept in memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dgr_lightning.engines.engine import STOP
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.generation.completions import CompletionStore
from dgr_lightning.generation.shards import ShardedRows, shard_of
from dgr_lightning.hashes import content_hash
from dgr_lightning.prompts.templates import ANSWER, TRACE
from dgr_lightning.refinement.quality import Candidate, Judgement, QualityControl
from dgr_lightning.refinement.step import Step


@dataclass
class StoredStep:
    """A step and its stores.

    Attributes:
        step: of the strategy.
        completions: what it wrote, by generation key.
        verdicts: what `control` said of it, by the same keys; with them, NLLs.
        control: judges what has no verdict yet.
        thinking: whether the model was let think (`refine.thinking`).
    """

    step: Step
    completions: CompletionStore
    verdicts: ShardedRows
    control: QualityControl
    thinking: bool
    _unstored: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """Name of the step."""
        return self.step.part

    def candidate(self, example: Example, key: str) -> Candidate:
        """Returns what the step keeps of a stored completion, ready to be judged."""
        completion = self.completions.get(key)
        assert completion is not None, f"{key} is not in the store"
        parsed = self.control.chat.parse(completion.text, self.thinking, finished=completion.finish_reason == STOP)
        kept = self.step.kept(example, parsed)
        return self.control.candidate(
            example,
            kept,
            thought="" if TRACE in kept and self.part != TRACE else parsed.trace or "",
            reference=self.step.reference(example),
            finish_reason=completion.finish_reason,
        )

    def judgement(self, example: Example, key: str) -> Judgement:
        """Returns what quality control says of a stored completion; judges it only where no verdict is stored."""
        row = self._row(key)
        if row is not None:
            return Judgement(**row)
        judgement = self.control.judge_candidate(self.candidate(example, key))
        self._keep(key, asdict(judgement))
        return judgement

    def nll(self, key: str, trace: str | None) -> float | None:
        """Returns the NLL per token of a completion; None where it was never scored.

        Args:
            key: the completion.
            trace: what identifies the accepted trace, which the NLL of an answer is conditional on; None: the source's.
        """
        row = self._row(self._nll_key(key, trace))
        return None if row is None else row["nll"]

    def keep_nll(self, key: str, trace: str | None, nll: float) -> None:
        """Stores the NLL per token of a completion."""
        self._keep(self._nll_key(key, trace), {"nll": nll})

    def _nll_key(self, key: str, trace: str | None) -> str:
        return f"{key}/nll" if self.part != ANSWER else f"{key}/nll/{content_hash(trace)}"

    def _row(self, key: str) -> dict[str, Any] | None:
        return self._unstored.get(key) or self.verdicts.row(key)

    def _keep(self, key: str, row: dict[str, Any]) -> None:
        try:
            claimed = self.verdicts.claim(shard_of(key), wait=False)
        except UserError:  # the cache can only be read
            claimed = False
        if not claimed:
            self._unstored[key] = row
        elif key not in self.verdicts:
            self.verdicts.write(key, row)
