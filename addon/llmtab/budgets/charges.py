"""What a line of the ledger takes from each limit: the one function that turns lines into spending.

Knows the keys of a line. Must not know where spending is kept. The proxy, a restart, `llmtab budget` and a simulation
all count by it, so none of them can disagree with the ledger.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from llmtab.budgets.amounts import REQUESTS, TOKENS, USD, scaled
from llmtab.budgets.limits import METERED, Limit, Limits, Touched, facts_with

type Line = Mapping[str, Any]


class Need(NamedTuple):
    """What a call takes, or may take, from one bucket of a limit, in whole numbers of its unit's scale."""

    limit: Limit
    key: str
    amount: int


@dataclass(slots=True, eq=False)
class Needs:
    """What a call takes, or may take, from all limits it touches. `amounts`: one for each of their kinds, so that a
    hundred limits on money are reckoned once."""

    touched: Touched
    amounts: Sequence[int]

    def __len__(self) -> int:
        return len(self.touched.pairs)

    def __iter__(self) -> Iterator[Need]:
        """One by one, in the order of the limits."""
        amounts = self.amounts
        for (limit, key), place in zip(self.touched.pairs, self.touched.places, strict=True):
            yield Need(limit, key, amounts[place])


NOTHING: Final = Needs(Touched(()), ())


def facts_of(line: Line) -> dict[str, str]:
    """What limits are chosen by, of a finished call."""
    client, budget = line.get("client") or {}, line.get("budget") or {}
    facts = {
        "provider": line.get("provider"),
        "model": line.get("request_model") or line.get("response_model"),
        "host": line.get("host"),
        "key": client.get("key"),
        "address": client.get("address"),
        "operation": line.get("operation"),
        "tier": budget.get("tier"),
    }
    return facts_with(line.get("labels") or {}, facts)


def counted_at(line: Line) -> float:
    """The moment whose windows a call counts in (epoch seconds): when it was let through. Raises ValueError."""
    try:
        return datetime.fromisoformat((line.get("budget") or {}).get("at") or line["time"]).timestamp()
    except (KeyError, TypeError, OverflowError):
        raise ValueError("a line without a time") from None


def calls[L: Mapping[str, Any]](lines: Iterable[L]) -> Iterator[list[L]]:
    """Each main line with its sub-lines."""
    call: list[L] = []
    for line in lines:
        if call and "parent" not in line:
            yield call
            call = []
        call.append(line)
    if call:
        yield call


def charges(limits: Limits, lines: Sequence[Line], at: float, *, own: bool = True) -> Needs:
    """What the lines of one call (its main line, then its sub-lines) take from every limit it touches.

    `at`: the moment it counts in. `own`: whether this process made the call.
    """
    if lines[0].get("outcome") == "refused":
        return NOTHING
    touched = limits.touched(facts_of(lines[0]))
    if touched.since is not None and not (own and at >= touched.since):
        touched = touched.others
    return Needs(touched, [sum([charge(kind, line) for line in lines]) for kind in touched.kinds])


def charge(limit: Limit, line: Line) -> int:
    """What one line takes from a limit, and from every other of its kind."""
    if limit.unit == USD:
        return _money(limit, line)
    if limit.unit == REQUESTS:
        unsent = "status" not in line and line.get("error") == "connection"
        return 0 if "parent" in line or unsent else 1
    usage = line.get("usage") or {}
    counted = usage.get(limit.counts)
    if counted is None and limit.unit == TOKENS:
        counted = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    return scaled(counted, limit.unit) if counted else 0


def _money(limit: Limit, line: Line) -> int:
    """Money that somebody is billed. Of a call without a price what could be priced of it, or what the limit says."""
    if not limit.all_billing and line.get("billing") not in METERED:
        return 0
    cost = line.get("cost_usd")
    if cost is not None:
        return scaled(Decimal(cost), USD)
    part = scaled(Decimal(line.get("cost_partial_usd") or 0), USD)
    return max(part, limit.unpriced) if isinstance(limit.unpriced, int) else part
