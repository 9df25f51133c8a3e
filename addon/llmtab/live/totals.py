"""What lines of the ledger add up to: by model or any label, over the session, and per hour just now.

Knows the keys of a line. Must not know files, terminals or the clock: `now` is given. Pure folds; money is Decimal.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from llmtab.cells import Line, is_unpriced, model

ZERO: Final = Decimal(0)
GROUPS: Final = 500
"""Groups kept apart; names come from the wire, so there could be any number. The rest shares one group."""
REASONS: Final = 100
OTHER: Final = "(other)"
HOUR: Final = timedelta(hours=1)
SECONDS: Final = 3600
KEYS: Final = ("provider", "api", "operation", "profile", "host", "outcome", "billing", "pricing_tier", "region")
"""Keys of a line that calls can be grouped by, besides `model` and any label."""


@dataclass(slots=True)
class Sum:
    """Calls, tokens and money of a set of lines. Sub-lines add tokens and money but are no calls of their own."""

    calls: int = 0
    errors: int = 0
    """Calls whose outcome is not `ok`."""
    retries: int = 0
    """Calls that tried an earlier one again."""
    input_tokens: int = 0
    """Of the lines that tell it, as everything here; `with_input` says how many did."""
    cached_tokens: int = 0
    """Read from a prompt cache; part of `input_tokens`."""
    output_tokens: int = 0
    with_input: int = 0
    with_output: int = 0
    without_input: int = 0
    """Lines that used input tokens, nobody knows how many."""
    without_output: int = 0
    cost: Decimal = ZERO
    """USD that somebody is billed for: everything but subscriptions."""
    notional: Decimal = ZERO
    """USD that calls under a subscription would have cost."""
    saved: Decimal = ZERO
    """USD that prompt caching saved; negative where cache writes cost more than reads saved."""
    unpriced: int = 0
    """Lines that were billed at a price we do not know. What could be priced of them is in `cost`."""
    guessed: int = 0
    """Lines in `cost` that are estimates, and so marked."""
    guessed_notional: int = 0
    estimated: int = 0
    """Lines with at least one counter of our own making."""
    partial: int = 0
    """Lines whose stream broke before the final figures."""
    differs: int = 0
    """Lines whose provider says another cost than the list price, by more than 1 %."""

    def add(self, line: Line) -> None:
        if "parent" not in line:
            self.calls += 1
            self.errors += line.get("outcome", "ok") != "ok"
            self.retries += "retry_of" in line
        usage = line.get("usage") or {}
        self.input_tokens += usage.get("input_tokens", 0)
        self.cached_tokens += usage.get("cache_read_input_tokens", 0)
        self.output_tokens += usage.get("output_tokens", 0)
        self.with_input += "input_tokens" in usage
        self.with_output += "output_tokens" in usage
        if is_unpriced(line) and (not usage or line.get("usage_source") in ("partial", "estimated")):
            self.without_input += "input_tokens" not in usage
            self.without_output += "output_tokens" not in usage
        metered, notional = money(line)
        self.cost += metered
        self.notional += notional
        self.saved += line.get("saved_usd") or ZERO
        self.unpriced += is_unpriced(line)
        if line.get("cost_source") == "estimated":
            self.guessed += bool(metered)
            self.guessed_notional += bool(notional)
        self.estimated += line.get("usage_source") == "estimated"
        self.partial += line.get("usage_source") == "partial"
        self.differs += "cost_differs" in (line.get("flags") or ())

    def told(self) -> dict[str, int | None]:
        """Sums of tokens as a program reads them: None where lines used some and none tells how many."""
        return {
            "input_tokens": None if self.without_input and not self.with_input else self.input_tokens,
            "output_tokens": None if self.without_output and not self.with_output else self.output_tokens,
        }

    def include(self, other: "Sum") -> None:
        """Adds another set of lines that has none in common with this one."""
        for name in _FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_FIELDS: Final = tuple(one.name for one in fields(Sum))


def money(line: Line) -> tuple[Decimal, Decimal]:
    """(billed, notional) USD of a line; of an unpriced one what could be priced."""
    cost = line.get("cost_usd")
    if cost is None:
        cost = line.get("cost_partial_usd") or ZERO
    return (ZERO, Decimal(cost)) if line.get("billing") == "subscription" else (Decimal(cost), ZERO)


def group_name(line: Line, by: str) -> str:
    """The line's group under `by`: `model`, a key of the line such as `provider`, or a label; `-` where it has none."""
    if by == "model":
        return model(line)
    if by in KEYS:
        return str(line.get(by, "-"))
    return str((line.get("labels") or {}).get(by, "-"))


def count_reason(counter: Counter[tuple[str, str]], reason: tuple[str, str], number: int = 1) -> None:
    """Counts a pair of names from the wire, of which there could be any number: past a bound they share one entry."""
    counter[reason if reason in counter or len(counter) < REASONS else (OTHER, OTHER)] += number


def end(line: Line) -> datetime | None:
    """When the call ended, aware UTC, or None if the line does not say when it began."""
    try:
        began = datetime.fromisoformat(line["time"])
        if began.tzinfo is None:
            return None
        return began + timedelta(milliseconds=float((line.get("timing") or {}).get("duration_ms", 0)))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


@dataclass(slots=True)
class Rates:
    """What was spent in the newest hour, by the second, so that its size has a bound."""

    _spent: dict[datetime, tuple[Decimal, Decimal]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Adds one line at the second its call ended; lines may come in any order."""
        billed, notional = money(line)
        at = end(line)
        if at is None or not (billed or notional):
            return
        at = at.replace(microsecond=0)
        before = self._spent.get(at, (ZERO, ZERO))
        self._spent[at] = (before[0] + billed, before[1] + notional)
        if len(self._spent) > 2 * SECONDS:
            self._spent = dict(sorted(self._spent.items())[-SECONDS:])

    def per_hour(self, now: datetime, window: timedelta) -> tuple[Decimal, Decimal]:
        """(billed, notional) USD per hour, as spent in the last `window` (an hour at most) before `now`."""
        spent = [sums for at, sums in self._spent.items() if now - window < at <= now]
        hours = Decimal(HOUR / window)
        return sum((one for one, _ in spent), ZERO) * hours, sum((one for _, one in spent), ZERO) * hours


@dataclass(slots=True)
class Totals:
    """A running fold of lines."""

    by: str = "model"
    total: Sum = field(default_factory=Sum)
    groups: dict[str, Sum] = field(default_factory=dict)
    unpriced: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(reason, model) -> lines without a price."""
    rates: Rates = field(default_factory=Rates)

    def add(self, line: Line) -> None:
        """Adds one line; lines may come in any order."""
        self.total.add(line)
        name = group_name(line, self.by)
        if name not in self.groups and len(self.groups) >= GROUPS:
            name = OTHER
        self.groups.setdefault(name, Sum()).add(line)
        if is_unpriced(line):
            count_reason(self.unpriced, (str(line.get("cost_reason", "unknown")), model(line)))
        self.rates.add(line)

    def include(self, other: "Totals") -> None:
        """Adds what another fold of other lines holds, but for the rates per hour, which only lines tell."""
        self.total.include(other.total)
        for name, one in other.groups.items():
            place = name if name in self.groups or len(self.groups) < GROUPS else OTHER
            self.groups.setdefault(place, Sum()).include(one)
        for reason, number in other.unpriced.items():
            count_reason(self.unpriced, reason, number)

    def add_all(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.add(line)
