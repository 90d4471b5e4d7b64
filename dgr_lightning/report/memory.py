"""The memory plan of a training in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dgr_lightning.config import Config
from dgr_lightning.console import console
from dgr_lightning.report.tables import FigureTable

if TYPE_CHECKING:
    from dgr_lightning.training.memory_fit import Fit

_GIB = 2**30


def show_memory(table: FigureTable) -> None:
    """Prints the table."""
    console.print(table)
    console.print()


def memory_table(cfg: Config, bound: Fit, source: Fit) -> FigureTable:
    """Returns bytes by kind on each device, for the longest row that refinement may make and for the source's own.

    Args:
        cfg: of the run, no `auto` left in `trainer` but that of `recompute_every`.
        bound: the plan for the first.
        source: the plan for the second.
    """
    fits = (bound, source)
    rows: list[list[str | Text]] = [["tokens of the row", *(f"{fit.row.num_tokens:,}" for fit in fits)]]
    rows += [
        [kind, *(f"{fit.plan.bytes[kind] / _GIB:.1f}" for fit in fits)]
        for kind in bound.plan.bytes
        if any(fit.plan.bytes[kind] >= _GIB / 20 for fit in fits)
    ]
    rows.append(["together, GiB", *(_total(fit) for fit in fits)])
    rows.append(["most at", *(fit.plan.moment for fit in fits)])
    rows.append(["trainer.recompute_every", *(str(fit.plan.recompute_every) for fit in fits)])
    if any(fit.plan.host for fit in fits):
        rows.append(["of the machine's memory", *(f"{fit.plan.host / _GIB:.1f}" for fit in fits)])
    trainer = cfg.trainer
    number = (trainer.devices or 1) * trainer.nodes
    devices = "one device" if number == 1 else f"each of {number} devices"
    return FigureTable(
        ["", "refined, at most", "source as it is"],
        rows,
        title=f"Memory on {devices} ({trainer.strategy}) of {bound.memory / _GIB:.0f} GiB, of which {bound.usable / _GIB:.1f} "
        "can be planned with",
    )


def _total(fit: Fit) -> Text:
    return Text(f"{fit.plan.total / _GIB:.1f}", "green" if fit.is_enough else "bold red")
