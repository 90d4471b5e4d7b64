"""The plan in the terminal: what the source set looks like to the target model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from rich.text import Text

from dgr_lightning.console import console
from dgr_lightning.report.histogram import histogram
from dgr_lightning.report.tables import FigureTable, facts_table

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
    for part in (
        _examples_table(plan),
        _lengths_table(plan),
        Text("tokens of prompt and target: examples", "bold")
        .append("\n")
        .append(histogram(plan.tokens["whole"], plan.max_length)),
        facts_table(list(_facts(plan))),
        Text("\n").join(_audit_lines(plan.audit)),
    ):
        console.print(part)
        console.print()


def _examples_table(plan: SetPlan) -> FigureTable:
    labels = sorted({label for _, label in plan.counts})
    rows: list[list[str | Text]] = []
    for source in dict.fromkeys(source for source, _ in plan.counts):
        row = [plan.counts.get((source, label), 0) for label in labels]
        rows.append([source, *(f"{count:,}" for count in (*row, sum(row)))])
    for reason, count in plan.rejected.items():
        cells = [f"rejected: {reason}", *[""] * len(labels), f"{count:,}"]
        rows.append([Text(cell, "yellow") for cell in cells])
    return FigureTable(["source", *labels, "all"], rows, title=plan.title)


def _lengths_table(plan: SetPlan) -> FigureTable:
    rows = []
    for part, tokens in plan.tokens.items():
        high = quantiles(tokens, n=20, method="inclusive")[-1] if len(tokens) > 1 else tokens[0]
        rows.append([part, f"{median(tokens):,.0f}", f"{high:,.0f}", f"{max(tokens):,}", f"{sum(tokens):,}"])
    return FigureTable(["", "median", "95 %", "longest", "all together"], rows, title="Tokens of an example")


def _facts(plan: SetPlan) -> Iterator[tuple[str, str | Text]]:
    examples, tokens = plan.cut
    cut = (
        f"{examples:,} {'example loses' if examples == 1 else 'examples lose'} {tokens:,} tokens"
        if examples
        else "cuts nothing"
    )
    yield f"sft.max_length={plan.max_length}", Text(cut, "yellow" if examples else "")
    if plan.empty_traces:
        yield "empty traces", Text(f"{plan.empty_traces:,} of the source, which stay empty", "yellow")
    if plan.repeated:
        yield "repeated", Text(f"{plan.repeated:,} prompts stand in more than one part of data.mix", "yellow")
    shared = ", ".join(f"{task} {count}" for task, count in plan.measured.items() if count)
    if shared:
        yield "measured on", Text(f"{shared} prompts are in the set, too; data.drop_overlap=true leaves them out", "yellow")
    else:
        yield "measured on", f"no prompt of {', '.join(plan.measured)}" if plan.measured else "no task was compared"
    if plan.unread:
        out_of_reach = f"neither compared nor left out by data.drop_overlap, since out of reach here: {', '.join(plan.unread)}"
        yield "", Text(out_of_reach, "dim")


def _audit_lines(audit: Mapping[str, Sequence[str]]) -> Iterator[Text]:
    """Yields what the format must fulfil, each with the examples that do not."""
    yield Text("Format of the examples", "bold")
    for demand, failing in audit.items():
        mark = Text("✗ " if failing else "✓ ", "bold red" if failing else "green")
        yield Text.assemble(mark, demand, "" if failing else ": all")
        if failing:
            named = f"not in {len(failing):,}: {', '.join(failing[:_NAMED])}{' …' if len(failing) > _NAMED else ''}"
            yield Text(f"  {named}", "red", overflow="fold")
