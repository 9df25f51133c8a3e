"""Rotation: a ledger in many files is the same ledger, whoever rotates it and whenever."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ledger_helpers import call, ids
from llmtab.ledger import appender, rotation
from llmtab.ledger.housekeeping import Housekeeper, Policy
from llmtab.ledger.reader import files, notes_path, read
from llmtab.ledger.rotation import Rotation, compress_finished, finished_at, rotate
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger

NOON = datetime(2026, 7, 28, 12, tzinfo=UTC)
SMALL = Rotation(size=1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.jsonl"


def names(path: Path) -> list[str]:
    return [file.name for file in files(path)]


@pytest.mark.parametrize(
    ("text", "size"), [("100MB", 100_000_000), ("1.5 GB", 1_500_000_000), ("20 kb", 20_000), ("5000 B", 5000)]
)
def test_a_size_is_read(text: str, size: int) -> None:
    """Sizes are written as people write them; a kilobyte has a thousand bytes."""
    assert rotation.rotation(text) == Rotation(size=size)


@pytest.mark.parametrize("text", ["day", "1 day", "Daily"])
def test_a_day_is_read(text: str) -> None:
    """A day is a day in the configured zone."""
    zone = ZoneInfo("Asia/Tokyo")
    assert rotation.rotation(text, zone) == Rotation(daily=True, zone=zone)


@pytest.mark.parametrize("text", ["100", "MB", "10 B", "2 days", "-1MB", "weekly"])
def test_anything_else_is_refused(text: str) -> None:
    """What is no size and no day is an error that says what was expected."""
    with pytest.raises(ValueError, match="expected a size like 100MB"):
        rotation.rotation(text)
    assert rotation.rotation("") is None


def test_a_full_file_is_renamed_and_the_ledger_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its size a file gets the time as its name; new lines begin a new one; both are one whole ledger."""
    monkeypatch.setattr(appender, "LOOK_SECONDS", 0)
    ledger = Ledger(path)
    for number in range(20):
        ledger.append([call(number)])
        rotate(path, SMALL, NOON)
    assert names(path)[:2] == ["ledger-20260728T120000000Z.jsonl", "ledger-20260728T120000001Z.jsonl"]
    assert ids(path) == [f"call-{number}" for number in range(20)]
    assert verify(path).ok


def test_a_day_ends_in_its_own_zone(path: Path) -> None:
    """A file is finished when a new day has begun where the user lives; a late call of yesterday starts none."""
    tokyo = Rotation(daily=True, zone=ZoneInfo("Asia/Tokyo"))
    Ledger(path).append([call(0, time="2026-07-28T14:30:00.000Z")])  # half past eleven at night in Tokyo
    assert rotate(path, tokyo, datetime(2026, 7, 28, 14, 59, tzinfo=UTC)) is None
    assert rotate(path, Rotation(daily=True), datetime(2026, 7, 28, 15, 1, tzinfo=UTC)) is None
    assert rotate(path, tokyo, datetime(2026, 7, 28, 15, 1, tzinfo=UTC))
    Ledger(path).append([call(1, time="2026-07-28T14:58:00.000Z")])  # ended after midnight
    assert rotate(path, tokyo, datetime(2026, 7, 28, 16, 0, tzinfo=UTC)) is None
    assert rotate(path, tokyo, datetime(2026, 7, 29, 15, 1, tzinfo=UTC))


def test_names_stay_in_order_when_the_clock_is_set_back(path: Path) -> None:
    """Two files are never confused and always read in the order they were written."""
    for number, now in enumerate([NOON, NOON, NOON - timedelta(days=1)]):
        Ledger(path).append([call(number, note="x" * 1000)])
        assert rotate(path, SMALL, now)
    assert ids(path) == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize("zstd", [True, False])
