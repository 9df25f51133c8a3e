"""Who is told of new lines: the live table, one plain line a call in the log, the commands of mitmproxy's own screens.

Knows when to draw and which of mitmproxy's tools runs. Must not know how a table looks (`live`) and must not be able to
hurt the ledger: every watcher's error is caught here, logged once and forgotten.
"""

import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmtab.coverage import Coverage
    from llmtab.exchange import Exchange
    from llmtab.live.daybook import Daybook
    from llmtab.live.inflight import Flights
    from llmtab.live.table import LiveTable, State

log = logging.getLogger("llmtab")

MOST_HOSTS: Final = 1_000
ALERT: Final = logging.INFO + 1
"""mitmproxy's level for what its console and web page show at once."""
STATUS_EVERY: Final = 60.0
"""Seconds between two lines of status in tools that draw a screen of their own."""
ELSEWHERE: Final = "llmtab keeps no sums in this mode; llmtab top shows them in another terminal"
WIDTH: Final = 100
"""Columns of what the commands answer."""

SILENT: Final = logging.CRITICAL + 1
"""Above every level of a log."""

type Line = Mapping[str, Any]


class _AboveTable(logging.Handler):
    """Puts the log above the table: our own lines, and everybody's errors.

    mitmproxy's own printer writes wherever the cursor stands, which is in the middle of the table.
    """

    def __init__(self, table: "LiveTable") -> None:
        super().__init__()
        self._table = table
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        root = logging.getLogger()
        self._printers = [one for one in root.handlers if type(one).__name__ == "TermLogHandler"]
        for printer in self._printers:
            printer.setLevel(SILENT)
        root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or (record.name == log.name and record.levelno >= logging.INFO):
            style = "bad" if record.levelno >= logging.ERROR else "warn" if record.levelno >= logging.WARNING else "dim"
            self._table.say(self.format(record), style)

    def remove(self) -> None:
        """The printer prints again: errors, until mitmproxy's option says what else."""
        logging.getLogger().removeHandler(self)
        for printer in self._printers:
            printer.setLevel(logging.ERROR)


