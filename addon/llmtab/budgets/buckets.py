"""Buckets: what one window of one limit holds for one caller, and the buckets that calls touch together.

Knows windows and what is left in them. Must not know calls, or who decides. Amounts are whole numbers, times epoch
seconds. A decision looks at every bucket of a call: each keeps what is left in it ready, so that a look is one
comparison.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from llmtab.budgets.limits import Limit, Touched
from llmtab.budgets.windows import EVER


class State(NamedTuple):
    """One bucket: what is spent and reserved in the window from `start` to `end`, and what an earlier one overdrew."""

    spent: int
    reserved: int
    carried: int
    start: float
    end: float


class Bucket:
    """What one window of one limit holds for one caller. `left`: what can still be reserved, below 0 where a running
    call needed more."""

    __slots__ = ("before", "bins", "carried", "end", "key", "left", "limit", "spent", "start")

    def __init__(self, limit: Limit, key: str, start: float, end: float) -> None:
        self.limit = limit
        self.key = key
        self.start = start
        self.end = end
        """From here on another look at the calendar is needed; of a sliding window: when its oldest bin leaves."""
        self.spent = 0
        self.left = limit.amount + limit.burst
        self.before: Bucket | None = None
        self.carried = 0
        self.bins: dict[float, int] | None = {} if limit.window.sliding else None

    @property
    def reserved(self) -> int:
        """What calls under way may still spend."""
        return self.limit.amount + self.limit.burst - self.carried - self.spent - self.left

    def hold(self, spent: int, reserved: int, carried: int) -> None:
        """As it was kept across a restart."""
        self.spent, self.carried = spent, carried
        self.left = self.limit.amount + self.limit.burst - spent - reserved - carried

    def carry(self) -> None:
        """Find out what the window before overdrew."""
        if self.before is not None:
            over = self.limit.burst - self.before.left
            carried = min(over, self.limit.burst) if over > 0 else 0
            self.left += self.carried - carried
            self.carried = carried

    def charge(self, amount: int, at: float) -> None:
        """Spending of a moment; what has left a sliding window already is none."""
        if self.bins is not None:
            begin, end = self.limit.window.at(at)
            if end <= self.start:
                return
            self.bins[begin] = self.bins.get(begin, 0) + amount
        self.spent += amount
        self.left -= amount

    def slide(self, now: float) -> None:
        """Of a sliding window: forget what has left it."""
        window, bins = self.limit.window, self.bins or {}
        for begin in [begin for begin in bins if begin + window.seconds + window.bin <= now]:
            gone = bins.pop(begin)
            self.spent -= gone
            self.left += gone
        self.start = window.at(now)[0]
        self.end = self.start + window.bin

    def state(self) -> State:
        if self.limit.burst:
            self.carry()
        if self.bins is None:
            return State(self.spent, self.reserved, self.carried, self.start, self.end)
        window = self.limit.window
        oldest = min(self.bins, default=self.start)
        return State(self.spent, self.reserved, 0, self.start - window.seconds, oldest + window.seconds + window.bin)


class Together:
    """The buckets of the limits that a call touches, in the order of the limits. They are the same for every such call
    from `since` until `until`: before and after that, one of the windows is another.

    Where lists are by kind, each has what the limits of one kind have: a call takes the same from all of them.
    """

    __slots__ = ("_by_kind", "_fixed", "_slides", "all", "bursts", "hard", "since", "until")

    def __init__(self, touched: Touched, buckets: Sequence[Bucket]) -> None:
        self.all: Final = buckets
        by_kind = _by_kind(touched, buckets)
        self._by_kind: Final = by_kind
        slides = [both for both in zip(buckets, touched.places, strict=True) if both[0].bins is not None]
        self._slides: Final = slides
        self._fixed: Final = [[b for b in one if b.bins is None] for one in by_kind] if slides else by_kind
        soft = any(not bucket.limit.hard for bucket in buckets)
        self.hard: Final = [[b for b in one if b.limit.hard] for one in by_kind] if soft else by_kind
        """By kind: those that may refuse a call."""
        self.bursts: Final = [bucket for bucket in buckets if bucket.limit.burst]
        """Those that have less where the window before overdrew."""
        self.since: Final = max([bucket.start for bucket in buckets if bucket.bins is None], default=-EVER)
        self.until: Final = min([bucket.end for bucket in buckets], default=EVER)

    def reserve(self, amounts: Sequence[int]) -> None:
        """So much of each kind is reserved, whatever is left."""
        for buckets, amount in zip(self._by_kind, amounts, strict=True):
            for bucket in buckets:
                bucket.left -= amount

    def release(self, amounts: Sequence[int]) -> None:
        """It is given back."""
        for buckets, amount in zip(self._by_kind, amounts, strict=True):
            for bucket in buckets:
                bucket.left += amount

    def charge(self, amounts: Sequence[int], at: float) -> None:
        """So much of each kind was spent."""
        for buckets, amount in zip(self._fixed, amounts, strict=True):
            for bucket in buckets:
                bucket.spent += amount
                bucket.left -= amount
        for bucket, place in self._slides:
            bucket.charge(amounts[place], at)


def _by_kind(touched: Touched, buckets: Sequence[Bucket]) -> list[Sequence[Bucket]]:
    if len(touched.kinds) == 1:
        return [buckets]
    found: list[list[Bucket]] = [[] for _ in touched.kinds]
    for bucket, place in zip(buckets, touched.places, strict=True):
        found[place].append(bucket)
    return [*found]
