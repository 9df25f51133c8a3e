"""How calls of one shape are billed: which counters get a line, and what is taken off each.

A plan holds for one step of one rate card and one set of counters; it is worked out once (`charge`) and then costs a
few sums a call. Must not know usage values, names of models or files.
"""

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmtab.pricing.card import Rate


class Row(NamedTuple):
    """One line: the counter's own value plus `terms` (counter, how many times), at `rate` (None: it has no price).

    `gain`: USD that one unit costs less than plain prompt, for cached and written tokens.
    """

    name: str
    terms: tuple[tuple[str, int], ...]
    rate: "Rate | None"
    gain: Decimal | None


class Plan(NamedTuple):
    """`checks`: (part, whole), no part may exceed its whole. `saved`: where the sum of what caching saved begins; None
    where nothing was cached."""

    checks: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    saved: Decimal | None
