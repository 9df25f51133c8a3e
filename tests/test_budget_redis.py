"""Budgets on a real Redis: the same answers as the embedded store, shared by proxies that come, go and lose it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.limits import Limit, Limits, limit
from llmtab.budgets.policy import policy
from llmtab.budgets.redis_look import shared
from llmtab.budgets.redis_store import RedisStore
from llmtab.budgets.store import Embedded
from redis_server import needs_redis, redis_server

pytestmark = needs_redis()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@asynccontextmanager
async def store_at(
    url: str, prefix: str, writer: str = "w", ledger: Path | None = None, limits: Limits | None = None, **spec: Any
) -> AsyncIterator[RedisStore]:
    store = RedisStore({"redis": url, "prefix": prefix, **spec}, writer, ledger, limits)
    try:
        yield store
    finally:
        await sent(store)
        if store._worker is not None:
            store._worker.cancel()
        await store.disconnect()


async def sent(store: RedisStore) -> None:
    """Returns when the server has what was settled."""
    deadline = time.monotonic() + 5
    while store._jobs and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


DAILY = limit({"limit": "100 tokens per day"})
BURSTS = limit({"limit": "100 tokens per hour", "burst": "20 tokens", "name": "bursts"})
SLIDES = limit({"limit": "100 tokens per hour", "window": "sliding", "name": "slides"})
EVER = limit({"limit": "100 tokens", "per": ["consumer"], "name": "ever"})
LARGE = limit({"limit": "1000 tokens", "name": "large"})


@pytest.mark.parametrize("one", [DAILY, BURSTS, SLIDES, EVER], ids=lambda one: one.name)
async def test_it_says_what_the_embedded_store_says(server: str, one: Limit, tmp_path: Path) -> None:
    """Reserving, settling, giving back: answer for answer the same."""
    steps = [("a", 60, 30), ("b", 60, None), ("c", 30, 30), ("d", 70, 5), ("e", 200, None), ("f", 0, 0), ("g", 55, 55),
             ("h", 10, None), ("i", 20, None)]  # fmt: skip
    async with store_at(server, f"same-{one.name}") as store:
        other = Embedded()
        for ident, amount, spent in steps:
            found = [await each.reserve(ident, need(amount, one), time.time()) for each in (store, other)]
            why = [verdict.denied.why if verdict.denied else "" for verdict in found]
            assert why[0] == why[1], (ident, why)
            if not why[0]:
                for each, verdict in zip((store, other), found, strict=True):
                    if spent is None:
                        each.release(ident)
                        each.tick(time.time())
                    else:
                        each.settle(ident, need(spent, one), verdict.at, -1)
                await sent(store)
            now = time.time()
            assert (await store.look(one, "", now))[:3] == other.state(one, "", now)[:3]


async def test_two_proxies_share_a_limit(server: str) -> None:
    """What one reserves the other cannot have; what one has spent the other knows."""
    async with store_at(server, "two", "w1") as one, store_at(server, "two", "w2") as two:
        assert (await one.reserve("a", need(70, DAILY), time.time())).denied is None
        denied = (await two.reserve("b", need(40, DAILY), time.time())).denied
        assert denied and denied.why == "busy" and denied.state.reserved == 70
        one.settle("a", need(65, DAILY), time.time(), 0)
        await sent(one)
        denied = (await two.reserve("b", need(40, DAILY), time.time())).denied
        assert denied and denied.why == "exceeded" and denied.state[:2] == (65, 0)


async def test_the_budget_of_one_run_is_nobody_elses(server: str) -> None:
    """What an earlier run has spent of its own `--budget` takes nothing from the next one's, and its key goes away."""
    [run] = policy(None, run="5 USD").limits.all
    async with store_at(server, "runs", "w1") as one, store_at(server, "runs", "w2") as two:
        assert (await one.reserve("a", need(run.amount, run), time.time())).denied is None
        one.settle("a", need(run.amount, run), time.time(), 0)
        await sent(one)
        denied = (await one.reserve("b", need(1, run), time.time())).denied
        assert denied and (denied.why, denied.state.end) == ("exceeded", float("inf"))
        assert (await two.reserve("c", need(1, run), time.time())).denied is None
        keys = [key async for key in one._client.scan_iter(match="{runs}:b:run*")]
        assert len(keys) == 2 and all([await one._client.ttl(key) > 0 for key in keys])


async def test_all_limits_or_none(server: str) -> None:
    """One script looks at every limit of a call; where one refuses nothing is reserved."""
    async with store_at(server, "all") as store:
        verdict = await store.reserve("a", need(101, LARGE, DAILY), time.time())
        assert verdict.denied and verdict.denied.need.limit is DAILY
        assert (await store.look(LARGE, "", time.time())).reserved == 0


async def test_a_line_is_settled_once(server: str) -> None:
    """A settlement that is sent again, because its answer was lost, counts once; money is exact to the last digit."""
    usd = limit({"limit": "100000 USD per day", "name": "usd"})
    async with store_at(server, "once") as store:
        for _ in range(3):
            store.settle("x", need(9_007_199_254_740_993, usd), time.time(), 7)
        store.settle("y", need(1, usd), time.time(), 8)
        await sent(store)
        assert (await store.look(usd, "", time.time())).spent == 9_007_199_254_740_994


