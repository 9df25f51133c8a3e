"""What is spent, read back from the ledger: exactly, once, quickly, and with what other writers add."""

import asyncio
import gzip
import json
import logging
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmtab.budgets import rebuild
from llmtab.budgets.charges import Needs
from llmtab.budgets.checkpoint import checkpoint_path
from llmtab.budgets.guard import Guard, guard_for
from llmtab.budgets.keeper import Keeper
from llmtab.budgets.limits import Limits
from llmtab.budgets.policy import policy
from llmtab.desk import Desk
from llmtab.ledger.writer import Ledger
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles

BUDGETS = [
    {"limit": "100 USD per month", "name": "month"},
    {"limit": "1000 requests per day", "name": "day", "per": ["consumer"]},
    {"limit": "1M tokens per hour", "name": "slides", "window": "sliding"},
    {"limit": "5 USD", "name": "ever"},
]


def limits(specs: list[dict[str, Any]] = BUDGETS) -> Limits:
    return policy({"limits": specs}).limits


def line(at: float, cost: str = "0.01", **more: Any) -> dict[str, Any]:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "schema": 1, "id": f"{random.getrandbits(64):x}", "writer": "", "seq": 0, "time": when, "provider": "openai",
        "request_model": "m", "status": 200, "outcome": "ok", "usage": {"total_tokens": 10}, "cost_usd": Decimal(cost),
        "billing": "metered", "labels": {"consumer": "ann"}, **more,
    }  # fmt: skip


def counted(path: Path, found: Limits | None = None, writer: str = "") -> Keeper:
    """A keeper that has counted the ledger."""
    keeper = Keeper(path, writer, found or limits())
    keeper.start()
    keeper.finish()
    return keeper


def spent(keeper: Keeper, found: Limits, at: float) -> Mapping[str, int]:
    return {one.name: keeper.store.state(one, "ann" if one.per else "", at).spent for one in found.all}


def test_a_restart_counts_what_the_ledger_has(tmp_path: Path) -> None:
    """Without a checkpoint everything that matters is counted, in the windows in which it happened."""
    now, ledger = time.time(), Ledger(tmp_path / "ledger.jsonl")
    for at in (now - 400 * 86400, now - 7200, now - 10, now):
        ledger.append([line(at)])
    ledger.append([line(now, outcome="refused")])
    ledger.append([line(now), {**line(now, "0.5"), "parent": "x"}])
    ledger.close()
    found = limits()
    said = spent(counted(tmp_path / "ledger.jsonl", found), found, now)
    assert said["ever"] == 550_000_000_000
    assert said["slides"] == 40
    assert said["day"] >= 3


def test_a_checkpoint_saves_reading(tmp_path: Path) -> None:
    """What was counted before a checkpoint is not read again, what came after it is, and both are exact."""
    path, now = tmp_path / "ledger.jsonl", time.time()
    ledger = Ledger(path, writer="w1")
    for _ in range(10):
        ledger.append([line(now)])
    first, found = counted(path, writer="w1"), limits()
    first._dirty = True
    first.close()
    for _ in range(3):
        ledger.append([line(now)])
    ledger.close()
    shot = json.loads(checkpoint_path(path).read_text())
    assert shot["seqs"] == {"w1": 9}
    again = counted(path, found)
    assert spent(again, found, now)["ever"] == 130_000_000_000
    assert again.place.offset == path.stat().st_size
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(raw[0] + b"x" * len(b"".join(raw[1:9])) + b"".join(raw[9:]))  # what lies before is never looked at
    assert spent(counted(path, found), found, now)["ever"] == 130_000_000_000


CHAT = "/v1/chat/completions"


def setup_of(ledger: Ledger, budgets: Any, run: str = "", **sections: Any) -> Any:
    """What llmtab.yaml says, and the budget of this run."""
    config = SimpleNamespace(sections={"budgets": budgets, **sections}, timezone=UTC)
    return SimpleNamespace(config=config, budget=run, ledger=ledger, prices=PriceBook.load())


def guarded(setup: Any, old: Guard | None = None) -> Guard:
    guard = guard_for(setup, old)
    assert guard is not None
    return guard


