"""Columns that fit a width: which are shown, how wide each is, and rows of styled text cut and padded to them.

Knows widths and alignment only. Must not know what a cell means. Figures are never cut: they have a short form, or
their column is wide enough for any; only names are cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from unicodedata import combining, east_asian_width

GAP: Final = 2
NARROW: Final = 120
"""Below this many columns one space has to do between two of them."""


class Cell(NamedTuple):
    """What stands in a column: its text, the name of its style, and a shorter text where the column is narrow."""

    text: str
    style: str = ""
    short: str = ""


type Row = list[Cell]


@dataclass(frozen=True, slots=True)
class Column:
    """`least` and `most` are widths in terminal cells. The highest `rank` is left out first, 0 never."""

    name: str
    least: int
    most: int
    rank: int = 0
    right: bool = False


CALLS: Final = (
    Column("time", 8, 8, 4),
    Column("provider", 10, 11, 8),
    Column("model", 15, 36),
    Column("in", 6, 7, 2, right=True),
    Column("cached", 6, 7, 5, right=True),
    Column("out", 6, 7, 1, right=True),
    Column("cost", 12, 13, 0, right=True),
    Column("took", 6, 6, 6, right=True),
    Column("tok/s", 5, 5, 9, right=True),
    Column("outcome", 12, 32, 3),
    Column("label", 10, 20, 7),
)
TOTALS: Final = (
    Column("group", 17, 36),
    Column("calls", 6, 7, 1, right=True),
    Column("in", 6, 7, 3, right=True),
    Column("cached", 6, 7, 5, right=True),
    Column("share", 5, 5, 8, right=True),
    Column("out", 6, 7, 2, right=True),
    Column("cost", 12, 13, 0, right=True),
    Column("notional", 12, 13, 6, right=True),
    Column("saved", 10, 12, 7, right=True),
    Column("errors", 6, 6, 4, right=True),
    Column("retries", 7, 7, 9, right=True),
)


class Grid:
    """Columns laid out for one width."""

    def __init__(self, columns: Sequence[Column], width: int) -> None:
        self._gap = " " * (GAP if width >= NARROW else 1)
        self.columns = fit(columns, width, len(self._gap))

    def title(self, **names: str) -> Row:
        """The names of the columns, other ones where given."""
        return self.row({column.name: Cell(names.get(column.name, column.name), "dim") for column, _ in self.columns})

    def row(self, cells: Mapping[str, Cell]) -> Row:
        """One line: each column's cell, padded, short where the long form has no room, cut where neither has."""
        row: Row = []
        for place, (column, width) in enumerate(self.columns):
            text, style, short = cells[column.name]
            if short and cells_of(text) > width:
                text = short
            row.append(Cell(self._gap * bool(place) + _pad(text, width, right=column.right), style))
        return row


def fit(columns: Sequence[Column], width: int, gap: int) -> list[tuple[Column, int]]:
    """The columns that have room, in order, each with its width."""
    shown = list(columns)
    while _needed(shown, gap) > width and any(column.rank for column in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    widths = {column.name: column.least for column in shown}
    spare = width - _needed(shown, gap)
    while spare > 0 and (growing := [column for column in shown if widths[column.name] < column.most]):
        names = [column for column in growing if not column.right]  # a cut name costs more than a short figure
        for column in (names or growing)[:spare]:
            widths[column.name] += 1
            spare -= 1
    return [(column, widths[column.name]) for column in shown]


def _needed(columns: Sequence[Column], gap: int) -> int:
    return sum(column.least for column in columns) + gap * (len(columns) - 1)


def _pad(text: str, width: int, *, right: bool) -> str:
    size = cells_of(text)
    if size > width:
        while size > width - 1:
            text, size = text[:-1], size - cells_of(text[-1])
        text, size = text + "…", size + 1
    return " " * (width - size) + text if right else text + " " * (width - size)


def cells_of(text: str) -> int:
    """How many terminal cells the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
