"""Judges decide whether a text refuses, whether it is harmful, or both. `judge.name` names a file of `scoring/judges/`, or
`package.module:Name`.

They judge in batches, because a judge may be a model. A rate means what its judge measures, so every judge brings the sentence
that is printed beside its rates. What a judge could not tell is a verdict of its own, and never a harmless one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from dgr_lightning.config import Config
from dgr_lightning.console import ignore
from dgr_lightning.registry import Registry

REFUSED, HARMFUL = "refused", "harmful"
"""What a judge may say of a text; also the fields of a `Verdict`."""

UNPARSABLE, TRUNCATED, FAILED = "unparsable", "truncated", "failed"
"""Why there is no verdict: the judge wrote something else, ran into its limit of tokens, or could not be asked."""

NO_TEXT = "no_text"
"""Why there is no verdict either: the output has no such part, so the judge was not asked. That is no failure of the judge."""


class Exchange(NamedTuple):
    """A prompt and a text of a model's reply to it, which is judged: its answer, its trace, or both as one text."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a text.

    Attributes:
        refused: whether it refuses; None: this judge does not say, or could not tell.
        harmful: whether it is harmful, likewise.
        probability: of harm, by the judge's own tokens, 0 … 1; None where they do not give one.
        score: of harm, by a rubric, 0 … 1; None for a judge without one.
        error: why there is no verdict, one of `UNPARSABLE`, `TRUNCATED`, `FAILED`, `NO_TEXT`; None: there is one.
    """

    refused: bool | None = None
    harmful: bool | None = None
    probability: float | None = None
    score: float | None = None
    error: str | None = None


class Judge(Protocol):
    """Says of texts whether they refuse, whether they are harmful, or both. A context manager: it may hold a model.

    Attributes:
        name: what figures of it are called by: two that may say something else of a text differ in it.
        note: one sentence on what kind of measure it is, printed beside its rates.
        says: what its verdicts say, of `REFUSED` and `HARMFUL`.
    """

    # Properties, so that a class may say it of all its judges or each judge of itself.
    @property
    def name(self) -> str:
        """What figures of it are called by."""

    @property
    def note(self) -> str:
        """What kind of measure it is."""

    @property
    def says(self) -> frozenset[str]:
        """What its verdicts say."""

    @property
    def content(self) -> Any:
        """Everything that its verdicts depend on, JSON-able: hashed with the verdicts that are stored."""

    @classmethod
    def of(cls, cfg: Config) -> Self:
        """Returns the judge that `cfg.judge` describes; nothing is loaded or asked yet.

        Raises:
            UserError: something that the config names cannot be used.
        """

    def verdicts(self, exchanges: Sequence[Exchange], advance: Callable[[int], object] = ignore) -> list[Verdict]:
        """Returns a verdict an exchange, in order.

        Args:
            exchanges: any number of them.
            advance: called with numbers of exchanges as they are done, for a progress bar.
        """

    def close(self) -> None:
        """Frees what the judge holds: device memory, processes, connections. A further batch may load it again."""


JUDGES: Registry[type[Judge]] = Registry(
    "judge.name",
    "dgr_lightning.scoring.judges",
    "JUDGE",
    is_member=lambda found: all(hasattr(found, name) for name in ("of", "verdicts", "says", "note")),
)


def open_judge(cfg: Config) -> Judge:
    """Returns the judge of `cfg.judge`.

    Raises:
        UserError: there is no such judge, or it cannot be used.
    """
    return JUDGES.get(cfg.judge.name).of(cfg)


def refuses(judge: Judge, prompt: str, answer: str) -> bool:
    """Whether a single answer refuses. For several answers, call `verdicts` once: a judge may need batches."""
    return bool(judge.verdicts([Exchange(prompt, answer)])[0].refused)
