"""Who has to be told that a limit is near or reached: once for each bucket and window, and once when it is over.

A sliding window has no end: what was told of it is over when the spending has fallen well below where it was told.

Knows limits and states. Must not know how a message travels: that is `alerts`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llmtab.budgets.amounts import number, show
from llmtab.budgets.buckets import State
from llmtab.budgets.limits import Limit
from llmtab.budgets.refusal import moment
from llmtab.budgets.store import Denied, Store
from llmtab.budgets.windows import EVER
from llmtab.cells import safe

log = logging.getLogger("llmtab")

REMEMBERED: Final = 100_000
WELL: Final = 0.9
"""Of the amount at which it was told: a sliding window in use goes up and down by a bin all the time."""

type Told = tuple[str, str, str, float, int]
"""(event, limit, bucket, start of its window, the amount at which it is told)."""
type Send = Callable[[Mapping[str, Any]], None]


class Notices:
    """`send` gets one mapping an event: `soft_limit`, `hard_limit` or `recovered`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._told: dict[tuple[str, str, str], tuple[Limit, float]] = {}
        """(event, limit, bucket) -> the start of its window."""

    def soft(self, limit: Limit, key: str, state: State, at: float) -> None:
        """The soft limit of a bucket is reached."""
        self._tell("soft_limit", limit, key, state, at)

    def hard(self, denied: Denied, at: float) -> None:
        """A call was refused."""
        self._tell("hard_limit", denied.need.limit, denied.need.key, denied.state, at)

    def tick(self, store: Store, now: float) -> None:
        """Says of each bucket that was near its limit when it no longer is."""
        for (event, name, key), (limit, start) in list(self._told.items()):
            state = store.state(limit, key, now)
            if not _is_over(event, limit, state, start):
                continue
            del self._told[event, name, key]
            if event == "soft_limit" or limit.soft is None:
                self._say("recovered", limit, key, state, now)

    def memory(self) -> list[Told]:
        """What was told, for the next process."""
        return [
            (event, name, key, start, _level(event, limit)) for (event, name, key), (limit, start) in self._told.items()
        ]

    def remember(self, told: Iterable[Told], limits: Iterable[Limit]) -> None:
        """What an earlier process told is not told again; of a limit that has changed it is."""
        named = {limit.name: limit for limit in limits}
        for event, name, key, start, level in told:
            limit = named.get(name)
            if limit is not None and _level(event, limit) == level:
                self._told.setdefault((event, name, key), (limit, start))

    def _tell(self, event: str, limit: Limit, key: str, state: State, at: float) -> None:
        place = event, limit.name, key
        if place in self._told and (limit.window.sliding or self._told[place][1] == state.start):
            return
        if len(self._told) >= REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self._told[place] = limit, state.start
        self._say(event, limit, key, state, at)

    def _say(self, event: str, limit: Limit, key: str, state: State, at: float) -> None:
        facts: dict[str, Any] = {
            "event": event, "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "limit": limit.name, "unit": limit.unit, "amount": number(limit.amount, limit.unit),
            "spent": number(state.spent, limit.unit), "reserved": number(state.reserved, limit.unit),
        }  # fmt: skip
        if limit.per:
            facts["bucket"] = dict(zip(limit.per, key.split("|"), strict=False))
        if limit.soft is not None:
            facts["soft"] = number(limit.soft, limit.unit)
        if state.end < EVER:
            facts["resets_at"] = moment(state.end)
        whose = f" ({safe(key, 64)})" if limit.per else ""
        spent = f"{show(state.spent, limit.unit)} of {show(limit.amount, limit.unit)}"
        facts["text"] = f"budget {limit.name}{whose}: {event.replace('_', ' ')}, {spent} spent"
        level = logging.INFO if event == "recovered" else logging.WARNING
        log.log(level, "llmtab: %s", facts["text"])
        self._send(facts)


def _is_over(event: str, limit: Limit, state: State, start: float) -> bool:
    """Whether what was told of a bucket, in the window that began at `start`, no longer holds."""
    level = _level(event, limit)
    if not limit.window.sliding:
        return state.spent < level and (event != "hard_limit" or state.start != start)
    if event == "soft_limit":
        return state.spent < level * WELL
    # Of a sliding window a state begins where the span does, which moves on: a call may be refused with little spent.
    low = level * WELL if limit.soft is None else min(limit.soft, level * WELL)
    return state.spent < low and not start <= state.start < start + limit.window.seconds


def _level(event: str, limit: Limit) -> int:
    return limit.soft if event == "soft_limit" and limit.soft is not None else limit.amount
