"""What a call may take from each limit it touches: the worst case, or what is usual where a limit asks for that.

Knows cases and units. Must not know stores, or how the decision is made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from llmtab.budgets.amounts import INPUT, OUTPUT, REQUESTS, TOKENS, USD, WEIGHT
from llmtab.budgets.charges import Need
from llmtab.budgets.limits import Limit, Touched
from llmtab.budgets.worst import Worst, beyond, towards

_made: Final[Callable[[tuple[Limit, str, int]], Need]] = partial(tuple.__new__, Need)
"""`Need._make` without its Python frame: half the time, where a call touches a hundred limits."""


def needs_of(
    touched: Touched, case: Worst, likely: Worst | None, weights: Mapping[str, int], *, unbilled: bool
) -> list[Need]:
    """What a call takes from each limit. `likely`: the usual case, where a limit asks for it; `weights`: by limit what
    the last call had; `unbilled`: no money is billed by the call."""
    amounts = _amounts(case)
    needs = [*map(_made, zip(touched.limits, touched.keys, map(amounts.__getitem__, touched.units), strict=True))]
    if likely is not None:
        less = _amounts(likely)
        needs = [need._replace(amount=less[need.limit.unit]) if need.limit.usual else need for need in needs]
    if case.usd is None or WEIGHT in touched.units:
        needs = [need._replace(amount=_unforeseen(need, weights)) for need in needs]
    if unbilled:
        needs = [need._replace(amount=0) if _only_metered(need.limit) else need for need in needs]
    return needs


def outgrown(
    needs: Sequence[Need], case: Worst, likely: Worst | None, received: int
) -> tuple[list[Need], Worst, Worst | None]:
    """(what to reserve besides, the cases as they are now) of a stream that has brought `received` bytes."""
    tokens, usd = (0, 0) if case.bounded else beyond(case, received)
    case = _grown(case, tokens, usd)
    fewer, less = (0, 0) if likely is None else towards(likely, case, received)
    if likely is not None:
        likely = _grown(likely, fewer, less)
    if not tokens and not fewer:
        return [], case, likely
    more, part = {USD: usd, TOKENS: tokens, OUTPUT: tokens}, {USD: less, TOKENS: fewer, OUTPUT: fewer}
    by = [(need, part if likely is not None and need.limit.usual else more) for need in needs]
    return [need._replace(amount=of.get(need.limit.unit, 0)) for need, of in by if need.amount], case, likely


def refusing(limits: Iterable[Limit], *, unbilled: bool) -> Limit | None:
    """The first limit that refuses calls without a price; of callers on a plan one that counts them at all."""
    refuse = (limit for limit in limits if limit.unit == USD and limit.unpriced == "refuse")
    return next((limit for limit in refuse if not (unbilled and _only_metered(limit))), None)


def _amounts(case: Worst) -> dict[str, int]:
    return {
        USD: case.usd or 0, REQUESTS: 1, TOKENS: case.input + case.output, INPUT: case.input, OUTPUT: case.output,
        WEIGHT: 0,
    }  # fmt: skip


def _unforeseen(need: Need, weights: Mapping[str, int]) -> int:
    """Of a call without a price what the limit says; of a weight what the last call had: nobody knows before."""
    limit = need.limit
    if limit.unit == USD and not need.amount:
        return limit.unpriced if isinstance(limit.unpriced, int) else 0
    return weights.get(limit.name, 0) if limit.unit == WEIGHT else need.amount


def _grown(case: Worst, tokens: int, usd: int) -> Worst:
    return case._replace(output=case.output + tokens, usd=None if case.usd is None else case.usd + usd)


def _only_metered(limit: Limit) -> bool:
    """Whether a limit counts money that is billed by the call, and none that a plan covers."""
    return limit.unit == USD and not limit.all_billing
