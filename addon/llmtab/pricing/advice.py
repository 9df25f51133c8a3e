"""What to say to somebody whose question the tables do not answer as it was meant: names like his, regions they know.

Knows the entries of a price book. Must not know prices, nor who asks.
"""

import difflib
import re
from datetime import datetime
from typing import Final

from llmtab.pricing.book import PriceBook

LIKE: Final = 0.75
"""How much two names have in common that could be meant for each other, from 0 to 1."""
MOST: Final = 3


def near(book: PriceBook, model: str) -> list[str]:
    """Models whose names are like this one, whatever stands between letters and figures."""
    known: dict[str, str] = {}
    for match in book.finder.entries():
        known.setdefault(_bare(match.model), match.model)
    return [known[name] for name in difflib.get_close_matches(_bare(model), known, n=MOST, cutoff=LIKE)]


def no_factor(book: PriceBook, provider: str, model: str, region: str, at: datetime) -> str | None:
    """A sentence about a region that changes nothing; None where it has a factor, or the model no price."""
    match = book.find(provider, model, at)
    if match is None:
        return None
    usual = match.entry.get("regions", book.finder.setting(match.provider, "regions") or {})
    dated = [period["regions"] for period in match.entry["prices"] if "regions" in period]
    known = sorted({name for named in (dated or [usual]) for name in named})
    if region in known or "*" in known:
        return None
    which = f"those that have one: {', '.join(known)}" if known else "no region has one"
    return f"region {region!r} has no price of its own for {match.provider}/{match.model} ({which})"


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