def made(folder: Path, soft: str = "1 USD") -> Guard:
    """The budgets of a proxy."""
    budgets = {"limits": [{"limit": "1 USD", "name": "ever", "soft": soft}]}
    return guarded(setup_of(Ledger(folder / "ledger.jsonl", writer="w"), budgets))


def opened(guard: Guard) -> None:
    """Returns when the ledger is counted."""
    assert guard._keeper is not None
    guard._keeper._reader.join()
    guard._opened()


def started(folder: Path, soft: str = "1 USD") -> tuple[Guard, list[Any]]:
    """The budgets of a proxy, once the ledger is counted, and what they have told."""
    guard, sent = made(folder, soft), []
    guard._notices._send = sent.append
    opened(guard)
    return guard, sent


def test_calls_that_are_written_together_are_counted_one_by_one(tmp_path: Path) -> None:
    """A gateway's call and its upstream's, in one write: a restart counts neither of them again."""
    guard, _ = started(tmp_path)
    desk = SimpleNamespace(setup=guard.setup, guard=guard, _told=lambda lines: None)
    Desk._put(desk, [line(time.time(), "0.2")], [line(time.time(), "0.3")])  # type: ignore[arg-type]
    guard.close()
    guard.setup.ledger.close()
    assert json.loads(checkpoint_path(tmp_path / "ledger.jsonl").read_text())["seqs"] == {"w": 1}
    again, _ = started(tmp_path)
    state = again.gate.store.state(again.gate.policy.limits.all[0], "", time.time())
    assert state.spent == 500_000_000_000
    again.close()


@pytest.mark.parametrize(("soft", "again"), [("0.1 USD", 0), ("0.15 USD", 1)])
def test_what_was_told_is_not_told_again(tmp_path: Path, soft: str, again: int) -> None:
    """An alert goes out once a window, restarts or not; a soft limit that was moved is a new one."""
    first, sent = started(tmp_path, "0.1 USD")
    first.settle([line(time.time(), "0.2")])
    assert [one["event"] for one in sent] == ["soft_limit"]
    first.close()
    second, sent = started(tmp_path, soft)
    second.settle([line(time.time(), "0.2")])
    assert len(sent) == again
    second.close()


async def test_an_answer_says_nothing_of_budgets_that_are_not_counted_yet(tmp_path: Path) -> None:
    """Edited budgets take over a call, and its answer comes before the ledger is counted for them: no bucket is made
    for it that would stand in the way of what the ledger has."""
    old, _ = started(tmp_path)
    call = Call("a", "api.openai.com", "POST", CHAT, time.time(), {}, lambda: b"{}", lambda name: None)
    claim = Profiles.load().match(call.host, 443, "POST", CHAT)
    assert claim is not None
    assert await old.gate.decide(call, claim, "", PriceBook.load(), header=lambda name: None) is None
    new = made(tmp_path)
    old.give_way(new)
    assert new.remaining("a") == {} and new.gate.store.places() == []
    opened(new)
    assert old.remaining("a") == {} and list(new.remaining("a")) == ["x-llmtab-budget-remaining-ever"]
    new.close()


def test_other_limits_are_counted_anew(tmp_path: Path) -> None:
    """A checkpoint that was made for other limits is not believed."""
    path, now = tmp_path / "ledger.jsonl", time.time()
    ledger = Ledger(path)
    ledger.append([line(now)])
    ledger.close()
    first = counted(path)
    first._dirty = True
    first.close()
    found = limits([{"limit": "5 USD", "name": "ever", "match": {"consumer": "bob"}}])
    assert spent(counted(path, found), found, now) == {"ever": 0}


def test_a_line_is_counted_once_however_often_it_is_seen(tmp_path: Path) -> None:
    """Two files that were glued, a copied ledger: a writer's number is counted once."""
    path, now = tmp_path / "ledger.jsonl", time.time()
    ledger = Ledger(path)
    ledger.append([line(now)])
    ledger.close()
    path.write_bytes(path.read_bytes() * 3)
    found = limits()
    assert spent(counted(path, found), found, now)["ever"] == 10_000_000_000


