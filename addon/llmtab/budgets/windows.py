"""Windows of time that limits are counted over: calendar windows in a zone, sliding ones, and those without an end.

Knows calendars and daylight saving. Must not know amounts or calls. Times are epoch seconds (UTC): windows are asked
for on every call, and only their edges need a calendar.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

BINS: Final = 60
"""A sliding window moves in sixtieths of its span; an amount counts until the whole of its bin has left."""
EVER: Final = math.inf
SECONDS: Final = {
    "second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000, "quarter": 7_776_000,
    "year": 31_536_000,
}  # fmt: skip
"""Of a sliding window; fixed ones are as long as the calendar says."""
MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
WORDS: Final = {
    "sec": "second", "s": "second", "min": "minute", "m": "minute", "h": "hour", "hr": "hour", "d": "day",
    "daily": "day", "w": "week", "weekly": "week", "monthly": "month", "q": "quarter", "y": "year", "yearly": "year",
}  # fmt: skip
_PERIOD: Final = re.compile(r"(?:(\d{1,4})\s*)?([a-z]+?)s?")
_MOST_DAYS: Final = date(9000, 1, 1).toordinal()
_FIRST: Final = datetime(2, 1, 1, tzinfo=UTC).timestamp()
_LAST: Final = datetime(8999, 1, 1, tzinfo=UTC).timestamp()
LONGEST: Final = 1000 * 31_536_000
"""Seconds of a window: calendars end."""

type Span = tuple[float, float]
"""(start, end) in epoch seconds; the end is not part of it."""


@dataclass(frozen=True, slots=True)
class Window:
    """`count` x `period` ("" for ever, "run" for as long as this process lives), as the calendar of `zone` has it, or
    sliding."""

    period: str
    count: int = 1
    sliding: bool = False
    zone: tzinfo = UTC

    @property
    def seconds(self) -> float:
        """Its nominal length."""
        return SECONDS[self.period] * self.count if self.period in SECONDS else EVER

    @property
    def bin(self) -> float:
        """Seconds of one bin of a sliding window."""
        return self.seconds / BINS

    def at(self, moment: float) -> Span:
        """The window that holds a moment. A sliding one ends when all that was counted at the moment has left it."""
        if self.period not in SECONDS:
            return 0.0, EVER
        if self.sliding:
            begin = moment // self.bin * self.bin
            return begin, begin + self.seconds + self.bin
        return self._fixed(moment)

    def _fixed(self, moment: float) -> Span:
        # Windows begin on whole seconds, and a fraction just below one would be rounded into the next day.
        moment = min(max(moment, _FIRST), _LAST)
        day = datetime.fromtimestamp(math.floor(moment), self.zone).date()
        if self.period in MONTHS:
            step = MONTHS[self.period] * self.count
            first = (day.year * 12 + day.month - 1) // step * step
            return self._midnight(_month(first)), self._midnight(_month(first + step))
        if self.period in ("day", "week"):
            length, base = (7 * self.count, 1) if self.period == "week" else (self.count, 0)  # ordinal 1 is a Monday
            first = (day.toordinal() - base) // length * length + base
            return self._midnight(_day(first)), self._midnight(_day(first + length))
        return self._within_day(moment, day)

    def _within_day(self, moment: float, day: date) -> Span:
        """Hours and less are counted from midnight on; the last one of a day ends with it."""
        begin, end = self._midnight(day), self._midnight(day + timedelta(days=1))
        start = begin + (moment - begin) // self.seconds * self.seconds
        return start, min(start + self.seconds, end)

    def _midnight(self, day: date) -> float:
        """When a day begins. Where clocks skip midnight it is the moment of the change, where they repeat it the first
        of the two."""
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()

    def __str__(self) -> str:
        if self.period not in SECONDS:
            return self.period and f"per {self.period}"
        many = f"{self.count} {self.period}s" if self.count > 1 else self.period
        return f"per {many}{', sliding' if self.sliding else ''}"


def window(text: str, zone: tzinfo = UTC, *, sliding: bool = False) -> Window:
    """From `month`, `day`, `5 minutes`, `hourly`, or "" (for ever). Raises ValueError."""
    cleaned = text.strip().lower()
    if not cleaned:
        if sliding:
            raise ValueError("a sliding window needs a length, expected e.g. 100 USD per day")
        return Window("", zone=zone)
    found = _PERIOD.fullmatch(cleaned)
    word = found[2] if found else cleaned
    word = WORDS.get(word, word.removesuffix("ly") if word != "daily" else "day")
    count = int(found[1] or 1) if found else 0
    if word not in SECONDS or not count:
        raise ValueError(f"{text!r}, expected a time like minute, 5 minutes, hour, day, week, month or year")
    if count > 1 and word not in MONTHS and word not in ("day", "week") and SECONDS[word] * count > SECONDS["day"]:
        raise ValueError(f"{text!r}, expected days where it is longer than a day")
    if SECONDS[word] * count > LONGEST:
        raise ValueError(f"{text!r}, expected at most 1000 years; a limit without a time holds for ever")
    return Window(word, count, sliding, zone)


def _month(number: int) -> date:
    return date(min(max(number // 12, 1), 9000), number % 12 + 1, 1)


def _day(ordinal: int) -> date:
    return date.fromordinal(min(max(ordinal, 1), _MOST_DAYS))
