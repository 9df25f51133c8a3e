"""What a proxy may spend of shared limits while it cannot ask the server: a share of each, once a bucket and window.

Knows shares and what was last known. Must not know connections.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Needs
from llmtab.budgets.limits import REMEMBERED, Touched
from llmtab.budgets.store import Denied, Embedded, Verdict


class Alone:
    """`share`: the part of each limit. What is spent of it is spent until the window ends, however often the server
    comes back and is lost again."""

    def __init__(self, share: float) -> None:
        self.share: Final = share
        self._store = Embedded()
        self._calls: set[str] = set()
        self._small: dict[Touched, Touched] = {}

    def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        denied = self._store.reserve_now(ident, self._of(needs), at).denied
        if denied is None:
            self._calls.add(ident)
        return Verdict(at, None if denied is None else denied._replace(why="store"))

    def settle(self, ident: str, spent: Needs, at: float) -> None:
        """What a call took that was let through here; of any other call nothing."""
        if ident in self._calls:
            self._calls.discard(ident)
            self._store.settle(ident, self._of(spent), at)

    def release(self, ident: str) -> None:
        if ident in self._calls:
            self._calls.discard(ident)
            self._store.release(ident)

    def renew(self, idents: Iterable[str], now: float) -> None:
        self._store.renew(idents, now)

    def tick(self, now: float) -> None:
        self._store.tick(now)

    def _of(self, needs: Needs) -> Needs:
        """The same of as much of each limit as this proxy may spend on its own."""
        found = self._small.get(needs.touched)
        if found is None:
            if len(self._small) >= REMEMBERED:
                self._small.clear()
            pairs = [
                (replace(one, amount=int(one.amount * self.share), burst=0), key) for one, key in needs.touched.pairs
            ]
            found = self._small[needs.touched] = Touched(pairs)
        return Needs(found, needs.amounts)


def refused(needs: Needs, known: Sequence[State]) -> Denied | None:
    """The limit that has too little left by what was `known` of it last."""
    for need, state in zip(needs, known, strict=True):
        limit = need.limit
        left = limit.amount + limit.burst - state.spent - state.carried
        if limit.hard and left < (need.amount or 1):
            return Denied(need, state, "store")
    return None
