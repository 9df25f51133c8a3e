"""The table from another terminal: ledgers followed, sums of a window by a word, and keys that change both.

Knows ledgers, windows and what a key does. Must not know terminals or colours. Nothing here touches a proxy: any number
of ledgers may be watched while their proxies run, or when none does.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any, Final

from llmtab.cells import counted, safe
from llmtab.coverage import Coverage
from llmtab.ledger.follow import Follower
from llmtab.ledger.reader import notes_path
from llmtab.live.days import Day, Days
from llmtab.live.rows import Limit
from llmtab.live.table import State
from llmtab.live.totals import Sum
from llmtab.live.windows import GROUPINGS, LONGEST, WINDOWS, Windows
from llmtab.record import plain

PATIENCE: Final = 0.3
"""Seconds of reading after which a picture of what was read so far is due."""
LOOK: Final = 64
"""Lines between two looks at the clock."""
SEEN_FOR: Final = timedelta(days=1)
"""Blind spots noted so long ago are still told."""
MARKS: Final = ("with_input", "with_output", "guessed", "guessed_notional")
"""Counts of a sum that only say how it is shown."""
KEYS: Final = "g/G group · w/W window · q quit"


class Top:
    """What `llmtab top` shows. `now` is aware everywhere; `zone` says when a day begins; `budgets` gives their bars."""

    def __init__(
        self,
        ledgers: Sequence[Path],
        now: datetime,
        *,
        by: str = "model",
        window: str = "today",
        zone: tzinfo = UTC,
        budgets: Callable[[], Sequence[tuple[str, Decimal, Decimal, str]]] | None = None,
    ) -> None:
        self.windows = Windows((*GROUPINGS, by), zone)
        self.by, self.window = by, window
        self.state = State(ledger=", ".join(map(str, ledgers)))
        self.coverage = Coverage()
        self.reading = True
        """Whether the past is still being read."""
        self.skipped = 0
        """Lines that are no calls of ours."""
        self._days = Days(zone)
        self._budgets = budgets
        self._calls = [Follower(path, since=now - LONGEST - timedelta(hours=2)) for path in ledgers]
        self._notes = [Follower(notes_path(path), since=now - SEEN_FOR) for path in ledgers]
        self._unread: Iterator[dict[str, Any]] = iter(())
        self._shown: tuple[object, ...] = ()

    def read(self, now: datetime, patience: float = PATIENCE) -> bool:
        """Reads what has come, for about `patience` seconds; whether that was all of it."""
        until = monotonic() + patience
        for number, line in enumerate(self._unread, 1):
            self._add(line, now)
            if number % LOOK == 0 and monotonic() > until:
                return False
        self._unread = self._poll()
        for number, line in enumerate(self._unread, 1):
            self._add(line, now)
            if number % LOOK == 0 and monotonic() > until:
                return False
        self.reading = False
        for follower in self._notes:
            for note in follower.poll():
                self.coverage.include(note)
        return True

    def _poll(self) -> Iterator[dict[str, Any]]:
        for follower in self._calls:
            yield from follower.poll()

    def _add(self, line: dict[str, Any], now: datetime) -> None:
        try:
            self.windows.add(line, now)
            self._days.add(line)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            self.skipped += 1
            return
        self.state.recent.append(line)
        self.state.version += 1

    def press(self, key: str) -> bool:
        """Does what a key means; False where that is to end."""
        if key in ("q", "Q", "\x04"):
            return False
        if key in ("g", "G", "right", "left"):
            self.by = _next(self.windows.groupings, self.by, back=key in ("G", "left"))
        elif key in ("w", "W", "down", "up"):
            self.window = _next(WINDOWS, self.window, back=key in ("W", "up"))
        elif key.isdecimal() and 0 < int(key) <= len(WINDOWS):
            self.window = WINDOWS[int(key) - 1]
        return True

    def look(self, now: datetime) -> State:
        """The state to draw: the window's sums as of `now`."""
        asked = self.window, self.by, self.state.version, now.replace(second=0, microsecond=0)
        if asked != self._shown:
            self._shown = asked
            self.state.totals = self.windows.totals(self.window, self.by, now)
        self.state.title = f"top, {self.window}" + (", reading …" if self.reading else "")
        self.state.keys = f"{KEYS} · by {self.by}, {self.window}"
        self.state.set_recap(self._days.recap(now))
        if self._budgets is not None:
            self.state.set_limits([Limit(*bar) for bar in self._budgets()])
        notes = self.coverage.sentences()
        if unread := self.skipped + sum(follower.skipped.lines for follower in self._calls):
            notes.append(f"{counted(unread, 'line')} cannot be read; llmtab verify says which")
        notes += [f"no ledger at {follower.path} yet" for follower in self._calls if not follower.path.exists()]
        self.state.set_notes(notes)
        return self.state

    def as_json(self, now: datetime) -> str:
        """The window's sums for a program: in all, by group (the dearest first), of days, and what was not seen."""
        totals = self.windows.totals(self.window, self.by, now)
        recap = self._days.recap(now)
        ranked = sorted(totals.groups.items(), key=lambda item: item[1].cost + item[1].notional, reverse=True)
        facts = {
            "time": now.astimezone(UTC).isoformat(timespec="seconds"),
            "window": self.window,
            "by": self.by,
            "total": _facts(totals.total),
            "groups": [{"name": safe(name)} | _facts(one) for name, one in ranked],
            "today": _day(recap.today),
            "yesterday": _day(recap.yesterday),
            "yesterday_by_now": _day(recap.by_now),
            "coverage": self.coverage.facts(),
        }
        marked = json.dumps(facts, default=lambda amount: f"\x01{plain(amount)}")
        return re.sub(r'"\\u0001([^"]*)"', r"\1", marked)  # money as a number, exact

    def close(self) -> None:
        """Closes the ledgers."""
        for follower in (*self._calls, *self._notes):
            follower.close()


def _facts(one: Sum) -> dict[str, Any]:
    """A sum in the words of the ledger; USD that a subscription covers stands apart."""
    names = {"cached_tokens": "cache_read_input_tokens", "cost": "cost_usd", "differs": "cost_differs"}
    names |= {"notional": "notional_usd", "saved": "saved_usd"}
    return {names.get(name, name): value for name, value in (asdict(one) | one.told()).items() if name not in MARKS}


def _day(day: Day) -> dict[str, Any]:
    return {"cost_usd": day.billed, "notional_usd": day.notional, "unpriced": day.unpriced}


def _next(all_of: Sequence[str], one: str, *, back: bool) -> str:
    return all_of[(all_of.index(one) + (-1 if back else 1)) % len(all_of)]
