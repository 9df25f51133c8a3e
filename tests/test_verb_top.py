"""`llmtab top`: the table from another terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.cli import main
from llmtab.coverage import Coverage
from llmtab.ledger.writer import Ledger
from llmtab.live.top import Top
from llmtab.live.windows import WINDOWS

ROOT = Path(__file__).parents[1]
NOW = datetime.now(UTC)


def call(number: int, ago: float = 0, **facts: Any) -> dict[str, Any]:
    at = (NOW - timedelta(minutes=ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    known = {"provider": "openai", "request_model": "gpt-4o", "outcome": "ok", "cost_usd": Decimal("0.5")}
    return {"schema": 1, "id": f"call-{number}", "time": at, **known, "labels": {"project": "web"}, **facts}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open()
    ledger.append([call(0, 60 * 24 * 3)])
    ledger.append([call(1, 30)])
    ledger.append([call(2), call(3, parent="call-2", request_model="helper")])
    coverage = Coverage()
    coverage.refused_ca("api.openai.com", "10.0.0.5", "curl/8")
    coverage.note(ledger.note, 0.0)
    ledger.close()
    return ledger.path


@pytest.fixture
def top(path: Path) -> Iterator[Top]:
    found = Top([path], NOW, window="1 h")
    assert found.read(NOW)
    yield found
    found.close()


def test_keys_change_window_and_grouping(top: Top) -> None:
    """g goes through the words, w through the windows, capitals back, numbers choose, q ends; the rest does nothing."""
    assert (top.look(NOW).totals.by, top.look(NOW).totals.total.calls) == ("model", 2)
    assert all(top.press(key) for key in ("g", "5"))
    state = top.look(NOW)
    assert (state.totals.by, state.totals.total.calls, set(state.totals.groups)) == ("provider", 3, {"openai"})
    week, ten = "7 days", "10 min"
    for key, by, window in (
        ("G", "model", week), ("w", "model", ten), ("up", "model", week), ("right", "provider", week),
        ("x", "provider", week), ("1", "provider", ten),
    ):  # fmt: skip
        assert top.press(key)
        assert (top.by, top.window) == (by, window)
    assert not top.press("q")
    assert "by provider, 10 min" in top.look(NOW).keys


def test_every_window_and_grouping_can_be_reached(top: Top) -> None:
    """Pressing on comes back to where it began."""
    seen = [(top.press("w"), top.window)[1] for _ in WINDOWS]
    assert sorted(seen) == sorted(WINDOWS)
    assert len({(top.press("g"), top.by)[1] for _ in top.windows.groupings}) == len(top.windows.groupings)


def test_it_follows_several_ledgers(path: Path, top: Top, tmp_path: Path) -> None:
    """New lines of every ledger count as they come; a ledger that is not there yet is waited for."""
    other = tmp_path / "other" / "ledger.jsonl"
    other.parent.mkdir()
    both = Top([path, other], NOW, window="1 h", by="team")
    assert both.read(NOW)
    assert both.look(NOW).totals.total.calls == 2
    ledger = Ledger(other)
    ledger.append([call(7, labels={"team": "core"})])
    ledger.close()
    both.read(NOW)
    assert both.look(NOW).totals.groups["core"].calls == 1
    both.close()


def test_blind_spots_of_the_proxies_are_shown(top: Top) -> None:
    """What a proxy could not see stands at the foot, with the variable to set."""
    assert any("refused our CA (curl): set CURL_CA_BUNDLE" in note for note in top.look(NOW).notes)


def test_lines_that_are_no_calls_are_counted_not_obeyed(path: Path) -> None:
    """A ledger with foreign or torn lines is shown as far as it can be read, and says how much could not."""
    with path.open("a") as file:
        file.write(json.dumps({"time": NOW.isoformat(), "cost_usd": "dear"}) + "\n{torn\n")
        file.write(json.dumps({"time": NOW.isoformat(), "labels": [1], "usage": 3}) + "\n")
    top = Top([path], NOW, window="1 h")
    top.read(NOW)
    state = top.look(NOW)
    assert state.totals.total.calls == 2
    assert any(note.startswith("3 lines cannot be read") for note in state.notes)
    top.close()


def test_a_long_ledger_is_shown_while_it_is_read(path: Path) -> None:
    """Reading stops now and then for a picture; nothing is counted twice or lost by that."""
    with path.open("a") as file:
        file.writelines(json.dumps(call(number), default=float) + "\n" for number in range(10, 1010))
    top, turns = Top([path], NOW, window="1 h"), 1
    while not top.read(NOW, patience=0.0):
        turns += 1
        assert "reading" in top.look(NOW).title
    assert turns > 10
    assert top.look(NOW).totals.total.calls == 1002
    assert "reading" not in top.look(NOW).title
    top.close()


def test_a_program_reads_the_sums(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one object: sums in all and by group, days, coverage; money exact, as numbers with a point."""
    assert main(["top", "--json", "--window", "7days", "--by", "project", str(path)]) == 0
    found = json.loads(capsys.readouterr().out, parse_float=Decimal)
    assert (found["window"], found["by"], found["total"]["calls"]) == ("7 days", "project", 3)
    assert found["total"]["cost_usd"] == Decimal("2.0")
    assert found["total"]["retries"] == found["total"]["errors"] == 0
    assert [(one["name"], one["calls"]) for one in found["groups"]] == [("web", 3)]
    assert found["coverage"] == [{"kind": "refused_ca", "host": "api.openai.com", "detail": "curl", "count": 1}]
    assert {"today", "yesterday", "yesterday_by_now"} <= found.keys()


