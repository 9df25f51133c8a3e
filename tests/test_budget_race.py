"""128 parallel streams against one limit of 10 USD: what is spent, and what would be without reserving."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from budget_helpers import need
from llmtab.budgets.charges import Needs
from llmtab.budgets.limits import limit
from llmtab.budgets.store import Embedded, Store, Verdict
from redis_server import needs_redis, redis_server

STREAMS = 128
TEN = limit({"limit": "10 USD per day"})
WORST = TEN.amount // 50
AT = 1_800_014_400.0


class Counting(Embedded):
    """What most tools do: look at what is spent, count afterwards, reserve nothing."""

    async def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        free = Needs(needs.touched, [0])
        return self.reserve_now(ident, free, at)


async def race(stores: Sequence[Store], clock: Callable[[], float] = lambda: AT) -> float:
    """What is spent, as a share of the limit: every client asks again while it is told `busy`."""
    chance, number, spent = random.Random(7), count(), [0]
    ended = asyncio.Event()

    async def client(store: Store) -> None:
        while not ended.is_set():
            ident, actual = f"call-{next(number)}", int(WORST * chance.uniform(0.3, 1.0))
            verdict = await store.reserve(ident, need(WORST, TEN), clock())
            if verdict.denied is None:
                for _ in range(chance.randrange(20, 60)):  # the stream runs; all others go on meanwhile
                    await asyncio.sleep(0)
                spent[0] += actual
                store.settle(ident, need(actual, TEN), verdict.at, -1)
            elif verdict.denied.why == "busy":
                await asyncio.sleep(0.001)
            else:
                ended.set()
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(client(stores[i % len(stores)]) for i in range(STREAMS))), 60)
    return spent[0] / TEN.amount


async def test_embedded_neither_overshoots_nor_wastes() -> None:
    """At least 95 % of the limit can be used and at most 1 % more; counting afterwards spends a multiple of it."""
    reserved = await race([Embedded()])
    counted = await race([Counting()])
    print(f"\n128 streams, 10 USD: {reserved:.1%} spent with reservations, {counted:.1%} without")
    assert 0.95 <= reserved <= 1.01
    assert counted > 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as url:
        yield url


@needs_redis()
async def test_three_proxies_on_redis_neither_overshoot_nor_waste(server: str) -> None:
    """The same with three proxies that share a Redis."""
    from llmtab.budgets.redis_store import RedisStore

    stores = [RedisStore({"redis": server}, f"writer{i}") for i in range(3)]
    spent = await race(stores, time.time)
    for store in stores:
        while store._jobs:
            await asyncio.sleep(0.01)
        store.close()
    print(f"\n128 streams on 3 proxies and Redis, 10 USD: {spent:.1%} spent")
    assert 0.95 <= spent <= 1.01
    await asyncio.sleep(0.05)
