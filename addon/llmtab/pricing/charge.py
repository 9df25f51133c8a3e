"""A card and a call's counters -> lines that sum to the cost exactly, or the reason why there is no cost.

Knows which counters contain which, how overlapping parts become disjoint quantities, and rounding. Must not know
entries, names, dates or files. Nothing used is left out: a counter without a price makes the cost unknown.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final, NamedTuple

from llmtab.pricing.card import EXACT, Card, Rate, Rates
from llmtab.pricing.plan import Plan, Row
from llmtab.usage import COUNTERS, UNPRICED, Quantity, Usage

PICO: Final = Decimal("1e-12")
ZERO: Final = Decimal(0)
MONEY: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
add: Final = MONEY.add
times_exactly: Final = EXACT.multiply
INPUT: Final = "input_tokens"
READ: Final = "cache_read_input_tokens"
WRITTEN: Final = "cache_creation_input_tokens"
BILLED: Final = {"billed_input_tokens": "input_tokens", "billed_output_tokens": "output_tokens"}

type Line = dict[str, Any]
"""One term of the proof: counter, quantity, rate, per, usd, and factors where there are some."""


class Cost(NamedTuple):
    """USD at list price, its lines (they sum to it exactly), which price it was, and what prompt caching saved."""

    usd: Decimal
    lines: list[Line]
    price: dict[str, str]
    saved_usd: Decimal | None


class Unpriced(NamedTuple):
    """Why there is no list price; what could be priced of the call (None: nothing), and its lines."""

    reason: str
    partial_usd: Decimal | None
    lines: list[Line]
    price: dict[str, str] | None


def _ancestors(name: str) -> tuple[str, ...]:
    parent = COUNTERS[name].parent
    return (parent, *_ancestors(parent)) if parent else ()


ORDER: Final = {name: index for index, name in enumerate(COUNTERS)}
ANCESTORS: Final = {name: _ancestors(name) for name in COUNTERS}
PARENT: Final = {name: row.parent for name, row in COUNTERS.items()}
WHOLES: Final = {name: row.crosses or ANCESTORS[name][:1] for name, row in COUNTERS.items()}
CACHED: Final = frozenset(name for name in COUNTERS if {READ, WRITTEN} & {name, *ANCESTORS[name]})
MODALITIES: Final = frozenset({"audio_input_tokens", "image_input_tokens", "video_input_tokens"})
CHAINS: Final = {
    name: tuple((whole, *ANCESTORS[whole]) for whole in WHOLES[name]) for name in COUNTERS
}  # for each whole a part lies in: that whole and what contains it
CROSSES: Final = {row.crosses: row.name for row in COUNTERS.values() if row.crosses}
TOKENS: Final = frozenset(name for name, row in COUNTERS.items() if row.unit == "token")


MOST_PLANS: Final = 64
"""Shapes of calls kept a card: a model has a handful."""


def charge(card: Card, usage: Usage) -> Cost | Unpriced:
    """The cost of `usage` by `card`. Zero-valued counters need no price; unknown ones are not assumed."""
    counters = usage.counters
    prompt = counters.get(INPUT)
    if prompt is not None and not card.free:
        for step in card.steps:
            if prompt > step[0]:
                break
        above, rates = step
        shape = (above, *counters, *[name for name in counters if counters[name]])
        plan = card.plans.get(shape)
        if plan is None and rates is not None:
            if len(card.plans) >= MOST_PLANS:
                card.plans.clear()
            plan = card.plans[shape] = _plan(counters, rates)
        if plan and (cost := _billed(plan, counters, card.price)):
            return cost
    return stepwise(card, counters)


def _billed(plan: Plan, counters: Mapping[str, Quantity], price: Mapping[str, str]) -> Cost | None:
    """The cost by a plan; None where the figures contradict each other or something has no price: `stepwise` says
    what."""
    for part, whole in plan.checks:
        if counters[part] > counters[whole]:
            return None
    lines: list[Line] = []
    total, saved = ZERO, plan.saved
    for name, terms, rate, gain in plan.rows:
        quantity = counters[name]
        for other, times in terms:
            quantity += counters[other] * times
        if quantity == 0:
            continue
        if quantity < 0 or rate is None:
            return None
        usd = times_exactly(rate.each, quantity) if rate.whole else rate.times(quantity)
        if rate.fine or type(quantity) is not int:
            usd = MONEY.quantize(usd, PICO)
        line: Line = {"counter": name, "quantity": quantity, "rate": rate.rate, "per": rate.per, "usd": usd}
        if rate.factors:
            line["factors"] = dict(rate.factors)
        lines.append(line)
        total = add(total, usd)
        if gain is not None and saved is not None:
            saved = add(saved, times_exactly(gain, quantity))
    if not lines:
        return None
    return Cost(total, lines, dict(price), None if saved is None else MONEY.quantize(saved, PICO))


def _plan(counters: Mapping[str, Quantity], rates: Rates) -> Plan | tuple[()]:
    """How calls with these counters, and the same ones at 0, are billed; () where it takes more than sums."""
    used = {name: 1 for name in counters if counters[name] and name not in UNPRICED}
    used = dict.fromkeys(sorted(used, key=ORDER.__getitem__), 1)
    if not MODALITIES.isdisjoint(used) or ("requests" in rates and "requests" not in counters):
        return ()
    checks = tuple((name, whole) for name in used for whole in WHOLES[name] if whole in counters)
    used = _without_replaced(used)
    # Which part is taken off what depends on the names alone: one unit of each shows where it goes.
    shares = {one: _disjoint({name: int(name == one) for name in used}, rates) for one in used}
    rows = []
    for name in _disjoint(used, rates):
        terms = tuple((one, int(share[name])) for one, share in shares.items() if one != name and share[name])
        rate = _rate(name, rates)
        rows.append(Row(name, terms, rate, _gain(name, rates) if rate is not None and name in CACHED else None))
    cached = [row for row in rows if row.name in CACHED]
    if any(row.gain is None and row.rate is not None for row in cached):
        return ()  # whether that matters depends on how many of each there are
    return Plan(checks, tuple(rows), ZERO if cached else None)


def stepwise(card: Card, counters: Mapping[str, Quantity]) -> Cost | Unpriced:
    """Step by step, with the reason where there is no cost."""
    used = {name: counters[name] for name in sorted(counters, key=ORDER.__getitem__) if counters[name]}
    for name in UNPRICED:
        used.pop(name, None)
    if not used and UNPRICED.issuperset(counters):
        return Unpriced("no_usage", None, [], dict(card.price))
    if card.free:
        return _free(used, card)
    rates = _rates_for(card, counters, used)
    if isinstance(rates, str):
        return Unpriced(rates, None, [], dict(card.price))
    for name, value in used.items():
        for whole in WHOLES[name]:
            if value > counters.get(whole, value):
                return Unpriced(f"inconsistent:{name}", None, [], dict(card.price))
    used = _without_replaced(used)
    quantities = _disjoint(used, rates)
    reason = None if MODALITIES.isdisjoint(used) else _overlaps(used, counters, rates, quantities)
    return _settle(quantities, rates, dict(card.price), reason)


def _without_replaced[Q: (int, Quantity)](used: dict[str, Q]) -> dict[str, Q]:
    """Without what the provider's billed units stand for."""
    for billed, replaced in BILLED.items():
        if billed in used:
            used = {name: used[name] for name in used if name != replaced and replaced not in ANCESTORS[name]}
    return used


