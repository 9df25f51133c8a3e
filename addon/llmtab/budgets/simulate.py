"""An old ledger under new limits: what would have been warned of, held back and refused, and what it would have saved.

Knows lines and limits. Must not know files or terminals. Calls begin and end when they did, side by side as they were;
a call that is refused spends nothing. What nobody can know is whether its client would have tried again, and what a
header said: a ledger holds none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from llmtab.budgets.amounts import USD, scaled
from llmtab.budgets.charges import Needs, calls, charges, counted_at, facts_of
from llmtab.budgets.limits import METERED, Limit
from llmtab.budgets.needs import refusing
from llmtab.budgets.policy import Policy
from llmtab.budgets.store import Denied, Embedded

SWEEP: Final = 10_000
"""Calls between two looks for windows that are over."""

UNMATCHED: Final = "tiers"
"""The row of calls that are refused because they are of no tier."""

type Line = Mapping[str, Any]


class Past(NamedTuple):
    """A call as it was: when it began and ended (epoch seconds), what it took and what it may have been thought to."""

    at: float
    end: float
    number: int
    needs: Needs
    spent: Needs
    usd: Decimal
    unpriced: str
    """The limit that refuses it because its price is not known; "" where none does."""


@dataclass(slots=True)
class Outcome:
    """Of one limit: calls it touched, held back and refused; windows in which it warned; what refused calls cost."""

    calls: int = 0
    warned: int = 0
    throttled: int = 0
    refused: int = 0
    saved: Decimal = Decimal(0)
    _warned: set[tuple[str, float]] = field(default_factory=set)


class Simulation:
    """`add` every line in the ledger's order, then `run`."""

    def __init__(self, said: Policy) -> None:
        self.outcomes: Final = {limit.name: Outcome() for limit in said.limits.all}
        self.calls = self.refused = self.refused_then = self.unknown_tiers = 0
        self.usd = self.saved = Decimal(0)
        self._limits, self._tiers = said.limits, said.tiers
        self._store = Embedded()
        self._past: list[Past] = []

    def add(self, lines: Iterable[Line]) -> None:
        """All lines of a ledger."""
        for call in calls(lines):
            main = call[0]
            if main.get("outcome") == "refused":
                self.refused_then += 1
                continue
            try:
                at = counted_at({"time": main.get("time")})
            except ValueError:
                continue
            usd = sum((Decimal(line.get("cost_usd") or 0) for line in call), Decimal(0))
            self.calls += 1
            self.usd += usd
            tier, refused = self._tier(main)
            if refused:
                unmatched = self.outcomes.setdefault(UNMATCHED, Outcome())
                unmatched.calls += 1
                self._refuse(unmatched, usd)
                continue
            main = {**main, "budget": {"tier": tier}}
            spent = charges(self._limits, [main, *call[1:]], at)
            if spent:
                end = at + float((main.get("timing") or {}).get("duration_ms", 0)) / 1000
                unpriced = _unpriced(main, spent)
                self._past.append(Past(at, end, len(self._past), _reserved(main, spent), spent, usd, unpriced))

    def _tier(self, main: Line) -> tuple[str | None, bool]:
        """(the tier of a call, whether it is refused for having none). Where a header tells, it is the one that the
        line names, if there still is such a tier."""
        if self._tiers is None:
            return None, False
        if self._tiers.by.startswith("header:"):
            then = (main.get("budget") or {}).get("tier")
            if then in self._tiers.names:
                return str(then), False
            self.unknown_tiers += 1
            return None, False
        tier = self._tiers.of(facts_of(main), main.get("labels") or {}, lambda name: None)
        return tier, tier is None and self._tiers.refuses

    def run(self) -> None:
        """Lets all calls happen again."""
        self._past.sort()
        running: list[tuple[float, int, Past]] = []
        for count, past in enumerate(self._past):
            while running and running[0][0] <= past.at:
                self._settle(heappop(running)[2])
            self._begin(past, running)
            if count % SWEEP == 0:
                self._store.tick(past.at)
        for _, _, past in sorted(running):
            self._settle(past)

    def _begin(self, past: Past, running: list[tuple[float, int, Past]]) -> None:
        ident = str(past.number)
        for name in past.needs.touched.names:
            self.outcomes[name].calls += 1
        if past.unpriced:
            self._refuse(self.outcomes[past.unpriced], past.usd)
            return
        denied = self._store.reserve_now(ident, past.needs, past.at).denied
        if denied is not None:
            outcome = self.outcomes[denied.need.limit.name]
            if not _waits(denied, past.at):
                self._refuse(outcome, past.usd)
                return
            outcome.throttled += 1
            self._store.extend(ident, past.needs, past.at)
        self._store.renew([ident], past.end)
        heappush(running, (past.end, past.number, past))

    def _refuse(self, outcome: Outcome, usd: Decimal) -> None:
        outcome.refused += 1
        outcome.saved += usd
        self.refused += 1
        self.saved += usd

    def _settle(self, past: Past) -> None:
        self._store.settle(str(past.number), past.spent, past.at)
        for limit, key in past.spent.touched.soft:
            state = self._store.state(limit, key, past.at)
            outcome = self.outcomes[limit.name]
            if limit.soft is not None and state.spent >= limit.soft and (key, state.start) not in outcome._warned:
                outcome._warned.add((key, state.start))
                outcome.warned += 1

    def report(self) -> dict[str, Any]:
        """All of it as plain values."""
        limits = [
            {"limit": name, "calls": one.calls, "warned": one.warned, "throttled": one.throttled,
             "refused": one.refused, "saved_usd": one.saved}
            for name, one in self.outcomes.items()
        ]  # fmt: skip
        return {"calls": self.calls, "cost_usd": self.usd, "refused": self.refused, "saved_usd": self.saved,
                "refused_then": self.refused_then, "unknown_tiers": self.unknown_tiers, "limits": limits}  # fmt: skip


def _reserved(main: Line, spent: Needs) -> Needs:
    """What would have been reserved: the dear end of the estimate where there was one, else what was spent."""
    high = (main.get("estimate") or {}).get("cost_p90_usd")
    if high is None:
        return spent
    least = scaled(Decimal(high), USD)
    by = zip(spent.touched.kinds, spent.amounts, strict=True)
    return Needs(spent.touched, [max(amount, least) if kind.unit == USD else amount for kind, amount in by])


def _unpriced(main: Line, spent: Needs) -> str:
    """The limit that would have refused a call because nobody knew its price before it left."""
    reason = str(main.get("cost_reason") or "")
    known = main.get("cost_usd") is not None or (main.get("estimate") or {}).get("cost_p90_usd") is not None
    if known or not (reason == "unknown_model" or reason.startswith("unpriced:")):
        return ""
    against = refusing(spent.touched.kinds, unbilled=main.get("billing") not in METERED)
    return against.name if against is not None else ""


def _waits(denied: Denied, at: float) -> bool:
    limit: Limit = denied.need.limit
    if denied.why == "busy":
        return limit.throttle > 0
    return denied.why == "exceeded" and 0 < denied.state.end - at <= limit.throttle