def test_other_writers_are_followed(tmp_path: Path) -> None:
    """What another process adds to the same ledger counts within a second; our own lines are not counted twice."""
    path, now, found = tmp_path / "ledger.jsonl", time.time(), limits()
    ours, theirs = Ledger(path, writer="ours"), Ledger(path, writer="theirs")
    keeper = counted(path, found, "ours")
    for ledger in (ours, theirs, theirs):
        ledger.append([line(now)])
    keeper.tick(now)
    assert spent(keeper, found, now)["ever"] == 20_000_000_000
    path.rename(tmp_path / "ledger-20260101T000000000Z.jsonl")
    for ledger in (ours, theirs):
        ledger.tick()
        ledger.append([line(now)])
        ledger.close()
    keeper.tick(now)
    assert spent(keeper, found, now)["ever"] == 30_000_000_000
    keeper.close()


def test_lines_of_others_are_no_trouble(tmp_path: Path) -> None:
    """Whatever JSON somebody appends to the ledger, counting goes on behind it."""
    path, now, found = tmp_path / "ledger.jsonl", time.time(), limits()
    keeper = counted(path, found)
    odd = [
        {"time": 5},
        {"time": "x"},
        {"labels": 3},
        {"usage": "x"},
        {"cost_usd": "much"},
        {"client": [1]},
        {"budget": 1},
    ]
    rows = [
        {**json.loads(json.dumps(line(now), default=float)), "seq": n, "writer": "x", **o} for n, o in enumerate(odd)
    ]
    rows += [{"a": 1}, {**rows[0], "seq": 99, "time": line(now)["time"], "cost_usd": 0.5}]  # type: ignore[list-item]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keeper.tick(now)
    assert spent(keeper, found, now)["ever"] >= 500_000_000_000
    assert spent(counted(path, found), found, now) == spent(keeper, found, now)
    keeper.close()


def test_a_long_ledger_does_not_hold_up_a_start(tmp_path: Path) -> None:
    """With a checkpoint a start reads only what came after it: 300,000 lines take no longer than none."""
    path, now = tmp_path / "ledger.jsonl", time.time()
    ledger = Ledger(path, fsync="off")
    ledger.append([line(now)])
    ledger.close()
    raw = path.read_bytes()
    with path.open("ab") as file:
        for block in range(30):
            one = b"".join(raw.replace(b'"seq":0', b'"seq":%d' % (block * 10_000 + n + 1)) for n in range(10_000))
            file.write(one)
    first, found = counted(path), limits()
    first._dirty = True
    first.close()
    began = time.perf_counter()
    counted(path, found)
    assert time.perf_counter() - began < 0.3


EVER = [{"limit": "5000 USD", "name": "ever"}]
USD = 1_000_000_000_000


def ever(path: Path, found: Limits | None = None, writer: str = "") -> int:
    """US dollars that a start counts."""
    keeper = counted(path, found or limits(EVER), writer)
    spending = keeper.store.state(keeper._limits.all[0], "", time.time()).spent // USD
    keeper._dirty = True
    keeper.close()
    return spending


def written(path: Path, first: int, last: int, at: float | None = None) -> None:
    """A line of one dollar from each of so many writers."""
    with path.open("a") as file:
        for number in range(first, last):
            one = {**line(at or time.time(), "1"), "writer": f"w{number}"}
            file.write(json.dumps(one, default=float, separators=(",", ":")) + "\n")


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


