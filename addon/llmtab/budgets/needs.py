"""What a call may take from each limit it touches: the worst case, or what is usual where a limit asks for that.

Knows cases and units. Must not know stores, or how the decision is made.
"""

from collections.abc import Iterable, Mapping

from llmtab.budgets.amounts import INPUT, OUTPUT, REQUESTS, TOKENS, USD, WEIGHT
from llmtab.budgets.charges import Needs
from llmtab.budgets.limits import Limit, Touched
from llmtab.budgets.worst import Worst, beyond, towards


def needs_of(
    touched: Touched, case: Worst, likely: Worst | None, weights: Mapping[str, int], *, unbilled: bool
) -> Needs:
    """What a call takes from each limit. `likely`: the usual case, where a limit asks for it; `weights`: by limit what
    the last call had; `unbilled`: no money is billed by the call."""
    amounts = [
        0 if unbilled and _only_metered(kind) else _amount(kind, likely if kind.usual and likely else case, weights)
        for kind in touched.kinds
    ]
    return Needs(touched, amounts)


def outgrown(
    needs: Needs, case: Worst, likely: Worst | None, received: int
) -> tuple[Needs | None, Worst, Worst | None]:
    """(what to reserve besides, the cases as they are now) of a stream that has brought `received` bytes."""
    tokens, usd = (0, 0) if case.bounded else beyond(case, received)
    case = _grown(case, tokens, usd)
    fewer, less = (0, 0) if likely is None else towards(likely, case, received)
    if likely is not None:
        likely = _grown(likely, fewer, less)
    if not tokens and not fewer:
        return None, case, likely
    more, part = {USD: usd, TOKENS: tokens, OUTPUT: tokens}, {USD: less, TOKENS: fewer, OUTPUT: fewer}
    amounts = [
        (part if likely is not None and kind.usual else more).get(kind.unit, 0) if held else 0
        for kind, held in zip(needs.touched.kinds, needs.amounts, strict=True)
    ]
    return Needs(needs.touched, amounts) if any(amounts) else None, case, likely


def refusing(limits: Iterable[Limit], *, unbilled: bool) -> Limit | None:
    """The first limit that refuses calls without a price; of callers on a plan one that counts them at all."""
    refuse = (limit for limit in limits if limit.unit == USD and limit.unpriced == "refuse")
    return next((limit for limit in refuse if not (unbilled and _only_metered(limit))), None)


def _amount(limit: Limit, case: Worst, weights: Mapping[str, int]) -> int:
    """Of a call without a price what the limit says; of a weight what the last call had: nobody knows before."""
    unit = limit.unit
    if unit == USD:
        if case.usd is None:
            return limit.unpriced if isinstance(limit.unpriced, int) else 0
        return case.usd
    if unit == WEIGHT:
        return weights.get(limit.name, 0)
    return {REQUESTS: 1, TOKENS: case.input + case.output, INPUT: case.input, OUTPUT: case.output}[unit]


def _grown(case: Worst, tokens: int, usd: int) -> Worst:
    return case._replace(output=case.output + tokens, usd=None if case.usd is None else case.usd + usd)


def _only_metered(limit: Limit) -> bool:
    """Whether a limit counts money that is billed by the call, and none that a plan covers."""
    return limit.unit == USD and not limit.all_billing
