"""Usage -> money, or the reason why not: `PriceBook.price(usage, provider, model, ...) -> Cost | Unpriced`.

Knows price files (`pricing.yaml` and the user's own), how a model's name finds its entry, and how an entry and a call's
counters become lines that sum to the cost. Must not know profiles, the wire, the ledger or mitmproxy. Nothing is ever
guessed: no neighbour's price, no default tier, no 0 that the table does not say.
"""

from llmtab.pricing.book import PriceBook, default_path
from llmtab.pricing.charge import Cost, Unpriced

__all__ = ["Cost", "PriceBook", "Unpriced", "default_path"]
