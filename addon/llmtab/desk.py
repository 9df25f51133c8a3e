"""The desk behind the shell: every observed call is opened here, closed once, booked and written.

Knows how a call ends, and that a large body is read in a thread while the ledger belongs to the event loop. Must not
know mitmproxy, nor what an answer means. Whatever way a call ends, it leaves its lines exactly once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final

from llmtab.booking import book
from llmtab.coverage import Coverage
from llmtab.events import BIG
from llmtab.exchange import Exchange, TapMemory
from llmtab.ledger.reader import recent
from llmtab.nested import Nested
from llmtab.observation import How, Observation
from llmtab.repeats import Repeats
from llmtab.retries import Retries
from llmtab.setup import Setup
from llmtab.upkeep import Upkeep

if TYPE_CHECKING:
    from llmtab.budgets.guard import Guard
    from llmtab.estimates.guess import Guesser

SHUTDOWN_WAIT: Final = 5.0
"""Seconds a shutdown waits for bodies that are being read."""
SHUTDOWN_GUESSING: Final = 2.0
"""Seconds it takes to estimate what open calls used; those that are left then are booked with what was reported."""
SETTLING: Final = 0.1
"""Seconds that the end of a call waits at most for a line that is made in a thread: who was told that a call is over
finds it on the ledger, whatever becomes of this process. As a rule it is a few milliseconds."""
MOST_WAITING: Final = 64
"""Calls that may wait for the thread with all their bytes (a megabyte each at most); past it calls are booked without
an estimate."""

type Line = dict[str, Any]
type Lines = Future[list[Line]]


class Settled:
    """To be awaited, or not: until the lines of a job are written, for SETTLING seconds at most."""

    def __init__(self, job: Lines) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.wait([asyncio.wrap_future(self._job)], timeout=SETTLING).__await__()


class Desk:
    """One for each meter; all of it belongs to the event loop.

    `setup`: what is in force (None: the start failed). `memory`: raw bytes all open taps hold.
    """

    def __init__(self, tell: Callable[[list[Line]], None], upkeep: Upkeep) -> None:
        self.setup: Setup | None = None
        self.guard: Guard | None = None
        """What keeps the budgets; None while there are none."""
        self.coverage: Final = Coverage()
        self.memory: Final = TapMemory()
        self.calls: Final[dict[str, Exchange]] = {}
        """The calls that are under way, by id; not those whose end is being read in the thread."""
        self._tell = tell
        self._upkeep = upkeep
        self._retries = Retries()
        self._repeats = Repeats()
        self.nested: Final = Nested()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Lines] = set()
        self._guesser: Guesser | None = None
        self._hurried = False

    def open(self, exchange: Exchange) -> None:
        """A call begins."""
        self.calls[exchange.call.id] = exchange

    def close(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> Awaitable[None] | None:
        """A call is over: booked at once if that is quick, in a thread where a large body has to be parsed. Then there
        is something to await, for whoever can.

        Closed before, it leaves nothing more; what came behind its last event may be a call of its own.
        """
        self.calls.pop(exchange.call.id, None)
        if exchange.closed:
            if exchange.following is None:
                return None
            exchange = exchange.following
            self.calls.pop(exchange.call.id, None)
            if not exchange.tapped:
                return None
        asked = exchange.call.body()
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        if exchange.needs_thread(body) or _is_big(asked) or self._must_look_back(exchange):
            exchange.hand_over()
            return self._in_thread(self._lines, exchange, how, ended_at, body)
        seen = exchange.close(how, ended_at, body)
        if seen is not None and seen.passed is not None and self._may_guess(seen):
            return self._in_thread(self._booked, exchange, seen)
        self.write(self._booked(exchange, seen))
        return None

    def _in_thread(self, work: Callable[..., list[Line]], *arguments: Any) -> Settled:
        """What takes too long for the event loop; its lines are written when it is done."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmtab-parse")
        job = self._pool.submit(work, *arguments)
        self._pending.add(job)
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._collect, done))
        return Settled(job)

    def over(self, exchange: Exchange) -> bool:
        """The last event of a stream passes: its line is written before the client sees it, and leaves. Whether the
        call is booked now."""
        asked = exchange.call.body()
        if _is_big(asked) or self._must_look_back(exchange):
            return False
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        seen = exchange.close_early(time())
        if seen is not None:
            self.calls.pop(exchange.call.id, None)
            if exchange.following is not None:
                self.open(exchange.following)
            seen.passed = None  # its figures have come: there is nothing to guess
            self.write(self._booked(exchange, seen))
        return exchange.closed

    def _must_look_back(self, exchange: Exchange) -> bool:
        """Whether this is a stored answer, and the ledger has not been asked yet which were booked."""
        return exchange.claim.binding.role == "retrieve" and self._repeats.needs_thread

    def write(self, lines: list[Line]) -> None:
        """The lines of one call go onto the ledger, and to all who watch it; with them those that waited for them."""
        if lines and self.nested.possible:
            calls = self.nested.sort(lines, self.calls, time())
            if lines[0]["id"] in self.nested and self.setup is not None:
                self.setup.ledger.hold(lines)
            self._put(*calls)
        else:
            self._put(lines)

    def tick(self) -> None:
        """About once a second: lines that waited long enough are written, the budgets looked after."""
        if self.guard is not None:
            self.guard.tick(self.calls)
        for lines in self.nested.release(time(), self.calls):
            self._put(lines)

    def _put(self, *calls: list[Line]) -> None:
        """Calls that belong together are written together: no kill leaves one of them without the other."""
        lines = calls[0] if len(calls) == 1 else [line for call in calls for line in call]
        if lines and self.setup is not None:
            if self.guard is not None:
                self.guard.settle(lines)
            self.setup.ledger.append(lines)
            for call in calls:
                self._told(call)

    def _told(self, lines: list[Line]) -> None:
        """These lines are on the ledger: now all others may know."""
        self._tell(lines)
        if lines[0]["usage_source"] != "reported":
            self.coverage.line(lines[0])
        if self._upkeep.estimator is not None:
            self._upkeep.estimator.learn(lines[0])
        if self._guesser is not None:
            self._guesser.learn(lines[0])

    async def written(self) -> None:
        """Returns when the bodies that were handed to the thread by now are booked."""
        if self._pending:
            await asyncio.wait([asyncio.wrap_future(job) for job in self._pending])

    def finish(self, *, calls: bool) -> None:
        """The process ends, or another desk takes over: open `calls` get their line now, bodies in the thread are
        waited for."""
        if calls:
            now = time()
            left = list(self.calls.values())
            self.calls.clear()
            for exchange in left:
                self._hurried = time() - now > SHUTDOWN_GUESSING
                self.write(self._lines(exchange, "aborted", now, None))
        for job in wait(list(self._pending), SHUTDOWN_WAIT).done:
            self._collect(job)
        for lines in self.nested.release():
            self._put(lines)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _collect(self, job: Lines) -> None:
        """The lines of a call that was read in the thread; the ledger belongs to the event loop."""
        if job in self._pending:
            self._pending.discard(job)
            self.write(job.result())

    def _may_guess(self, seen: Observation) -> bool:
        """Whether the figures of this call are to be estimated. Nothing of that is even imported until one call needs
        it."""
        if self._hurried or len(self._pending) > MOST_WAITING or self.setup is None:
            return False
        from llmtab.estimates.guess import Guesser, due

        if self._guesser is None and due(seen):
            self._guesser = Guesser(partial(recent, self.setup.ledger.path))
        return due(seen)

    def settle(self, seen: Observation) -> None:
        """The same of a socket's response that is over."""
        if seen.passed is not None and self._may_guess(seen):
            self._in_thread(self.booked, seen)
        else:
            self.write(self.booked(seen))

    def _lines(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> list[Line]:
        return self._booked(exchange, exchange.close(how, ended_at, body))

    def _booked(self, exchange: Exchange, seen: Observation | None) -> list[Line]:
        if seen is None or self.setup is None or (seen.call.follows and not seen.reading.seen):
            return []
        if seen.call.later is not None:
            seen.call.later(exchange.request, seen.reading)
        return self.booked(seen)

    def booked(self, seen: Observation) -> list[Line]:
        """The lines of what is over; [] where there is nothing to book."""
        if self.setup is None:
            return []
        guesser = self._guesser if seen.passed is not None and self._may_guess(seen) else None
        lines = book(seen, self.setup.prices, guesser.guess if guesser is not None else None)
        if not lines:
            self.coverage.unknown_path(seen.call.host)
            return lines
        lines[0] = self._retries.mark(lines[0], seen.call, seen.ended_at)
        if self._repeats.seen(seen.claim.binding.role == "retrieve", lines[0], self.setup.ledger.path):
            self.coverage.read_again(seen.call.host)
            return []
        if self.nested.possible:
            self.nested.note(seen.call, seen.ended_at)
        return lines


def _is_big(asked: bytes | None) -> bool:
    """Whether a request is too long to be parsed on the event loop."""
    return asked is not None and len(asked) > BIG
