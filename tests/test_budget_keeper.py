"""What is spent, read back from the ledger: exactly, once, quickly, and with what other writers add."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budget_ledger import CHAT, USD, counted, guarded, limits, line, made, opened, setup_of, spent, started, written
from llmtab.budgets.charges import Needs
from llmtab.budgets.checkpoint import checkpoint_path
from llmtab.budgets.guard import Guard
from llmtab.desk import Desk
from llmtab.ledger.writer import Ledger
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
from llmtab.rounds import Rounds


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
    rounds, runs, others = Rounds(), [], []

    def part() -> None:
        runs.append(1)
        raise RuntimeError("no")

    for _ in range(3):
        rounds.go(part, lambda: others.append(1))
    assert len(runs) == len(others) == 3 and caplog.text.count("is tried again") == 1