@pytest.mark.parametrize("edit", ["limits", "alerts", "raised", "early"])
def test_the_budget_of_a_run_outlives_an_edit(tmp_path: Path, edit: str) -> None:
    """What this run has spent stays spent, whatever is edited in llmtab.yaml, also while it is counted; what others
    spend is none of its business."""
    ledger = Ledger(tmp_path / "ledger.jsonl", writer="w")
    first = guarded(setup_of(ledger, None, "5 USD"))
    opened(first)
    time.sleep(0.005)

    def spend(guard: Guard, usd: str) -> None:
        lines = [{**line(time.time(), usd), "writer": "w", "seq": ledger.seq}]
        guard.settle(lines)
        ledger.append(lines)

    def run(guard: Guard) -> float:
        limit = guard.gate.policy.limits.all[-1]
        return guard.gate.store.state(limit, "", time.time()).spent / USD

    spend(first, "2")
    written(ledger.path, 0, 3)
    edited: dict[str, Any] = {
        "limits": setup_of(ledger, [{"limit": "100 USD per day"}], "5 USD"),
        "alerts": setup_of(ledger, None, "5 USD", alerts={"command": ["true"]}),
        "raised": setup_of(ledger, None, "5 requests"),
        "early": setup_of(ledger, [{"limit": "100 USD per day"}], "5 USD"),
    }
    second = guarded(edited[edit], first)
    if edit == "early":
        spend(second, "1")
        third = guarded(setup_of(ledger, [{"limit": "90 USD per day"}], "5 USD"), second)
        opened(third)
        spend(third, "1")
        assert run(third) == 4
        third.close()
        return
    opened(second)
    if edit == "raised":
        assert second.gate.store.state(second.gate.policy.limits.all[-1], "", time.time()).spent == 1
    else:
        assert run(second) == 2
        spend(second, "1")
        assert run(second) == 3
    second.close()


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
        for module in ("guard", "keeper", "checkpoint", "gate"):
            monkeypatch.setattr(f"llmtab.budgets.{module}.time", self)

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


def test_an_unrelated_limit_makes_nothing_be_told_again(tmp_path: Path) -> None:
    """Alerts are remembered across an edit and across a restart under other limits; of a limit that has changed they
    are told anew."""
    ledger, sent = Ledger(tmp_path / "ledger.jsonl", writer="w"), []
    old = None
    soft = {"limit": "100 USD per year", "name": "y", "soft": "1%"}
    for budgets in ([soft], [soft, {"limit": "7 USD", "name": "x"}], None, [soft], [{**soft, "soft": "2%"}]):
        if budgets is None:
            assert old is not None
            old.close()
            old = None
            continue
        old = guarded(setup_of(ledger, budgets), old)
        opened(old)
        old._notices._send = sent.append
        lines = [{**line(time.time(), "2"), "writer": "w", "seq": ledger.seq}]
        old.settle(lines)
        ledger.append(lines)
        old.tick({})
    assert [(one["event"], one["soft"]) for one in sent] == [("soft_limit", 1), ("soft_limit", 2)]
    assert old is not None
    old.close()


@pytest.mark.parametrize("hard", [True, False])
async def test_an_error_while_deciding_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture, hard: bool) -> None:
    """A hard limit that is silently off is worse than a refused call; soft ones refuse nothing, whatever happens."""
    guard = guarded(setup_of(Ledger(tmp_path / "ledger.jsonl"), [{"limit": "1 USD", "hard": hard}]))
    opened(guard)

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no")

    guard.gate.decide = fails  # type: ignore[method-assign]
    call = Call("a", "api.openai.com", "POST", CHAT, time.time(), {}, lambda: b"{}", lambda name: None)
    claim = Profiles.load().match(call.host, 443, "POST", CHAT)
    assert claim is not None
    for _ in range(3):
        refused = await guard.decide(call, claim, lambda name: None)
        assert (refused is not None) is call.refused is hard
    assert caplog.text.count("could not decide") == 1
    guard.close()


def test_a_tick_survives_an_error_in_one_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other parts go on: others are followed, reservations stay, and what failed is said once."""
    guard, _ = started(tmp_path)
    assert guard._keeper is not None
    limit = guard.gate.policy.limits.all[0]
    guard.gate.store.extend("a", Needs(guard.gate.policy.limits.touched({}), [USD]), time.time() - 119)
    running: Any = {"a": SimpleNamespace()}

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no")

    guard.gate.tick = fails  # type: ignore[method-assign]
    guard._keeper.tick = fails  # type: ignore[method-assign]
    for _ in range(3):
        guard.tick(running)
    assert caplog.text.count("could not look after") == caplog.text.count("could not follow") == 1
    guard.gate.store.tick(time.time() + 60)
    assert guard.gate.store.state(limit, "", time.time()).reserved == USD
    guard.close()


def test_the_meter_goes_on_where_one_of_its_parts_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Said once, tried every second."""
    from llmtab.meter import Meter

    meter, runs = Meter(), []

    def part() -> None:
        runs.append(1)
        raise RuntimeError("no")

    for _ in range(3):
        meter._survive(part)
    assert len(runs) == 3 and caplog.text.count("is tried again") == 1
