"""Which ledger a proxy on this machine writes, as it says itself."""

from pathlib import Path

import pytest

from llmtab.run.announced import announce, ledger_of, withdraw


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_proxy_that_runs(tmp_path: Path, home: Path) -> None:
    """Its ledger is known by its address as long as it runs; the note is its user's alone."""
    note = announce([("127.0.0.1", 8081, 0, 0), ("127.0.0.1", 8082)], tmp_path / "team.jsonl")
    for url in ("http://127.0.0.1:8081", "127.0.0.1:8082", "http://+run=1:x@localhost:8081/"):
        assert ledger_of(url) == tmp_path / "team.jsonl"
    for url in ("http://127.0.0.1:8083", "http://127.0.0.2:8081", "http://corp:8081", "nonsense:", ""):
        assert ledger_of(url) is None
    assert (home / "running").stat().st_mode & 0o077 == 0
    withdraw(note)
    assert ledger_of("http://127.0.0.1:8081") is None
    assert list((home / "running").iterdir()) == []


def test_one_that_listens_everywhere(tmp_path: Path) -> None:
    """It is found by any address of this machine's own."""
    note = announce([("0.0.0.0", 8081)], tmp_path / "l.jsonl")
    assert ledger_of("http://127.0.0.2:8081") == tmp_path / "l.jsonl"
    withdraw(note)


def test_one_that_was_killed(tmp_path: Path, home: Path) -> None:
    """What it left says nothing any more, and is taken away."""
    announce([("127.0.0.1", 8081)], tmp_path / "l.jsonl").close()
    (home / "running" / "1.json").write_text("{torn")
    assert ledger_of("http://127.0.0.1:8081") is None
    assert list((home / "running").iterdir()) == []
