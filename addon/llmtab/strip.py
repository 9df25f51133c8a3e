"""Takes one event out of a stream of server-sent events: the chunk that tells the usage because we asked for it.

Knows how events end and what that chunk looks like. Must not know flows or ledgers. Every other byte goes on unchanged,
and at once wherever it cannot belong to that chunk.
"""

import re
from typing import Any, Final

from llmtab.events import parse

HELD: Final = 64 * 1024
"""Bytes of an unfinished event that are held back; the chunk has a few hundred."""
_END: Final = re.compile(rb"\r?\n\r?\n|\r\r")
_FULL: Final = re.compile(rb'"choices"\s*:\s*\[\s*[^\s\]]')
"""An answer's text is on its way: this is no chunk of mere figures, whatever follows."""
_EMPTY: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class Stripper:
    """`feed` every chunk, in order, b"" at the end: it gives the bytes to pass on. `taken`: chunks that were taken out.

    What is held back is an unfinished event, of which a client could not make anything yet.
    """

    __slots__ = ("_held", "_passing", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._held = b""
        self._passing = False  # the event under way goes on as it comes

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go on; b"" where all of it is held back, or taken out."""
        if not chunk:
            held, self._held = self._held, b""
            return b"" if self._is_usage(held) else held
        data, out, start = self._held + chunk, [], 0
        for end in _END.finditer(data):
            event = data[start : end.end()]
            if self._passing or not self._is_usage(event):
                out.append(event)
            start, self._passing = end.end(), False
        rest = data[start:]
        self._passing = self._passing or len(rest) > HELD or _FULL.search(rest) is not None
        # Of an event that goes on as it comes, only line ends are held: its own end may be cut in two.
        go = len(rest.rstrip(b"\r\n")) if self._passing else 0
        self._held = rest[go:]
        return b"".join((*out, rest[:go]))

    def _is_usage(self, event: bytes) -> bool:
        """Whether an event is the chunk of mere figures; it is counted as taken."""
        if not _EMPTY.search(event):
            return False
        data = b"\n".join(
            line.removeprefix(b"data:").strip() for line in re.split(rb"\r\n|\n|\r", event) if line[:5] == b"data:"
        )
        found: Any = parse(data)
        usage = isinstance(found, dict) and found.get("choices") == [] and isinstance(found.get("usage"), dict)
        self.taken += usage
        return usage
