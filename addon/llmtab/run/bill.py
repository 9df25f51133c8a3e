"""The bill of a run: what its lines add up to, by model, with what deserves a word.

Knows lines and how figures are shown. Must not know files, processes or who gets the bill. A pure fold: the same lines
give the same bill, in any order.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from llmtab import cells
from llmtab.cells import Line, is_unpriced, model, safe
from llmtab.live.totals import Sum, money

GROUPS: Final = 12
"""Models that the text lists; the rest shares a line. The JSON form has all."""
REASONS: Final = 3


@dataclass(slots=True)
class Bill:
    """A running fold of lines; sub-lines (another model's share of a call) count for their model."""

    total: Sum = field(default_factory=Sum)
    models: dict[tuple[str, str], Sum] = field(default_factory=dict)
    """(provider, model) -> its sum."""
    unpriced: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(reason, model) -> lines."""
    failed: Counter[str] = field(default_factory=Counter)
    """The error's class, or the outcome -> calls."""
    slowest: Line | None = None

    def add(self, line: Line) -> None:
        """Adds one line of the ledger."""
        self.total.add(line)
        self.models.setdefault((str(line.get("provider", cells.UNKNOWN)), model(line)), Sum()).add(line)
        if is_unpriced(line):
            self.unpriced[str(line.get("cost_reason", "unknown")), model(line)] += 1
        if line.get("outcome", "ok") != "ok" and "parent" not in line:
            self.failed[str(line.get("error") or line["outcome"])] += 1
        if took(line) > (took(self.slowest) if self.slowest else 0):
            self.slowest = line

    def text(self) -> list[str]:
        """The bill for people: plain lines, the models that cost most first."""
        total = self.total
        said = [f"{calls(total.calls)}, {tokens(total)}, {spent(total)}"]
        said += self._table()
        if total.saved:
            said.append(f"prompt caching {'saved' if total.saved > 0 else 'cost'} {cells.usd(abs(total.saved))}")
        if self.unpriced:
            said.append("unpriced: " + _counted({f"{name} ({why})": n for (why, name), n in self.unpriced.items()}))
        unsure = {"estimated": total.estimated, "partial": total.partial}
        if any(unsure.values()):
            said.append("not exact: " + _counted({name: number for name, number in unsure.items() if number}))
        if self.failed:
            said.append("not ok: " + _counted(self.failed))
        if self.slowest is not None and total.calls > 1:
            said.append(f"slowest: {_slow(self.slowest)}")
        return said

    def _table(self) -> list[str]:
        """Where there is more than one model: each with its calls, tokens and cost, in columns."""
        if len(self.models) < 2:
            return [f"  {_name(*key)}" for key in self.models]
        ranked = sorted(self.models.items(), key=lambda item: (-_worth(item[1]), item[0]))
        rows = [(_name(*key), calls(one.calls), tokens(one), spent(one)) for key, one in ranked[:GROUPS]]
        if rest := ranked[GROUPS:]:
            others = Sum()
            for _, one in rest:
                others.include(one)
            rows.append((cells.counted(len(rest), "more model"), calls(others.calls), tokens(others), spent(others)))
        wide = [max(len(row[place]) for row in rows) for place in range(3)]
        return [f"  {a.ljust(wide[0])}  {b.rjust(wide[1])}  {c.ljust(wide[2])}  {d}" for a, b, c, d in rows]

    def data(self) -> dict[str, Any]:
        """The bill for programs; money as Decimal, USD."""
        found: dict[str, Any] = {
            **_figures(self.total),
            "models": [
                {"provider": provider, "model": name, **_figures(one)}
                for (provider, name), one in sorted(self.models.items(), key=lambda item: (-_worth(item[1]), item[0]))
            ],
            "unpriced": [
                {"model": name, "reason": why, "lines": number} for (why, name), number in self.unpriced.most_common()
            ],
            "failed": dict(self.failed.most_common()),
        }
        if self.slowest is not None:
            keys = ("id", "provider", "request_model", "response_model", "path", "outcome")
            found["slowest"] = {key: self.slowest[key] for key in keys if key in self.slowest}
            found["slowest"]["duration_ms"] = took(self.slowest)
        return found


def took(line: Line) -> float:
    """How long a call took, in milliseconds; 0 where the line does not say it."""
    return float((line.get("timing") or {}).get("duration_ms", 0))


def calls(number: int) -> str:
    return cells.counted(number, "call")


def tokens(one: Sum) -> str:
    """`12,345 tokens in (10,000 cached), 678 out`; a `+` where some calls do not tell theirs."""
    if not one.with_input and not one.with_output:
        return "tokens unknown" if one.without_input or one.without_output else "no tokens"
    cached = f" ({cells.count(one.cached_tokens)} cached)" if one.cached_tokens else ""
    came = _told(one.input_tokens, one.with_input, one.without_input)
    return f"{came} tokens in{cached}, {_told(one.output_tokens, one.with_output, one.without_output)} out"


def _told(number: int, told: int, untold: int) -> str:
    if untold and not told:
        return cells.UNKNOWN
    return cells.count(number) + ("+" if untold else "")


def spent(one: Sum) -> str:
    """What was billed, `~` where estimates are in it; what a subscription covers in brackets; a `+` where a price is
    unknown."""
    said = ("~" if one.guessed else "") + cells.usd(one.cost) if one.cost or not one.notional else ""
    if one.notional:
        covered = ("~" if one.guessed_notional else "") + cells.usd(one.notional)
        said += f"{' ' if said else ''}({covered} on subscription)"
    if one.unpriced:
        return f"{said} + unpriced" if one.cost or one.notional else "unpriced"
    return said


def _figures(one: Sum) -> dict[str, Any]:
    return {
        "calls": one.calls,
        "errors": one.errors,
        **one.told(),
        "cache_read_input_tokens": one.cached_tokens,
        "cost_usd": one.cost,
        "notional_usd": one.notional,
        "saved_usd": one.saved,
        "unpriced_lines": one.unpriced,
        "estimated_lines": one.estimated,
        "partial_lines": one.partial,
    }


def _worth(one: Sum) -> Decimal:
    return one.cost + one.notional


def _name(provider: str, name: str) -> str:
    return f"{safe(name, 48)} ({safe(provider, 24)})"


def _counted(counter: Mapping[str, int]) -> str:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{number:,} {safe(name, 80)}" for name, number in ranked[:REASONS]]
    if len(ranked) > REASONS:
        said.append(f"{sum(number for _, number in ranked[REASONS:]):,} more")
    return ", ".join(said)


def _slow(line: Line) -> str:
    first = (line.get("timing") or {}).get("first_token_ms")
    words = [cells.duration(took(line)), safe(model(line), 48), safe(line.get("path", ""), 48)]
    if first is not None:
        words.append(f"first token after {cells.duration(float(first))}")
    billed, notional = money(line)
    if billed or notional:
        words.append(cells.cost(line))
    return "  ".join(word for word in words if word)
