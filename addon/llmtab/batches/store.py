"""One file (or batch) of results: what was seen of it, what is booked of it, and what waits to be booked.

Knows lines of bytes, items and their numbers. Must not know flows. Belongs to the event loop; what takes long is handed
to a thread.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, time
from typing import Any, Final, Protocol

from llmtab.batches.booked import Booked, name_of
from llmtab.batches.download import Download
from llmtab.batches.file import ResultFile, Span
from llmtab.batches.held import MOST as MOST_HELD
from llmtab.batches.held import Block, Held, Item, lines_of, unpacked
from llmtab.batches.items import Items, placed
from llmtab.coverage import Coverage
from llmtab.events import BIG, parse
from llmtab.setup import Setup

log = logging.getLogger("llmtab")

PATIENCE: Final = 60.0
"""Seconds after the last byte: items from the middle of a file then go without their number."""

type Line = dict[str, Any]
type Task = Callable[[], None]


class Desk(Protocol):
    """What is needed of the desk that books all other calls."""

    setup: Setup | None

    @property
    def coverage(self) -> Coverage: ...

    def write(self, lines: list[Line]) -> None: ...


class Threads(Protocol):
    """Where long work is done, and who is told that there is some."""

    def in_thread(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None: ...

    def wake(self, store: "Store") -> None: ...


class Store:
    """`downloads`: who fetches the file at the moment, and how its items are read."""

    def __init__(self, host: str, batch_id: str, desk: Desk, threads: Threads) -> None:
        self.downloads: Final[list[tuple[Download, Items]]] = []
        self.held: Final = Held()
        self.is_no_result = False
        """Its first line is no result of a batch: none of it is read."""
        self.name = batch_id
        self._host, self._id = host, batch_id
        self._desk, self._threads = desk, threads
        self._file = ResultFile()
        self._is_result = False
        self._booked: Booked | None = None
        self._reading = False
        self._tasks: deque[Task] = deque()
        self._busy = False  # a thread reads a long line
        self._written = 0
        self._last = time()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self.downloads or self._tasks or self._busy or self._reading)

    # -- work ----------------------------------------------------------------------------------------------------------

    def work(self, deadline: float) -> bool:
        """Book what has come, until the deadline (of `perf_counter`). Whether more can be done now."""
        self._last = time()
        if self._booked is None:
            self._look_up()
            return False
        while not self._busy:
            if self._tasks:
                self._tasks.popleft()()
            elif not self._next_piece():
                return False
            if perf_counter() >= deadline:
                return not self._busy
        return False

    def _look_up(self) -> None:
        """Read back what the ledger holds of this file, in a thread."""
        setup = self._desk.setup
        if self._reading or setup is None:
            return
        self._reading = True
        self._threads.in_thread(partial(_booked, setup.ledger.path, self._host, self._id), self._looked_up)

    def _looked_up(self, booked: Booked) -> None:
        self._reading = False
        self._booked = self._booked or booked
        self._threads.wake(self)

    def _next_piece(self) -> bool:
        """Cut what came next into lines. False: nothing came."""
        for entry in list(self.downloads):
            download, items = entry
            piece = download.piece()
            if piece is not None:
                if not self._is_result and piece[0] == 0 and not _may_be_lines(piece[1]):
                    self._refuse()
                    return True
                seen = self._file.seen
                self._lines(items, self._file.feed(*piece))
                download.fresh = download.fresh or self._file.seen != seen
                return True
            if download.ended:
                self.downloads.remove(entry)
                self._ended(download, items)
                return True
        return False

    def _ended(self, download: Download, items: Items) -> None:
        if download.at_end:
            self._lines(items, self._file.close(download.at))
        if self._is_result and download.fresh:
            self._tasks.append(self._say)
        elif self._is_result and not download.idle:
            self._desk.coverage.read_again(self._host)
        if download.broken and not self.is_no_result:
            self._desk.coverage.unread(self._host, "batch_undecodable")

    def _lines(self, items: Items, lines: list[tuple[Span, int, bytes | None]]) -> None:
        if lines and not self._is_result and not self._judge(items, lines[0][2]):
            return
        for span, number, raw in lines:
            self._tasks.append(partial(self._line, items, span, number, raw))
        if self.held:
            self._unpack(self.held.take())

    def _judge(self, items: Items, raw: bytes | None) -> bool:
        """By its first line a file is a batch result, or something else that nobody has to read."""
        self._is_result = raw is not None and items.batch.is_result(parse(raw))
        if not self._is_result:
            self._refuse()
        return self._is_result

    def _refuse(self) -> None:
        self.is_no_result = True
        for download, _ in self.downloads:
            download.forget()

    # -- items ---------------------------------------------------------------------------------------------------------

    def _line(self, items: Items, span: Span, number: int, raw: bytes | None) -> None:
        """One line of the file."""
        item = span.item(number)
        setup, booked = self._desk.setup, self._booked
        if setup is None or booked is None or (item is not None and item in booked):
            return
        read = partial(items.lines, raw, time(), setup.prices)
        if raw is not None and len(raw) > BIG:
            self._busy = True
            self._threads.in_thread(read, partial(self._long_line, span, number))
        else:
            self._book(span, number, read())

    def _long_line(self, span: Span, number: int, lines: list[Line]) -> None:
        self._busy = False
        self._book(span, number, lines)
        self._threads.wake(self)

    def _book(self, span: Span, number: int, lines: list[Line]) -> None:
        """Write an item's lines if it is not on the ledger yet; keep them while its number is unknown."""
        item, booked = span.item(number), self._booked
        if not lines or booked is None:
            return
        if item is None:
            if not booked.knows(name_of(lines[0])):
                self.held.add(span, number, lines)
                while self.held.size > MOST_HELD:
                    self._unpack(self.held.take_oldest(), homeless=True)
            return
        if item in booked:
            return
        booked.add(item)
        if not booked.is_homeless(name_of(lines[0])):
            self._write(lines, item)

    def _say(self) -> None:
        log.info("llmtab: batch result %s: %d items booked", self.name, self._written)

    def _write(self, lines: list[Line], item: int | None) -> None:
        self._written += 1
        self._desk.write([placed(lines[0], self._id, item), *lines[1:]])

    def _unpack(self, blocks: list[Block], *, homeless: bool = False) -> None:
        for block in blocks:
            self._tasks.append(partial(self._unpacked, block, homeless))

    def _unpacked(self, block: Block, homeless: bool) -> None:
        for item in reversed(unpacked(block)):  # one task each: a whole block would hold up the event loop
            self._tasks.appendleft(partial(self._from_block, item, homeless))

    def _from_block(self, item: Item, homeless: bool) -> None:
        span, number, text = item
        lines = lines_of(text)
        if span.item(number) is not None:
            self._book(span, number, lines)
        elif homeless and not self._is_unnamed_again(lines[0]):
            self._write(lines, None)

    def _is_unnamed_again(self, line: Line) -> bool:
        """Whether nobody can tell if this item is booked: it has no name, and others of its file are booked."""
        return name_of(line) is None and bool(self._booked)

    # -- documents -----------------------------------------------------------------------------------------------------

    def add_document(self, items: Items, results: list[Any]) -> None:
        """The items of a JSON document: known by their names, since pages and polls come in any order."""
        for number, item in enumerate(results):
            self._tasks.append(partial(self._result, items, number, item))

    def _result(self, items: Items, number: int, item: Any) -> None:
        setup, booked = self._desk.setup, self._booked
        if setup is None or booked is None:
            return
        lines = items.item_lines(item, 0, time(), setup.prices)
        name = name_of(lines[0]) if lines else None
        if not lines or booked.knows(name) or (name is None and number in booked):
            return
        number = booked.next_item() if number in booked else number
        booked.add(number)
        if name is not None:
            booked.add_name(name)
        self._write(lines, number)

    # -- the end -------------------------------------------------------------------------------------------------------

    def give_up(self, now: float) -> bool:
        """Whether the rest of the file will hardly come any more: what was held is booked without a number."""
        if now - self._last < PATIENCE:
            return False
        self._unpack(self.held.take(all_of_them=True), homeless=True)
        return True

    def finish(self, until: float) -> bool:
        """Book all that has come; `until`: of `perf_counter`. Whether that was enough time."""
        setup = self._desk.setup
        if setup is None or (self.is_idle and not self.held):
            return True
        self._busy = False  # nobody would tell us that the thread is done
        if self._booked is None:
            self._booked = _booked(setup.ledger.path, self._host, self._id)
        while self.work(until) and perf_counter() < until:
            pass
        self._unpack(self.held.take(all_of_them=True), homeless=True)
        while self.work(until) and perf_counter() < until:
            pass
        return not self._tasks and not any(download.waiting for download, _ in self.downloads)


def _may_be_lines(start: bytes) -> bool:
    """Whether a file that begins so may hold JSON objects."""
    return start.lstrip()[:1] in (b"", b"{")


def _booked(path: Path, host: str, batch_id: str) -> Booked:
    return Booked().read(path, host, batch_id)
