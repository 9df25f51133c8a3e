"""Where spending is kept: the protocol of a store, and the one that lives in this process.

Knows buckets, windows and reservations, and that a decision over all limits a call touches is one step. Must not know
calls, lines or files. Amounts are whole numbers, times epoch seconds.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from llmtab.budgets.buckets import Bucket, State, Together
from llmtab.budgets.charges import Need, Needs
from llmtab.budgets.limits import REMEMBERED, Limit, Touched
from llmtab.budgets.windows import EVER, Span

log = logging.getLogger("llmtab")

LEASE: Final = 120.0
"""Seconds after which a reservation that nobody renews is given back."""
GRACE: Final = 86_400.0
"""Seconds that a window which is over is kept at most: clocks are set back, and long calls end late."""
MOST_BUCKETS: Final = 200_000
"""Kept of the present, and as many of windows before it."""
ROOM: Final = 0.9
"""Of them so many stay where there were too many: not every new caller is to make a search."""

type Why = Literal["busy", "exceeded", "too_large", "unpriced", "tier", "store"]


class Denied(NamedTuple):
    """The limit that refuses a call. "busy": others' reservations may be given back; "exceeded": only the window's
    end helps; "too_large": nothing does."""

    need: Need
    state: State
    why: Why


class Verdict(NamedTuple):
    """`at`: the moment whose windows the call counts in."""

    at: float
    denied: Denied | None


class Store(Protocol):
    """What a store can do. `reserve` may wait for a server; nothing else does."""

    async def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        """All of the needs are reserved, or none."""
        ...

    def extend(self, ident: str, needs: Needs, at: float) -> None:
        """Reserve more for a call that runs since `at`, whatever the limits say."""
        ...

    def settle(self, ident: str, spent: Needs, at: float, seq: int) -> None:
        """The call's reservation becomes what it spent. `seq`: this writer's number of its line."""
        ...

    def release(self, ident: str) -> None:
        """The call's reservation is given back."""
        ...

    def renew(self, idents: Iterable[str], now: float) -> None:
        """These calls still run."""
        ...

    def state(self, limit: Limit, key: str, at: float) -> State:
        """The bucket as far as this process knows."""
        ...

    def places(self) -> list[tuple[str, str]]:
        """(limit's name, bucket) of all that this process knows."""
        ...

    def tick(self, now: float) -> None:
        """About once a second."""
        ...

    def close(self) -> None: ...


class Held(NamedTuple):
    """A reservation: so much of each kind of these buckets, and what was reserved besides."""

    parts: list[tuple[Together, Sequence[int]]]
    until: float


