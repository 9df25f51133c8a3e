"""Two price books side by side, and one entry explained: what a person wants to know about a table.

Knows how to say prices in words. Must not know files or how prices are applied.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from llmtab.pricing.book import PriceBook
from llmtab.pricing.card import Card, Rates
from llmtab.pricing.finder import Match
from llmtab.pricing.rates import BY_COUNTER, RATES
from llmtab.record import plain

type Changes = list[str]

SETTINGS: Final = ("discount", "regions", "aliases", "models_of", "tiers_from")
"""What a price file says of a provider as a whole."""
LONGEST: Final = 120


def diff(old: PriceBook, new: PriceBook) -> Changes:
    """What `new` does to `old`, one line an entry: `changed openai/gpt-4o: input 2.5 -> 2`."""
    before = {(match.provider, match.model): match for match in old.finder.entries()}
    after = {(match.provider, match.model): match for match in new.finder.entries()}
    lines = []
    for place in sorted(before.keys() | after.keys()):
        name = "/".join(place)
        if place not in before:
            lines.append(f"new {name}: {summary(after[place].entry)}")
        elif place not in after:
            lines.append(f"gone {name}: {summary(before[place].entry)}")
        elif before[place].entry != after[place].entry:
            lines.append(f"changed {name}: {_moved(before[place].entry, after[place].entry)}")
    return lines + _settings(old, new)


def _settings(old: PriceBook, new: PriceBook) -> Changes:
    """What changes for providers as a whole: discounts, regions, aliases."""
    names = {name for book in (old, new) for table in book.finder.tables for name in table.providers}
    lines = []
    for name in sorted(names):
        for key in SETTINGS:
            one, two = old.finder.setting(name, key), new.finder.setting(name, key)
            if one != two:
                lines.append(f"changed {name}: {key} {_said(one)} -> {_said(two)}")
    return lines


def summary(entry: Mapping[str, Any]) -> str:
    """The last dated prices of an entry: `input 2.5 output 10`, or `free`."""
    row = entry["prices"][-1]
    said = " ".join(f"{key} {price(row[key])}" for key in RATES if key in row)
    start = f" from {row['from']}" if "from" in row else ""
    return ("free" if row.get("free") else said) + start


def price(value: Any) -> str:
    """A price as it is written in a price file."""
    if isinstance(value, dict):
        return f"{short(value['value'])} per {value['unit']}"
    return short(value) if isinstance(value, Decimal) else str(value)


def short(value: Decimal) -> str:
    """A Decimal without needless zeros and without an exponent."""
    return plain(value).removesuffix(".0")


def to_json(value: Any) -> str:
    """Compact JSON in which a Decimal is a plain number of its own digits."""
    text = json.dumps(value, separators=(",", ":"), default=lambda number: f"\x01{plain(number)}\x01")
    return text.replace('"\\u0001', "").replace('\\u0001"', "")


def described(match: Match, card: Card) -> Iterator[str]:
    """An entry's price in force, line by line, as `llmtab price` shows it."""
    start = f", from {card.price['from']}" if "from" in card.price else ""
    yield f"{card.price['id']} (found by {match.how.replace('_', ' ')}{start}; {match.table.name} {match.table.digest})"
    if card.free:
        yield "  free, said by the table"
    for above, rates in reversed(card.steps):
        if above >= 0:
            yield f"  above {above:,} prompt tokens, the whole request:"
        if rates is None:
            yield f"    not offered in tier {card.tier}"
        else:
            yield from (f"    {line}" if above >= 0 else f"  {line}" for line in _rate_lines(rates))


def _rate_lines(rates: Rates) -> Iterator[str]:
    for counter, rate in rates.items():
        factors = "".join(f" x {short(value)} ({name})" for name, value in (rate.factors or {}).items())
        yield f"{BY_COUNTER[counter].key:18} {short(rate.rate):>10} USD per {rate.per:,} {counter}{
            factors and ' with' + factors
        }"


def _moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    one, two = old["prices"][-1], new["prices"][-1]
    said = [
        f"{key} {price(one[key]) if key in one else 'none'} -> {price(two[key]) if key in two else 'none'}"
        for key in RATES
        if one.get(key) != two.get(key)
    ]
    said += [
        f"{key} {_said(one.get(key))} -> {_said(two.get(key))}"
        for key in ("from", "above", "tiers", "windows", "regions")
        if one.get(key) != two.get(key)
    ]
    return ", ".join(said) or "names, earlier dates or notes"


def _said(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else to_json(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
