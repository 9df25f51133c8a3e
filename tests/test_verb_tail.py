"""`llmtab tail` and the tests it chooses lines by."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmtab.cli import main
from llmtab.live.where import chosen

ROOT = Path(__file__).parents[1]


def call(number: int, **facts: Any) -> dict[str, Any]:
    known = {"provider": "openai", "request_model": "gpt-4o", "outcome": "ok", "cost_usd": 0.5, "billing": "metered"}
    return {"schema": 1, "id": f"call-{number}", "time": f"2026-07-28T14:03:{number:02}.123Z", **known, **facts}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    sessions = [call(number, labels={"session": f"session-{number % 2}", "project": "web"}) for number in range(6)]
    return write(tmp_path / "ledger.jsonl", *sessions, call(6, provider="google", request_model="gemini-2.5-pro"))


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (["provider=google"], [6]),
        (["provider!=google", "project=web"], [0, 1, 2, 3, 4, 5]),
        (["model=gemini-*,gpt-5*"], [6]),
        (["session=session-1"], [1, 3, 5]),
        (["session=-"], [6]),
        (["outcome!=ok"], []),
        ([], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_lines_are_chosen_by_any_word(tests: list[str], expected: list[int], ledger: Path) -> None:
    """By model, by a key of the line, by a label; with globs, alternatives, and the opposite."""
    wanted = chosen(tests)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [number for number, line in enumerate(lines) if wanted(line)] == expected


def test_an_altered_line_hides_no_other(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line whose values somebody changed is named, and those around it are shown."""
    write(ledger, call(7, cost_usd="much"), call(8, labels=3), call(9))
    assert main(["tail", "-n", "4", str(ledger)]) == 0
    said = capsys.readouterr()
    assert [line.split()[0][17:19] for line in said.out.splitlines()] == ["06", "09"]
    assert said.err.splitlines() == ["llmtab tail: a line cannot be read; llmtab verify says which"] * 2


def test_a_test_that_makes_no_sense_is_one_line(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was expected is said."""
    assert main(["tail", "--where", "openai", str(ledger)]) == 1
    assert capsys.readouterr().err == (
        "llmtab tail: --where 'openai', expected WORD=VALUE or WORD!=VALUE like provider=openai\n"
    )


def test_the_last_calls_that_are_wanted(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-n` counts the lines that are shown, however far back they are, also in rotated files."""
    old = ledger.with_name("ledger-20260727T000000000Z.jsonl")
    ledger.rename(old)
    write(ledger, *(call(10 + number, provider="mistral") for number in range(5)))
    assert main(["tail", "-n", "2", "--where", "provider=openai", str(ledger)]) == 0
    assert [line[:19] for line in capsys.readouterr().out.splitlines()] == [
        "2026-07-28T14:03:04",
        "2026-07-28T14:03:05",
    ]
    assert main(["tail", "-n", "6", "--json", str(ledger)]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[0])["id"] == "call-6"


def test_a_piped_line_is_plain(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time, provider, model and the rest as text: no columns cut, no colour, nothing a terminal would obey."""
    write(ledger, call(7, request_model="x\x1b[31mred\x1b]0;t\x07"))
    assert main(["tail", "-n", "2", str(ledger)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "2026-07-28T14:03:06.123Z  google  gemini-2.5-pro  in - out -  $0.5000  ok"
    assert "x?[31mred?]0;t?" in second
    assert second.isprintable()


def test_sessions_stand_together(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each session's calls behind each other under its name and what they cost; the busiest last comes last."""
    assert main(["tail", "--by-session", str(ledger)]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line.startswith("── ")]
    assert heads == [
        "── session session-0  web  3 calls  $1.50",
        "── session session-1  web  3 calls  $1.50",
        "── no session  1 call  $0.5000",
    ]
    assert [lines.index(head) for head in heads] == [0, 4, 8]


def test_a_session_is_headed_by_what_all_its_calls_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label that only some calls of it have is not the session's."""
    labels = {"session": "s", "project": "web"}
    lines = [call(0, labels=labels | {"intent": "test"}), call(1, labels=labels), call(2, labels=labels)]
    assert main(["tail", "--by-session", str(write(tmp_path / "ledger.jsonl", *lines))]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "── session s  web  3 calls  $1.50"


def test_torn_lines_are_not_counted(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-n 2` shows two calls, whatever stands behind them."""
    with ledger.open("a") as file:
        file.write('{"schema":1,"id":"x\n' * 70 + '{"schema":1,"id":"y')
    assert main(["tail", "-n", "2", str(ledger)]) == 0
    assert [line[17:19] for line in capsys.readouterr().out.splitlines()] == ["05", "06"]


def test_what_is_no_ledger_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a single line of a ledger is an error; one that waits for its first call is none."""
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0:root:/root:/bin/bash\n" * 3)
    assert main(["tail", str(path)]) == 1
    assert capsys.readouterr().err == f"llmtab tail: {path}: no line of it is a line of a ledger\n"
    path.write_text("")
    assert main(["tail", str(path)]) == 0
    with pytest.raises(SystemExit):
        main(["tail", "-n", "-1", str(path)])
    assert "argument -n: '-1', expected a number from 0" in capsys.readouterr().err


def in_terminal(*arguments: str, columns: int, **environment: str) -> str:
    """What `llmtab tail` prints in a terminal of that width."""
    ours, its = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    known |= {"PYTHONPATH": str(ROOT / "addon"), "TERM": "xterm", "COLUMNS": str(columns), **environment}
    command = [sys.executable, "-m", "llmtab.cli", "tail", *arguments]
    subprocess.run(command, stdin=its, stdout=its, stderr=its, env=known, timeout=30, check=True)
    os.close(its)
    text = b""
    try:
        while data := os.read(ours, 65536):
            text += data
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_columns_that_fit(columns: int, ledger: Path) -> None:
    """In a terminal the lines are columns under titles, coloured, each on one line at any width."""
    text = in_terminal(str(ledger), columns=columns)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    assert "model" in plain[0] and "cost" in plain[0]
    assert len(plain) == 8
    assert max(map(len, plain)) <= columns
    assert "\x1b[32m" in text


def test_no_colour_when_asked_not_to(ledger: Path) -> None:
    """NO_COLOR leaves the columns and takes every escape sequence away."""
    assert "\x1b" not in in_terminal(str(ledger), columns=80, NO_COLOR="1")


def test_following_goes_through_rotation_and_keeps_to_the_test(ledger: Path) -> None:
    """New lines are shown as they come, whatever becomes of the file; only those that are wanted."""
    command = [sys.executable, "-m", "llmtab.cli", "tail", "-f", "-n", "1", "--json", "--where", "provider=openai"]
    with subprocess.Popen([*command, str(ledger)], stdout=subprocess.PIPE, text=True, cwd=ROOT / "addon") as tail:
        assert tail.stdout
        assert json.loads(tail.stdout.readline())["id"] == "call-5"
        write(ledger, call(7, provider="google"), call(8))
        assert json.loads(tail.stdout.readline())["id"] == "call-8"
        ledger.rename(ledger.with_name("ledger-20260728T150000000Z.jsonl"))
        time.sleep(0.05)
        write(ledger, call(9))
        assert json.loads(tail.stdout.readline())["id"] == "call-9"
        tail.terminate()
