"""Alerts of shared limits: one for each bucket and window, whichever proxy finds out, after a restart none again."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.guard import Guard
from llmtab.budgets.limits import Limits, limit
from llmtab.budgets.notices import Notices
from llmtab.budgets.policy import policy
from llmtab.budgets.redis_notices import Once
from llmtab.budgets.redis_store import RedisStore
from redis_server import needs_redis, redis_server
from test_budget_redis import sent, store_at

pytestmark = needs_redis()

DAILY = limit({"limit": "100 tokens per day", "soft": "50%", "name": "daily", "per": ["consumer"]})
SLIDES = limit({"limit": "100 tokens per hour", "soft": "50%", "name": "slides", "window": "sliding"})
LIMITS = Limits([DAILY, SLIDES])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


async def told(store: RedisStore, messages: list[Mapping[str, Any]], limits: Limits = LIMITS) -> None:
    """What a proxy that has just started makes of buckets beyond their soft limits."""
    once = Once(store, limits, messages.append)
    notices = Notices(once)
    for one in limits.all:
        for key in ("ann", "bob") if one.per else ("",):
            store.settle("x", need(30, one, key=key), time.time(), -1)
            await sent(store)
            notices.soft(one, key, store.state(one, key, time.time()), time.time())
    await asyncio.gather(*once._tasks)


async def test_one_proxy_tells(server: str) -> None:
    """Two proxies, one of them started again: each bucket is told of once; of a limit that has changed again."""
    messages: list[Mapping[str, Any]] = []
    async with store_at(server, "tell", "w1") as one, store_at(server, "tell", "w2") as two:
        for store in (one, two, one):
            await told(store, messages)
        assert sorted(found["limit"] for found in messages) == ["daily", "daily", "slides"]
        lower = limit({"limit": "100 tokens per day", "soft": "20%", "name": "daily", "per": ["consumer"]})
        await told(one, messages, Limits([lower]))
        assert len(messages) == 5


async def test_while_the_server_is_away_each_tells(tmp_path: Path) -> None:
    """Too many are better than none."""
    messages: list[Mapping[str, Any]] = []
    store = RedisStore({"redis": f"unix://{tmp_path}/nothing", "timeout": "0.2s"}, "w")
    once = Once(store, LIMITS, messages.append)
    Notices(once).soft(SLIDES, "", store.state(SLIDES, "", time.time()), time.time())
    await asyncio.gather(*once._tasks)
    assert len(messages) == 1


def test_the_budget_of_one_run_is_told_by_itself() -> None:
    """It is nobody else's; and without a loop nothing can be asked."""
    messages: list[Mapping[str, Any]] = []
    [run] = policy(None, run="5 USD").limits.all
    store = RedisStore({"redis": "redis://localhost"}, "w")
    for one in (run, DAILY):
        Notices(Once(store, Limits([run, DAILY]), messages.append)).soft(
            one, "ann", store.state(one, "ann", time.time()), time.time()
        )
    assert [found["limit"] for found in messages] == ["run", "daily"]


async def test_a_guard_tells_so(server: str, tmp_path: Path) -> None:
    """What `alerts:` gets of a proxy with a shared store has gone by the server, and its ledger is told to it."""
    said = policy({"limits": [{"limit": "100 tokens per day"}], "store": {"redis": server, "prefix": "guard"}})
    ledger = SimpleNamespace(path=tmp_path / "ledger.jsonl", writer="w")
    config = SimpleNamespace(sections={})
    guard = Guard(SimpleNamespace(config=config, ledger=ledger), said, (), 0.0)  # type: ignore[arg-type]
    assert isinstance(guard._notices._send, Once)
    store = guard.gate.store
    assert isinstance(store, RedisStore) and await store._told()
    await store.disconnect()
    guard.close()
