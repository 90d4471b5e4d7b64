"""The outcome of each example, the figures of the stage, and the table that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from dgr_lightning.console import console
from dgr_lightning.number_format import nats

UNMATCHED = "unmatched"
"""Reason of an example that a length-matched comparison has no partner for: no fault of a rewrite."""


@dataclass
class Outcome:
    """The outcome of one example; texts are in the store, under these keys.

    Attributes:
        tried: step → keys of the completions that were judged, in the order of the tries.
        accepted: step → key of the completion that is kept.
        reasons: step → the check that its last try failed, for steps without an accepted one.
    """

    tried: dict[str, list[str]] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def clear(self) -> None:
        """Forgets what became of the example, before its job starts again."""
        for known in (self.tried, self.accepted, self.reasons):
            known.clear()

    @property
    def reason(self) -> str | None:
        """Why the example fell back: the reason of its first failed step; None where none failed."""
        return next(iter(self.reasons.values()), None)


@dataclass(frozen=True)
class RefinementStats:
    """The figures of the stage; with the mean NLLs they are `refinement` in summary.json.

    Attributes:
        examples: size of the source set, dropped examples included.
        refined: examples that hold text by the target model.
        fallback: reason → examples that fell back for it (a check's name; the first that failed, of the last try). An example
            of which one part fell back and the other was rewritten (`refine.fallback_unit=part`) counts here and in `refined`.
            `unmatched` counts examples that a length-matched comparison has no partner for.
        tokens_before: target tokens of the whole source set: what the loss is taken over, marks and end token included, before
            `sft.max_length` truncates anything.
        tokens_after: the same of the refined set.
        attempted: examples that the strategy tried to rewrite; the others passed through.
        failed: how many of them no text was accepted for.
    """

    examples: int
    refined: int
    fallback: dict[str, int]
    tokens_before: int
    tokens_after: int
    attempted: int = 0
    failed: int = 0


def count_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """Returns reason → count, the most frequent first, ties by name: the same dict for any order of the examples."""
    return dict(sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0])))


def fallback_warning(stats: RefinementStats, on_failure: str, *, paired: bool = False) -> str | None:
    """Returns what a reader of the run must know where most rewrites failed; None where at least half of them were accepted.

    Args:
        stats: the figures of the stage.
        on_failure: `refine.on_failure`: what became of the others.
        paired: whether the set is one side of pairs of originals and accepted rewrites.
    """
    if 2 * stats.failed <= stats.attempted:
        return None
    listed = ", ".join(f"{reason} {count}" for reason, count in stats.fallback.items() if reason != UNMATCHED)
    if paired:
        became = f"failed quality control ({listed}): the comparison rests on few pairs"
    elif on_failure == "drop":
        became = f"were dropped ({listed}): the set is {stats.examples - sum(stats.fallback.values())} examples"
    elif stats.refined:
        became = f"fell back to the original ({listed}): most of the set is the source's own text"
    else:
        became = f"fell back to the original ({listed}): nothing in the set is the model's own text, it is vanilla in fact"
    return (
        f"{stats.failed} of {stats.attempted} rewrites {became}. The figures of this run say little about its strategy. The "
        "rejected texts are in stages/verdicts.jsonl; refine.checks says how they were judged, the templates how the model was "
        "prompted."
    )


def show_refinement(stats: RefinementStats, nll_before: float | None, nll_after: float | None) -> None:
    """Prints the table that ends the stage.

    Args:
        stats: the figures of the stage.
        nll_before: mean negative log-likelihood per target token of the source set under the target, in nats; None: unknown.
        nll_after: the same of the refined set.
    """
    kept = sum(stats.fallback.values())
    table = Table(title="Refinement", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("refined examples", "0", _share(stats.refined, stats.examples))
    table.add_row("fallback", "", _share(kept, stats.examples), style="yellow" if kept else None)
    for reason, count in stats.fallback.items():
        table.add_row(f"  {reason}", "", _share(count, stats.examples), style="dim")
    table.add_row("target tokens", f"{stats.tokens_before:,}", f"{stats.tokens_after:,}")
    table.add_row("NLL per token (nats)", nats(nll_before), nats(nll_after))
    console.print(table)


def _share(count: int, examples: int) -> str:
    return f"{count} of {examples} ({count / examples:.1%})" if examples else "0"
