"""The plan in the terminal: what the source set looks like to the target model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from rich import box
from rich.table import Table
from rich.text import Text

from dgr_lightning.console import console
from dgr_lightning.report.histogram import histogram

_NAMED = 5


@dataclass(frozen=True)
class SetPlan:
    """What is known of a set before anything is generated; ids and counts, no text.

    Attributes:
        title: model and set.
        counts: (source, label) → examples.
        rejected: reason → rows.
        tokens: part (`prompt`, `trace`, `answer`, `whole`) → tokens of every example.
        max_length: `sft.max_length`.
        cut: examples that lose tokens to it, and the tokens that they lose together.
        empty_traces: examples whose source has no trace.
        repeated: prompts that stand in more than one part of a mixture.
        measured: task → examples whose prompt is one of its own, for every task that could be read.
        unread: tasks that could not be read.
        audit: what the format must fulfil → ids of the examples that do not.
    """

    title: str
    counts: Mapping[tuple[str, str], int]
    rejected: Mapping[str, int]
    tokens: Mapping[str, Sequence[int]]
    max_length: int
    cut: tuple[int, int]
    empty_traces: int
    repeated: int
    measured: Mapping[str, int]
    unread: Sequence[str] = ()
    audit: Mapping[str, Sequence[str]] = field(default_factory=dict)


def show_plan(plan: SetPlan) -> None:
    """Prints a plan: examples by source and label, lengths with a histogram, what is cut, overlap, and the format's audit."""
    console.print(_examples_table(plan))
    console.print(_lengths_table(plan))
    console.print(Text("tokens of prompt and target: examples", "bold"))
    console.print(histogram(plan.tokens["whole"], plan.max_length))
    console.print(_facts_table(plan))
    console.print(_audit_table(plan.audit))


def _examples_table(plan: SetPlan) -> Table:
    labels = sorted({label for _, label in plan.counts})
    table = _table(plan.title, "source", *labels, "all")
    for source in dict.fromkeys(source for source, _ in plan.counts):
        row = [plan.counts.get((source, label), 0) for label in labels]
        table.add_row(Text(source), *(f"{count:,}" for count in (*row, sum(row))))
    for reason, count in plan.rejected.items():
        table.add_row(Text(f"rejected: {reason}"), *[""] * len(labels), f"{count:,}", style="yellow")
    return table


def _lengths_table(plan: SetPlan) -> Table:
    table = _table("Tokens of an example", "", "median", "95 %", "longest", "all together")
    for part, tokens in plan.tokens.items():
        high = quantiles(tokens, n=20)[-1] if len(tokens) > 1 else tokens[0]
        table.add_row(part, f"{median(tokens):,.0f}", f"{high:,.0f}", f"{max(tokens):,}", f"{sum(tokens):,}")
    return table


def _facts_table(plan: SetPlan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    examples, tokens = plan.cut
    cut = f"{examples:,} examples lose {tokens:,} tokens" if examples else "cuts nothing"
    table.add_row(f"sft.max_length={plan.max_length}", Text(cut, "yellow" if examples else ""))
    if plan.empty_traces:
        table.add_row("empty traces", Text(f"{plan.empty_traces:,} of the source, which stay empty", "yellow"))
    if plan.repeated:
        table.add_row("repeated", Text(f"{plan.repeated:,} prompts stand in more than one part of data.mix", "yellow"))
    shared = ", ".join(f"{task} {count}" for task, count in plan.measured.items() if count)
    if shared:
        overlap = Text(f"{shared} prompts are in the set, too; data.drop_overlap=true leaves them out", "yellow")
    else:
        overlap = Text(f"no prompt of {', '.join(plan.measured)}" if plan.measured else "no task was compared")
    table.add_row("measured on", overlap)
    if plan.unread:
        out_of_reach = f"neither compared nor left out by data.drop_overlap, since out of reach here: {', '.join(plan.unread)}"
        table.add_row("", Text(out_of_reach, "dim"))
    return table


def _audit_table(audit: Mapping[str, Sequence[str]]) -> Table:
    table = _table("Format", "", "examples")
    for demand, failing in audit.items():
        mark = Text("✗ " if failing else "✓ ", "bold red" if failing else "green")
        named = f"not in {len(failing):,}: {', '.join(failing[:_NAMED])}{' …' if len(failing) > _NAMED else ''}"
        table.add_row(Text.assemble(mark, demand), Text(named, "red") if failing else "all")
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
