"""How full the budgets are, for those who only look: from the ledger and its checkpoint, or from the shared store.

Knows files. Must not know terminals. Nothing is written, and no proxy notices.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Final

from llmtab.budgets.bars import Bar, bars_of, rows_of
from llmtab.budgets.buckets import State
from llmtab.budgets.checkpoint import checkpoint_path, load
from llmtab.budgets.limits import Limit
from llmtab.budgets.policy import Policy
from llmtab.budgets.rebuild import Counter, horizon, unread
from llmtab.budgets.store import Embedded

SHARED: Final = 10.0
"""Seconds between two looks at a shared store."""


class Onlooker:
    """Looks at the budgets `said` of one ledger, again and again: each look reads only what is new."""

    def __init__(self, said: Policy, ledger: Path, clock: Callable[[], float] = time) -> None:
        self._said, self._ledger, self._clock = said, ledger, clock
        self._store = Embedded()
        self._counter: Counter | None = None
        self._bars: list[Bar] = []
        self._look_at = 0.0

    def rows(self) -> list[tuple[Limit, str, State]]:
        """(limit, bucket, state) of all that holds anything now. Raises OSError."""
        limits, now = self._said.limits, self._clock()
        if self._said.store is not None:
            from llmtab.budgets.redis_look import shared

            return asyncio.run(shared(self._said.store, limits, now))
        if self._counter is None:
            place = load(checkpoint_path(self._ledger), limits, self._store, now)
            self._counter = Counter(limits, self._store, place)
        for line in unread(self._ledger, self._counter.place, horizon(limits, now)):
            self._counter.add(line)
        self._store.tick(now)
        return [*rows_of(limits, self._store, now)]

    def bars(self) -> list[Bar]:
        """The fullest of them first; of a shared store as of a few seconds ago, without it none."""
        if self._said.store is None or self._clock() >= self._look_at:
            self._look_at = self._clock() + SHARED
            try:
                self._bars = bars_of(self.rows())
            except (OSError, ValueError):
                self._bars = []
        return self._bars
