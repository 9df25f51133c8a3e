"""Today against yesterday: money by the minute of the two days, from lines that come in any order.

Knows days of a time zone and the keys of a line that are about money. Must not know files or the clock: `now` is given.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Final, NamedTuple

from llmtab.cells import Line, is_unpriced
from llmtab.live.totals import ZERO, end, money

MINUTE: Final = timedelta(minutes=1)
MARGIN: Final = timedelta(hours=2)
"""A call counts on the day it ended; one that began so long before a day is not looked for in it."""


class Day(NamedTuple):
    """Money of a day, or of a part of it. USD; `unpriced`: lines that are not in it."""

    billed: Decimal = ZERO
    notional: Decimal = ZERO
    unpriced: int = 0
    guessed: int = 0
    """Lines whose money is an estimate."""

    def plus(self, other: "Day") -> "Day":
        return Day(
            self.billed + other.billed,
            self.notional + other.notional,
            self.unpriced + other.unpriced,
            self.guessed + other.guessed,
        )


@dataclass(frozen=True, slots=True)
class Recap:
    """What a reader compares: today so far, yesterday until the same time of day, and all of yesterday."""

    today: Day
    by_now: Day
    yesterday: Day


class Days:
    """A running fold of two days; at most one entry a minute of them is kept. `zone` says when a day begins."""

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.zone = zone
        self._minutes: dict[datetime, Day] = {}
        self._shown: tuple[datetime, int] | None = None
        self._recap = Recap(Day(), Day(), Day())
        self._version = 0

    def add(self, line: Line) -> None:
        """Counts a line on the day its call ended; one without a readable time on none."""
        at = end(line)
        billed, notional = money(line)
        unpriced, guessed = is_unpriced(line), line.get("cost_source") == "estimated"
        if at is None or not (billed or notional or unpriced):
            return
        minute = at.replace(second=0, microsecond=0)
        # One assignment: a reader in another thread sees the minute before or after the line, never half of it.
        self._minutes[minute] = self._minutes.get(minute, Day()).plus(
            Day(billed, notional, int(unpriced), int(guessed))
        )
        self._version += 1

    def since(self, now: datetime) -> datetime:
        """From when on lines matter: a little before yesterday began."""
        return midnight(now, self.zone, 1) - MARGIN

    def recap(self, now: datetime) -> Recap:
        """Both days as they look at `now`; computed once a minute, or when lines have come."""
        minute = now.astimezone(UTC).replace(second=0, microsecond=0)
        if self._shown != (minute, self._version):
            self._shown = minute, self._version
            self._recap = self._sums(minute, now)
        return self._recap

    def _sums(self, minute: datetime, now: datetime) -> Recap:
        today, yesterday = midnight(now, self.zone), midnight(now, self.zone, 1)
        same_time = yesterday + (minute - today)
        sums = {"today": Day(), "by_now": Day(), "yesterday": Day()}
        for at, spent in list(self._minutes.items()):
            if at < yesterday:
                self._minutes.pop(at, None)
            elif at < today:
                sums["yesterday"] = sums["yesterday"].plus(spent)
                if at <= same_time:
                    sums["by_now"] = sums["by_now"].plus(spent)
            elif at <= minute:
                sums["today"] = sums["today"].plus(spent)
        return Recap(**sums)


def midnight(now: datetime, zone: tzinfo, days_ago: int = 0) -> datetime:
    """When the day of `now` began in `zone`, or an earlier one, in UTC: a day may have 23 or 25 hours."""
    date = now.astimezone(zone).date() - timedelta(days=days_ago)
    return datetime.combine(date, time(), zone).astimezone(UTC)