def test_a_ledger_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    """It says so meanwhile."""
    top = Top([tmp_path / "later.jsonl"], NOW)
    assert top.read(NOW)
    assert top.look(NOW).notes == (f"no ledger at {tmp_path}/later.jsonl yet",)
    top.close()


def test_tokens_that_nobody_told_are_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets no 0 either."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open()
    ledger.append([call(0, cost_usd=None, cost_reason="no_usage", usage_source="none")])
    ledger.close()
    assert main(["top", "--json", str(ledger.path)]) == 0
    found = json.loads(capsys.readouterr().out)["total"]
    assert (found["input_tokens"], found["output_tokens"], found["unpriced"]) == (None, None, 1)


def test_without_a_terminal_it_prints_one_picture(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Piped, the picture is plain text without a single escape sequence, and the program ends."""
    assert main(["top", "--window", "1 h", str(path)]) == 0
    text = capsys.readouterr().out
    assert "top, 1 h" in text
    assert "gpt-4o" in text
    assert "q quit" not in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [["--window", "fortnight"], ["/no/such/folder/ledger.jsonl"], ["no-such.jsonl"], ["--by", "BAD LABEL"]],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Windows that do not exist and ledgers that cannot are named."""
    try:
        assert main(["top", *arguments]) == 1
    except SystemExit as end:
        assert end.code == 2
    assert capsys.readouterr().err.count("\n") == 1


class Terminal:
    """`llmtab top` in a terminal of its own."""

    def __init__(self, path: Path, columns: int) -> None:
        self.ours, its = pty.openpty()
        termios.tcsetwinsize(its, (30, columns))
        self.before = termios.tcgetattr(its)
        self.its = its
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONPATH": str(ROOT / "addon"), "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "llmtab.cli", "top", str(path)]
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
        self.text = ""

    def until(self, pattern: str) -> None:
        deadline = time.monotonic() + 15
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode("utf-8", "replace")

    def press(self, keys: bytes) -> None:
        self.text = ""
        os.write(self.ours, keys)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.its)


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_always_given_back(how: str, path: Path) -> None:
    """Keys work as they are pressed; however it ends, modes, cursor and screen are as they were before."""
    terminal = Terminal(path, 80)
    try:
        terminal.until("gpt-4o")
        terminal.press(b"g\x1b[B")
        terminal.until("by provider, yesterday")
        if how == "q":
            terminal.press(b"q")
        else:
            terminal.text = ""
            terminal.process.send_signal(signal.Signals[how])
        terminal.until(re.escape("\x1b[?1049l"))
        assert terminal.process.wait(10) == {"q": 0, "SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}[how]
        assert termios.tcgetattr(terminal.its) == terminal.before
        assert "\x1b[?25h" in terminal.text
    finally:
        terminal.close()
