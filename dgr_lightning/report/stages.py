"""The stages of a planned run in the terminal: tokens, time and disk, all of them estimates, and what they assume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from dgr_lightning.console import console
from dgr_lightning.number_format import UNDEFINED
from dgr_lightning.report.tables import FigureTable
from dgr_lightning.writing import readable_size

NOT_ESTIMATED = "not estimated"


@dataclass(frozen=True)
class StageEstimate:
    """What a stage is expected to take.

    Attributes:
        name: of the stage, with its numbers.
        tokens: that are generated, scored or trained on; None: none.
        seconds: None: not estimated.
        disk: bytes that it writes and keeps; None: none that count.
    """

    name: str
    tokens: float | None
    seconds: float | None
    disk: float | None = None


@dataclass(frozen=True)
class StagesPlan:
    """The stages of a run, in order.

    Attributes:
        machine: what they run on.
        stages: in order.
        assumptions: sentences on what the figures rest on.
        warnings: sentences on what takes more than it should.
    """

    machine: str
    stages: Sequence[StageEstimate]
    assumptions: Sequence[str]
    warnings: Sequence[str] = ()


def show_stages(plan: StagesPlan) -> None:
    """Prints the table of the stages, their sum, and the assumptions."""
    rows: list[list[str | Text]] = [
        [stage.name, _tokens(stage.tokens), _time(stage.seconds), _disk(stage.disk)] for stage in plan.stages
    ]
    known = [stage.seconds for stage in plan.stages if stage.seconds is not None]
    seconds = _time(sum(known)) if known else NOT_ESTIMATED
    partly = f"{seconds} and more" if known and len(known) < len(plan.stages) else seconds
    tokens, disk = (sum(getattr(stage, name) or 0 for stage in plan.stages) for name in ("tokens", "disk"))
    rows.append([Text("all together", "bold"), _tokens(tokens), partly, _disk(disk)])
    console.print(FigureTable(["stage", "tokens", "time", "disk"], rows, title=f"Stages on {plan.machine}, estimated"))
    for sentence in plan.warnings:
        console.print(Text(sentence, "yellow"))
    for sentence in plan.assumptions:
        console.print(Text(f"· {sentence}", "dim"))
    console.print()


def readable_time(seconds: float) -> str:
    """Returns seconds as people write them: 45 s, 3.4 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _time(seconds: float | None) -> str:
    return NOT_ESTIMATED if seconds is None else readable_time(seconds)


def _tokens(tokens: float | None) -> str:
    if not tokens:
        return UNDEFINED
    return f"{tokens / 1e6:,.1f}M" if tokens >= 1e6 else f"{tokens / 1e3:,.0f}k" if tokens >= 1e3 else f"{tokens:.0f}"


def _disk(size: float | None) -> str:
    return UNDEFINED if not size else readable_size(size)
