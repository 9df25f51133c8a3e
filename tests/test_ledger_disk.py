"""Disks that are full, broken or slow: no call is lost, none is there twice, and nobody waits for them."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples
from ledger_helpers import Disk, call, ids
from llmtab.ledger import appender
from llmtab.ledger.reader import notes_path, read
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.jsonl"


def test_lines_wait_while_the_disk_is_full_and_are_written_in_order(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk loses nothing: lines wait, are counted, logged once, and are written in order when there is room."""
    disk = Disk()
    ledger = Ledger(path, write=disk)
    ledger.append([call(0)])
    disk.quota = 100
    for number in range(1, 50):
        ledger.append([call(number)])
    assert ledger.waiting == 49
    assert ledger.trouble == os.strerror(errno.ENOSPC)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    disk.quota = None
    ledger.tick()
    assert (ledger.waiting, ledger.trouble, ledger.dropped) == (0, "", 0)
    assert ids(path) == [f"call-{number}" for number in range(50)]
    assert verify(path).ok
    assert verify(path).torn == []


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS, errno.EDQUOT])
def test_any_error_of_the_disk_is_survived(path: Path, error: int) -> None:
    """Whatever error the system gives, `append` does not raise and the line is written later."""
    disk = Disk(quota=0, error=error)
    ledger = Ledger(path, write=disk)
    ledger.append([call(0)])
    disk.quota = None
    ledger.append([call(1)])
    assert ids(path) == ["call-0", "call-1"]


def test_what_cannot_wait_is_counted_and_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound of what may wait, lines are dropped: counted at once, noted once the disk is back."""
    monkeypatch.setattr(appender, "WAITING_BATCHES", 3)
    disk = Disk(quota=0)
    ledger = Ledger(path, write=disk)
    for number in range(5):
        ledger.append([call(number), call(100 + number, parent=f"call-{number}")])
    assert (ledger.waiting, ledger.dropped) == (6, 4)
    disk.quota = None
    ledger.tick()
    ledger.append([call(9)])
    assert ids(path) == ["call-0", "call-100", "call-1", "call-101", "call-2", "call-102", "call-9"]
    (note,) = read(notes_path(path))
    assert (note["note"], note["lines"], note["before"], note["writer"]) == ("dropped", 4, 6, ledger.writer)
    report = verify(path)
    assert (report.ok, report.dropped) == (True, 4)


def test_a_half_written_line_is_never_glued_to_another_writers(path: Path) -> None:
    """Two writers on a disk that fills up: each line of both is there once, in its writer's order, and can be read."""
    disk = Disk()
    mine, other = Ledger(path, writer="mine", write=disk), Ledger(path, writer="other")
    mine.append([call(0)])
    disk.quota = 300
    mine.append([call(1), call(2), call(3)])
    other.append([call(10)])
    disk.quota = 30
    mine.tick()
    other.append([call(11)])
    disk.quota = None
    mine.tick()
    found = ids(path)
    assert [name for name in found if len(name) == 6] == ["call-0", "call-1", "call-2", "call-3"]
    assert [name for name in found if len(name) == 7] == ["call-10", "call-11"]
    report = verify(path)
    assert report.ok
    assert len(report.torn) == 2


@pytest.mark.parametrize("between", ["nothing", "closed", "another writer"])
def test_a_disk_that_is_full_at_any_byte_doubles_no_line(tmp_path: Path, between: str) -> None:
    """Also where nothing but a line's newline was missing: it is whole as soon as anybody begins a new line."""
    for room in (*range(12), *(len_ - 2 + at for len_ in [_length(tmp_path)] for at in range(4))):
        path = tmp_path / f"{between}-{room}" / "ledger.jsonl"
        disk = Disk()
        mine, other = Ledger(path, fsync="off", write=disk), Ledger(path, writer="other", fsync="off")
        mine.append([call(0)])
        disk.quota = room
        mine.append([call(1)])
        if between == "closed":
            mine.close()
        elif between == "another writer":
            other.append([call(9)])
        disk.quota = None
        mine.append([call(2)])
        assert sorted(ids(path)) == sorted(["call-0", "call-1", "call-2", *["call-9"] * (between == "another writer")])
        assert verify(path).ok
        mine.close()
        other.close()