def test_finished_files_are_compressed(path: Path, monkeypatch: pytest.MonkeyPatch, zstd: bool) -> None:
    """With zstd where a module for it is installed, else gzip; nobody else may read them; nothing is left over."""
    if not zstd:
        monkeypatch.setattr(rotation, "ZSTD_MODULES", ())
    elif rotation._zstd() is None:
        pytest.skip("no zstd module")
    ledger = Ledger(path)
    ledger.append([call(0, note="x" * 1000)])
    ledger.close()
    rotate(path, SMALL, NOON)
    assert compress_finished(path)
    suffix = "zst" if zstd else "gz"
    assert [file.name for file in path.parent.iterdir() if "T12" in file.name] == [
        f"ledger-20260728T120000000Z.jsonl.{suffix}"
    ]
    assert files(path)[0].stat().st_mode & 0o777 == 0o600
    assert finished_at(files(path)[0]) == NOON
    assert ids(path) == ["call-0"]


def test_a_file_that_a_writer_still_holds_is_not_compressed(path: Path) -> None:
    """Whoever may still write into a renamed file keeps it plain; a writer that looks around lets go of it."""
    ledger = Ledger(path)
    ledger.append([call(0, note="x" * 1000)])
    rotate(path, SMALL, NOON)
    assert not compress_finished(path)
    ledger.tick()
    deadline = time.monotonic() + 10
    while not compress_finished(path) and time.monotonic() < deadline:
        time.sleep(0.01)  # what it had written is synced in a thread first
    assert files(path)[0].suffix != ".jsonl"
    ledger.append([call(1)])
    assert ids(path) == ["call-0", "call-1"]
    assert verify(path).ok


def test_the_ledger_rotates_itself(path: Path) -> None:
    """A ledger with a policy rotates and compresses from its tick, in a thread, and notes it with a checkpoint."""
    ledger = Ledger(path, policy=Policy(SMALL))
    ledger.append([call(0, note="x" * 1000)])
    deadline = time.monotonic() + 10
    while not (names(path) and names(path)[0].endswith((".gz", ".zst"))) and time.monotonic() < deadline:
        ledger.tick()
        time.sleep(0.01)
    ledger.append([call(1)])
    ledger.tick()
    ledger.close()
    assert ids(path) == ["call-0", "call-1"]
    assert {"rotated", "checkpoint"} <= {note["note"] for note in read(notes_path(path))}
    assert verify(path).ok


def test_a_rotation_that_fails_is_said_once_and_harms_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be renamed stays, calls go on into it, and the log is not flooded."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("llmtab.ledger.housekeeping.rotate", refuse)
    ledger = Ledger(path, policy=Policy(SMALL))
    ledger.append([call(0, note="x" * 1000)])
    keeper = Housekeeper(path, Policy(SMALL))
    keeper.work()
    keeper.work()
    ledger.append([call(1)])
    assert ids(path) == ["call-0", "call-1"]
    assert caplog.text.count("Permission denied") == 1


def test_several_processes_rotate_one_ledger(path: Path) -> None:
    """Processes that write and rotate at the same time lose nothing, double nothing, and leave one whole ledger."""
    program = (
        "import sys, time; from pathlib import Path; from llmtab.ledger import appender\n"
        "from llmtab.ledger.housekeeping import Policy; from llmtab.ledger.writer import Ledger\n"
        "from llmtab.ledger.rotation import Rotation\n"
        "appender.LOOK_SECONDS = 0.002\n"
        "ledger = Ledger(Path(sys.argv[1]), fsync='off', policy=Policy(Rotation(size=100_000))); ledger.open()\n"
        "for n in range(3000):\n"
        "    ledger.append([{'schema': 1, 'id': f'{sys.argv[2]}-{n}', 'text': 'x' * (n % 300)}])\n"
        "    if n % 20 == 0: ledger.tick(); time.sleep(0.001)\n"
        "ledger.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(appender.__file__).parents[2])}
    command = [sys.executable, "-c", program, str(path)]
    workers = [subprocess.Popen([*command, str(name)], env=environment) for name in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    found = ids(path)
    for name in range(3):
        assert [one for one in found if one.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(3000)]
    report = verify(path)
    assert (report.problems, report.lines, report.torn) == ([], 9000, [])
    assert len(files(path)) > 4
