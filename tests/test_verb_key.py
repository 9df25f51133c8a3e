"""`llmtab key`: which keys were used, and names for them."""

import io
import json
from pathlib import Path

import pytest

from llmtab import cli
from llmtab.attribution.fingerprints import Fingerprints

ONE, TWO, GONE = "k_0123456789abcdef", "k_fedcba9876543210", "k_0000000000000000"


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    monkeypatch.delenv("LLMTAB_LEDGER", raising=False)
    return tmp_path


def ledger(path: Path) -> Path:
    """Three calls of two keys, one with another model's share, and one call without a key."""
    lines = [
        {"id": "a", "time": "2026-11-20T08:00:00.000Z", "provider": "openai", "cost_usd": 0.5, "client": {"key": ONE}},
        {"id": "b", "time": "2026-11-20T09:00:00.000Z", "provider": "openai", "cost_usd": 0.25, "client": {"key": TWO}},
        {"id": "c", "time": "2026-11-20T09:00:00.000Z", "provider": "openai", "cost_usd": 1.0, "parent": "b"},
        {"id": "d", "time": "2026-11-19T09:00:00.000Z", "provider": "xai", "cost_usd": None, "client": {"key": TWO}},
        {"id": "e", "time": "2026-11-21T09:00:00.000Z", "provider": "google", "cost_usd": 9.0, "client": {}},
    ]
    path.write_text("".join(json.dumps({"schema": 1, **line}) + "\n" for line in lines))
    return path


def test_keys_are_listed(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key with its name, calls, known cost, last use and providers; the last used comes first."""
    ledger(house / "ledger.jsonl")
    assert cli.main(["key", "name", ONE, "ci bot"]) == 0
    assert cli.main(["key", "name", GONE, "old laptop"]) == 0
    capsys.readouterr()
    assert cli.main(["key", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == [TWO, ONE, GONE]
    assert rows[0].split()[1:] == ["-", "2", "$1.25+", "2026-11-20", "09:00", "openai,", "xai"]
    assert rows[1].split()[1:5] == ["ci", "bot", "1", "$0.5000"]
    assert "not on this ledger" in rows[2]
    assert cli.main(["key", "list", "--json", str(house / "ledger.jsonl")]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[1] == {
        "key": ONE, "calls": 1, "cost_usd": 0.5, "notional_usd": 0.0, "unpriced_lines": 0,
        "last": "2026-11-20T08:00:00.000Z", "providers": ["openai"], "name": "ci bot",
    }  # fmt: skip
    assert found[0]["unpriced_lines"] == 1
    assert found[2] == {"key": GONE, "calls": 0, "name": "old laptop"}


def test_an_empty_house(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a ledger there is nothing to list, and no error."""
    assert cli.main(["key", "list"]) == 0
    assert capsys.readouterr().out == "no key on the ledger yet\n"
    assert cli.main(["key", "list", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_names_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    """A name can be given, replaced and taken away; what has none cannot lose it."""
    assert cli.main(["key", "name", ONE, "a"]) == 0
    assert cli.main(["key", "name", ONE, "b"]) == 0
    assert cli.main(["key", "forget", ONE]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{ONE} was b"
    assert cli.main(["key", "forget", ONE]) == 1
    assert capsys.readouterr().err == f"llmtab key: {ONE} has no name\n"


def test_a_key_finds_its_fingerprint(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint of a key at hand: from a variable or stdin, never from the command line, never printed."""
    expected = Fingerprints(house / "key").of({"authorization": "Bearer sk-secret"})
    monkeypatch.setenv("SOME_KEY", " sk-secret\n")
    assert cli.main(["key", "of", "SOME_KEY"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-secret\n"))
    assert cli.main(["key", "of"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert cli.main(["key", "of", "NO_SUCH_KEY"]) == 1
    assert capsys.readouterr().err == "llmtab key: NO_SUCH_KEY is not set\n"


def test_a_key_is_not_taken_for_a_fingerprint(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever pastes a key instead of its fingerprint does not see it again on the screen."""
    assert cli.main(["key", "name", "sk-secret", "me"]) == 1
    assert "sk-secret" not in capsys.readouterr().err
    assert cli.main(["key", "forget", "sk-secret"]) == 1
    assert "sk-secret" not in capsys.readouterr().err


@pytest.mark.parametrize("key", ["sk-proj-REALKEY", "AIzaSyREALKEY0123456789", "AKIAREALKEY234567890", "real_key"])
def test_a_key_on_the_command_line_is_not_said_again(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a variable's name is expected, only what surely is one is repeated."""
    assert cli.main(["key", "of", key]) == 1
    said = capsys.readouterr().err
    assert key not in said
    assert "no variable's name" in said


def test_estimates_and_subscriptions_are_marked(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As everywhere: `~` for an estimate, brackets for a subscription, and no price is no 0."""
    facts = {"schema": 1, "time": "2026-11-20T08:00:00.000Z", "provider": "openai"}
    lines = [
        {"cost_usd": 0.5, "cost_source": "estimated", "client": {"key": ONE}},
        {"cost_usd": 2.0, "cost_source": "list", "billing": "subscription", "client": {"key": ONE}},
        {"cost_usd": None, "cost_source": "unpriced", "client": {"key": TWO}},
    ]
    path = house / "ledger.jsonl"
    path.write_text("".join(json.dumps(facts | {"id": str(at)} | line) + "\n" for at, line in enumerate(lines)))
    assert cli.main(["key", "list"]) == 0
    rows = capsys.readouterr().out
    assert "~$0.5000 ($2.00)" in rows
    assert "unpriced" in rows


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_shows_each_key_on_one_line(
    columns: int, house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under titles, and what has no room is left out whole; only names are cut."""
    ledger(house / "ledger.jsonl")
    assert cli.main(["key", "name", ONE, "a bot with quite a long name"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main(["key", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["key", TWO, ONE]
    assert max(map(len, rows)) <= columns
    assert "$1.25+" in rows[1]
