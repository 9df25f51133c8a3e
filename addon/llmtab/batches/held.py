"""Items that were read before their number was known: kept small until the file's beginning has come.

Knows lines as text. Must not know files. A range from the middle of a result file is read at once, but which item
its first one is, is known only when all before it were seen.
"""

import zlib
from typing import Any, Final

from llmtab.batches.file import Span
from llmtab.record import decode, encode

MOST: Final = 16 * 1024 * 1024
"""Bytes kept for one file: about 100,000 items."""
BLOCK: Final = 100
"""Items packed together: lines of one file look alike, and shrink tenfold."""

type Line = dict[str, Any]
type Item = tuple[Span, int, bytes]
"""(stretch of the file, number in it, its lines as text)."""
type Block = tuple[Span, list[int], bytes]


class Held:
    """The lines of items without a number, of one file."""

    def __init__(self) -> None:
        self.size = 0
        self._blocks: dict[Span, list[Block]] = {}
        self._open: list[Item] = []

    def __bool__(self) -> bool:
        return bool(self._blocks or self._open)

    def add(self, span: Span, number: int, lines: list[Line]) -> None:
        """The lines of one item."""
        if self._open and self._open[0][0] is not span:
            self._pack()
        self._open.append((span, number, b"\n".join(map(encode, lines))))
        if len(self._open) >= BLOCK:
            self._pack()

    def _pack(self) -> None:
        if self._open:
            span = self._open[0][0]
            text = zlib.compress(b"\n\n".join([text for *_, text in self._open]), 1)
            self._blocks.setdefault(span, []).append((span, [number for _, number, _ in self._open], text))
            self.size += len(text)
            self._open.clear()

    def take(self, *, all_of_them: bool = False) -> list[Block]:
        """Gives up the blocks whose items have a number by now (or all of them)."""
        if self._open and (all_of_them or self._open[0][0].item(0) is not None):
            self._pack()
        ready = [span for span in self._blocks if all_of_them or span.item(0) is not None]
        return self._given([block for span in ready for block in self._blocks.pop(span)])

    def take_oldest(self) -> list[Block]:
        """Gives up the blocks of the stretch that came first."""
        self._pack()
        return self._given(self._blocks.pop(next(iter(self._blocks))))

    def _given(self, blocks: list[Block]) -> list[Block]:
        self.size -= sum(len(text) for *_, text in blocks)
        return blocks


def unpacked(block: Block) -> list[Item]:
    """The items of a block."""
    span, numbers, text = block
    return [(span, *each) for each in zip(numbers, zlib.decompress(text).split(b"\n\n"), strict=True)]


def lines_of(text: bytes) -> list[Line]:
    """An item's lines, read back."""
    return [decode(line) for line in text.split(b"\n")]
