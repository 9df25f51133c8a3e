"""What the budgets' tests share: needs as the gate makes them."""

from functools import cache

from llmtab.budgets.charges import Needs
from llmtab.budgets.limits import Limit, Touched


@cache
def touched(*pairs: tuple[Limit, str]) -> Touched:
    """The same for the same limits and buckets, as a caller's calls have it."""
    return Touched(pairs)


def need(amount: int, *limits: Limit, key: str = "") -> Needs:
    """So much of each of these limits."""
    found = touched(*((one, key) for one in limits))
    return Needs(found, [amount] * len(found.kinds))