def _free(used: Mapping[str, Quantity], card: Card) -> Cost:
    lines = [
        {"counter": name, "quantity": quantity, "rate": ZERO, "per": 1, "usd": ZERO}
        for name, quantity in used.items()
        if not used.keys() & ANCESTORS[name]
    ]
    return Cost(ZERO, lines, dict(card.price), None)


def _rates_for(card: Card, counters: Mapping[str, Quantity], used: dict[str, Quantity]) -> Rates | str:
    """The step for the whole prompt; a fee by the call is due once where the provider did not count calls."""
    prompt = counters.get(INPUT, counters.get("billed_input_tokens"))
    if prompt is None and len(card.steps) > 1 and not TOKENS.isdisjoint(used):
        return f"unpriced:{INPUT}"  # the step cannot be known
    rates = card.at(prompt or 0)
    if rates is None:
        return f"unknown_tier:{card.tier}"
    if "requests" in rates and "requests" not in counters:
        used["requests"] = 1
    return rates


def _disjoint(used: Mapping[str, Quantity], rates: Rates) -> dict[str, Quantity]:
    """What each rate is applied to: every token once. Parts billed like the whole stay in it."""
    quantities = {name: value for name, value in used.items() if not _folded(name, used, rates)}
    for name in tuple(quantities):
        for chain in CHAINS[name]:
            for whole in chain:
                if whole in quantities:
                    quantities[whole] -= used[name]
                    break
        if len(CHAINS[name]) > 1 and INPUT in quantities:
            quantities[INPUT] += used[name]  # taken off by both parts it lies in
    return quantities


