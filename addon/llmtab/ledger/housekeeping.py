"""Who rotates, compresses and prunes, and when: never on a call's path, never two processes at once.

Knows the policy and the clock. Must not know lines or chains. A failure here costs a delay and a line in the log.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from llmtab.ledger.locks import folder_lock
from llmtab.ledger.notes import Notes, utc_now
from llmtab.ledger.retention import past_their_time, prune
from llmtab.ledger.rotation import Rotation, compress_finished, rotate

log = logging.getLogger("llmtab")


@dataclass(frozen=True, slots=True)
class Policy:
    """`rotation`: when a file is finished (None: never). `keep`: how long finished files stay (None: for ever)."""

    rotation: Rotation | None = None
    keep: timedelta | None = None


class Housekeeper:
    """Looks once a second whether there is anything to do, and does it in a thread."""

    def __init__(
        self, path: Path, policy: Policy, *, key: bytes | None = None, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self.policy = policy
        self._now = now
        self._notes = Notes(path, key=key, now=now)
        self._thread: threading.Thread | None = None
        self._unpacked = True  # files may be left over from before the start
        self._pruned: date | None = None
        self._turned: date | None = None
        self._failed = ""

    def tick(self) -> None:
        """Starts the work if some is due. Quick; any errors go to the log."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._is_due():
            self._thread = threading.Thread(target=self.work, name="llmtab-rotate", daemon=True)
            self._thread.start()

    def _is_due(self) -> bool:
        rule, keep = self.policy.rotation, self.policy.keep
        if keep is not None and self._pruned != self._now().date():
            return True
        if rule is None:
            return False
        if self._unpacked:
            return True
        if rule.daily:
            return self._turned != self._now().astimezone(rule.zone).date()
        try:
            return rule.size is not None and self.path.stat().st_size >= rule.size
        except OSError:
            return False

    def work(self) -> None:
        """Rotates, compresses, prunes: whatever is due. Leaves it to another process that is at it."""
        try:
            with folder_lock(self.path.parent) as mine:
                if mine:
                    self._work()
            self._failed = ""
        except (OSError, ValueError) as error:
            if str(error) != self._failed:
                log.error("llmtab: rotating %s: %s; it is tried again", self.path, error)
            self._failed = str(error)

    def _work(self) -> None:
        now, rule, keep = self._now(), self.policy.rotation, self.policy.keep
        if rule is not None:
            if done := rotate(self.path, rule, now):
                self._notes.add("rotated", file=done.name)
                self._unpacked = True
            self._turned = now.astimezone(rule.zone).date()
            self._unpacked = not compress_finished(self.path)
        if keep is not None and self._pruned != now.date():
            self._prune(keep, now)
        self._notes.close()

    def _prune(self, keep: timedelta, now: datetime) -> None:
        doomed = past_their_time(self.path, keep, now)
        if doomed:
            log.warning("llmtab: finished files older than %s are deleted: %s", keep, "; ".join(map(str, doomed)))
            for file, lines in prune(doomed, self._notes):
                log.warning("llmtab: deleted %s with %d lines", file.path.name, lines)
        self._pruned = now.date()

    def wait(self, seconds: float) -> None:
        """Gives work that is under way a moment to end; what is cut off is taken up at the next start."""
        if self._thread is not None:
            self._thread.join(seconds)
