"""Colours of the named styles as terminal sequences, for what prints lines and needs no library for it.

Knows the styles' names and when colour is wanted. Must not know what is coloured.
"""

from collections.abc import Mapping
from typing import Final, TextIO

from llmtab.live.grid import Row

CODES: Final = {
    "dim": "2", "bold": "1", "money": "32", "total": "1;32", "name": "36", "live": "34", "good": "32", "warn": "33",
    "bad": "1;31", "brand": "1;35",
}  # fmt: skip


def wanted(file: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether text for this file may be coloured: a terminal that is not dumb, and nobody said NO_COLOR."""
    return file.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def text(row: Row, *, colour: bool) -> str:
    """A row as one line of text, without trailing spaces."""
    if not colour:
        return "".join(cell.text for cell in row).rstrip()
    return "".join(
        f"\x1b[{CODES[cell.style]}m{cell.text}\x1b[0m" if cell.style and cell.text.strip() else cell.text
        for cell in row
    ).rstrip()
