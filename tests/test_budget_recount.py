"""What is spent, counted again: other files, unreadable ones, a wrong clock, debts."""

import asyncio
import gzip
import json
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from budget_ledger import (
    BUDGETS,
    CHAT,
    EVER,
    USD,
    counted,
    ever,
    guarded,
    limits,
    line,
    opened,
    setup_of,
    spent,
    started,
    written,
)
from llmtab.budgets import checkpoint, gate, guard, keeper, rebuild
from llmtab.budgets.checkpoint import checkpoint_path
from llmtab.budgets.guard import Guard
from llmtab.ledger.writer import Ledger
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles


def finished(path: Path, packed: str = "", hours: int = 0) -> Path:
    """The growing file under a finished one's name, from so many hours ago, plain or packed."""
    name = datetime.fromtimestamp(time.time() - 3600 * hours, UTC).strftime(f"{path.stem}-%Y%m%dT%H%M%S000Z.jsonl")
    file = path.rename(path.with_name(name))
    if not packed:
        return file
    target = file.with_name(file.name + packed)
    if packed == ".zst":
        with pytest.importorskip("zstandard").open(target, "wb") as out:
            out.write(file.read_bytes())
    else:
        target.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return target


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_finished_files_are_counted_however_they_are_packed(tmp_path: Path, packed: str) -> None:
    """Also one that was packed after a part of it had been counted, and whatever reads it cannot seek."""
    path = tmp_path / "ledger.jsonl"
    written(path, 0, 3)
    assert ever(path) == 3
    written(path, 3, 5)
    finished(path, packed)
    written(path, 5, 6)
    assert ever(path) == 6
    checkpoint_path(path).unlink()
    assert ever(path) == 6