class Embedded:
    """Buckets in this process's memory, of one set of limits. One thread."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: EVER
        """No sliding window moves on beyond this moment: what a clock that was ahead has booked would make it forget
        what is in it."""
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._past: dict[tuple[str, str, float], Bucket] = {}
        self._together: dict[Touched, Together] = {}
        """The buckets that calls touched last; emptied when one of them may no longer be kept."""
        self._spans: dict[str, Span] = {}
        """The window of each limit that was asked for last."""
        self._held: dict[str, Held] = {}
        self._swept = 0.0
        self._flooded: set[str] = set()
        """Limits of which it was said that they have too many callers."""

    async def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        return self.reserve_now(ident, needs, at)

    def reserve_now(self, ident: str, needs: Needs, at: float) -> Verdict:
        """`reserve` without waiting for anybody: a decision, in one step."""
        touched, amounts = self._touched(needs.touched, at), needs.amounts
        for bucket in touched.bursts:
            bucket.carry()
        for buckets, amount in zip(touched.hard, amounts, strict=True):
            least = amount or 1  # a call that takes nothing goes no more where nothing is left
            for bucket in buckets:
                if bucket.left < least:
                    return Verdict(at, worst_of([*needs], [bucket.state() for bucket in touched.all]))
        if ident in self._held:
            self.release(ident)
        touched.reserve(amounts)
        self._held[ident] = Held([(touched, amounts)], at + LEASE)
        return Verdict(at, None)

    def extend(self, ident: str, needs: Needs, at: float) -> None:
        touched = self._touched(needs.touched, at)
        touched.reserve(needs.amounts)
        self._held.setdefault(ident, Held([], at + LEASE)).parts.append((touched, needs.amounts))

    def settle(self, ident: str, spent: Needs, at: float, seq: int = 0) -> None:
        self.release(ident)
        self.charge(spent, at)

    def charge(self, spent: Needs, at: float) -> None:
        """Spending, as the ledger has it."""
        self._touched(spent.touched, at).charge(spent.amounts, at)

    def release(self, ident: str) -> None:
        held = self._held.pop(ident, None)
        for touched, amounts in held.parts if held is not None else ():
            touched.release(amounts)

    def renew(self, idents: Iterable[str], now: float) -> None:
        for ident in idents:
            held = self._held.get(ident)
            if held is not None:
                self._held[ident] = held._replace(until=now + LEASE)

    def state(self, limit: Limit, key: str, at: float) -> State:
        return self._bucket(limit, key, at).state()

    def places(self) -> list[tuple[str, str]]:
        return [*self._buckets]

    def buckets(self) -> Iterator[Bucket]:
        """Every bucket that is kept, of each limit and caller the newest last."""
        yield from sorted(self._past.values(), key=lambda bucket: bucket.start)
        yield from self._buckets.values()

    def put(self, bucket: Bucket) -> None:
        """A bucket as it was kept across a restart."""
        self._together.clear()
        place = bucket.limit.name, bucket.key
        newest = self._buckets.get(place)
        if newest is None or newest.start < bucket.start:
            if newest is not None:
                self._leave(newest)
            self._buckets[place] = bucket
            if bucket.limit.burst:
                bucket.before = self._past.get((*place, bucket.limit.window.at(bucket.start - 1)[0]))
        else:
            self._past[*place, bucket.start] = bucket

    def tick(self, now: float) -> None:
        """Gives back what nobody renews, forgets windows that are long over, and callers where there are too many."""
        for ident in [ident for ident, held in self._held.items() if held.until < now]:
            self.release(ident)
        if len(self._buckets) > MOST_BUCKETS:
            self._thin(self._buckets, lambda one: (one.bins is not None or one.end > now, one.spent + one.carried))
        if len(self._past) > MOST_BUCKETS:
            self._thin(self._past, lambda one: one.end)
        if abs(now - self._swept) < 60:
            return
        self._swept = now
        for store in (self._past, self._buckets):
            old: list[Any] = [place for place, bucket in store.items() if _is_over(bucket, now)]
            for place in old:
                del store[place]
            if old:
                self._together.clear()

    def _thin(self, store: dict[Any, Bucket], rank: Callable[[Bucket], Any]) -> None:
        """Makes room: what holds nothing goes first, for it takes nothing with it; then, of the limits with most
        buckets, those of lowest rank. What calls under way hold stays."""
        self._together.clear()
        for place in [place for place, bucket in store.items() if not (bucket.spent or bucket.reserved)]:
            if not store[place].carried:
                del store[place]
        by_limit: dict[str, list[Any]] = defaultdict(list)
        for place in store:
            by_limit[place[0]].append(place)
        most = _share([len(places) for places in by_limit.values()], int(MOST_BUCKETS * ROOM))
        for name, places in by_limit.items():
            if len(places) <= most:
                continue
            free = sorted([place for place in places if not store[place].reserved], key=lambda at: rank(store[at]))
            for place in free[: len(places) - most]:
                del store[place]
            if name not in self._flooded and store is self._buckets:
                self._flooded.add(name)
                log.warning("llmtab: budget %s has too many callers: who has spent least begins anew", name)

    def close(self) -> None: ...

    def _touched(self, touched: Touched, at: float) -> Together:
        """The buckets of a moment. A bucket stays the same object while it is kept, whatever windows come after it, so
        they need to be looked up once for all calls alike."""
        found = self._together.get(touched)
        if found is None or not found.since <= at < found.until:
            if len(self._together) >= REMEMBERED:
                self._together.clear()
            found = Together(touched, [self._bucket(limit, key, at) for limit, key in touched.pairs])
            self._together[touched] = found
        return found

    def _bucket(self, limit: Limit, key: str, at: float) -> Bucket:
        """The bucket of a moment, made where there is none; a newer window takes the place of the one before."""
        place = limit.name, key
        newest = self._buckets.get(place)
        if newest is not None and newest.bins is not None:
            newest.slide(max(min(at, self.clock()), newest.start))
            return newest
        if newest is not None and newest.start <= at < newest.end:
            return newest
        start, end = self._span(limit, at)
        if newest is None or newest.end <= at:
            made = self._past.pop((*place, start), None) or Bucket(limit, key, start, end)
            if limit.burst:
                made.before = self._past.get((*place, limit.window.at(start - 1)[0]))
            if newest is not None:
                if newest.end == start:
                    made.before = newest
                self._leave(newest)
            if made.bins is not None:
                made.slide(min(at, self.clock()))
            self._buckets[place] = made
            return made
        found = self._past.get((*place, start))
        if found is None:
            found = self._past[*place, start] = Bucket(limit, key, start, end)
            if end == newest.start:
                newest.before = found
        return found

    def _span(self, limit: Limit, at: float) -> Span:
        """The window of a moment. Fixed ones are the same for all callers, and calendars take their time."""
        found = self._spans.get(limit.name)
        if found is None or not found[0] <= at < found[1] or limit.window.sliding:
            found = self._spans[limit.name] = limit.window.at(at)
        return found

    def _leave(self, bucket: Bucket) -> None:
        bucket.carry()
        bucket.before = None  # no chain of windows back to the first
        self._past[bucket.limit.name, bucket.key, bucket.start] = bucket


def _share(sizes: Sequence[int], room: int) -> int:
    """How many each may have, so that all of them fit: who has less leaves the rest to the others."""
    left = room
    for count, size in enumerate(sorted(sizes)):
        if size * (len(sizes) - count) > left:
            return left // (len(sizes) - count)
        left -= size
    return room


def worst_of(needs: Sequence[Need], states: Sequence[State]) -> Denied:
    """Of the limits that refuse a call, the one that it has to wait longest for."""
    order: tuple[Why, ...] = ("busy", "exceeded", "too_large")
    denied = [
        Denied(need, state, why) for need, state in zip(needs, states, strict=True) if (why := denies(need, state))
    ]
    return max(denied, key=lambda one: (order.index(one.why), one.state.end))


def denies(need: Need, state: State) -> Why | None:
    """Why a bucket refuses a call; None where it does not."""
    limit, amount = need.limit, need.amount
    most = limit.amount + limit.burst
    left = most - state.spent - state.carried
    if not limit.hard or amount < left - state.reserved or (amount and amount == left - state.reserved):
        return None
    if amount > most:
        return "too_large"
    return "exceeded" if amount > left or left <= 0 else "busy"


def _is_over(bucket: Bucket, now: float) -> bool:
    """Whether a window is long over and nothing of it is under way."""
    length = min(max(bucket.limit.window.seconds, 3600.0), GRACE)
    if bucket.bins is not None:
        bucket.slide(max(now, bucket.start))
        return not (bucket.spent or bucket.reserved)
    return not bucket.reserved and bucket.end + length < now
