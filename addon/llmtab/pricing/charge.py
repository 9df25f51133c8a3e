"""A card and a call's counters -> lines that sum to the cost exactly, or the reason why there is no cost.

Knows which counters contain which, how overlapping parts become disjoint quantities, and rounding. Must not know
entries, names, dates or files. Nothing used is left out: a counter without a price makes the cost unknown.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final, NamedTuple

from llmtab.pricing.card import Card, Rate, Rates
from llmtab.usage import COUNTERS, UNPRICED, Quantity, Usage

PICO: Final = Decimal("1e-12")
ZERO: Final = Decimal(0)
MONEY: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
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


def charge(card: Card, usage: Usage) -> Cost | Unpriced:
    """The cost of `usage` by `card`. Zero-valued counters need no price; unknown ones are not assumed."""
    counters = usage.counters
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
    for billed, replaced in BILLED.items():
        if billed in used:
            used = {name: used[name] for name in used if name != replaced and replaced not in ANCESTORS[name]}
    quantities = _disjoint(used, rates)
    reason = None if MODALITIES.isdisjoint(used) else _overlaps(used, counters, rates, quantities)
    return _settle(quantities, rates, dict(card.price), reason)


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
        crosses = COUNTERS[name].crosses
        plain = _rate(crosses[1], rates) if crosses else rates.get(INPUT)
        if plain is None:
            return None
        gain = MONEY.multiply(quantity, MONEY.subtract(plain.each, rates[name].each))
        saved = MONEY.add(saved or ZERO, gain)
    return None if saved is None else MONEY.quantize(saved, PICO)
