"""Tables of the terminal in which no figure is broken in two, however narrow it is.

Columns that do not fit side by side become a second table under the first; names fold, figures never do. Lines of text wrap
between figures, not in them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_GAP = 3  # cells between two columns: the padding, and the box's own empty divider
_LEAST_NAME = 12  # cells that a name is folded to at most
_LONGEST_FIGURE = 28  # cells; what is longer is text, which wraps
# An estimate with its interval, a change, or a number with its unit.
_FIGURE = re.compile(r"\S+ \([−+\d.,%]+[^()a-z]*(?: to [^()a-z]*)?\)|\S+ → \S+|\d[\d.,]* (?:MiB|%|tokens/s)")


class FigureTable:
    """A table whose first columns hold names and whose others hold figures.

    Attributes:
        headings: of the columns; a long one wraps between its words.
        rows: a cell for each column.
        title: above the table.
        num_names: columns of names, which are repeated where the figures take several tables.
    """

    def __init__(
        self, headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, title: str = "", num_names: int = 1
    ) -> None:
        """Takes what the class docstring lists."""
        self.headings, self.title, self.num_names = list(headings), title, num_names
        self.rows = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]

    def fits(self, width: int) -> bool:
        """Whether the whole table fits into a width, no name folded."""
        natural = [max(self._longest(index), len(heading)) for index, heading in enumerate(self.headings)]
        return sum(natural) + _GAP * (len(natural) - 1) <= width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the tables that fit into the width."""
        names = self._name_widths(options.max_width)
        for number, columns in enumerate(self._groups(options.max_width, names)):
            if number:
                yield Text()
            yield self._table(columns, names, options.max_width, "" if number else self.title)

    def _longest(self, index: int) -> int:
        return max((row[index].cell_len for row in self.rows), default=0)

    def _least(self, index: int) -> int:
        """Returns the cells that a column of figures needs at least, its heading wrapped."""
        words = self.headings[index].split() or [""]
        return max(min(self._longest(index), _LONGEST_FIGURE), *(len(word) for word in words))

    def _name_widths(self, width: int) -> list[int]:
        """Returns the widths of the names: whole, or folded where the widest column of figures leaves less room."""
        widths = [max(self._longest(index), len(self.headings[index])) for index in range(self.num_names)]
        figures = [self._least(index) for index in range(self.num_names, len(self.headings))]
        room = width - max(figures, default=0) - _GAP * self.num_names
        all_figures = width - sum(figures) - _GAP * (len(self.headings) - 1)
        for goal in (all_figures, room):  # folded so far that all figures fit if that is enough, else as little as possible
            folded = _folded(widths, goal)
            if sum(folded) <= goal:
                return folded
        return folded

    def _groups(self, width: int, names: Sequence[int]) -> Iterator[list[int]]:
        """Yields the columns of figures of each table, as many as fit."""
        start = sum(names) + _GAP * (len(names) - 1)
        group: list[int] = []
        used = start
        for index in range(self.num_names, len(self.headings)):
            wanted = _GAP + self._least(index)
            if group and used + wanted > width:
                yield group
                group, used = [], start
            group.append(index)
            used += wanted
        yield group

    def _table(self, figures: Sequence[int], names: Sequence[int], width: int, title: str) -> Table:
        least = [self._least(index) for index in figures]
        natural = [max(self._longest(index), len(self.headings[index])) for index in figures]
        fixed = sum(names) + _GAP * (len(names) + len(figures) - 1)
        widths = natural if fixed + sum(natural) <= width else least
        columns = [Column(Text(self.headings[i]), width=cells, overflow="fold") for i, cells in enumerate(names)]
        columns += [
            Column(Text(self.headings[i]), width=cells, justify="right", overflow="fold")
            for i, cells in zip(figures, widths, strict=True)
        ]
        table = Table(
            *columns,
            title=Text(title, "bold") if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        for row in self.rows:
            cells = [row[index] if row[index].cell_len <= _LONGEST_FIGURE else WrappedText(row[index]) for index in figures]
            table.add_row(*row[: self.num_names], *cells)
        return table


def _folded(widths: Sequence[int], room: int) -> list[int]:
    """Returns widths that together fit into some room, the widest folded first, none below `_LEAST_NAME`."""
    folded = list(widths)
    while sum(folded) > room and max(folded) > _LEAST_NAME:
        folded[folded.index(max(folded))] -= 1
    return folded


class WrappedText:
    """Text that wraps at its spaces, but not inside a figure: `98.0 (89.5–99.6)`, `8.500 → 0.150`, `512 MiB`."""

    def __init__(self, text: str | Text) -> None:
        """Takes the text; one style for all of it is kept."""
        self.text = Text(text) if isinstance(text, str) else text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines."""
        # textwrap takes the no-break space for a letter.
        kept = _FIGURE.sub(lambda figure: figure[0].replace(" ", "\xa0"), self.text.plain)
        lines = textwrap.wrap(kept, options.max_width, break_on_hyphens=False)
        yield Text("\n".join(lines).replace("\xa0", " "), self.text.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Returns the width of the whole text; it wraps into whatever there is."""
        return Measurement(1, max(1, self.text.cell_len)).with_maximum(options.max_width)


def facts_table(facts: Sequence[tuple[str, str | Text]], title: str = "") -> Table:
    """Returns a table of a name and a text each."""
    table = Table(
        title=Text(title, "bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if title else None,
        show_header=False,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(style="bold", max_width=24, overflow="fold")
    table.add_column()
    for name, text in facts:
        table.add_row(Text(name), WrappedText(text))
    return table


class _FittedTable(TableElement):
    """A table of a Markdown text, its columns of figures in as many tables as fit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.header is None or self.header.row is None or self.body is None:
            return
        headings = [cell.content.plain for cell in self.header.row.cells]
        rows = [[cell.content for cell in row.cells] for row in self.body.rows]
        # The names are the first columns that tell the rows apart.
        names = range(1, len(headings))
        apart = (count for count in names if len({tuple(cell.plain for cell in row[:count]) for row in rows}) == len(rows))
        yield FigureTable(headings, rows, num_names=next(apart, 1))
        yield Text()


class FittedMarkdown(Markdown):
    """A Markdown text whose tables break no figure in two."""

    elements = Markdown.elements | {"table_open": _FittedTable}
