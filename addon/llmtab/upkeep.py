"""What is done beside metering: estimates switched on and off, edited files put in force, old prices named.

Knows the set-up in force and who is to be told. Must not know mitmproxy, flows or what is in the files.
"""

import gc
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from llmtab.ledger.reader import recent
from llmtab.reload import Reloader
from llmtab.setup import Setup

if TYPE_CHECKING:
    from llmtab.budgets.guard import Guard
    from llmtab.estimates.before import Estimator
    from llmtab.inject import Injector

log = logging.getLogger("llmtab")

type Note = Callable[[str, str | None], None]
"""(topic, what the table says of it from now on; None: nothing any more)."""


class Upkeep:
    """One for each meter. `estimator`: None while estimates are off."""

    def __init__(self) -> None:
        self.estimator: Estimator | None = None
        self._reloader: Final = Reloader()

    def switch(self, setup: Setup) -> bool:
        """Whether this set-up wants estimates. What was learnt is forgotten where it does not."""
        if not setup.estimate:
            self.estimator = None
        elif self.estimator is None:
            from llmtab.estimates.before import Estimator  # not even its import is paid for while estimates are off

            self.estimator = Estimator(setup.warn_usd)
            self.estimator.seed(partial(recent, setup.ledger.path))
        else:
            self.estimator.warn = setup.warn_usd
        return self.estimator is not None

    @staticmethod
    def guard(setup: Setup, old: "Guard | None") -> "Guard | None":
        """What keeps the budgets of this set-up; None where it has none. Raises ValueError."""
        if old is None and not setup.budget and not setup.config.sections.get("budgets"):
            return None
        from llmtab.budgets.guard import guard_for  # not even its import is paid for while there are no budgets

        return guard_for(setup, old)

    def helpers(self, setup: Setup, state: str) -> "list[Injector] | None":
        """Addons below the meter's that this set-up wants; None where there are none. `state`: where a flow keeps its
        exchange."""
        if not setup.inject:
            return None
        from llmtab.inject import Injector  # not even its import is paid for while it is off

        return [Injector(state)]

    def tick(self, setup: Setup, note: Note) -> Setup | None:
        """About once a second: the set-up that an edit of its files made, if there was one."""
        edited = self._reloader.tick(setup, monotonic())
        note("files", self._reloader.trouble)
        note("age", _stale(edited or setup))
        if edited is not None:
            gc.freeze()  # the new tables live as long as the old ones would have: no collection need walk them
        return edited


def warn_of_age(setup: Setup) -> None:
    """At the start: prices that may be out of date are named. No error: that would end mitmdump's start."""
    if said := _stale(setup):
        log.warning("llmtab: %s", said)


def _stale(setup: Setup) -> str | None:
    return setup.prices.stale_note(datetime.now(UTC).date())