class Watchers:
    """The fan-out behind the ledger."""

    def __init__(self) -> None:
        self._table: LiveTable | None = None
        self._state: State | None = None
        """What the table shows and the commands tell; None where nobody could ask."""
        self._plain: Callable[[Line], str] | None = None
        self._days: Daybook | None = None
        self._flights: Flights | None = None
        self._log: _AboveTable | None = None
        self._failed = False
        self._restore: dict[str, Any] = {}
        self._options: Any = None
        self._notes: dict[str, str] = {}
        self._guessed: set[str] = set()
        self._status_at = 0.0
        self._status = ""

    def start(self, master: Any, options: Any, setup: Any) -> None:
        """Choose between table, log and commands, once mitmproxy runs."""
        tool = type(master).__name__
        own_screen = tool != "DumpMaster"
        if setup.table == "on" or (setup.table == "auto" and not own_screen and sys.stdout.isatty()):
            self._start_table(options, setup)
            return
        if own_screen:
            from llmtab.live.table import State
            from llmtab.live.totals import Totals

            self._state = State(totals=Totals(options.llmtab_by))
            log.log(ALERT, "llmtab meters; commands: llmtab.summary, llmtab.tail; in another terminal: llmtab top")
        if getattr(options, "termlog_verbosity", "info") in ("info", "debug"):  # the console tool has no such option
            from llmtab.cells import plain

            self._plain = plain

    def _start_table(self, options: Any, setup: Any) -> None:
        from llmtab.live.daybook import Daybook
        from llmtab.live.inflight import Flights
        from llmtab.live.table import LiveTable, State
        from llmtab.live.totals import Totals

        self._options = options
        self._restore = {"flow_detail": options.flow_detail, "termlog_verbosity": options.termlog_verbosity}
        options.update(flow_detail=0, termlog_verbosity="error")
        self._state = State(ledger=str(setup.ledger.path), totals=Totals(options.llmtab_by))
        self._flights = Flights()
        self._days = Daybook(setup.ledger.path, setup.config.timezone)
        self._table = LiveTable(None, self._state)
        self._table.start(datetime.now().astimezone())
        self._log = _AboveTable(self._table)

    # -- what happens --------------------------------------------------------------------------------------------------

    def tell(self, lines: Sequence[Line]) -> None:
        """New lines are on the ledger."""
        if self._state is None and self._plain is None:
            return
        try:
            for line in lines:
                if self._state is not None:
                    self._state.add(line)
                if self._plain is not None and "batch" not in line:  # a file of 100,000 items is one sentence there
                    log.info("%s", self._plain(line))
        except Exception:
            self._trouble()

    def mention(self, host: str) -> None:
        """Say once of each unknown host that it looks like an LLM provider, and how to name it."""
        if host not in self._guessed and len(self._guessed) < MOST_HOSTS:
            self._guessed.add(host)
            how = f"hosts: {{{host}: {{profile: openai}}}} in llmtab.yaml"
            log.info("llmtab: %s is metered by the shape of its paths; to name it: %s", host, how)

    def warn(self, sentence: str | None) -> None:
        """Say something in the log, where no table says it."""
        if sentence and self._table is None:
            log.warning("llmtab: %s", sentence)

    def note(self, topic: str, text: str | None) -> None:
        """What the table's foot says about a topic from now on; nothing where None or empty."""
        if text:
            self._notes[topic] = text
        else:
            self._notes.pop(topic, None)

    def limits(self, rows: Sequence[tuple[str, Decimal, Decimal, str]]) -> None:
        """The budgets' bars, as the table shows them from now on: label, spent, limit, and the unit of both."""
        if self._state is not None:
            from llmtab.live.rows import Limit

            self._state.set_limits([Limit(*row) for row in rows])

    def tick(self, ledger: Any, calls: "Collection[Exchange]", coverage: "Coverage") -> None:
        """Once a second: redraw if something changed. `calls`: those under way."""
        coverage.note(ledger.note, time.monotonic())
        if self._state is None:
            return
        try:
            now = datetime.now().astimezone()
            if self._table is None:
                self._tell_status()
            elif self._table.due(now):
                self._look(self._state, now, ledger, calls, coverage)
                self._table.update(now)
        except Exception:
            self._trouble()

    def _look(
        self, state: "State", now: datetime, ledger: Any, calls: "Collection[Exchange]", coverage: "Coverage"
    ) -> None:
        """What the table shows besides lines, as it is now."""
        state.set_trouble(ledger.waiting, ledger.dropped, ledger.trouble)
        state.set_notes([*self._notes.values(), *coverage.sentences()])
        if self._flights is not None:
            state.set_flights(self._flights.seen(calls))
        if self._days is not None:
            state.set_recap(self._days.recap(now))

    def _tell_status(self) -> None:
        """A line in the log of a tool that has a screen of its own, when there is news."""
        from llmtab.live.rows import calls, money

        now = time.monotonic()
        if self._state is None or now - self._status_at < STATUS_EVERY:
            return
        total = self._state.totals.total
        status = f"llmtab: {calls(total.calls)}, {money(total)}" + (f", {total.errors} failed" if total.errors else "")
        if total.calls and status != self._status:
            self._status, self._status_at = status, now
            log.log(ALERT, "%s", status)

    # -- mitmproxy's commands ------------------------------------------------------------------------------------------

    def declare_commands(self, add: Callable[[str, Callable[..., Any]], None]) -> None:
        """Declare `llmtab.summary` and `llmtab.tail` to mitmproxy."""
        add("llmtab.summary", self.summary)
        add("llmtab.tail", self.tail)

    def summary(self) -> Sequence[str]:
        """What the calls of this session cost, by model."""
        if self._state is None:
            return [ELSEWHERE]
        from llmtab.live.table import summary

        return summary(self._state, WIDTH, datetime.now().astimezone())

    def tail(self, count: int = 10) -> Sequence[str]:
        """The last calls of this session, one line each."""
        if self._state is None:
            return [ELSEWHERE]
        from llmtab.cells import plain

        lines = list(self._state.recent)[-max(1, count) :]
        return [plain(line) for line in lines] or ["no calls yet"]

    def stop(self, ledger: Any, coverage: "Coverage", *, exiting: bool = False) -> None:
        """Leave the last picture on the screen and the terminal as it was.

        `exiting`: mitmproxy ends, and calls still open end after us: their URLs, keys and all, are not printed.
        """
        coverage.note(ledger.note, time.monotonic(), last=True)
        if self._plain is not None:
            for sentence in coverage.sentences():
                log.info("llmtab: %s", sentence)
        if self._days is not None:
            self._days.stop()
        if self._table is not None:
            try:
                now = datetime.now().astimezone()
                if self._state is not None:
                    self._look(self._state, now, ledger, (), coverage)
                self._table.stop(now)
            except Exception:
                self._trouble()
            self._table = None
            if self._log is not None:
                self._log.remove()
                self._log = None
            if not exiting:
                self._options.update(**self._restore)

    def _trouble(self) -> None:
        if not self._failed:
            self._failed = True
            log.warning("llmtab: the live view failed; the ledger goes on", exc_info=True)
