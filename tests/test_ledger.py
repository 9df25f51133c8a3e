"""The ledger of one process: what is written, how, and what is left after a crash."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from ledger_helpers import Disk, call, ids
from llmtab.ledger import appender
from llmtab.ledger.reader import Skipped, notes_path, read
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger, LedgerError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.jsonl"


def test_a_line_has_writer_number_and_chain_in_their_places(path: Path) -> None:
    """Each line says who wrote it and as which one, right after its id, and ends with its chain."""
    ledger = Ledger(path, writer="w1")
    ledger.append([call(0, cost_usd=Decimal("0.000075"))])
    ledger.append([call(1)])
    first, second = path.read_bytes().splitlines()
    assert list(json.loads(first)) == ["schema", "id", "writer", "seq", "time", "provider", "cost_usd", "chain"]
    assert (json.loads(first)["writer"], json.loads(first)["seq"], json.loads(second)["seq"]) == ("w1", 0, 1)
    body = first[: first.index(b',"chain"')]
    chain = hashlib.sha256(b"w1" + body).hexdigest()
    assert json.loads(first)["chain"] == chain
    follower = hashlib.sha256(chain.encode() + second[: second.index(b',"chain"')]).hexdigest()
    assert json.loads(second)["chain"] == follower


def test_a_call_and_its_sub_lines_are_one_write(path: Path) -> None:
    """A call's line and its sub-lines stand together, whatever other processes write."""
    disk = Disk()
    ledger = Ledger(path, write=disk)
    ledger.append([call(0), call(1, parent="call-0"), call(2, parent="call-0")])
    assert disk.writes == 1
    assert ids(path) == ["call-0", "call-1", "call-2"]


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The folder is made with mode 0700, every file in it with 0600."""
    ledger = Ledger(path)
    ledger.open()
    ledger.append([call(0)])
    ledger.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_ledger_others_can_read_is_named_at_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is wider than 0600 is warned about, with the command that mends it."""
    path.parent.mkdir(mode=0o700)
    path.touch(0o644)
    path.chmod(0o644)
    Ledger(path).open()
    assert f"chmod 600 {path}" in caplog.text


@pytest.mark.parametrize("name", ["file/ledger.jsonl", "folder.jsonl", "pipe.jsonl"])
def test_a_path_that_cannot_be_written_stops_the_start(tmp_path: Path, name: str) -> None:
    """`open` says in one line which path cannot be written and why."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(LedgerError, match=r"cannot write the ledger .*: \w") as raised:
        Ledger(tmp_path / name).open()
    assert "\n" not in str(raised.value)


def test_an_unknown_sync_mode_is_refused() -> None:
    """A misspelt fsync mode is an error that names the right ones."""
    with pytest.raises(ValueError, match="always, interval, off, not 'often'"):
        Ledger(Path("x"), fsync="often")


def test_a_line_that_is_no_json_costs_itself_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A value that cannot be encoded loses its own line, says so, and leaves the chain whole."""
    ledger = Ledger(path)
    ledger.append([call(0)])
    ledger.append([call(1), call(2, cost_usd=object())])
    ledger.append([call(3)])
    assert ids(path) == ["call-0", "call-3"]
    assert ledger.dropped == 2
    assert "cannot be encoded" in caplog.text
    assert verify(path).ok


def test_the_ledger_goes_on_in_a_new_file_when_it_was_moved_or_deleted(path: Path) -> None:
    """A ledger that is rotated or deleted underneath is opened again: no line goes to a file that is gone."""
    ledger = Ledger(path)
    ledger.append([call(0)])
    moved = path.rename(path.with_name("ledger-20260728T101112345Z.jsonl"))
    ledger.append([call(1)])
    assert ids(path) == ["call-0", "call-1"]
    assert verify(path).ok
    path.unlink()
    moved.unlink()
    ledger.append([call(2)])
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    ledger.append([call(3)])
    assert ids(path) == ["call-3"]


def test_lines_after_close_are_still_written(path: Path) -> None:
    """mitmproxy ends calls after it said it was done: the ledger takes lines after `close` too."""
    ledger = Ledger(path)
    ledger.open()
    ledger.append([call(0)])
    ledger.close()
    ledger.append([call(1)])
    ledger.close()
    ledger.close()
    assert ids(path) == ["call-0", "call-1"]
    assert [(note["note"], note["lines"]) for note in read(notes_path(path))] == [("checkpoint", 1), ("checkpoint", 2)]
    assert verify(path).ok


