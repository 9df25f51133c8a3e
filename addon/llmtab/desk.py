"""The desk behind the shell: every observed call is opened here, closed once, booked and written.

Knows how a call ends, and that a large body is read in a thread while the ledger belongs to the event loop. Must not
know mitmproxy, nor what an answer means. Whatever way a call ends, it leaves its lines exactly once.
"""

import asyncio
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import time
from typing import Any, Final

from llmtab.booking import book
from llmtab.exchange import Exchange, How, Observation, TapMemory
from llmtab.repeats import Repeats
from llmtab.retries import Retries
from llmtab.setup import Setup
from llmtab.upkeep import Upkeep
from llmtab.watch import Watchers

SHUTDOWN_WAIT: Final = 5.0
"""Seconds a shutdown waits for bodies that are being read."""

type Line = dict[str, Any]
type Lines = Future[list[Line]]


class Desk:
    """One for each meter; all of it belongs to the event loop.

    `setup`: what is in force (None: the start failed). `memory`: raw bytes all open taps hold.
    """

    def __init__(self, watchers: Watchers, upkeep: Upkeep) -> None:
        self.setup: Setup | None = None
        self.coverage: Counter[str] = Counter()
        self.memory: Final = TapMemory()
        self.calls: Final[dict[str, Exchange]] = {}
        """The calls that are under way, by id."""
        self._watchers = watchers
        self._upkeep = upkeep
        self._retries = Retries()
        self._repeats = Repeats()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Lines] = set()

    def open(self, exchange: Exchange) -> None:
        """A call begins."""
        self.calls[exchange.call.id] = exchange

    def close(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> None:
        """A call is over: booked at once if that is quick, in a thread where a large body has to be parsed.

        Closed before, it leaves nothing more; what came behind its last event may be a call of its own.
        """
        if exchange.closed:
            if exchange.following is None or not exchange.following.tapped:
                return
            exchange = exchange.following
        asked = exchange.call.body()
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        if not exchange.needs_thread(body) and not exchange.needs_thread(asked):
            self.write(self._lines(exchange, how, ended_at, body))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmtab-parse")
        job = self._pool.submit(self._lines, exchange, how, ended_at, body)
        self._pending.add(job)
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._collect, done))

    def over(self, exchange: Exchange) -> bool:
        """The last event of a stream passes: its line is written before the client sees it, and leaves. Whether the
        call is booked now."""
        asked = exchange.call.body()
        if exchange.needs_thread(asked):
            return False
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        seen = exchange.close_early(time())
        if seen is not None:
            self.write(self._booked(exchange, seen))
        return exchange.closed

    def write(self, lines: list[Line]) -> None:
        """The lines of one call go onto the ledger, and to all who watch it."""
        if lines and self.setup is not None:
            self.setup.ledger.append(lines)
            self._watchers.tell(lines)
            if self._upkeep.estimator is not None:
                self._upkeep.estimator.learn(lines[0])

    async def written(self) -> None:
        """Returns when the bodies that were handed to the thread by now are booked."""
        if self._pending:
            await asyncio.wait([asyncio.wrap_future(job) for job in self._pending])

    def finish(self, *, calls: bool) -> None:
        """The process ends, or another desk takes over: open `calls` get their line now, bodies in the thread are
        waited for."""
        if calls:
            now = time()
            for exchange in list(self.calls.values()):
                self.write(self._lines(exchange, "aborted", now, None))
        for job in wait(list(self._pending), SHUTDOWN_WAIT).done:
            self._collect(job)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _collect(self, job: Lines) -> None:
        """The lines of a call that was read in the thread; the ledger belongs to the event loop."""
        if job in self._pending:
            self._pending.discard(job)
            self.write(job.result())

    def _lines(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> list[Line]:
        return self._booked(exchange, exchange.close(how, ended_at, body))

    def _booked(self, exchange: Exchange, seen: Observation | None) -> list[Line]:
        self.calls.pop(exchange.call.id, None)
        if seen is None or self.setup is None or (seen.call.follows and not seen.reading.seen):
            return []
        lines = book(seen, self.setup.prices)
        if not lines:
            self.coverage["no usage on an unknown path"] += 1
            return lines
        lines[0] = self._retries.mark(lines[0], seen.call, seen.ended_at)
        if self._repeats.seen(exchange.claim.binding.role == "retrieve", lines[0]):
            self.coverage["a stored answer read again"] += 1
            return []
        return lines
