"""What is spent, read back from the ledger: exactly, once, quickly, and with what other writers add."""

import json
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
    path.write_bytes(b"x" * shot["offset"] + path.read_bytes()[shot["offset"] :])  # what lies before is never looked at
    assert spent(counted(path, found), found, now)["ever"] == 130_000_000_000


CHAT = "/v1/chat/completions"


def made(folder: Path, soft: str = "1 USD") -> Guard:
    """The budgets of a proxy."""
    budgets = {"limits": [{"limit": "1 USD", "name": "ever", "soft": soft}]}
    setup = SimpleNamespace(
        config=SimpleNamespace(sections={"budgets": budgets}, timezone=UTC), budget="",
        ledger=Ledger(folder / "ledger.jsonl", writer="w"),
    )  # fmt: skip
    guard = guard_for(setup)  # type: ignore[arg-type]
    assert guard is not None
    return guard


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
    place = {"at": now, "inode": path.stat().st_ino, "offset": path.stat().st_size, "seqs": {}, "buckets": []}
    found = limits()
    digests = {one.name: one.digest for one in found.all}
    checkpoint_path(path).write_text(json.dumps({"format": 1, "digests": digests, **place}))
    began = time.perf_counter()
    counted(path, found)
    assert time.perf_counter() - began < 0.3
