"""Lines that wait for another line are on disk all the same."""

from pathlib import Path

import pytest

from ledger_helpers import Disk, call, ids
from llmtab.ledger import held
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger


def left(folder: Path) -> list[Path]:
    """The files of lines that wait."""
    return sorted(folder.glob("*.held-*"))


def killed(ledger: Ledger) -> None:
    """What a kill leaves of a writer: its files, without its locks."""
    for file in (ledger._file, ledger._held):
        held.os.close(file._fd)
        file._fd = -1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_waited_at_a_kill_is_booked_by_the_next_start(path: Path) -> None:
    """Each waiting call once, with its sub-lines, in order; one that was written meanwhile is not written again."""
    ledger = Ledger(path)
    ledger.open()
    ledger.hold([call(1), call(2, parent="call-1")])
    ledger.hold([call(3)])
    ledger.hold([call(4)])
    ledger.append([call(3)])
    assert [file.stat().st_mode & 0o777 for file in left(path.parent)] == [0o600]
    killed(ledger)
    for _ in range(2):
        again = Ledger(path)
        again.open()
        again.close()
    assert ids(path) == ["call-3", "call-1", "call-2", "call-4"]
    assert left(path.parent) == []
    assert verify(path).ok


def test_a_living_writer_keeps_what_it_holds(path: Path) -> None:
    """Another proxy on the same ledger books nothing that is still somebody's to write."""
    ledger, other = Ledger(path), Ledger(path)
    ledger.open()
    ledger.hold([call(1)])
    other.open()
    other.append([call(2)])
    ledger.append([call(1)])
    assert ids(path) == ["call-2", "call-1"]
    assert left(path.parent) == []
    ledger.close()
    other.close()


def test_nothing_is_let_go_before_the_disk_has_it(path: Path) -> None:
    """A line that waits again, for a disk that is full, stays beside the ledger until it is written."""
    disk = Disk()
    ledger = Ledger(path, write=disk)
    ledger.open()
    ledger.hold([call(1)])
    disk.quota = 0
    ledger.append([call(1)])
    assert len(left(path.parent)) == 1
    disk.quota = None
    ledger.tick()
    assert left(path.parent) == []
    assert ids(path) == ["call-1"]
    ledger.close()


def test_the_file_does_not_grow_with_what_has_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is always one line that waits, those that wait no more are left out from time to time."""
    monkeypatch.setattr(held, "STALE_BYTES", 1000)
    ledger = Ledger(path)
    ledger.open()
    for number in range(100):
        ledger.hold([call(number)])
        if number:
            ledger.append([call(number - 1)])
    [file] = left(path.parent)
    assert file.stat().st_size < 2000
    killed(ledger)
    again = Ledger(path)
    again.open()
    again.close()
    assert ids(path) == [f"call-{number}" for number in range(100)]


def test_a_half_written_line_costs_only_itself(path: Path) -> None:
    """A power cut tears the last line; those before it are booked."""
    path.write_bytes(b"")
    path.with_name("ledger.jsonl.held-aa-1").write_bytes(b'{"id":"call-1"}\n{"id":"call-2","ti')
    ledger = Ledger(path)
    ledger.open()
    ledger.close()
    assert ids(path) == ["call-1"]
