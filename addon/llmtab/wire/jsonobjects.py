"""Finds the objects in a run of JSON: the elements of an array, one object alone, objects after one another.

Knows strings, escapes and braces. Must not know what the objects mean, and parses nothing.
"""

import re
from typing import Final

_OUTSIDE: Final = re.compile(rb'[^"{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"{}]*+)*+', re.DOTALL)
"""Everything up to the next brace outside strings; stops before a string that does not end in this chunk."""
_INSIDE: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The rest of a string, up to its closing quote or to a backslash that is the chunk's last byte."""

_QUOTE, _BACKSLASH, _OPEN = b'"\\{'


class JsonObjects:
    """Framer: each object that stands outside any other object is a frame, as soon as its last brace came.

    Arrays, commas, white space, numbers and strings around the objects are skipped.
    """

    broken = ""

    def __init__(self, limit: int) -> None:
        self.overflowed = False
        self.partial = False
        self.depth = 0
        self._limit = limit
        self._string = False
        self._escaped = False
        self._object = bytearray()
        self._size = 0
        self._lost = False

    def feed(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        start = 0  # where the object in progress begins in this chunk
        position, end = 0, len(data)
        while position < end:
            if self._string:
                position = self._leave_string(data, position)
            position = self._next_mark(data, position)
            if position == end:
                break
            mark = data[position]
            position += 1
            if mark == _QUOTE:
                self._string = True
            elif mark == _OPEN:
                if not self.depth:
                    start = position - 1
                self.depth += 1
            elif self.depth:
                self.depth -= 1
                if not self.depth:
                    self._keep(data[start:position])
                    self._finish(frames)
        if self.depth:
            self._keep(data[start:])
        return frames

    def close(self) -> list[bytes]:
        """The object in progress as far as it came."""
        frames: list[bytes] = []
        if self.depth:
            self.partial = True
            self._finish(frames)
        self.depth = 0
        self._string = self._escaped = False
        return frames

    def _leave_string(self, data: bytes, position: int) -> int:
        """The position after the string's closing quote; the chunk's end if it does not close here."""
        if self._escaped:
            self._escaped = False
            position += 1
        match = _INSIDE.match(data, position)
        position = match.end() if match else position
        if position == len(data):
            return position
        if data[position] == _BACKSLASH:
            self._escaped = True
            return position + 1
        self._string = False
        return position + 1

    def _next_mark(self, data: bytes, position: int) -> int:
        match = None if self._string else _OUTSIDE.match(data, position)
        return match.end() if match else len(data)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self._lost = self.overflowed = True
            self._object.clear()
        else:
            self._object += part

    def _finish(self, frames: list[bytes]) -> None:
        if not self._lost:
            frames.append(bytes(self._object))
        self._object.clear()
        self._size = 0
        self._lost = False
