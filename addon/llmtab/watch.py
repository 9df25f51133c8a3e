"""Who is told of new lines: the live table, or one plain line a call in the log.

Knows when to draw. Must not know how a table looks (`live`) and must not be able to hurt the ledger: every watcher's
error is caught here, logged once and forgotten.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

log = logging.getLogger("llmtab")

MOST_HOSTS: Final = 1_000


class Watchers:
    """The fan-out behind the ledger."""

    def __init__(self) -> None:
        self._table: Any = None
        self._plain: Any = None
        self._failed = False
        self._restore: dict[str, Any] = {}
        self._options: Any = None
        self._notes: dict[str, str] = {}
        self._guessed: set[str] = set()

    def start(self, master: Any, options: Any, setup: Any) -> None:
        """Choose between table and log, once mitmproxy runs."""
        tool = type(master).__name__
        if setup.table == "on" or (setup.table == "auto" and tool == "DumpMaster" and sys.stdout.isatty()):
            from llmtab.live import LiveTable, State

            self._options = options
            self._restore = {"flow_detail": options.flow_detail, "termlog_verbosity": options.termlog_verbosity}
            options.update(flow_detail=0, termlog_verbosity="error")
            self._table = LiveTable(None, State(ledger=str(setup.ledger.path)))
            self._table.start(datetime.now().astimezone())
        elif getattr(options, "termlog_verbosity", "") in ("info", "debug"):  # the console tool has no such option
            from llmtab.cells import plain

            self._plain = plain

    def tell(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """New lines are on the ledger."""
        if self._table is None and self._plain is None:
            return
        try:
            for line in lines:
                if self._table is not None:
                    self._table.state.add(line)
                else:
                    log.info("%s", self._plain(line))
        except Exception:
            self._trouble()

    def mention(self, host: str) -> None:
        """Say once of each unknown host that it looks like an LLM provider, and how to name it."""
        if host not in self._guessed and len(self._guessed) < MOST_HOSTS:
            self._guessed.add(host)
            how = f"hosts: {{{host}: {{profile: openai}}}} in llmtab.yaml"
            log.info("llmtab: %s is metered by the shape of its paths; to name it: %s", host, how)

    def note(self, topic: str, text: str | None) -> None:
        """What the table's foot says about a topic from now on; nothing where None or empty."""
        if text:
            self._notes[topic] = text
        else:
            self._notes.pop(topic, None)

    def tick(self, ledger: Any) -> None:
        """Once a second: redraw if something changed."""
        if self._table is None:
            return
        try:
            self._table.state.set_trouble(ledger.waiting, ledger.dropped, ledger.trouble)
            self._table.state.set_notes([*self._notes.values()])
            self._table.update(datetime.now().astimezone())
        except Exception:
            self._trouble()

    def stop(self, *, exiting: bool = False) -> None:
        """Leave the last picture on the screen and the terminal as it was.

        `exiting`: mitmproxy ends, and calls still open end after us: their URLs, keys and all, are not printed.
        """
        if self._table is not None:
            try:
                self._table.stop(datetime.now().astimezone())
            except Exception:
                self._trouble()
            self._table = None
            if not exiting:
                self._options.update(**self._restore)

    def _trouble(self) -> None:
        if not self._failed:
            self._failed = True
            log.warning("llmtab: the live view failed; the ledger goes on", exc_info=True)
