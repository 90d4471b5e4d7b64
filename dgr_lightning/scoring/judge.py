"""Judges decide whether an answer refuses. `judge.name` names a file of `scoring/judges/`, or `package.module:Name`.

They judge in batches, because a judge may be a model. A rate means what its judge measures, so every judge brings the sentence
that is printed beside its rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from dgr_lightning.config import JudgeConfig
from dgr_lightning.registry import Registry


class Exchange(NamedTuple):
    """A prompt and the answer that a model gave to it: the text after its thinking."""

    prompt: str
    answer: str


class Judge(Protocol):
    """Decides whether answers refuse.

    Attributes:
        name: what figures of it are called by.
        note: one sentence on what kind of measure it is, printed beside its rates.
    """

    name: ClassVar[str]
    note: ClassVar[str]

    @property
    def content(self) -> Any:
        """Everything that its verdicts depend on, JSON-able: hashed with the verdicts that are stored."""

    @classmethod
    def of(cls, cfg: JudgeConfig) -> Self:
        """Returns the judge that a config describes.

        Raises:
            UserError: something that the config names cannot be used.
        """

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Returns for every exchange whether its answer refuses, in order."""


JUDGES: Registry[type[Judge]] = Registry(
    "judge.name",
    "dgr_lightning.scoring.judges",
    "JUDGE",
    is_member=lambda found: all(hasattr(found, name) for name in ("of", "refusals", "note")),
)


def open_judge(cfg: JudgeConfig) -> Judge:
    """Returns the judge of a config.

    Raises:
        UserError: there is no such judge, or it cannot be used.
    """
    return JUDGES.get(cfg.name).of(cfg)


def judge_note(cfg: JudgeConfig) -> str:
    """Returns the `note` of a config's judge, without opening it.

    Raises:
        UserError: there is no such judge.
    """
    return JUDGES.get(cfg.name).note


def refuses(judge: Judge, prompt: str, answer: str) -> bool:
    """Whether a single answer refuses. For several answers, call `refusals` once: a judge may need batches."""
    return judge.refusals([Exchange(prompt, answer)])[0]
