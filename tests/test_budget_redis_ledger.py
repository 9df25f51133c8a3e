"""Spending on Redis stays a sum over the ledgers: whatever the server loses or never heard, each line counts once."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.charges import charges
from llmtab.budgets.checkpoint import checkpoint_path
from llmtab.budgets.limits import Limit, Limits, limit
from llmtab.budgets.redis_store import RedisStore
from llmtab.ledger.reader import read
from llmtab.ledger.writer import Ledger
from redis_server import needs_redis, redis_server
from test_budget_keeper import line
from test_budget_redis import sent, store_at

pytestmark = needs_redis()

MONTH = limit({"limit": "100 USD per month", "name": "month"})
EVER = limit({"limit": "1000 tokens", "name": "ever"})
SLIDES = limit({"limit": "1000 requests per hour", "name": "slides", "window": "sliding"})
EACH = limit({"limit": "50 USD per day", "name": "each", "per": ["consumer"]})
ALL = Limits([MONTH, EVER, SLIDES, EACH])
USD = 10**12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Proxy:
    """A proxy's ledger and its store, which is told of a line just before it is written."""

    def __init__(self, store: RedisStore, ledger: Ledger, limits: Limits = ALL) -> None:
        self.store, self.ledger, self.limits = store, ledger, limits

    def call(self, cost: str = "10", *, told: bool = True, **more: Any) -> None:
        made, at = line(time.time(), cost, **more), time.time()
        if told:
            self.store.settle(made["id"], charges(self.limits, [made], at), at, self.ledger.seq)
        self.ledger.append([made])

    async def spent(self, one: Limit = MONTH, key: str = "") -> int:
        while True:
            try:
                await self.store._told()
                break
            except ConnectionError:  # emptied, or too much was queued, in the middle of it
                await asyncio.sleep(0.02)
        await sent(self.store)
        return (await self.store.look(one, key, time.time())).spent


def ledger_at(folder: Path, writer: str, name: str = "ledger") -> Ledger:
    return Ledger(folder / f"{name}.jsonl", writer=writer)


async def test_a_server_that_was_emptied_is_told_again(server: str, tmp_path: Path) -> None:
    """A restart without persistence: the next decision knows all again, and the next line counts once."""
    async with store_at(server, "empty", "w1", tmp_path / "ledger.jsonl", ALL) as store:
        proxy = Proxy(store, ledger_at(tmp_path, "w1"))
        for _ in range(9):
            proxy.call()
        assert await proxy.spent() == 90 * USD
        await store._client.flushall()
        denied = (await store.reserve("a", need(20 * USD, MONTH), time.time())).denied
        assert denied and denied.why == "exceeded" and denied.state.spent == 90 * USD
        await store._client.flushall()
        proxy.call("5")
        assert await proxy.spent() == 95 * USD
        assert await proxy.spent(EVER) == 100 and await proxy.spent(SLIDES) == 10


async def test_two_ledgers_tell_an_emptied_server_each_its_own(server: str, tmp_path: Path) -> None:
    """Each proxy tells its part; what one settles first does not hide what it spent before."""
    paths = [tmp_path / f"{name}.jsonl" for name in ("w1", "w2")]
    async with (
        store_at(server, "parts", "w1", paths[0], ALL) as one, store_at(server, "parts", "w2", paths[1], ALL) as two,
    ):  # fmt: skip
        proxies = [Proxy(one, ledger_at(tmp_path, "w1", "w1")), Proxy(two, ledger_at(tmp_path, "w2", "w2"))]
        for proxy in proxies:
            proxy.call("20")
            await proxy.spent()
        await one._client.flushall()
        for proxy in proxies:
            proxy.call("1")
            await proxy.spent()
        assert await proxies[0].spent() == 42 * USD


async def test_what_a_proxy_did_not_live_to_settle_counts(server: str, tmp_path: Path) -> None:
    """Also where its first settlement never arrived, and where the server knew some of its lines."""
    dead, half = ledger_at(tmp_path, "dead"), ledger_at(tmp_path, "half")
    dead.append([line(time.time(), "50")])
    async with store_at(server, "dead", "half") as store:
        proxy = Proxy(store, half)
        proxy.call("1")
        proxy.call("2")
        proxy.call("3", told=False)
    half.append([line(time.time(), "0.5"), {**line(time.time(), "0.25"), "parent": "x"}])
    for writer in ("w1", "w2"):
        async with store_at(server, "dead", writer, tmp_path / "ledger.jsonl", ALL) as store:
            assert await Proxy(store, half).spent() == 56_750_000_000_000


