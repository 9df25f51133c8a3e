"""Amounts of what limits count, as exact integers: money in picodollars, seconds and the like in millionths.

Knows the units and how people write amounts (`100 USD`, `2M tokens`, `50 requests`). Must not know windows or calls.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from llmtab.record import plain

USD: Final = "USD"
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
INPUT: Final = "input tokens"
OUTPUT: Final = "output tokens"
WEIGHT: Final = "weight"
SCALES: Final = {USD: 10**12, REQUESTS: 1, TOKENS: 1, INPUT: 1, OUTPUT: 1, WEIGHT: 10**6}
"""Whole numbers a unit. Money on a line has twelve places, so sums of it are exact; a 64-bit store holds nine million
dollars."""
MOST: Final = 2**62
_WORDS: Final = {
    "usd": USD, "$": USD, "dollar": USD, "dollars": USD,
    "token": TOKENS, "tokens": TOKENS, "total tokens": TOKENS,
    "input token": INPUT, "input tokens": INPUT, "output token": OUTPUT, "output tokens": OUTPUT,
    "request": REQUESTS, "requests": REQUESTS, "call": REQUESTS, "calls": REQUESTS,
    "unit": WEIGHT, "units": WEIGHT,
}  # fmt: skip
_PREFIXES: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_NUMBER: Final = re.compile(r"\s*(\$?)\s*(\d{1,15}(?:_\d{3})*(?:\.\d{1,12})?)\s*([kKMBG]?)\s*([A-Za-z$ ]*?)\s*")


@dataclass(frozen=True, slots=True)
class Amount:
    """`value`: whole numbers of 1/SCALES[unit]."""

    value: int
    unit: str

    def __str__(self) -> str:
        return show(self.value, self.unit)


def amount(text: str, unit: str | None = None) -> Amount:
    """From `100 USD`, `$5`, `2M tokens`, `500k input tokens`, `50 requests`, `30 units`.

    `unit`: what is meant where the text names none. Raises ValueError.
    """
    found = _NUMBER.fullmatch(text)
    word = (found[4].lower() or ("usd" if found[1] else "")) if found else ""
    kind = _WORDS.get(word) if word else unit
    if not found or kind is None or (found[1] and kind != USD):
        raise ValueError(f"{text!r}, expected an amount like 100 USD, 2M tokens, 500k output tokens or 50 requests")
    number = Decimal(found[2].replace("_", "")) * _PREFIXES[found[3].lower()]
    value = scaled(number, kind)
    if not 0 < value < MOST:
        raise ValueError(f"{text!r}, expected an amount above 0 and below {show(MOST, kind)}")
    return Amount(value, kind)


def scaled(number: Decimal | int, unit: str) -> int:
    """A figure of a line in whole numbers; exact for what a line can hold (12 places of money)."""
    if isinstance(number, int):
        return number * SCALES[unit]
    return round(number * SCALES[unit])


def number(value: int, unit: str) -> Decimal:
    """The amount as people count it."""
    return Decimal(value) / SCALES[unit]


def show(value: int, unit: str) -> str:
    """`12.5 USD`, `2000000 tokens`: no more places than it has, money to the hundredth of a cent."""
    if unit == USD:
        shown = plain(round(number(value, unit), 4))
        return f"{shown.removesuffix('.0')} USD"
    text = plain(number(value, unit)).removesuffix(".0")
    return f"{text} {'units' if unit == WEIGHT else unit}"
