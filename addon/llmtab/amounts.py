"""Amounts of money as they stand on the wire, in JSON or in a header.

Knows how they are written. Must not know who said them, nor what for.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, Final

LONGEST_AMOUNT: Final = 64
"""Characters of an amount of money; a longer one is no amount (and cut short it could be another)."""


def amount_of(value: Any) -> Decimal | None:
    """An amount of money from JSON or a header (`0.0012`, `"0.0012"`, `0.0012USD`); None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    if isinstance(value, int) and value >= 10**15:
        return None
    text = value[:99].strip().removesuffix("USD").strip().lstrip("$") if isinstance(value, str) else repr(value)
    if len(text) > LONGEST_AMOUNT or not text.isascii():
        return None
    try:
        amount = value if isinstance(value, Decimal) else Decimal(text)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < 10**15 else None
