"""One download of a batch result: its bytes wait here until somebody has time for them, a few megabytes at most.

Knows codings, ranges and how much may wait. Must not know lines, items or the ledger. The client has its bytes at once;
only where hundreds of megabytes more have come than could be read is the provider asked to slow down.
"""

import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from llmtab.wire.decoding import DecodeError, decoder

PLAIN: Final = 4 * 1024 * 1024
"""Bytes that wait as they came; what comes above that is packed, five to ten times smaller."""
HIGH: Final = 48 * 1024 * 1024
"""Bytes that may wait in all: a few hundred megabytes of a file."""
LOW: Final = 32 * 1024 * 1024
_RANGE: Final = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)")

type Brake = Callable[[bool], bool]
"""Stops (True) or resumes the reading from the provider; whether that could be done."""


class Backlog:
    """Bytes of all downloads that wait, and those whose provider was asked to slow down."""

    def __init__(self) -> None:
        self.waiting = 0
        self.braked: set[Download] = set()

    def took(self, size: int) -> None:
        """So many bytes wait no more."""
        self.waiting -= size
        if self.braked and self.waiting < LOW:
            for download in list(self.braked):
                download.release()


class Download:
    """The bytes of one answer, decoded and placed in their file. `ended` is told by `close`.

    `start`: where in the file the first byte stands. `size`: the file's length, None while unknown.
    """

    def __init__(
        self, coding: str, start: int, size: int | None, backlog: Backlog, brake: Brake, wake: Callable[[], None]
    ) -> None:
        self.at = start
        self.size = size
        self.ended = False
        self.complete = False
        self.broken = False
        """Cannot be decoded from here on."""
        self.fresh = False
        """Whether it brought anything that was not seen before."""
        self.idle = False
        """Nobody wants its bytes: they pass and are not kept."""
        self.waiting = 0
        """Bytes kept of it (packed, some of them)."""
        self._backlog = backlog
        self._chunks: deque[tuple[bytes, bool]] = deque()  # and whether we have packed it
        self._decoder = decoder(coding)
        self._is_plain = coding in ("", "identity")
        self._pieces: Iterator[bytes] = iter(())
        self._closing = False
        self._brake = brake
        self._wake = wake

    def tap(self, before: Any, overfull: Callable[[], None]) -> Callable[[bytes], bytes | Iterable[bytes]]:
        """The stream callable: every chunk goes on unchanged; `before`: another addon's callable, which keeps its say.

        `overfull()` is called where too much waits and the provider cannot be slowed down.
        """
        passes = before if callable(before) else None

        def tap(chunk: bytes) -> bytes | Iterable[bytes]:
            try:
                if chunk and not self.idle:
                    self._keep(chunk, overfull)
            except Exception:  # like every tap: an exception here would hang the client
                self.forget()
            return chunk if passes is None else passes(chunk)

        return tap

    def _keep(self, chunk: bytes, overfull: Callable[[], None]) -> None:
        backlog = self._backlog
        packed = self._is_plain and backlog.waiting > PLAIN
        kept = zlib.compress(chunk, 1) if packed else chunk
        self._chunks.append((kept, packed))
        self.waiting += len(kept)
        backlog.waiting += len(kept)
        self._wake()
        if backlog.waiting > HIGH:
            if self._brake(True):
                backlog.braked.add(self)
            else:
                overfull()

    def close(self, *, complete: bool) -> None:
        """No more bytes come. `complete`: that was all of them."""
        self.ended, self.complete = True, complete

    def forget(self) -> None:
        """Nobody wants its bytes any more."""
        self.idle = True
        self._chunks.clear()
        self._pieces, size = iter(()), self.waiting
        self.waiting = 0
        self._backlog.took(size)
        self.release()

    def piece(self) -> tuple[int, bytes] | None:
        """(offset in the file, decoded bytes): what comes next; None where nothing is there now."""
        while not self.broken:
            try:
                data = next(self._pieces, b"")
            except DecodeError:
                self.broken = True
                break
            if data:
                at, self.at = self.at, self.at + len(data)
                return at, data
            if self._chunks:
                kept, packed = self._chunks.popleft()
                self.waiting -= len(kept)
                self._backlog.took(len(kept))
                self._pieces = self._decoder.feed(zlib.decompress(kept) if packed else kept)
            elif self.ended and not self._closing:
                self._closing = True
                self._pieces = self._decoder.close()
            else:
                return None
        self.forget()
        return None

    def release(self) -> None:
        """The provider may go on."""
        if self in self._backlog.braked:
            self._backlog.braked.discard(self)
            self._brake(False)

    @property
    def at_end(self) -> bool:
        """Whether all that came was read, and the file ends there."""
        whole = self.complete and not self.broken and not self.waiting
        return whole and (self.size is None or self.at == self.size)


def place(status: int, coding: str, content_range: str) -> tuple[int, int | None] | None:
    """(offset of the first byte, the file's length or None) of an answer; None where that cannot be told.

    A coded answer is coded as a whole: of a part from its middle nothing can be read.
    """
    if status != 206:
        return 0, None
    found = _RANGE.fullmatch(content_range.strip())
    if found is None or (int(found[1]) and coding not in ("", "identity")):
        return None
    size = int(found[2]) if found[2] != "*" and coding in ("", "identity") else -1
    return int(found[1]), size
