"""What a proxy may spend while the server of its budgets is away: a part of each limit, once a bucket and window."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.limits import Limit, limit
from llmtab.budgets.redis_store import RedisStore
from llmtab.budgets.schema import StoreSpec
from redis_server import needs_redis, redis_server
from test_budget_redis import sent, store_at

pytestmark = needs_redis()

LIMIT = limit({"limit": "100 tokens per day", "name": "daily"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


async def outage(store: RedisStore, name: str, one: Limit = LIMIT, *, key: str = "") -> int:
    """How many calls of 1 token are let through while the link is down."""
    store._lost(TimeoutError())
    passed = 0
    for number in range(50):
        verdict = await store.reserve(f"{name}-{number}", need(1, one, key=key), time.time())
        if verdict.denied:
            assert verdict.denied.why == "store"
            break
        store.settle(f"{name}-{number}", need(1, one, key=key), verdict.at, -1)
        passed += 1
    return passed


async def back(store: RedisStore) -> None:
    store._retry_at = 1e-9
    await sent(store)
    assert (await store.reserve("back", need(0, LIMIT), time.time())).denied is None


async def test_a_link_that_comes_and_goes_has_one_allowance(server: str) -> None:
    """Five outages of one window let through no more than one of them; another bucket has its own."""
    each = limit({"limit": "100 tokens per day", "name": "each", "per": ["consumer"]})
    async with store_at(server, "flap", allowance="5%") as store:
        store.settle("x", need(10, LIMIT), time.time(), -1)
        await sent(store)
        passed = []
        for number in range(5):
            passed.append(await outage(store, f"o{number}"))
            await back(store)
        assert passed == [5, 0, 0, 0, 0]
        assert [await outage(store, f"k{key}", each, key=key) for key in ("ann", "bob", "ann")] == [5, 5, 0]
        await back(store)
        assert (await store.look(LIMIT, "", time.time())).spent == 15


async def test_calls_that_the_server_let_through_take_nothing_of_it(server: str) -> None:
    """They are reserved where everybody sees them, whenever they end."""
    async with store_at(server, "before", allowance="5%") as store:
        at = (await store.reserve("early", need(40, LIMIT), time.time())).at
        store._lost(TimeoutError())
        store.settle("early", need(40, LIMIT), at, -1)
        assert await outage(store, "o") == 5


async def test_a_window_that_begins_meanwhile_has_its_own(server: str) -> None:
    """The allowance is one of each window."""
    short = limit({"limit": "100 tokens per second", "name": "short"})
    async with store_at(server, "next", allowance="5%") as store:
        assert await outage(store, "o", short) == 5
        await asyncio.sleep(1 - time.time() % 1 + 0.01)
        assert await outage(store, "p", short) == 5


@pytest.mark.parametrize(("spent", "passed"), [(100, 0), (98, 2), (90, 5)])
async def test_a_limit_that_was_reached_is(server: str, spent: int, passed: int) -> None:
    """What was last known of the limit holds as well: nothing is let through beyond it."""
    async with store_at(server, f"reached-{spent}", allowance="5%") as store:
        store.settle("x", need(spent, LIMIT), time.time(), -1)
        await sent(store)
        assert await outage(store, "o") == passed


@pytest.mark.parametrize("text", ["900%", "0%", "0.0 %", "100.1%", "5", "-5%", "5 USD"])
def test_an_allowance_is_a_part(text: str) -> None:
    """Nothing, or more than the limit, is none."""
    with pytest.raises(ValueError, match="expected more than 0% and at most 100% of each limit"):
        StoreSpec(redis="redis://localhost", allowance=text)


def test_all_of_a_limit_is_an_allowance() -> None:
    """The bounds themselves."""
    spec: dict[str, Any] = {"redis": "redis://localhost"}
    assert [StoreSpec(**spec, allowance=text).allowance for text in ("100%", "0.1 %")] == ["100%", "0.1 %"]
