"""What is spent, read back from the ledger: at the start from a checkpoint on, then line by line what others write.

Knows files, offsets and writers' numbers. Must not know calls under way. The ledger is the truth: a checkpoint is only
a place to begin from, and is thrown away where limits have changed.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from time import time
from typing import Any, BinaryIO, Final

from llmtab.budgets.charges import charges, counted_at
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.store import Embedded
from llmtab.budgets.windows import EVER
from llmtab.ledger.reader import files, open_file, parse
from llmtab.ledger.rotation import finished_at

log = logging.getLogger("llmtab")

WRITERS: Final = 1_000
"""Writers whose numbers are remembered; who has written nothing for longest is forgotten first."""
BLOCK: Final = 1 << 20
MARGIN: Final = 600.0
"""Seconds a call may be held back: it counts from then on, and its line says when it came."""
LOOKED: Final = 200
"""Bytes in which a line names its writer and its time."""
TAIL: Final = 64
"""Bytes before a place by which it is known again; a line ends in its chain's hash."""
DEBTS: Final = 24
"""Windows that a debt is followed back over. It is paid in the first one that spends nothing, and lasts longer only
where every window is used up."""
SWEPT: Final = 4_096
"""Lines between two looks for windows that are over."""
LATE: Final = 3
"""Looks at a finished file after the next was begun: its writers find out within a second."""

MALFORMED: Final = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError)
"""What a line that somebody else wrote into the ledger may raise."""

type Line = dict[str, Any]

_named: Final[set[Path]] = set()
"""Files that were said to be unreadable."""


@dataclass(slots=True)
class Place:
    """How far the ledger has been counted: `offset` bytes of the file whose first line has the digest `head`, the last
    of them being `tail`. Names and inodes do not tell: files are renamed and compressed, inodes used again.

    `seqs` (writer -> number of its last line) tells of lines beyond it that were counted as they were made, and of
    copies.
    """

    seqs: dict[str, int] = field(default_factory=dict)
    inode: int = 0
    """Tells the file where there is no `head`."""
    offset: int = 0
    told: list[Any] = field(default_factory=list)
    """What had been told of budgets by then, see `Notices.memory`."""
    head: str = ""
    tail: bytes = b""
    own: str = ""
    """The writer that is never forgotten: its lines are counted before they are read."""

    def is_new(self, line: Mapping[str, Any]) -> bool:
        """Whether a line has not been counted yet; from now on it has."""
        writer, seq = line.get("writer"), line.get("seq")
        if type(writer) is not str or type(seq) is not int:
            return True
        if seq <= self.seqs.get(writer, -1):
            return False
        self.wrote(writer, seq)
        return True

    def wrote(self, writer: str, seq: int) -> None:
        """The last line of a writer that was counted."""
        self.seqs.pop(writer, None)
        self.seqs[writer] = seq  # the last of all: the first one is forgotten first
        if len(self.seqs) > WRITERS:
            del self.seqs[next(one for one in self.seqs if one != self.own)]

    def passed(self, raw: bytes, begins: int = 0) -> None:
        """A whole line was read. `begins`: the inode of the file whose first line it is."""
        if begins:
            self.head, self.inode, self.offset = _digest(raw), begins, 0
        self.offset += len(raw)
        self.tail = raw[-TAIL:]

    def is_in(self, file: Path) -> bool:
        """Whether it lies in this file."""
        if not self.head:
            return self.inode > 0 and _inode(file) == self.inode
        with suppress(FileNotFoundError), open_file(file) as opened:
            if _digest(opened.readline(BLOCK)) != self.head:
                return False
            if _is_packed(file):
                return True  # its end is far away
            opened.seek(max(0, self.offset - len(self.tail)))
            return opened.read(len(self.tail)) == self.tail
        return False

    def is_of(self, ledger: Path) -> bool:
        """Whether it lies in this ledger."""
        return _find(files(ledger), self) is not None


class Counter:
    """Counts lines into a store, each once. `own`: our writer, whose lines from number `since` on also count against
    limits of this process alone."""

    def __init__(
        self, limits: Limits, store: Embedded, place: Place | None = None, own: str = "", since: int = 0,
        clock: Callable[[], float] = time,
    ) -> None:  # fmt: skip
        self.limits = limits
        self.store = store
        self.place = place or Place()
        self.own = own
        self._since = since
        self.store.clock = clock
        self._main: Line = {}
        self._count = 0

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
            own = line.get("writer") == self.own and line.get("seq", -1) >= self._since
            self.store.charge(charges(self.limits, whole, at, own=own), at)
        except MALFORMED:
            return  # not one of our lines
        self._count += 1
        if self._count % SWEPT == 0:
            self.store.tick(min(at, self.store.clock()))


def _who(main: Line) -> Line:
    return {
        name: main[name] for name in ("host", "client", "labels", "budget", "operation", "provider") if name in main
    }


def horizon(limits: Limits, now: float) -> float:
    """Calls before this moment (epoch seconds) count in no window that is still open, nor in a debt of one."""
    return min([_edge(limit, now) for limit in limits.all], default=now)