@pytest.mark.parametrize("bad", ["truncated", "garbage", "folder", "plain", "date", "pipe"])
def test_a_file_that_cannot_be_read_takes_nothing_else_with_it(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read counts; the file is named once, below what would end a start; nothing waits for ever."""
    path, broken = tmp_path / "ledger.jsonl", tmp_path / "ledger-20260101T000000000Z.jsonl"
    if bad == "truncated":
        written(path, 0, 4000)
        raw = finished(path, ".gz", hours=1).read_bytes()
        broken = next(tmp_path.glob("*.gz"))
        broken.write_bytes(raw[: len(raw) // 2])
    elif bad == "garbage":
        broken = broken.with_name(broken.name + ".gz")
        broken.write_bytes(b"garbage")
    elif bad == "folder":
        broken.mkdir()
    elif bad == "plain":
        broken.write_bytes(os.urandom(100_000))
    elif bad == "date":
        broken = broken.with_name("ledger-20269999T000000000Z.jsonl")
        broken.write_text("{}")
    else:
        os.mkfifo(broken)
    written(path, 5000, 5007)
    for _ in range(2):
        counts = ever(path)
        assert (counts % 4000 > 7) if bad == "truncated" else counts == 7
        checkpoint_path(path).unlink()
    said = [one for one in caplog.records if str(broken) in one.message]
    assert len(said) == (0 if bad == "plain" else 1)
    assert all(one.levelno == logging.WARNING for one in caplog.records)


@pytest.mark.parametrize("value", [-5, "x", None, 10**30, 1.5])
@pytest.mark.parametrize("key", ["offset", "head", "tail", "seqs", "buckets", "told", "at", "ledger", "digests"])
def test_a_checkpoint_that_makes_no_sense_costs_time_only(tmp_path: Path, key: str, value: Any) -> None:
    """Whatever stands in it, the ledger is counted."""
    path = tmp_path / "ledger.jsonl"
    written(path, 0, 3)
    assert ever(path) == 3
    shot = json.loads(checkpoint_path(path).read_text())
    checkpoint_path(path).write_text(json.dumps({**shot, key: value}))
    assert ever(path) == 3


def test_an_odd_moment_on_a_line_stops_nothing(tmp_path: Path) -> None:
    """Of a year that no calendar has: the lines behind it are counted all the same."""
    path = tmp_path / "ledger.jsonl"
    odd = [{**line(time.time(), "1"), "time": when, "writer": when} for when in
           ("0001-01-01T00:00:00+14:00", *(f"9999-12-31T23:59:5{n}-12:00" for n in range(3)))]  # fmt: skip
    path.write_text("".join(json.dumps(one, default=float, separators=(",", ":")) + "\n" for one in odd))
    written(path, 0, 3)
    found = limits([*BUDGETS, {"limit": "5 USD per year", "burst": "100%", "name": "year"}])
    assert spent(counted(path, found), found, time.time())["year"] == 3 * USD


def test_another_ledger_is_counted_from_its_start(tmp_path: Path) -> None:
    """The ledger was deleted and begun anew, as it happens in a file with the same inode: what the checkpoint holds is
    no part of it. The same where its end is another one."""
    path = tmp_path / "ledger.jsonl"
    written(path, 0, 30)
    assert ever(path) == 30
    path.write_bytes(b"")  # the same inode
    written(path, 100, 170)
    assert ever(path) == 70
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([raw[0], *raw[40:]]))
    assert ever(path) == 31


def test_more_writers_than_are_remembered_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is a writer. What lies before the place is not counted again, whoever wrote it."""
    monkeypatch.setattr(rebuild, "WRITERS", 10)
    path = tmp_path / "ledger.jsonl"
    written(path, 0, 30)
    assert ever(path) == 30
    finished(path, ".gz")
    written(path, 30, 31)
    assert ever(path) == 31
    assert len(json.loads(checkpoint_path(path).read_text())["seqs"]) == 10


def test_a_writer_at_work_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own lines are counted before they are read: so we are remembered, however many others write."""
    monkeypatch.setattr(rebuild, "WRITERS", 10)
    path = tmp_path / "ledger.jsonl"
    keeper = counted(path, limits(EVER), "ours")
    keeper.made(0, 1)
    written(path, 0, 30)
    keeper.tick(time.time())
    assert keeper.place.seqs["ours"] == 0 and len(keeper.place.seqs) == 10
    keeper.close()


def test_lines_that_come_to_a_file_after_it_was_finished_count(tmp_path: Path) -> None:
    """Another writer finds out about a new file within a second. Several files may be begun between two looks, and
    what a look leaves of a line is read with the next."""
    path, found = tmp_path / "ledger.jsonl", limits(EVER)
    keeper = counted(path, found, "ours")
    written(path, 0, 2)
    raw = path.read_bytes()
    path.write_bytes(raw[:-10])
    keeper.tick(time.time())
    path.write_bytes(raw)
    keeper.tick(time.time())
    assert keeper.place.offset == len(raw)
    old = finished(path, hours=2)
    written(path, 2, 4)
    finished(path, hours=1)
    written(path, 4, 5)
    keeper.tick(time.time())
    assert spent(keeper, found, time.time())["ever"] == 5 * USD
    written(old, 5, 6)
    keeper.tick(time.time())
    assert spent(keeper, found, time.time())["ever"] == 6 * USD
    keeper.close()
    assert ever(path) == 6


def test_a_debt_is_the_same_when_it_is_counted_again(tmp_path: Path) -> None:
    """An hour that overdrew by the whole burst, and some that used up all they had: the debt is still there."""
    path, found = tmp_path / "ledger.jsonl", limits([{"limit": "100 USD per hour", "name": "h", "burst": "100%"}])
    hour, ledger = time.time() // 3600 * 3600 + 60, Ledger(path)
    for back in range(9, 0, -1):
        ledger.append([line(hour - 3600 * back, "200" if back == 9 else "100")])
    ledger.close()
    keeper = counted(path, found)
    assert keeper.store.state(found.all[0], "", hour).carried == 100 * USD
    keeper._dirty = True
    keeper.close()
    assert counted(path, found).store.state(found.all[0], "", hour).carried == 100 * USD


DAYS = 86_400.0


class Clock:
    """A clock that can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        for module in (checkpoint, gate, guard, keeper):
            monkeypatch.setattr(module, "time", self)

    def __call__(self) -> float:
        return time.time() + self.ahead


OPEN = [
    {"limit": "100 USD per year", "name": "y"}, {"limit": "100 USD per day", "window": "sliding", "name": "s"},
    {"limit": "100 USD", "name": "ever"},
]  # fmt: skip


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("days", [800, -800])
def test_a_clock_that_was_wrong_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, restarts: bool
) -> None:
    """Windows seem over and are swept away; when the clock is right again, what they held is there again, also after a
    restart, and what was booked meanwhile makes no sliding window forget it."""
    clock = Clock(monkeypatch)
    ledger = Ledger(tmp_path / "ledger.jsonl", writer="w")

    def spend(guard: Guard, usd: str) -> None:
        lines = [{**line(clock(), usd), "writer": "w", "seq": ledger.seq}]
        guard.settle(lines)
        ledger.append(lines)

    guard = guarded(setup_of(ledger, OPEN, "100 USD"))
    opened(guard)
    spend(guard, "40")
    guard.tick({})
    clock.ahead = days * DAYS
    guard.tick({})
    if guard._keeper is not None and not guard._keeper.open:
        opened(guard)
    spend(guard, "1")
    guard.tick({})
    if restarts:
        guard.close()
        clock.ahead = 0.0
        guard = guarded(setup_of(ledger, OPEN))
        opened(guard)
    else:
        clock.ahead = 0.0
        guard.tick({})
        opened(guard)
        guard.tick({})
        run = guard.gate.policy.limits.all[-1]
        assert guard.gate.store.state(run, "", clock()).spent == (41 if days > 0 else 40) * USD
    states = [guard.gate.store.state(limit, "", clock()).spent // USD for limit in guard.gate.policy.limits.all[:3]]
    assert states[0] == 40 and states[1] in (40, 41) and states[2] == 41
    guard.close()


async def test_a_decision_after_the_clock_was_set_back_waits_for_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call passes in the second until somebody looks at the clock."""
    clock = Clock(monkeypatch)
    guard, _ = started(tmp_path, "1 USD")
    lines = [line(clock(), "1")]
    guard.settle(lines)
    guard.setup.ledger.append(lines)
    clock.ahead = 40 * DAYS
    guard.tick({})
    clock.ahead = 0.0
    call = Call("a", "api.openai.com", "POST", CHAT, clock(), {}, lambda: b"{}", lambda name: None)
    claim = Profiles.load().match(call.host, 443, "POST", CHAT)
    assert claim is not None
    guard.setup.prices = PriceBook.load()
    refused = await asyncio.wait_for(guard.decide(call, claim, lambda name: None), 5)
    assert refused is not None
    guard.close()
