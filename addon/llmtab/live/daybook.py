"""Today and yesterday from the ledger itself, beside the event loop: what every proxy on this ledger has spent.

Knows one thread and how to keep it out of the way. Must not know what a day is worth (`days`) or who shows it.
"""

import logging
import threading
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from time import sleep
from typing import Final

from llmtab.ledger.follow import Follower
from llmtab.live.days import Days, Recap

log = logging.getLogger("llmtab")

EVERY: Final = 0.5
"""Seconds between two looks at the ledger: no more than the table waits, or today would lag behind the calls below."""
REST: Final = 0.001
"""Seconds of every pause while the ledger's past is read: the event loop needs the interpreter for itself."""


class Daybook:
    """Follows a ledger in a thread, from yesterday's beginning on."""

    def __init__(self, path: Path, zone: tzinfo = UTC) -> None:
        self._days = Days(zone)
        self._path = path
        self._ready = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmtab-days", daemon=True)
        self._thread.start()

    def recap(self, now: datetime) -> Recap | None:
        """Today against yesterday as of `now` (aware), or None while the past is still being read."""
        return self._days.recap(now) if self._ready else None

    def stop(self) -> None:
        """Ends the thread, without waiting for it."""
        self._stop.set()

    def _run(self) -> None:
        try:
            with closing(Follower(self._path, since=self._days.since(datetime.now(UTC)), pause=_rest)) as follower:
                self._follow(follower)
        except (OSError, ValueError, ArithmeticError, TypeError, AttributeError) as error:
            self._ready = False
            log.info("llmtab: no sums of days, the ledger cannot be read back: %s", error)

    def _follow(self, follower: Follower) -> None:
        while not self._stop.is_set():
            for line in follower.poll():
                self._days.add(line)
                if self._stop.is_set():
                    break
            self._ready = True
            self._stop.wait(EVERY)


def _rest() -> None:
    sleep(REST)