def _edge(limit: Limit, now: float) -> float:
    if limit.own:
        return limit.since
    if limit.window.seconds == EVER:
        return 0.0
    start = limit.window.at(now)[0]
    if limit.window.sliding:
        return start - limit.window.seconds
    for _ in range(DEBTS if limit.burst else 0):
        if start <= 0:
            break
        start = limit.window.at(start - 1)[0]
    return start


def unread(path: Path, place: Place, since: float, *, ended: bool = False) -> Iterator[Line]:
    """The lines of the ledger at `path` behind a place, without calls from before `since` (epoch seconds).

    The place moves on to the end of what was read. What cannot be read is named in the log, once, and left out.
    `ended`: the file in which the place lies has been read to its end.
    """
    found = files(path)
    start = _find(found, place)
    if ended:
        found, start = found[-1:] if start is None else found[start + 1 :], None
    oldest = datetime.fromtimestamp(max(0.0, since - MARGIN), UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
    for number, file in enumerate(found):
        here = number == start
        if start is not None and number < start:
            continue
        try:
            if file.exists() and not file.is_file():
                raise OSError("not a file")
            if file != path and finished_at(file).timestamp() < since:
                continue
            with suppress(FileNotFoundError), open_file(file) as opened:
                if here:
                    _skip(opened, place.offset, packed=_is_packed(file))
                yield from _lines(opened, place, oldest, 0 if here else _inode(file))
        except Exception as error:  # each decompressor has errors of its own
            _unreadable(file, error)


def _find(found: list[Path], place: Place) -> int | None:
    """Which of the files a place lies in; as a rule it is the last one."""
    for number in reversed(range(len(found))):
        try:
            if found[number].is_file() and place.is_in(found[number]):
                return number
        except Exception as error:  # each decompressor has errors of its own
            _unreadable(found[number], error)
    return None


def _unreadable(file: Path, error: Exception) -> None:
    if file not in _named:
        _named.add(file)
        log.warning("llmtab: the budgets count what can be read of %s: %s", file, error)


def _skip(opened: Any, size: int, *, packed: bool) -> None:
    if not packed:
        opened.seek(size)
        return
    while size > 0 and (block := opened.read(min(size, BLOCK))):  # not every decompressor can seek
        size -= len(block)


def _lines(opened: Any, place: Place, oldest: bytes, begins: int) -> Iterator[Line]:
    """Whole lines. Most of a long ledger is too old to matter, which can be seen without reading it."""
    for raw in opened:
        if not raw.endswith(b"\n"):
            return
        place.passed(raw, begins)
        begins = 0
        at = raw.find(b'"time":"', 0, LOOKED) + 8
        if at < 8 or raw[at : at + len(oldest)] >= oldest:
            yield from parse(raw)


def _digest(raw: bytes) -> str:
    return blake2b(raw[:BLOCK], digest_size=16).hexdigest()


def _is_packed(file: Path) -> bool:
    return file.suffix in (".gz", ".zst")


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
        self._writer = own
        self._own = f'"writer":"{own}"'.encode()
        self._file: BinaryIO | None = None
        self._inode = 0
        self._begins = 0
        self._rest = b""
        self._old: BinaryIO | None = None
        """The file before, while somebody may still write to it."""
        self._old_rest = b""
        self._looks = 0

    def poll(self) -> Iterator[Line]:
        """The lines completed since the last poll, without our own. Raises OSError."""
        yield from self._late()
        while True:
            if self._file is None and not self._open():
                return
            assert self._file is not None
            while block := self._file.read(BLOCK):
                *whole, self._rest = (self._rest + block).split(b"\n")
                for raw in whole:
                    self._place.passed(raw + b"\n", self._begins)
                    self._begins = 0
                    yield from self._theirs(raw)
            if _inode(self._path) in (self._inode, -1):
                return
            self._leave()
            for line in unread(self._path, self._place, 0.0, ended=True):  # more than one file may have been begun
                if line.get("writer") != self._writer:
                    yield line

    def close(self) -> None:
        for file in (self._file, self._old):
            if file is not None:
                file.close()
        self._file, self._old, self._rest = None, None, b""

    def _theirs(self, raw: bytes) -> Iterator[Line]:
        if self._own not in raw[:LOOKED]:
            yield from parse(raw + b"\n")

    def _leave(self) -> None:
        if self._old is not None:
            self._old.close()
        self._old, self._old_rest, self._looks = self._file, self._rest, LATE
        self._file, self._rest = None, b""

    def _late(self) -> Iterator[Line]:
        """What came to the file before after the next was begun."""
        while self._old is not None and (block := self._old.read(BLOCK)):
            *whole, self._old_rest = (self._old_rest + block).split(b"\n")
            for raw in whole:
                yield from self._theirs(raw)
        self._looks -= 1
        if self._old is not None and self._looks <= 0:
            self._old.close()
            self._old = None

    def _open(self) -> bool:
        """The file that grows, at the place if that lies in it."""
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError:
            return False
        self._inode = os.fstat(self._file.fileno()).st_ino
        here = self._place.is_in(self._path)
        self._begins = 0 if here else self._inode
        self._file.seek(self._place.offset if here else 0)
        return True
