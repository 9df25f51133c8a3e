"""A ledger read back as one, whatever became of its files."""

import gzip
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from llmtab.ledger.follow import GRACE_POLLS, Follower, follow
from llmtab.ledger.reader import Skipped, files, read
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger

OLD = "ledger-20260101T000000000Z.jsonl"
NEW = "ledger-20260102T000000000Z.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def append(ledger: Ledger, *names: str) -> None:
    for name in names:
        ledger.append([{"schema": 1, "id": name}])


def rotate(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def compress(path: Path) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))


def polled(follower: Follower) -> list[str]:
    return [line["id"] for line in follower.poll()]


def test_rotated_and_compressed_files_are_one_ledger(path: Path) -> None:
    """Readers and `verify` see rotated files, plain, gzip or zstd, and the growing one as one ledger, oldest first."""
    zstandard = pytest.importorskip("zstandard", reason="no zstd module to make a test file with")
    ledger = Ledger(path)
    append(ledger, "a", "b")
    first = rotate(path, OLD)
    compress(first)
    first.unlink()
    append(ledger, "c")
    second = rotate(path, NEW)
    second.with_name(second.name + ".zst").write_bytes(zstandard.compress(second.read_bytes()))
    second.unlink()
    append(ledger, "d")
    assert [line["id"] for line in read(path)] == ["a", "b", "c", "d"]
    report = verify(path)
    assert (report.ok, report.lines) == (True, 4)


def test_a_file_that_is_just_being_compressed_counts_once(path: Path) -> None:
    """While a rotated file stands there plain and compressed, its lines are read once."""
    append(Ledger(path), "a")
    compress(rotate(path, OLD))
    assert [file.name for file in files(path)] == [OLD]
    assert [line["id"] for line in read(path)] == ["a"]


def test_a_file_compressed_while_it_is_read_is_found(path: Path) -> None:
    """Reading goes on in the compressed form where a file was compressed after it was listed."""
    ledger = Ledger(path)
    append(ledger, "a")
    rotate(path, OLD)
    append(ledger, "b")
    second = rotate(path, NEW)
    reading = read(path)
    assert next(reading)["id"] == "a"
    compress(second)
    second.unlink()
    assert [line["id"] for line in reading] == ["b"]


def test_other_files_in_the_folder_are_not_the_ledger(path: Path) -> None:
    """Notes, torn tails, backups and other ledgers beside it are not read as calls."""
    append(Ledger(path), "a")
    others = ["ledger.notes.jsonl", "ledger.jsonl.torn", "ledger-backup.jsonl", "other.jsonl", OLD + ".part"]
    for name in others:
        path.with_name(name).write_bytes(path.read_bytes())
    assert [line["id"] for line in read(path)] == ["a"]


def test_unreadable_lines_are_counted_and_passed_over(path: Path) -> None:
    """Torn, binary or foreign lines never stop a reader: they are counted, and a line glued behind one is found."""
    path.write_bytes(
        b'{"schema":1,"id":"a","cost_usd":0.1}\n{"schema":1,"id":"half\n\0\0\0\n\n[1]\n'
        b'{"schema":1,"id":"to{"schema":1,"id":"b"}\n'
        + b"[" * 100_000
        + b'\n{"schema":1,"id":"c"}\n{"schema":1,"id":"d"}'
    )
    skipped = Skipped()
    lines = list(read(path, skipped))
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert lines[0]["cost_usd"] == Decimal("0.1")
    assert skipped.lines == 5


def test_no_ledger_is_an_error(path: Path) -> None:
    """Reading a path without a ledger says so."""
    with pytest.raises(FileNotFoundError, match="no ledger at"):
        list(read(path))


def test_following_gives_each_line_once_and_never_half_a_line(path: Path) -> None:
    """A line shows up when its newline is there, not before, and only once."""
    append(Ledger(path), "old")
    follower = Follower(path)
    assert polled(follower) == []
    with path.open("ab", buffering=0) as file:
        file.write(b'{"schema":1,"id":"a"}\n{"schema":1,')
        assert polled(follower) == ["a"]
        file.write(b'"id":"b"')
        assert polled(follower) == []
        file.write(b"}\n")
        assert polled(follower) == ["b"]
    assert polled(follower) == []
    assert follower.skipped.lines == 0
    follower.close()


