"""Tables for people: columns as narrow as their content, lines below a row over the whole width, no trailing blanks.

Made for 80 columns. When the whole is too wide a column that may shrink gives way with an ellipsis. One whose cells are
typed elsewhere stays whole: what does not fit beside the others has a line of its own above them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2
NARROWEST = 6


@dataclass(slots=True)
class Grid:
    """``header`` names the columns; one that begins with ``>`` is set to the right, with ``~`` it may shrink,
    with ``^`` it may shrink and is never cut."""

    header: Sequence[str]
    indent: int = 0
    rows: list[tuple[tuple[Text, ...], tuple[Text, ...]]] = field(default_factory=list)

    def add(self, *cells: str | int | Text | None, under: Iterable[str | Text] = (), style: str = "") -> None:
        """A row, and the lines below it."""
        made = tuple(_text(cell, style) for cell in cells)
        self.rows.append((made, tuple(_text(line, "") for line in under)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [name.lstrip(">~^") for name in self.header]
        widths = [max([len(names[i]), *(cells[i].cell_len for cells, _ in self.rows)]) for i in range(len(names))]
        room = options.max_width - self.indent - GAP * (len(names) - 1)
        shrinking = [i for i, name in enumerate(self.header) if name[:1] in ("~", "^")]
        while sum(widths) > room and (wide := [i for i in shrinking if widths[i] > NARROWEST]):
            widths[max(wide, key=widths.__getitem__)] -= 1
        if any(names):
            yield self._line([Text(name, style="bold") for name in names], widths)
        for cells, under in self.rows:
            yield from self._row(cells, widths)
            for line in under:
                yield from wrapped(console, line, self.indent + 4, options.max_width)

    def _row(self, cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
        """One line; two when a cell that is never cut does not fit beside the others."""
        long = next(
            (i for i, name in enumerate(self.header) if name[:1] == "^" and cells[i].cell_len > widths[i]), None
        )
        if long is None:
            yield self._line(cells, widths)
            return
        before, blank = cells[: long + 1], Text("")
        yield self._line(before, [*widths[:long], before[long].cell_len])
        yield self._line([*(blank for _ in before), *cells[long + 1 :]], widths)

    def _line(self, cells: Sequence[Text], widths: Sequence[int]) -> Text:
        line = Text(" " * self.indent, no_wrap=True, overflow="ignore")
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            part = cell.copy()
            part.truncate(width, overflow="ellipsis")
            blank = " " * (width - part.cell_len)
            right = self.header[i].startswith(">")
            line.append_text(Text.assemble(blank, part) if right else Text.assemble(part, blank))
            line.append(" " * GAP)
        line.rstrip()
        return line


def wrapped(console: Console, line: str | Text, indent: int, width: int) -> Iterable[Text]:
    """A sentence, broken into lines that all begin at ``indent``."""
    text = line if isinstance(line, Text) else Text(line)
    for part in text.wrap(console, max(20, width - indent)):
        part.rstrip()
        yield Text.assemble(" " * indent, part, no_wrap=True, overflow="ignore")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence at an indent; later lines ``hang`` further in."""

    text: str | Text
    indent: int = 0
    hang: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text if isinstance(self.text, Text) else Text(self.text)
        lines = text.wrap(console, max(20, options.max_width - self.indent - self.hang))
        for number, part in enumerate(lines):
            part.rstrip()
            blank = " " * (self.indent + (self.hang if number else 0))
            yield Text.assemble(blank, part, no_wrap=True, overflow="ignore")


def heading(words: str) -> Text:
    return Text(words, style="bold")


def _text(cell: str | int | Text | None, style: str) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("-" if cell is None else str(cell), style=style)