def _folded(name: str, used: Mapping[str, Quantity], rates: Rates) -> bool:
    """Whether a part needs no line of its own: its one whole is on the bill and has the same price."""
    whole = PARENT[name]
    if whole is None or whole not in used or len(CHAINS[name]) > 1:
        return False
    own = rates.get(name)
    if own is None:
        return COUNTERS[name].inherits
    parent = rates.get(whole)
    return parent is not None and own.each == parent.each and own.factors == parent.factors


def _overlaps(
    used: Mapping[str, Quantity], counters: Mapping[str, Quantity], rates: Rates, quantities: dict[str, Quantity]
) -> str | None:
    """Where cached tokens may also be audio or images, nobody said how many are both, and it matters: the reason.

    Where one of the two is the whole prompt the overlap is known, and `quantities` is put right.
    """
    for part in sorted(MODALITIES.intersection(quantities)):
        for cache in (READ, WRITTEN):
            both = CROSSES.get((cache, part))
            if cache not in quantities or both in counters:
                continue
            whole = used.get(INPUT)
            if both is not None and whole in (used[cache], used[part]):
                overlap = min(used[cache], used[part])
                quantities[cache] -= overlap
                quantities[part] -= overlap
                quantities[INPUT] += overlap
                quantities[both] = overlap
            elif part in rates and cache in rates:
                for name in [name for name in quantities if name == INPUT or INPUT in ANCESTORS[name]]:
                    del quantities[name]
                return f"ambiguous:{cache}x{part}"
    return None


def _settle(
    quantities: Mapping[str, Quantity], rates: Rates, price: dict[str, str], reason: str | None
) -> Cost | Unpriced:
    lines: list[Line] = []
    missing = None
    total = ZERO
    for name, quantity in quantities.items():
        rate = _rate(name, rates)
        if quantity < 0:
            return Unpriced(f"inconsistent:{name}", None, [], price)
        if rate is None:
            missing = missing or (name if quantity else None)
        elif quantity:
            usd = MONEY.quantize(rate.times(quantity), PICO)
            line: Line = {"counter": name, "quantity": quantity, "rate": rate.rate, "per": rate.per, "usd": usd}
            if rate.factors:
                line["factors"] = dict(rate.factors)
            lines.append(line)
            total = MONEY.add(total, usd)
    if missing or reason:
        return Unpriced(reason or f"unpriced:{missing}", total if lines else None, lines, price)
    return Cost(total, lines, price, _saved(quantities, rates))


def _rate(name: str, rates: Rates) -> Rate | None:
    """Its own rate, the rate of what it stands for, or its parent's where the table of counters says so."""
    rate = rates.get(BILLED.get(name, name))
    if rate is None and COUNTERS[name].inherits:
        rate = rates.get(COUNTERS[name].parent or "")
    return rate


def _saved(quantities: Mapping[str, Quantity], rates: Rates) -> Decimal | None:
    """What the cached and written tokens would have cost as plain prompt, minus what they cost. None without any."""
    saved = None
    for name, quantity in quantities.items():
        if name not in CACHED:
            continue
        saved = saved or ZERO
        if quantity:
            gain = _gain(name, rates)
            if gain is None:
                return None
            saved = MONEY.add(saved, MONEY.multiply(quantity, gain))
    return None if saved is None else MONEY.quantize(saved, PICO)


def _gain(name: str, rates: Rates) -> Decimal | None:
    """What one cached or written token costs less than plain prompt; None where plain prompt has no price."""
    crosses = COUNTERS[name].crosses
    plain = _rate(crosses[1], rates) if crosses else rates.get(INPUT)
    return None if plain is None else MONEY.subtract(plain.each, rates[name].each)