async def test_what_is_given_up_while_it_is_sent(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that overflows gives up what is on its way already: what came after it stays in the queue."""
    monkeypatch.setattr("llmtab.budgets.redis_store.QUEUED", 8)
    async with store_at(server, "given-up") as store:
        deliver = store._deliver

        async def slow(batch: Sequence[Any], epoch: str) -> bool:
            monkeypatch.setattr(store, "_deliver", deliver)
            for number in range(4, 10):
                store.settle("x", need(1, LARGE), time.time(), number)
            return await deliver(batch, epoch)

        monkeypatch.setattr(store, "_deliver", slow)
        for number in range(4):
            store.settle("x", need(1, LARGE), time.time(), number)
        await sent(store)
        assert (store.dropped, (await store.look(LARGE, "", time.time())).spent) == (1, 10)


async def test_no_sum_is_too_large_to_count(server: str) -> None:
    """A settlement beyond what the server can count takes all there is, on every limit of its call; none is lost."""
    first, second = (limit({"limit": "100 USD per month", "name": name}) for name in ("first", "second"))
    async with store_at(server, "large") as store:
        store.settle("a", need(2**64, first), time.time(), 0)
        store.settle("b", need(10, first, second), time.time(), 1)
        store.extend("c", need(2**63 - 5, second), time.time())
        store.extend("c", need(2**63 - 5, second), time.time())
        await sent(store)
        assert (await store.look(first, "", time.time())).spent >= 2**63 - 1
        assert (await store.look(second, "", time.time())).reserved >= 2**63 - 1
        denied = (await store.reserve("d", need(1, first), time.time())).denied
        assert denied and denied.why == "exceeded"
        store.release("c")
        store.tick(time.time())
        await sent(store)
        assert (await store.look(second, "", time.time()))[:2] == (10, 0)


async def test_what_is_left_of_a_sliding_window(server: str) -> None:
    """A proxy believes what the server said last, also of windows that have no beginning."""
    async with store_at(server, "left", "w1") as one, store_at(server, "left", "w2") as two:
        at = (await one.reserve("a", need(10, SLIDES), time.time())).at
        one.settle("a", need(10, SLIDES), at, 0)
        await sent(one)
        two.settle("b", need(50, SLIDES), time.time(), 0)
        await sent(two)
        await one.reserve("c", need(5, SLIDES), time.time())
        assert one.state(SLIDES, "", time.time())[:2] == (60, 5)


async def test_a_crashed_proxy_gives_back_what_it_held(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews the lease of a proxy that is gone: what it had reserved is free again."""
    monkeypatch.setattr("llmtab.budgets.redis_store.LEASE", 0.2)
    async with store_at(server, "crash", "w1") as gone, store_at(server, "crash", "w2") as here:
        assert (await gone.reserve("a", need(100, DAILY), time.time())).denied is None
        assert (await here.reserve("b", need(100, DAILY), time.time())).denied
        gone.renew(["a"], time.time())
        await sent(gone)
        await asyncio.sleep(0.3)
        assert (await here.reserve("b", need(100, DAILY), time.time())).denied is None


async def test_the_servers_clock_decides(server: str) -> None:
    """A proxy whose clock is a week off counts in the window that the server is in."""
    async with store_at(server, "clock") as store:
        verdict = await store.reserve("a", need(10, DAILY), time.time() - 7 * 86400)
        assert abs(verdict.at - time.time()) < 5
        assert (await store.look(DAILY, "", time.time())).reserved == 10


@pytest.mark.parametrize(("on_loss", "passes"), [("open", 1), ("closed", 0)])
async def test_a_lost_server(
    tmp_path: Path, on_loss: str, passes: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away a proxy spends its allowance and no more, or nothing; what was settled is sent later."""
    caplog.set_level(logging.WARNING, "llmtab")
    monkeypatch.setattr("llmtab.budgets.redis_store.PAUSE", 0.3)
    with redis_server(tmp_path) as url:
        async with store_at(url, "lost", on_loss=on_loss, allowance="40%", timeout="0.2s") as store:
            assert (await store.reserve("a", need(30, DAILY), time.time())).denied is None
    async with store_at(url, "lost", "w2", on_loss=on_loss, allowance="40%", timeout="0.2s") as store:
        found = [(await store.reserve(f"{n}", need(30, DAILY), time.time())).denied for n in range(3)]
        assert [one is None for one in found].count(True) == passes
        assert all(one.why == "store" for one in found if one)
        store.settle("0", need(20, DAILY), time.time(), 0)
        began = time.perf_counter()
        await store.reserve("later", need(1, DAILY), time.time())
        assert time.perf_counter() - began < 0.1
        (tmp_path / "redis.sock").unlink(missing_ok=True)
        with redis_server(tmp_path):
            await sent(store)
            await asyncio.sleep(0.4)
            verdict = await store.reserve("back", need(1, DAILY), time.time())
            assert verdict.denied is None
            assert (await store.look(DAILY, "", time.time())).spent == 20
    assert [record.getMessage() for record in caplog.records if "is back" in record.getMessage()]


async def test_onlookers_see_every_caller(server: str) -> None:
    """`llmtab budget` reads the shared buckets without changing them."""
    async with store_at(server, "look") as store:
        for key in ("ann", "b:*b"):
            store.settle(key, need(5, EVER, key=key), time.time(), -1)
        await sent(store)
    rows = await shared({"redis": server, "prefix": "look"}, Limits([EVER, DAILY]), time.time())
    assert [(one.name, key, state.spent) for one, key, state in rows] == [
        ("ever", "ann", 5), ("ever", "b:*b", 5), (DAILY.name, "", 0),
    ]  # fmt: skip


async def test_a_decision_is_one_round_trip(server: str) -> None:
    """However many limits a call touches, the server is asked once."""
    many = [limit({"limit": "100 tokens per day", "name": f"l{n}"}) for n in range(50)]
    async with store_at(server, "trip") as store:
        await store.reserve("warm", need(1, *many), time.time())
        before = (await store._client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await store.reserve("a", need(1, *many), time.time())
        assert (await store._client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