def _length(folder: Path) -> int:
    """Bytes of a call's line."""
    ledger = Ledger(folder / "length" / "ledger.jsonl", fsync="off")
    ledger.append([call(0)])
    ledger.close()
    return ledger.path.stat().st_size


Step = tuple[str, int]


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 3)),
            st.tuples(st.just("quota"), st.integers(0, 900)),
            st.tuples(st.just("room"), st.just(0)),
            st.tuples(st.just("tick"), st.just(0)),
            st.tuples(st.just("close"), st.just(0)),
            st.tuples(st.just("rotate"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_every_line_is_there_once_and_in_order_whatever_the_disk_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    """Short writes, a full disk at any byte, rotation at any moment: every line exactly once, in order, none glued."""
    path = tmp_path_factory.mktemp("disk") / "ledger.jsonl"
    disk = Disk()
    ledger = Ledger(path, fsync="off", write=disk)
    count = rotations = 0

    def rotate() -> None:
        nonlocal rotations
        if path.exists():
            rotations += 1
            path.rename(path.with_name(f"ledger-20260728T1011{rotations:05d}Z.jsonl"))

    def append(lines: int) -> None:
        nonlocal count
        ledger.append([call(count + number) for number in range(lines)])
        count += lines

    acts: dict[str, Callable[[int], Any]] = {
        "append": append,
        "quota": lambda size: setattr(disk, "quota", size),
        "room": lambda _: setattr(disk, "quota", None),
        "tick": lambda _: ledger.tick(),
        "close": lambda _: ledger.close(),
        "rotate": lambda _: rotate(),
    }
    for step, argument in steps:
        acts[step](argument)
    disk.quota = None
    ledger.append([call(count)])
    ledger.close()
    assert ids(path) == [f"call-{number}" for number in range(count + 1)]
    assert verify(path).ok
    assert ledger.waiting == ledger.dropped == 0


def test_a_slow_disk_does_not_hold_the_caller(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After one slow write a thread takes over: appends return at once, and all lines arrive in order."""
    monkeypatch.setattr(appender, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(appender, "CALM_SECONDS", 0.05)
    caplog.set_level(logging.WARNING)
    slow = threading.Event()
    slow.set()

    def write(fd: int, data: bytes) -> int:
        if slow.is_set():
            time.sleep(0.02)
        return os.write(fd, data)

    ledger = Ledger(path, write=write)
    ledger.append([call(0)])
    start = time.perf_counter()
    for number in range(1, 20):
        ledger.append([call(number)])
    assert time.perf_counter() - start < 0.1
    assert ledger.waiting > 0
    assert ledger.trouble == "the disk is slow"
    slow.clear()
    deadline = time.monotonic() + 5
    while ledger.trouble and time.monotonic() < deadline:
        ledger.tick()
        time.sleep(0.01)
    ledger.append([call(20)])
    ledger.close()
    assert ids(path) == [f"call-{number}" for number in range(21)]
    assert "a thread writes" in caplog.text
    assert "fast again" in caplog.text


def test_closing_on_a_slow_disk_still_writes_what_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` waits for the thread of a slow disk to finish."""
    monkeypatch.setattr(appender, "SLOW_SECONDS", 0.001)

    def write(fd: int, data: bytes) -> int:
        time.sleep(0.002)
        return os.write(fd, data)

    ledger = Ledger(path, write=write)
    for number in range(20):
        ledger.append([call(number)])
    ledger.close()
    assert ids(path) == [f"call-{number}" for number in range(20)]
