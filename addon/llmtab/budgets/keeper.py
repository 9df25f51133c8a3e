"""Keeps the store of this process in step with the ledger: at the start, with other writers, across a restart.

Knows when to read, count and save. Must not know calls or what a line takes. Long work is done in threads; what they
make is taken over by the event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from time import time
from typing import Any, Final, NamedTuple

from llmtab.budgets.charges import Needs
from llmtab.budgets.checkpoint import AHEAD, checkpoint_path, load, picture, save
from llmtab.budgets.limits import Limits, Touched
from llmtab.budgets.rebuild import Counter, Others, Place, horizon, unread
from llmtab.budgets.store import Embedded

log = logging.getLogger("llmtab")

EVERY: Final = 10.0
"""Seconds between two checkpoints of a busy ledger."""
SLOW: Final = 2.0
"""Seconds of counting that are worth a word."""


class Own(NamedTuple):
    """What limits of this process alone had spent (kind of limit -> amount) before our line number `seq`."""

    spent: Mapping[str, int] = {}
    seq: int = 0


NONE: Final = Own()


class Keeper:
    """One for each store. `writer`: ours, whose lines are counted as they are made. `told`: what the next start is to
    know of what was told of the budgets. `own`: what an earlier keeper of this process counted. `anew`: no checkpoint
    is believed."""

    def __init__(
        self, ledger: Path, writer: str, limits: Limits, told: Callable[[], list[Any]] = list, own: Own = NONE,
        *, anew: bool = False,
    ) -> None:  # fmt: skip
        self.store = Embedded()
        self._path = ledger
        self._limits = limits
        self._writer = writer
        self._told = told
        self._own = own
        self._anew = anew
        self._counter = Counter(limits, self.store, Place(own=writer), writer, own.seq, time)
        self._others: Others | None = None
        self._saved = 0.0
        self._latest = 0.0
        self._dirty = False
        self._thread: Thread | None = None
        self._reader = Thread(target=self._read, name="llmtab-budgets", daemon=True)

    @property
    def place(self) -> Place:
        return self._counter.place

    def start(self) -> None:
        """Begin to count what the ledger has, in a thread."""
        self._reader.start()

    @property
    def counted(self) -> bool:
        """Whether that is done."""
        return not self._reader.is_alive()

    @property
    def open(self) -> bool:
        """Whether the store says what is spent, and is told of it."""
        return self._others is not None

    async def ready(self) -> None:
        """Returns when what the ledger had is counted; `finish` is due then."""
        began = time()
        while self._reader.is_alive():
            await asyncio.sleep(0.005)
            if began and time() - began > SLOW:
                began = 0.0
                log.warning("llmtab: calls wait until the ledger is counted for the budgets")

    def finish(self) -> None:
        """The event loop takes over: what was written meanwhile is counted, and others are followed from here."""
        if self._others is None:
            self._reader.join()
            self._read_on()
            self._others = Others(self._path, self.place, self._writer)
            for limit in self._limits.all:
                if limit.own and self._own.spent.get(limit.kind):
                    self.store.charge(Needs(Touched([(limit, "")]), [self._own.spent[limit.kind]]), time())

    def own(self, seq: int) -> Own:
        """What limits of this process alone have spent; `seq`: the number of our next line."""
        if self._others is None:
            return self._own
        own = [limit for limit in self._limits.all if limit.own]
        return Own({limit.kind: self.store.state(limit, "", time()).spent for limit in own}, seq)

    def made(self, seq: int, lines: int) -> None:
        """So many lines of ours, the first of them number `seq`, are counted."""
        self.place.wrote(self._writer, seq + lines - 1)
        self._dirty = True

    def is_behind(self, now: float) -> bool:
        """Whether the clock was set back, behind a moment at which windows may have been forgotten."""
        if now > self._latest:
            self._latest = now
        return self._others is not None and now < self._latest - AHEAD

    def tick(self, now: float, *, busy: bool = False) -> None:
        """About once a second: count what others wrote, save now and then. `busy`: calls are under way. Raises
        OSError."""
        if self._others is None:
            return
        self._dirty |= busy
        self._follow()
        if self._dirty and abs(now - self._saved) >= EVERY and not (self._thread and self._thread.is_alive()):
            self._thread = Thread(target=self._save, args=(self._shot(now),), name="llmtab-budgets", daemon=True)
            self._thread.start()

    def close(self, *, keep: bool = True) -> None:
        """Saves where anything has changed since the last time. `keep`: else it is put away without a word."""
        if self._others is not None:
            if keep:
                self._follow()
            self._others.close()
            if self._thread is not None:
                self._thread.join()
            if keep and self._dirty:
                self._save(self._shot(time()))

    def _follow(self) -> None:
        for line in self._others.poll() if self._others is not None else ():
            self._counter.add(line)
            self._dirty = True

    def _shot(self, now: float) -> dict[str, Any]:
        self._saved, self._dirty = now, False
        at = max(now, self._latest)  # a clock that was ahead is known by it
        return {**picture(self.store, self.place, self._path, at), "told": self._told()}

    def _save(self, shot: dict[str, Any]) -> None:
        save(checkpoint_path(self._path), self._limits, shot)

    def _read(self) -> None:
        if not self._anew:
            self._counter.place = load(checkpoint_path(self._path), self._limits, self.store)
            self._counter.place.own = self._writer
        self._read_on()

    def _read_on(self) -> None:
        """What can be read counts, whatever happens: calls wait for it."""
        try:
            for line in unread(self._path, self.place, horizon(self._limits, time())):
                self._counter.add(line)
        except Exception:
            log.warning("llmtab: the ledger could not be counted for the budgets", exc_info=True)
