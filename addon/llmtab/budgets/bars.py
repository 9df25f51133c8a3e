"""Budgets as people look at them: how full each bucket is, and where it will be when its window ends.

Knows limits and states. Must not know terminals.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from llmtab.budgets.amounts import number, show
from llmtab.budgets.buckets import State
from llmtab.budgets.limits import NOBODY, Limit, Limits
from llmtab.budgets.refusal import moment
from llmtab.budgets.store import Store
from llmtab.budgets.windows import EVER

MOST: Final = 200
"""Rows of callers; those who have spent most come first."""


class Bar(NamedTuple):
    """`label`: the limit's name and its bucket; `spent` and `limit` in `unit`."""

    label: str
    spent: Decimal
    limit: Decimal
    unit: str


def bars(limits: Limits, store: Store, now: float) -> list[Bar]:
    """A bar for each bucket that has spent anything, and for each limit without buckets; fullest first."""
    return bars_of(rows_of(limits, store, now))


def bars_of(found: Iterable[tuple[Limit, str, State]]) -> list[Bar]:
    """The same, of buckets that are known."""
    rows = [
        Bar(
            f"{limit.name} {key}" if limit.per else limit.name,
            number(state.spent, limit.unit),
            number(limit.amount, limit.unit),
            limit.unit,
        )
        for limit, key, state in found
    ]
    return sorted(rows, key=lambda row: row.spent / row.limit, reverse=True)[:MOST]


def rows_of(limits: Limits, store: Store, now: float) -> Iterable[tuple[Limit, str, State]]:
    """(limit, bucket, state) of every bucket with anything in it now."""
    keys: dict[str, list[str]] = {limit.name: [] for limit in limits.all}
    for name, key in store.places():
        if name in keys:
            keys[name].append(key)
    for limit in limits.all:
        for key in keys[limit.name] if limit.per else [""]:
            state = store.state(limit, key, now)
            if state.spent or state.reserved or not limit.per:
                yield limit, key, state


def forecast(limit: Limit, state: State, now: float) -> int | None:
    """What will be spent when the window ends, if it goes on as it did; None where that means nothing."""
    if state.end >= EVER or limit.window.sliding:
        return None
    gone = min(max(now - state.start, 0.0), state.end - state.start)
    if gone < (state.end - state.start) / 50:
        return None  # too early to tell
    return int(state.spent * (state.end - state.start) / gone)


def row(limit: Limit, key: str, state: State, now: float) -> dict[str, Any]:
    """A bucket as a mapping, amounts in the limit's unit."""
    found: dict[str, Any] = {"limit": limit.name}
    if limit.per:
        found["bucket"] = dict(zip(limit.per, key.split("|"), strict=False))
    found |= {"unit": limit.unit, "amount": number(limit.amount, limit.unit), "window": str(limit.window) or "ever"}
    found |= {"spent": number(state.spent, limit.unit), "reserved": number(state.reserved, limit.unit)}
    if state.carried:
        found["overdrawn"] = number(state.carried, limit.unit)
    if limit.soft is not None:
        found["soft"] = number(limit.soft, limit.unit)
    expected = forecast(limit, state, now)
    if expected is not None:
        found["forecast"] = number(expected, limit.unit)
    if state.end < EVER:
        found["resets_at"] = moment(state.end)
    return found


def line(limit: Limit, key: str, state: State, now: float) -> list[str]:
    """The same as cells: name, bucket, spent, reserved, limit, share, forecast, reset."""
    expected = forecast(limit, state, now)
    over = limit.amount + limit.burst
    return [
        limit.name,
        key if limit.per and key != NOBODY else "-",
        show(state.spent, limit.unit),
        show(state.reserved, limit.unit) if state.reserved else "-",
        f"{show(limit.amount, limit.unit)} {limit.window}".rstrip(),
        f"{100 * (state.spent + state.carried) // over} %",
        show(expected, limit.unit) if expected is not None else "-",
        "-" if state.end >= EVER else f"{datetime.fromtimestamp(state.end, limit.window.zone):%Y-%m-%d %H:%M}",
    ]
