"""New lines of a ledger as they come, through rotation, truncation and deletion; earlier ones first, where asked for.

Knows open files, the names of rotated ones and where a line says when it began. Must not know what a line means
otherwise, and never writes.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from llmtab.ledger.reader import BUFFER, Skipped, last_line, open_file, parse, rotated
from llmtab.ledger.rotation import finished_at

GRACE_POLLS: Final = 10
"""How many polls a rotated file is still looked at: a writer may just be finishing a line in it."""

PAUSED: Final = 32
"""Lines between two pauses: they take less than a millisecond."""
_TIME: Final = b'"time":"'


class Follower:
    """Gives each line of a ledger once, in the order of its files, and never a half line. One thread.

    `from_start`: with all that is there. `since` (aware): with what is there of calls that began then or later; what is
    older is passed over without being parsed, and files finished before are not opened. `pause` is called between every
    few lines: a thread that reads a long ledger beside others sleeps there.
    """

    def __init__(
        self,
        path: Path,
        *,
        from_start: bool = False,
        since: datetime | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self._pause = pause
        self.skipped = Skipped()
        self._since = since.astimezone(UTC).isoformat(timespec="seconds")[:19].encode() if since else b""
        self._rotated = rotated(path)
        self._unread = [file for file in self._rotated.values() if from_start or (since and finished_at(file) >= since)]
        self._left: list[_Tail] = []
        self._tail = _Tail.open(path, at_end=not (from_start or since))

    def poll(self) -> Iterator[dict[str, Any]]:
        """The lines completed since the last poll. Exhaust it before the next one."""
        for tail in self._left:
            yield from self._parse(tail.lines())
        self._left = [tail for tail in self._left if tail.still_wanted()]
        yield from self._whole_files()
        self._tail = self._tail or _Tail.open(self.path)
        while self._tail:
            yield from self._parse(self._tail.lines())
            if not self._tail.replaced():
                break
            self._left.append(self._tail)
            self._unread = self._new_files(self._tail)
            yield from self._whole_files()
            self._tail = _Tail.open(self.path)

    def close(self) -> None:
        for tail in [*self._left, *([self._tail] if self._tail else [])]:
            tail.file.close()
        self._left, self._tail = [], None

    def _parse(self, raws: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        for number, raw in enumerate(raws):
            if self._pause is not None and number % PAUSED == PAUSED - 1:
                self._pause()
            if self._since and self._is_older(raw):
                continue
            yield from parse(raw, self.skipped)

    def _is_older(self, raw: bytes) -> bool:
        place = raw.find(_TIME) + len(_TIME)
        return place >= len(_TIME) and raw[place : place + len(self._since)] < self._since

    def _whole_files(self) -> Iterator[dict[str, Any]]:
        while self._unread:
            with open_file(self._unread.pop(0)) as file:
                yield from self._parse(iter(file))

    def _new_files(self, tail: "_Tail") -> list[Path]:
        """The files rotated since the last look, without the one that `tail` has read already."""
        now = rotated(self.path)
        new = [file for stem, file in now.items() if stem not in self._rotated]
        self._rotated = now
        # The file may have been compressed since: then it is the oldest new one.
        return [file for place, file in enumerate(new) if not (tail.is_at(file) or (place == 0 and tail.gone()))]


def follow(
    path: Path, *, from_start: bool = False, interval: float = 0.5, stop: Callable[[], bool] = lambda: False
) -> Iterator[dict[str, Any]]:
    """Lines as they come, looking every `interval` seconds, until `stop()` is true."""
    follower = Follower(path, from_start=from_start)
    try:
        while not stop():
            yield from follower.poll()
            time.sleep(interval)
    finally:
        follower.close()


class _Tail:
    """An open file read as it grows: whole lines only."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self._partial = b""
        self._polls = GRACE_POLLS
        found = os.fstat(file.fileno())
        self._inode = found.st_dev, found.st_ino

    @classmethod
    def open(cls, path: Path, *, at_end: bool = False) -> "_Tail | None":
        """None if there is no such file. `at_end`: behind the last whole line."""
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return None
        file.seek(last_line(file, os.fstat(file.fileno()).st_size) if at_end else 0)
        return cls(path, file)

    def lines(self) -> Iterator[bytes]:
        """What was completed since the last time, newline included."""
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)  # truncated: what follows is new
            self._partial = b""
        while block := self.file.read(BUFFER):
            *whole, self._partial = (self._partial + block).split(b"\n")
            for line in whole:
                yield line + b"\n"

    def replaced(self) -> bool:
        """Whether the path names another file by now, or none."""
        return not self.is_at(self.path)

    def is_at(self, path: Path) -> bool:
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def gone(self) -> bool:
        return os.fstat(self.file.fileno()).st_nlink == 0

    def still_wanted(self) -> bool:
        self._polls -= 1
        if self._polls <= 0:
            self.file.close()
        return self._polls > 0