def test_following_begins_behind_a_line_that_is_just_being_written(path: Path) -> None:
    """A follower that starts in the middle of a write gives that line, whole."""
    path.write_bytes(b'{"schema":1,"id":"a"}\n{"schema":1,')
    follower = Follower(path)
    with path.open("ab") as file:
        file.write(b'"id":"b"}\n')
    assert polled(follower) == ["b"]
    follower.close()


def test_following_from_the_start_reads_rotated_files_first(path: Path) -> None:
    """`from_start` gives the whole ledger, then what comes."""
    ledger = Ledger(path)
    append(ledger, "a")
    rotate(path, OLD)
    append(ledger, "b")
    follower = Follower(path, from_start=True)
    assert polled(follower) == ["a", "b"]
    append(ledger, "c")
    assert polled(follower) == ["c"]
    follower.close()


def test_following_goes_on_through_rotation(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotation between two polls, once or twice, compressed or not, loses nothing and repeats nothing."""
    monkeypatch.setattr("llmtab.ledger.appender.LOOK_SECONDS", 0.0)
    ledger = Ledger(path)
    append(ledger, "a")
    follower = Follower(path, from_start=True)
    assert polled(follower) == ["a"]
    append(ledger, "b")
    first = rotate(path, OLD)
    append(ledger, "c")
    compress(first)
    first.unlink()
    rotate(path, NEW)
    append(ledger, "d")
    assert polled(follower) == ["b", "c", "d"]
    rotate(path, "ledger-20260103T000000000Z.jsonl")
    append(ledger, "e")
    assert polled(follower) == ["e"]
    for _ in range(GRACE_POLLS + 1):
        assert polled(follower) == []
    follower.close()


def test_a_line_finished_in_a_rotated_file_is_still_followed(path: Path) -> None:
    """A writer that was about to write when the file was rotated is still heard."""
    append(Ledger(path), "a")
    follower = Follower(path)
    with path.open("ab", buffering=0) as file:
        rotate(path, OLD)
        append(Ledger(path), "b")
        assert polled(follower) == ["b"]
        file.write(b'{"schema":1,"id":"late"}\n')
    assert polled(follower) == ["late"]
    follower.close()


def test_following_survives_truncation_deletion_and_a_late_start(path: Path) -> None:
    """A ledger that is not there yet, is emptied or deleted is followed as it comes back."""
    follower = Follower(path)
    assert polled(follower) == []
    ledger = Ledger(path)
    append(ledger, "a", "b")
    assert polled(follower) == ["a", "b"]
    os.truncate(path, 0)
    append(ledger, "c")
    assert polled(follower) == ["c"]
    path.unlink()
    assert polled(follower) == []
    append(ledger, "d")
    assert polled(follower) == ["d"]
    follower.close()


def test_follow_ends_when_it_is_told_to(path: Path) -> None:
    """`follow` yields lines until `stop` says so."""
    append(Ledger(path), "a", "b")
    seen: list[str] = []
    seen.extend(line["id"] for line in follow(path, from_start=True, interval=0, stop=lambda: len(seen) == 2))
    assert seen == ["a", "b"]


HOURS = ((b"early", b"14"), (b"late", b"15"))


def test_following_since_a_time_passes_over_what_is_older(path: Path) -> None:
    """A reader of today's lines gets those, from rotated files too, then what comes, and never opens older files."""
    old, new = path.with_name("ledger-20260701T000000000Z.jsonl"), path.with_name("ledger-20260728T150000000Z.jsonl")
    old.write_bytes(b"this is no ledger\n")
    early, late = (b'{"schema":1,"id":"%b","time":"2026-07-28T%b:03:12.123Z"}\n' % pair for pair in HOURS)
    new.write_bytes(early)
    path.write_bytes(early + late)
    rests: list[int] = []
    since = datetime(2026, 7, 28, 15, tzinfo=UTC)
    follower = Follower(path, since=since, pause=lambda: rests.append(1))
    assert polled(follower) == ["late"]
    with path.open("ab") as file:
        file.write(late * 100)
    assert len(polled(follower)) == 100
    assert len(rests) == 3
    assert follower.skipped.lines == 0
    follower.close()
