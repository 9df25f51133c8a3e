"""128 streams at once through real proxies against one limit of 10 USD: it is neither passed nor wasted."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path

import pytest
from proxy import Proxy
from test_budgets import HOST, TARGET, answer, asked
from upstream import Upstream, stream

from llmtab.ledger.reader import read
from redis_server import PROGRAM, needs_redis, redis_server

STREAMS = 128
URL = f"http://{HOST}/v1/chat/completions"
PRICES = "providers: {openai: {models: {our-model: {input: 1, output: 200}}}}\n"
TEN = Decimal(10)


def race(proxies: Sequence[Proxy]) -> None:
    """Every client asks again while it is told `busy`, until somebody is told that it is spent."""
    spent = threading.Event()

    def client(number: int) -> None:
        proxy = proxies[number % len(proxies)]
        while not spent.is_set():
            got = proxy.call(URL, asked(stream=True, max_tokens=990))
            if got.status == 429:
                if got.headers["x-should-retry"] == "false":
                    spent.set()
                time.sleep(random.uniform(0.3, 0.6))

    threads = [threading.Thread(target=client, args=[number]) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=needs_redis())])
def test_128_streams_against_10_usd(
    count: int, start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path
) -> None:
    """One proxy by itself, and three that share a Redis: at most 1 % more than the limit, at least 95 % of it used."""
    assert PROGRAM or count == 1
    (tmp_path / "prices.yaml").write_text(PRICES)
    with redis_server(tmp_path) if count > 1 else nullcontext() as url:
        store = f", store: {{redis: '{url}'}}" if url else ""
        budgets = f"budgets: {{limits: [{{name: day, limit: 10 USD per day}}]{store}}}\n"
        (tmp_path / "llmtab.yaml").write_text(budgets)
        options = ["--set", f"llmtab_config={tmp_path}/llmtab.yaml", "--set", f"llmtab_pricing={tmp_path}/prices.yaml"]
        proxies = [start(*options) for _ in range(count)]
        events = {"model": "our-model", "choices": [{"index": 0, "delta": {"content": "x"}}]}
        last = {"model": "our-model", "choices": [], "usage": answer(0, 650)["usage"]}
        upstream.on(TARGET, stream(events, 0.3, last, b"data: [DONE]\n\n"))
        race(proxies)
        time.sleep(1)
        lines = list(read(proxies[0].ledger))
    spent = sum(line["cost_usd"] for line in lines) / TEN
    refused = sum(line["outcome"] == "refused" for line in lines)
    print(f"\n{count} proxies: {spent:.1%} of 10 USD spent, {len(lines) - refused} calls, {refused} refused")
    assert Decimal("0.95") <= spent <= Decimal("1.01")
    assert {line["outcome"] for line in lines} == {"ok", "refused"}
