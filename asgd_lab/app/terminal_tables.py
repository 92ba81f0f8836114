"""Tables that fit their terminal: a column without room is left out whole, and named in a line below; no value is cut.

The first column names the row and may be folded. The others have an order of importance, and the least important ones
are left out first. A file or a pipe has no limit of width. Cells are plain text, without rich's markup in brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NAME_WIDTH = 12  # names are folded to it before a column is left out
Cell = str | Text


@dataclass(frozen=True, slots=True)
class Columns:
    """A table of `rows`, each a name and its values; `important` orders the headings, and the first always stays."""

    headings: Sequence[str]  # of the names and of the values
    rows: Sequence[Sequence[Cell]]
    important: Sequence[str]  # other headings follow in the order of the table
    title: str | None = None
    lines: bool = True  # drawn around the cells
    left: frozenset[str] = frozenset()  # headings of left-aligned columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        table = Table(
            title=None if self.title is None else Text(self.title),
            box=HEAVY_HEAD if self.lines else None,
            pad_edge=self.lines,
        )
        for index, width in widths.items():
            left = index == 0 or self.headings[index] in self.left
            table.add_column(
                Text(self.headings[index], "" if self.lines else "dim"),
                justify="left" if left else "right",
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            table.add_row(*(Text.assemble(row[index]) for index in widths))
        yield table
        dropped = [heading for index, heading in enumerate(self.headings) if index not in widths]
        if dropped:
            yield Text(f"left out for want of width: {', '.join(dropped)}", "italic")

    def _widths(self, room: int) -> dict[int, int]:
        """The widths of the columns that fit, by index: names are folded first, then headings take several lines."""
        names = max((cell_len(str(row[0])) for row in self.rows), default=0)
        names = max(names, cell_len(self.headings[0]))
        widths = {0: min(names, NAME_WIDTH)}
        for index in self._by_importance():
            width = self._width(index)
            if len(widths) == 1:  # the most important column stays, folded if necessary
                width = min(width, room - self._around(2) - 1)
                widths[0] = max(1, min(widths[0], room - self._around(2) - width))
            if sum(widths.values()) + width + self._around(len(widths) + 1) <= room:
                widths[index] = width
        left = room - sum(widths.values()) - self._around(len(widths))
        for index in sorted(widths):
            wished = names if index == 0 else max(widths[index], cell_len(self.headings[index]))
            if index == 0 or wished - widths[index] <= left:
                more = min(left, wished - widths[index])
                widths[index] += more
                left -= more
        return {index: widths[index] for index in sorted(widths)}

    def _by_importance(self) -> list[int]:
        order = {heading: place for place, heading in enumerate(self.important)}
        return sorted(range(1, len(self.headings)), key=lambda index: order.get(self.headings[index], len(order)))

    def _width(self, index: int) -> int:
        """The width of a column's values, or of the longest word of its heading, which may take several lines."""
        values = max((cell_len(str(row[index])) for row in self.rows), default=0)
        return max(values, *(cell_len(word) for word in self.headings[index].split()))

    def _around(self, columns: int) -> int:
        """The width of all lines and gaps between and beside so many columns."""
        return 3 * columns + 1 if self.lines else 2 * columns - 2


@dataclass(frozen=True, slots=True)
class Described:
    """Names with descriptions: one line each if they fit, else the descriptions are folded, beside or below names.

    A name is not folded, so that it can be copied.
    """

    title: str
    described: Mapping[str, str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, "bold")
        widest = max(map(cell_len, self.described), default=0)
        if all(widest + 2 + cell_len(words) <= options.max_width for words in self.described.values()):
            for name, words in self.described.items():
                yield Text(f"{name}{' ' * (widest + 2 - cell_len(name))}{words}")
            return
        if 2 * widest > options.max_width:
            for name, words in self.described.items():
                yield Text(name)
                yield Padding(Text(words), (0, 0, 0, 2))
            return
        yield Pairs([(Text(name), words) for name, words in self.described.items()])


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and texts without lines: names are folded at half of the width, texts in the rest."""

    rows: Sequence[tuple[Text, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = min(max((name.cell_len for name, _ in self.rows), default=0), options.max_width // 2)
        table = Table.grid(padding=(0, 2))
        table.add_column(overflow="fold", width=names)
        table.add_column(overflow="fold", max_width=options.max_width - names - 2)
        for name, words in self.rows:
            table.add_row(name, Text(words))
        yield table
