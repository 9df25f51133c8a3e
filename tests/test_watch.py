"""Who is told of new lines, and when."""

import logging
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmtab import watch
from llmtab.coverage import Coverage
from llmtab.live.rows import Limit
from llmtab.watch import Watchers


class Options(SimpleNamespace):
    """mitmproxy's options, as far as watchers ask."""

    def update(self, **values: Any) -> None:
        vars(self).update(values)


class DumpMaster:
    pass


class ConsoleMaster:
    pass


class Ledger:
    """A ledger's own account of itself, and its notes."""

    waiting, dropped, trouble = 0, 0, ""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def note(self, kind: str, **facts: Any) -> None:
        self.noted.append((kind, facts))


def call(number: int = 0) -> dict[str, Any]:
    facts = {"provider": "openai", "request_model": "gpt-4o", "outcome": "ok", "cost_usd": Decimal("0.5")}
    return {"id": f"call-{number}", "time": "2026-07-28T14:03:12.123Z", **facts}


def started(master: object, tmp_path: Path, table: str = "auto", **options: Any) -> Watchers:
    watchers = Watchers()
    setup = SimpleNamespace(
        table=table, ledger=SimpleNamespace(path=tmp_path / "ledger.jsonl"), config=SimpleNamespace(timezone=None)
    )
    watchers.start(master, Options(llmtab_by="model", **options), setup)
    return watchers


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "llmtab")
    return caplog


def test_without_a_terminal_each_call_is_a_line_of_the_log(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """mitmdump behind a pipe logs one plain line a call, and draws nothing."""
    watchers = started(DumpMaster(), tmp_path, termlog_verbosity="info")
    watchers.tell([call()])
    watchers.tick(Ledger(), (), Coverage())
    assert [record.message for record in logged.records] == ["openai  gpt-4o  in - out -  $0.5000  ok"]


def test_a_quiet_mitmdump_pays_nothing(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """With the log turned down there is neither line nor sum."""
    watchers = started(DumpMaster(), tmp_path, termlog_verbosity="error")
    watchers.tell([call()])
    assert not logged.records
    assert watchers._state is None
    assert watchers.summary() == watchers.tail() == [watch.ELSEWHERE]


def test_tools_with_a_screen_get_status_and_commands(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """In mitmproxy's console no table is drawn: a status says what was spent, commands tell the sums and last calls."""
    watchers, ledger = started(ConsoleMaster(), tmp_path), Ledger()
    assert watchers.tail() == ["no calls yet"]
    for number in range(3):
        watchers.tell([call(number)])
        watchers.tick(ledger, (), Coverage())
    status = [record.message for record in logged.records if record.levelno == watch.ALERT]
    assert "llmtab.summary" in status[0]
    assert status[1:] == ["llmtab: 1 call, $0.5000"]  # the next one is due in a minute
    assert watchers.summary()[0].startswith("llmtab · $1.50 3 calls")
    assert watchers.tail(2) == ["openai  gpt-4o  in - out -  $0.5000  ok"] * 2


def test_commands_are_declared(tmp_path: Path) -> None:
    """`llmtab.summary` and `llmtab.tail`, with types that mitmproxy can ask for."""
    declared: dict[str, Any] = {}
    Watchers().declare_commands(lambda name, command: declared.update({name: command}))
    assert set(declared) == {"llmtab.summary", "llmtab.tail"}


def test_a_view_that_fails_is_logged_once(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """A line that no view can show harms neither the ledger nor the log."""
    watchers = started(ConsoleMaster(), tmp_path)
    for _ in range(3):
        watchers.tell([{"cost_usd": object()}])
    assert len([record for record in logged.records if record.levelno == logging.WARNING]) == 1


def test_blind_spots_are_noted_and_told_at_the_end(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """What was not seen goes beside the ledger while the proxy runs, and into the log of one without a table."""
    watchers, ledger, coverage = started(DumpMaster(), tmp_path, termlog_verbosity="info"), Ledger(), Coverage()
    watchers.warn(coverage.refused_ca("api.openai.com", "10.0.0.5", "curl/8"))
    watchers.tick(ledger, (), coverage)
    coverage.tunnelled("api.anthropic.com")
    watchers.stop(ledger, coverage, exiting=True)
    assert ledger.noted == [
        ("coverage", {"seen": [["refused_ca", "api.openai.com", "curl", 1]]}),
        ("coverage", {"seen": [["tunnelled", "api.anthropic.com", "", 1]]}),
    ]
    text = logged.text
    assert "CURL_CA_BUNDLE" in text
    assert "tunnelled by ignore_hosts" in text


def test_limits_reach_the_table(tmp_path: Path) -> None:
    """What the budgets hand over is what is shown."""
    watchers = started(ConsoleMaster(), tmp_path)
    watchers.limits([Limit("day", Decimal(1), Decimal(2))])
    assert any("$1.00 of $2.00" in line for line in watchers.summary())


def test_telling_costs_little(tmp_path: Path) -> None:
    """A line in the sums of a table takes well under a tenth of a millisecond."""
    watchers = started(ConsoleMaster(), tmp_path)
    watchers._plain = None
    began = time.perf_counter()
    for number in range(1000):
        watchers.tell([call(number)])
    assert time.perf_counter() - began < 0.1


def test_the_log_goes_above_the_table(tmp_path: Path) -> None:
    """mitmproxy's own printer would write into the middle of it; it prints again when the table is gone."""

    class TermLogHandler(logging.Handler):
        pass

    class Table:
        def __init__(self) -> None:
            self.said: list[tuple[str, str]] = []

        def say(self, text: str, style: str) -> None:
            self.said.append((text[9:], style))

    root, printer = logging.getLogger(), TermLogHandler()
    before, ours = root.level, watch.log.level
    root.addHandler(printer)
    root.setLevel(logging.DEBUG)
    watch.log.setLevel(logging.NOTSET)
    table = Table()
    above = watch._AboveTable(table)  # type: ignore[arg-type]
    try:
        assert printer.level > logging.CRITICAL
        watch.log.info("llmtab: profiles: changed openai")
        watch.log.error("llmtab: an edit is not in force")
        logging.getLogger("mitmproxy").info("a client")
        logging.getLogger("mitmproxy").error("an addon failed")
    finally:
        above.remove()
        root.removeHandler(printer)
        root.setLevel(before)
        watch.log.setLevel(ours)
    assert table.said == [
        ("llmtab: profiles: changed openai", "dim"),
        ("llmtab: an edit is not in force", "bad"),
        ("an addon failed", "bad"),
    ]
    assert printer.level == logging.ERROR
    assert above not in root.handlers
