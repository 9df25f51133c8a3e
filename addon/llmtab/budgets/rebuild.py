"""What is spent, read back from the ledger: at the start from a checkpoint on, then line by line what others write.

Knows files, offsets and writers' numbers. Must not know calls under way. The ledger is the truth: a checkpoint is only
a place to begin from, and is thrown away where limits have changed.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from llmtab.budgets.charges import charges, counted_at
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.store import Embedded
from llmtab.budgets.windows import EVER
from llmtab.ledger.reader import files, open_file, parse
from llmtab.ledger.rotation import finished_at

WRITERS: Final = 1_000
"""Writers whose numbers are remembered; the oldest is forgotten first."""
BLOCK: Final = 1 << 20
MARGIN: Final = 600.0
"""Seconds a call may be held back: it counts from then on, and its line says when it came."""
LOOKED: Final = 200
"""Bytes in which a line names its writer and its time."""

MALFORMED: Final = (ValueError, TypeError, AttributeError, ArithmeticError)
"""What a line that somebody else wrote into the ledger may raise."""

type Line = dict[str, Any]


@dataclass(slots=True)
class Place:
    """How far the ledger has been counted: `seqs` (writer -> number of its last line) says it exactly; `inode` and
    `offset` save reading what lies before."""

    seqs: dict[str, int] = field(default_factory=dict)
    inode: int = 0
    offset: int = 0
    told: list[Any] = field(default_factory=list)
    """What had been told of budgets by then, see `Notices.memory`."""

    def is_new(self, line: Mapping[str, Any]) -> bool:
        """Whether a line has not been counted yet; from now on it has."""
        writer, seq = line.get("writer"), line.get("seq")
        if type(writer) is not str or type(seq) is not int:
            return True
        if seq <= self.seqs.get(writer, -1):
            return False
        if writer not in self.seqs and len(self.seqs) >= WRITERS:
            del self.seqs[next(iter(self.seqs))]
        self.seqs[writer] = seq
        return True


class Counter:
    """Counts lines into a store, each once. `own`: the writer whose lines are counted as they are made."""

    def __init__(self, limits: Limits, store: Embedded, place: Place | None = None, own: str = "") -> None:
        self.limits = limits
        self.store = store
        self.place = place or Place()
        self.own = own
        self._main: Line = {}

    def add(self, line: Line) -> None:
        """One line of the ledger, in its order."""
        if not self.place.is_new(line):
            return
        main = line
        if "parent" in line and self._main.get("id") == line["parent"]:
            main = self._main
        else:
            self._main = line
        # A sub-line has no facts of its own: it is charged to the limits of the line it belongs to.
        whole = [main] if main is line else [{**line, "request_model": main.get("request_model"), **_who(main)}]
        try:
            at = counted_at(main)
            needs = charges(self.limits, whole, at, own=line.get("writer") == self.own)
        except MALFORMED:
            return  # not one of our lines
        self.store.charge(needs, at)


def _who(main: Line) -> Line:
    return {
        name: main[name] for name in ("host", "client", "labels", "budget", "operation", "provider") if name in main
    }


def horizon(limits: Limits, now: float) -> float:
    """Calls before this moment (epoch seconds) count in no window that is still open."""
    edges = [0.0 if limit.window.seconds == EVER and not limit.own else _edge(limit, now) for limit in limits.all]
    return min(edges, default=now)


def _edge(limit: Limit, now: float) -> float:
    if limit.own:
        return now
    start = limit.window.at(now)[0]
    if limit.window.sliding:
        return start - limit.window.seconds
    return limit.window.at(start - 1)[0] if limit.burst else start


def unread(path: Path, place: Place, since: float) -> Iterator[Line]:
    """The lines of the ledger at `path` behind a place, without calls from before `since` (epoch seconds).

    The place moves on to the end of what was read.
    """
    found = files(path)
    inodes = [_inode(file) for file in found]
    start = inodes.index(place.inode) if place.inode in inodes else None
    oldest = datetime.fromtimestamp(max(0.0, since - MARGIN), UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
    for number, file in enumerate(found):
        if (start is not None and number < start) or (file != path and finished_at(file).timestamp() < since):
            continue
        skip = place.offset if number == start and file.suffix == path.suffix else 0
        place.inode, place.offset = inodes[number], skip
        with contextlib.suppress(FileNotFoundError), open_file(file) as opened:
            opened.seek(skip)
            yield from _lines(opened, place, oldest)


def _lines(opened: Any, place: Place, oldest: bytes) -> Iterator[Line]:
    """Whole lines. Most of a long ledger is too old to matter, which can be seen without reading it."""
    for raw in opened:
        if not raw.endswith(b"\n"):
            return
        place.offset += len(raw)
        at = raw.find(b'"time":"', 0, LOOKED) + 8
        if at < 8 or raw[at : at + len(oldest)] >= oldest:
            yield from parse(raw)


def _inode(file: Path) -> int:
    try:
        return file.stat().st_ino
    except OSError:
        return -1


class Others:
    """New lines of other writers of the same ledger, as they come. Quick: our own are skipped unread."""

    def __init__(self, path: Path, place: Place, own: str) -> None:
        self._path = path
        self._place = place
        self._own = f'"writer":"{own}"'.encode()
        self._file: BinaryIO | None = None
        self._rest = b""

    def poll(self) -> Iterator[Line]:
        """The lines completed since the last poll, without our own."""
        while True:
            if self._file is None and not self._open():
                return
            assert self._file is not None
            while block := self._file.read(BLOCK):
                *whole, self._rest = (self._rest + block).split(b"\n")
                self._place.offset += len(block) - len(self._rest)
                for raw in whole:
                    if self._own not in raw[:LOOKED]:
                        yield from parse(raw + b"\n")
            if _inode(self._path) in (self._place.inode, -1):
                return
            self.close()  # rotated: the rest of the old file has been read, the new one is next
            self._place.inode = self._place.offset = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _open(self) -> bool:
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError:
            return False
        inode = os.fstat(self._file.fileno()).st_ino
        if inode != self._place.inode:
            self._place.inode, self._place.offset = inode, 0
        self._file.seek(self._place.offset)
        return True