def test_a_torn_last_line_is_set_aside_at_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a power cut left of a line goes to `ledger.jsonl.torn`; it is never glued to the next line."""
    first = Ledger(path)
    first.append([call(0)])
    first.close()
    with path.open("ab") as file:
        file.write(b'{"schema":1,"id":"call-half')
    second = Ledger(path)
    second.open()
    second.append([call(1)])
    skipped = Skipped()
    assert ids(path, skipped) == ["call-0", "call-1"]
    assert skipped.lines == 0
    assert path.with_name("ledger.jsonl.torn").read_bytes() == b'{"schema":1,"id":"call-half\n'
    assert "torn" in caplog.text
    assert "torn" in [note["note"] for note in read(notes_path(path))]


def test_a_whole_last_line_without_newline_is_kept(path: Path) -> None:
    """A line of which only the newline is missing is a finished call and stays one."""
    first = Ledger(path)
    first.append([call(0)])
    first.close()
    path.write_bytes(path.read_bytes()[:-1])
    second = Ledger(path)
    second.open()
    second.append([call(1)])
    assert ids(path) == ["call-0", "call-1"]


def test_a_torn_line_is_left_alone_while_another_writer_lives(path: Path) -> None:
    """A starting process never cuts off what another one is just writing; its own line starts on a new line."""
    other = Ledger(path, writer="other")
    other.append([call(0)])
    with path.open("ab") as file:
        file.write(b'{"schema":1,"id":"call-half')
    mine = Ledger(path, writer="mine")
    mine.open()
    mine.append([call(1)])
    skipped = Skipped()
    assert ids(path, skipped) == ["call-0", "call-1"]
    assert skipped.lines == 1
    assert not path.with_name("ledger.jsonl.torn").exists()


@pytest.mark.parametrize(("fsync", "expected"), [("always", True), ("interval", True), ("off", False)])
def test_syncing_follows_the_mode(path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, expected: bool) -> None:
    """`sync` puts everything on the disk before it returns, unless syncing is off."""
    synced: list[int] = []
    monkeypatch.setattr(appender, "_datasync", synced.append)
    ledger = Ledger(path, fsync=fsync)
    ledger.append([call(0)])
    ledger.sync()
    ledger.sync()
    assert len(synced) == expected


def test_the_interval_sync_is_off_the_callers_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tick` starts the sync elsewhere, and at most one at a time; a sync that fails is tried again."""
    threads: list[threading.Thread] = []
    release = threading.Event()

    def datasync(fd: int) -> None:
        threads.append(threading.current_thread())
        release.wait(5)
        if len(threads) == 1:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(appender, "_datasync", datasync)
    ledger = Ledger(path)
    ledger.append([call(0)])
    ledger.tick()
    ledger.append([call(1)])
    ledger.tick()
    release.set()
    deadline = time.monotonic() + 5
    while len(threads) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
        ledger.tick()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_sync_waits_for_one_that_is_under_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `always` no call ends before its line is on the disk, also when another call's sync carries it there."""
    done: list[str] = []
    begun, release = threading.Event(), threading.Event()

    def datasync(fd: int) -> None:
        begun.set()
        release.wait(5)
        done.append("disk")

    monkeypatch.setattr(appender, "_datasync", datasync)
    ledger = Ledger(path, fsync="always")
    ledger.append([call(0), call(1)])

    def end_call() -> None:
        ledger.sync()
        done.append("call")

    calls = [threading.Thread(target=end_call) for _ in range(2)]
    for thread in calls:
        thread.start()
    assert begun.wait(5)
    release.set()
    for thread in calls:
        thread.join()
    assert done == ["disk", "call", "call"]


def test_what_was_rotated_away_unsynced_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines in a file that was renamed before the next sync reach the disk too."""
    synced: list[int] = []
    monkeypatch.setattr(appender, "_datasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    ledger = Ledger(path)
    ledger.append([call(0)])
    moved = path.rename(path.with_name("ledger-20260728T101112345Z.jsonl"))
    ledger.append([call(1)])
    ledger.sync()
    deadline = time.monotonic() + 5
    while len(synced) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert set(synced) == {moved.stat().st_ino, path.stat().st_ino}


def test_several_processes_share_one_file(path: Path) -> None:
    """Processes that append to one ledger at the same time lose nothing and tear nothing."""
    program = (
        "import sys; from pathlib import Path; from llmtab.ledger.writer import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), fsync='off'); ledger.open()\n"
        "for n in range(2000): ledger.append([{'schema': 1, 'id': f'{sys.argv[2]}-{n}', 'text': 'x' * (n % 700)}])\n"
        "ledger.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(appender.__file__).parents[2])}
    command = [sys.executable, "-c", program, str(path)]
    workers = [subprocess.Popen([*command, str(name)], env=environment) for name in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    skipped = Skipped()
    found = ids(path, skipped)
    for name in range(3):
        assert [one for one in found if one.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(2000)]
    report = verify(path)
    assert (report.ok, report.lines, report.writers, skipped.lines) == (True, 6000, 3, 0)


def test_a_killed_process_leaves_every_finished_call(path: Path) -> None:
    """After SIGKILL at any moment each call that was appended is in the ledger, and the next start reads all of it."""
    program = (
        "import sys; from pathlib import Path; from llmtab.ledger.writer import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.open()\n"
        "n = 0\n"
        "while True:\n"
        "    ledger.append([{'schema': 1, 'id': str(n), 'text': 'x' * 3000}]); n += 1; print(n, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(appender.__file__).parents[2])}
    for _ in range(3):
        path.unlink(missing_ok=True)
        worker = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout
        finished = [int(worker.stdout.readline()) for _ in range(200)]
        worker.kill()
        finished += [int(number) for number in worker.stdout.read().split("\n")[:-1]]
        worker.wait()
        worker.stdout.close()
        Ledger(path).open()
        assert ids(path)[: finished[-1]] == [str(number) for number in range(finished[-1])]
        assert verify(path).ok