async def test_a_running_proxy_looks_for_what_others_left(server: str, tmp_path: Path) -> None:
    """Lines of a writer that is gone are told by one that shares its ledger, without a start."""
    async with store_at(server, "others", "w1", tmp_path / "ledger.jsonl", ALL) as store:
        proxy = Proxy(store, ledger_at(tmp_path, "w1"))
        proxy.call()
        assert await proxy.spent() == 10 * USD
        ledger_at(tmp_path, "w2").append([line(time.time(), "7")])
        store._look_at = 0.0
        store.tick(time.time())
        assert store._telling
        await store._telling
        assert await proxy.spent() == 17 * USD


async def test_two_that_tell_the_same_lines_at_once(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one of them finds uncounted the other counts before it is sent: nothing counts twice."""
    ledger = ledger_at(tmp_path, "w1")
    ledger.append([line(time.time(), "10") for _ in range(4)])
    path = tmp_path / "ledger.jsonl"
    async with store_at(server, "same", "w2", path, ALL) as one, store_at(server, "same", "w3", path, ALL) as two:
        real = one._client.mget

        async def late(keys: list[str]) -> Any:
            found = await real(keys)
            await two._told()
            return found

        monkeypatch.setattr(one._client, "mget", late)
        assert await Proxy(one, ledger).spent() == 40 * USD
        assert await Proxy(one, ledger).spent(SLIDES) == 4


async def test_a_server_that_is_emptied_while_it_is_asked_is_told_again(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two questions of the same look: the next look tells it all."""
    ledger_at(tmp_path, "w1").append([line(time.time(), "10")])
    async with store_at(server, "while", "w2", tmp_path / "ledger.jsonl", ALL) as store:
        with monkeypatch.context() as patch:

            async def nothing(key: str) -> None: ...

            patch.setattr(store._client, "get", nothing)
            with pytest.raises(ConnectionError):
                await store._told()
        assert await Proxy(store, ledger_at(tmp_path, "w2")).spent() == 10 * USD


async def test_moving_to_redis_takes_the_month_along(server: str, tmp_path: Path) -> None:
    """What a proxy counted by itself until now is told before the first decision, rotated files included."""
    ledger = ledger_at(tmp_path, "w1")
    for _ in range(5):
        ledger.append([line(time.time(), "10")])
    ledger.close()
    stamp = time.strftime("%Y%m%dT%H%M%S999Z", time.gmtime())
    (tmp_path / "ledger.jsonl").rename(tmp_path / f"ledger-{stamp}.jsonl")
    ledger_at(tmp_path, "w2").append([line(time.time(), "10"), line(time.time() - 400 * 86400, "10")])
    async with store_at(server, "move", "w3", tmp_path / "ledger.jsonl", ALL) as store:
        denied = (await store.reserve("a", need(50 * USD, MONTH), time.time())).denied
        assert denied and denied.state.spent == 60 * USD


async def test_a_new_limit_counts_what_was_spent_before_it(server: str, tmp_path: Path) -> None:
    """Limits that are edited: a new one is told the ledger, one with another amount goes on."""
    ledger = ledger_at(tmp_path, "w1")
    async with store_at(server, "edit", "w1", tmp_path / "ledger.jsonl", Limits([MONTH])) as store:
        proxy = Proxy(store, ledger, Limits([MONTH]))
        proxy.call()
        assert await proxy.spent() == 10 * USD
    more = limit({"limit": "500 USD per month", "name": "month"})
    daily = limit({"limit": "500 USD per day", "name": "month"})
    async with store_at(server, "edit", "w1", tmp_path / "ledger.jsonl", Limits([more, EACH])) as store:
        proxy = Proxy(store, ledger, Limits([more, EACH]))
        proxy.call()
        assert [await proxy.spent(more), await proxy.spent(EACH, "ann")] == [20 * USD, 20 * USD]
    async with store_at(server, "edit", "w9", tmp_path / "ledger.jsonl", Limits([daily])) as store:
        assert await Proxy(store, ledger).spent(daily) == 20 * USD


async def test_a_server_that_is_away_at_the_start_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a proxy spends its allowance; then all counts."""
    monkeypatch.setattr("llmtab.budgets.redis_store.PAUSE", 0.1)
    ledger_at(tmp_path, "dead").append([line(time.time(), "50")])
    url = f"unix://{tmp_path / 'redis.sock'}"
    async with store_at(url, "late", "w1", tmp_path / "ledger.jsonl", ALL, timeout="0.2s") as store:
        store.tick(time.time())
        proxy = Proxy(store, ledger_at(tmp_path, "w1"))
        assert (await store.reserve("a", need(6 * USD, MONTH), time.time())).denied
        assert (await store.reserve("b", need(4 * USD, MONTH), time.time())).denied is None
        proxy.call("4")
        with redis_server(tmp_path):
            await sent(store)
            assert await proxy.spent() == 54 * USD


async def test_what_is_queued_beyond_bounds_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long outage: the queue keeps the newest, the ledger has the rest."""
    monkeypatch.setattr("llmtab.budgets.redis_store.QUEUED", 8)
    monkeypatch.setattr("llmtab.budgets.redis_store.PAUSE", 0.1)
    with redis_server(tmp_path) as url:
        async with store_at(url, "queue", "w1", tmp_path / "ledger.jsonl", ALL) as store:
            await store._told()
            proxy = Proxy(store, ledger_at(tmp_path, "w1"))
            for _ in range(50):
                proxy.call("1")
            assert store.dropped and len(store._jobs) <= 8
            assert await proxy.spent() == 50 * USD


async def test_a_start_goes_on_where_the_last_one_was(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this server was told is not read again; another server is told all of it."""
    ledger = ledger_at(tmp_path, "w1")
    for _ in range(20):
        ledger.append([line(time.time(), "1")])
    async with store_at(server, "place", "w2", tmp_path / "ledger.jsonl", ALL) as store:
        assert await Proxy(store, ledger).spent() == 20 * USD
        assert store._telling
        await store._telling
    assert '"redis"' in checkpoint_path(tmp_path / "ledger.jsonl").read_text()
    read_now: list[int] = []
    parse = "llmtab.budgets.rebuild.parse"
    from llmtab.budgets.rebuild import parse as real

    monkeypatch.setattr(parse, lambda raw: (read_now.append(1), real(raw))[1])
    async with store_at(server, "place", "w3", tmp_path / "ledger.jsonl", ALL) as store:
        assert await Proxy(store, ledger).spent() == 20 * USD
        assert read_now == []
    async with store_at(server, "place2", "w3", tmp_path / "ledger.jsonl", ALL) as store:
        assert await Proxy(store, ledger).spent() == 20 * USD
        assert len(read_now) == 20


async def test_a_decision_is_still_one_round_trip(server: str, tmp_path: Path) -> None:
    """What keeps the server in step with the ledger costs decisions nothing."""
    async with store_at(server, "trip", "w1", tmp_path / "ledger.jsonl", ALL) as store:
        await store.reserve("warm", need(1, MONTH), time.time())
        await store._client.config_resetstat()
        for number in range(10):
            await store.reserve(f"{number}", need(1, MONTH), time.time())
        after = await store._client.info("commandstats")
        assert after["cmdstat_evalsha"]["calls"] == 10
        assert {"cmdstat_mget", "cmdstat_set"}.isdisjoint(after)


@pytest.mark.parametrize("seed", range(5))
async def test_spent_is_the_ledgers_sum(
    server: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies that share a ledger, and one with its own; calls, deaths, looks, full queues and emptied servers in any
    order: in the end the server has the sum of the ledgers."""
    monkeypatch.setattr("llmtab.budgets.redis_store.PAUSE", 0.02)
    monkeypatch.setattr("llmtab.budgets.redis_store.QUEUED", 40)
    dice, names = random.Random(seed), iter(range(1000))
    prefix = f"any-{seed}"

    def start(shared: bool) -> Proxy:
        writer = f"w{next(names)}"
        ledger = ledger_at(tmp_path, writer, "ledger" if shared else "own")
        return Proxy(RedisStore({"redis": server, "prefix": prefix}, writer, ledger.path, ALL), ledger)

    async def die(proxy: Proxy) -> None:
        if proxy.store._worker is not None:
            proxy.store._worker.cancel()
        await proxy.store.disconnect()

    proxies = [start(True), start(True), start(False)]
    for _ in range(150):
        place = dice.randrange(3)
        proxy, step = proxies[place], dice.random()
        if step < 0.75:
            for _ in range(dice.choice((1, 1, 5))):
                proxy.call("0.01", labels={"consumer": dice.choice("ab")})
        elif step < 0.85:
            proxy.store._look_at = 0.0
            proxy.store.tick(time.time())
        elif step < 0.9:
            await die(proxy)
            proxies[place] = start(place < 2)
        elif step < 0.94:
            await proxy.store._client.flushall()
        elif step < 0.97:
            proxy.store._lost(TimeoutError())
        else:
            await proxy.spent()
        await asyncio.sleep(dice.choice((0, 0, 0.002)))
    for proxy in proxies:
        proxy.store._retry_at = 0.0
        await proxy.store.reserve("last", need(0, MONTH), time.time())
        await proxy.spent()
        await proxy.store._tell()
    lines = [found for name in ("ledger", "own") for found in read(tmp_path / f"{name}.jsonl")]
    assert await proxies[0].spent() == len(lines) * USD // 100
    assert await proxies[0].spent(SLIDES) == len(lines)
    found = [await proxies[0].spent(EACH, key) for key in "ab"]
    assert found == [sum(one["labels"]["consumer"] == key for one in lines) * USD // 100 for key in "ab"]
    for proxy in proxies:
        await die(proxy)
