"""The quick way through a whole body of SSE or NDJSON: look for the bytes that matter, then for the frame around them.

Knows lines, blank lines and member names. Must not know what the names mean. Gives what the framers would give, or
raises Odd.
"""

import re
from collections.abc import Callable
from typing import Final

from llmtab.wire.needles import Needles

_OTHER_FIELDS: Final = (b":", b"event:", b"id:", b"retry:")


class Odd(Exception):  # noqa: N818 - a signal, not an error
    """A frame that cannot be told from its surroundings alone: the framer has to read the whole body."""


class Lines:
    """Frames of a plain body of lines, found from any place in it; the body is never split as a whole.

    A blank line ends an event whatever stood before it, so that an event can be read without those before it. The
    exceptions (JSON without `data:`, mixed line ends) show in the event itself and raise Odd.
    """

    def __init__(self, body: bytes, kind: str) -> None:
        self._body = body
        self._newline = b"\r\n" if b"\r" in body and kind == "sse" else b"\n"
        self._separator = self._newline * (2 if kind == "sse" else 1)
        self._payload: Callable[[bytes], bytes] = self._data if kind == "sse" else bytes.strip

    def select(self, needles: Needles, head: int, tail: int) -> list[tuple[int, bytes]]:
        found = self._first(head) | self._last(tail)
        for quoted, valued, null in needles.rows:
            self._hits(quoted, valued, null, found)
        return sorted(found.items())

    def _first(self, count: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        start = 0
        while len(found) < count and start < len(self._body):
            start, payload = self._at(start)
            if payload:
                found[start] = payload
        return found

    def _last(self, count: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        start = len(self._body)
        while len(found) < count and start > 0:
            # One byte short, so that the separator at the end of the frame is not taken for the one before it.
            start = self._before(start - 1)
            end, payload = self._at(start)
            if payload:
                found[end] = payload
        return found

    def _hits(self, quoted: bytes, valued: re.Pattern[bytes], null: re.Pattern[bytes], found: dict[int, bytes]) -> None:
        body = self._body
        usual = (quoted + b":null", quoted + b": null")
        position = body.rfind(quoted)  # backwards: what matters stands at the end, and rfind is three times faster
        while position >= 0:
            before = position + len(quoted) - 1
            absent = null.match(body, position)
            if absent is None:
                before = self._before(position)
                end, payload = self._at(before)
                if end in found or valued.search(payload):
                    found[end] = payload
            elif absent[0] in usual:
                # All taken out at once, keeping every offset: a thousand events say null and one does not.
                body = body.replace(absent[0], b"-" * len(absent[0]))
            position = body.rfind(quoted, 0, before)

    def _before(self, position: int) -> int:
        """Where the frame begins that holds the byte before this position, or the position itself."""
        at = self._body.rfind(self._separator, 0, position)
        return 0 if at < 0 else at + len(self._separator)

    def _at(self, start: int) -> tuple[int, bytes]:
        """End and payload of the frame that begins here."""
        at = self._body.find(self._separator, start)
        if at < 0:
            return len(self._body), self._payload(self._body[start:])
        return at + len(self._separator), self._payload(self._body[start:at])

    def _data(self, event: bytes) -> bytes:
        """The data lines of one event, joined."""
        lines = event.split(self._newline)
        if len(self._newline) == 2 and not event.count(b"\r") == event.count(b"\n") == len(lines) - 1:
            raise Odd
        values = []
        for line in lines:
            if line[:5] == b"data:":
                values.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line and not line.startswith(_OTHER_FIELDS):
                raise Odd
        return values[0] if len(values) == 1 else b"\n".join(values)
