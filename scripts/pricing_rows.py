"""Rows of prices as the refresh script handles them: what a source offers for a model, in the words of pricing.yaml.

Knows the order of keys and when a tier is one factor. Must not know the sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llmtab.pricing.rates import RATES

type Row = dict[str, Any]
"""Prices of one case, in the words of pricing.yaml."""


@dataclass(frozen=True)
class Offer:
    """One id at one source: its dated prices in our words, and what else the source says about it."""

    group: str
    prices: list[Row]
    max_output: int | None = None
    regions: Mapping[str, Decimal] | None = None
    empty: bool = False


def exact(value: Any) -> Decimal:
    """A price without float noise: nine places per million, as vendors print at most six."""
    found = Decimal(str(value)).quantize(Decimal("1e-9")).normalize()
    return found if found.as_tuple().exponent <= 0 else found.quantize(Decimal(1))


def ordered(row: Row) -> Row:
    """Keys in the order of the table of rates."""
    first = {"from": row["from"]} if "from" in row else {}
    return first | {key: row[key] for key in RATES if key in row} | {key: row[key] for key in row if key not in RATES}


def shortened(row: Row, base: Row) -> Row | str:
    """`x0.5` where a tier is the base row times one factor in every price, else the row."""
    mine, its = _flat(row), {key: value for key, value in _flat(base).items() if not RATES[key[1]].fee}
    factors = {mine[key] / its[key] for key in mine if its.get(key)}
    if mine.keys() == its.keys() and len(factors) == 1 and all(its.values()):
        factor = factors.pop().normalize()
        if len(factor.as_tuple().digits) <= 4:  # not 1.6666...
            return f"x{factor:f}"
    return row


def _flat(row: Row) -> dict[tuple[str, str], Decimal]:
    flat = {("", key): value for key, value in row.items() if key in RATES}
    for size, step in row.get("above", {}).items():
        flat |= {(size, key): value for key, value in step.items()}
    return flat
