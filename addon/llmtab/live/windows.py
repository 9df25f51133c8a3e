"""Sums of the last minutes, of today or of a week, by any of several words: one fold of lines, any question later.

Knows spans of time and how lines are grouped. Must not know files, terminals or the clock: `now` is given.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from llmtab.cells import Line, is_unpriced, model
from llmtab.live.days import midnight
from llmtab.live.totals import GROUPS, OTHER, Rates, Sum, Totals, count_reason, end, group_name

GROUPINGS: Final = ("model", "provider", "project", "agent", "consumer", "session", "host")
WINDOWS: Final = ("10 min", "1 h", "today", "yesterday", "7 days")
LONGEST: Final = timedelta(days=7)
FINE: Final = timedelta(minutes=1)
"""Buckets of the last hour."""
COARSE: Final = timedelta(minutes=15)
"""Buckets of days: midnight is a multiple of it in every zone."""
_SPANS: Final = {"10 min": timedelta(minutes=10), "1 h": timedelta(hours=1), "7 days": LONGEST}
_FINE_FOR: Final = timedelta(minutes=61)


@dataclass(slots=True)
class Bucket:
    """The lines of one short span."""

    total: Sum = field(default_factory=Sum)
    groups: dict[str, dict[str, Sum]] = field(default_factory=dict)
    """Grouping -> name -> sum."""
    unpriced: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, line: Line, names: Sequence[tuple[str, str]]) -> None:
        self.total.add(line)
        for by, name in names:
            known = self.groups.setdefault(by, {})
            known.setdefault(name if name in known or len(known) < GROUPS else OTHER, Sum()).add(line)
        if is_unpriced(line):
            count_reason(self.unpriced, (str(line.get("cost_reason", "unknown")), model(line)))


class Windows:
    """A running fold of the newest week. `groupings`: `model`, a key of a line or a label each."""

    def __init__(self, groupings: Sequence[str] = GROUPINGS, zone: tzinfo = UTC) -> None:
        self.groupings = tuple(dict.fromkeys(groupings))
        self.rates = Rates()
        self._zone = zone
        self._fine: dict[datetime, Bucket] = {}
        self._coarse: dict[datetime, Bucket] = {}

    def since(self, now: datetime) -> datetime:
        """From when on lines matter."""
        return now - LONGEST - COARSE

    def add(self, line: Line, now: datetime) -> None:
        """Adds a line at the time its call ended; one of no readable time, or of long ago, is in no window."""
        at = end(line)
        if at is None or at < self.since(now):
            return
        names = [(by, group_name(line, by)) for by in self.groupings]
        _bucket(self._coarse, at, COARSE).add(line, names)
        if at > now - _FINE_FOR:
            _bucket(self._fine, at, FINE).add(line, names)
            self.rates.add(line)

    def totals(self, window: str, by: str, now: datetime) -> Totals:
        """The sums of one of WINDOWS, grouped by one of the groupings. A bucket that began within it counts whole."""
        buckets, first, last = self._cut(window, now)
        found = Totals(by, rates=self.rates)
        for at, bucket in buckets.items():
            if first <= at < last:
                found.include(Totals(by, bucket.total, bucket.groups.get(by, {}), bucket.unpriced))
        return found

    def _cut(self, window: str, now: datetime) -> tuple[dict[datetime, Bucket], datetime, datetime]:
        """The buckets that a window is made of, and between when and when they begin."""
        self._forget(now)
        far = now + LONGEST  # clocks differ: a line of the near future is shown, not hidden
        if window == "today":
            return self._coarse, midnight(now, self._zone), far
        if window == "yesterday":
            return self._coarse, midnight(now, self._zone, 1), midnight(now, self._zone)
        span = _SPANS[window]
        return (self._fine, now - span, far) if span <= timedelta(hours=1) else (self._coarse, now - span, far)

    def _forget(self, now: datetime) -> None:
        for buckets, oldest in ((self._fine, now - _FINE_FOR), (self._coarse, self.since(now))):
            for at in [at for at in buckets if at < oldest]:
                del buckets[at]


def _bucket(buckets: dict[datetime, Bucket], at: datetime, step: timedelta) -> Bucket:
    start = datetime.fromtimestamp(at.timestamp() // step.total_seconds() * step.total_seconds(), UTC)
    if start not in buckets:
        buckets[start] = Bucket()
    return buckets[start]
