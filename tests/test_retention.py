"""Retention: whole finished files past their time go, and `verify` can tell a pruned ledger from a cut one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger_helpers import call, ids
from llmtab.cli import main
from llmtab.ledger import appender
from llmtab.ledger.housekeeping import Housekeeper, Policy
from llmtab.ledger.reader import notes_path, read, rotated
from llmtab.ledger.retention import past_their_time, span
from llmtab.ledger.rotation import Rotation, compress_finished, rotate
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of three compressed files, finished on the first three days of 2026, and one that grows."""
    monkeypatch.setattr(appender, "LOOK_SECONDS", 0)
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for day in range(3):
        ledger.append([call(day, note="x" * 1000)])
        rotate(path, Rotation(size=1000), FIRST + timedelta(days=day))
    ledger.append([call(3)])
    ledger.close()
    compress_finished(path)
    return path


@pytest.mark.parametrize(
    ("text", "days"), [("90d", 90), ("1 day", 1), ("48h", 2), ("2 weeks", 14), ("1y", 366), ("36 hours", 1.5)]
)
def test_a_time_is_read(text: str, days: float) -> None:
    """Times to keep are written as people write them."""
    assert span(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["90", "d", "0d", "3 months", "-1d"])
def test_anything_else_is_refused(text: str) -> None:
    """What is no time is an error that says what was expected: nothing is deleted by a misspelt one."""
    with pytest.raises(ValueError, match="expected a time to keep"):
        span(text)


def test_only_whole_finished_files_past_their_time_go(path: Path) -> None:
    """A file goes by when it was finished; the one that grows stays, however old its lines are."""
    now = FIRST + timedelta(days=11, hours=1)
    assert [file.until.day for file in past_their_time(path, timedelta(days=10), now)] == [1, 2]
    assert len(past_their_time(path, timedelta(hours=1), now)) == 3
    assert past_their_time(path, timedelta(days=20), now) == []


def test_prune_says_what_it_will_do_and_does_nothing_unasked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody can be asked, `prune` without --yes names the files and deletes none; the exit status says so."""
    before = sorted(path.parent.iterdir())
    assert main(["prune", "--keep", "1d", str(path)]) == 1
    said = capsys.readouterr().out
    assert all(file.name in said for file in rotated(path).values())
    assert "nothing was deleted" in said
    assert sorted(path.parent.iterdir()) == before


def test_a_pruned_ledger_is_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After `prune --yes` the rest of the ledger verifies as if nothing had been there; the notes say what was."""
    assert main(["prune", "--keep", "1d", "--yes", str(path)]) == 0
    assert capsys.readouterr().out.count("deleted ledger-2026010") == 3
    assert ids(path) == ["call-3"]
    assert verify(path).ok
    pruned = [note for note in read(notes_path(path)) if note["note"] == "pruned"]
    assert [(note["lines"], note["until"][:10]) for note in pruned] == [
        (1, "2026-01-01"), (1, "2026-01-02"), (1, "2026-01-03"),
    ]  # fmt: skip
    assert main(["prune", "--keep", "1d", "--yes", str(path)]) == 0


def test_a_file_deleted_by_hand_is_missing(path: Path) -> None:
    """A file that went without a note is a loss that `verify` names."""
    [*rotated(path).values()][1].unlink()
    assert [problem.kind for problem in verify(path).problems] == ["missing"]


def test_a_prune_that_was_interrupted_is_no_damage(path: Path) -> None:
    """Where the note was written and the file was not deleted any more, the ledger is as whole as before."""
    kept = {file: file.read_bytes() for file in rotated(path).values()}
    main(["prune", "--keep", "1d", "--yes", str(path)])
    for file in [*kept][1:]:
        file.write_bytes(kept[file])
    assert ids(path) == ["call-1", "call-2", "call-3"]
    assert verify(path).ok


def test_the_policy_prunes_at_start_and_daily(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `keep` in llmtab.yaml old files go at the start and once a day, and the log says which before they do."""
    days = [FIRST + timedelta(days=11, hours=1)]
    keeper = Housekeeper(path, Policy(None, timedelta(days=10)), now=lambda: days[-1])
    keeper.tick()
    keeper.wait(10)
    assert ids(path) == ["call-2", "call-3"]
    assert caplog.text.index("are deleted: ledger-20260101") < caplog.text.index("deleted ledger-20260101")
    keeper.tick()
    days.append(days[-1] + timedelta(days=1))
    keeper.tick()
    keeper.wait(10)
    assert ids(path) == ["call-3"]
    assert verify(path).ok


def test_a_keyed_ledger_is_pruned_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger with a key is verified and pruned with that key, and without it nothing in it is believed."""
    path, key = tmp_path / "ledger.jsonl", tmp_path / "chain.key"
    key.write_bytes(bytes(range(32)))
    ledger = Ledger(path, key=key.read_bytes())
    ledger.append([call(0, note="x" * 1000)])
    ledger.close()
    rotate(path, Rotation(size=1000), FIRST)
    ledger.append([call(1)])
    ledger.close()
    assert main(["prune", "--keep", "1d", "--yes", "--key", str(key), str(path)]) == 0
    assert main(["verify", "--key", str(key), str(path)]) == 0
    assert main(["verify", str(path)]) == 1
    key.write_bytes(b"short")
    assert main(["verify", "--key", str(key), str(path)]) == 1
    assert "expected a random key of 16 bytes" in capsys.readouterr().err
