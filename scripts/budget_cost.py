"""What a decision costs: microseconds from a request at the gate to its reservation, and from its line to its spending.

    python scripts/budget_cost.py

100 limits and 10,000 buckets, in three shapes: one limit; a call that touches one limit in seven; one that touches all.
"""

import asyncio
import json
import statistics
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "addon"))

from llmtab.budgets.gate import Gate
from llmtab.budgets.policy import policy
from llmtab.budgets.store import Embedded
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles

CALLS, WARM = 4000, 1000
PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 200}], "max_tokens": 500})


def measured(limits: list[dict[str, Any]], callers: int) -> tuple[list[float], list[float]]:
    """Seconds of each decision and of each settlement, once every caller has its buckets."""
    gate, profiles, prices = Gate(policy({"limits": limits}), Embedded()), Profiles.load(), PriceBook.load()
    claim = profiles.match("api.openai.com", 443, "POST", PATH)
    assert claim

    def call(number: int) -> Call:
        labels = {"consumer": f"c{number % callers}", "project": f"p{number % 7}"}
        return Call(
            f"id{number}", "api.openai.com", "POST", PATH, time.time(), {}, BODY.encode, lambda name: None, labels,
            {"address": "127.0.0.1", "key": "k_1"},
        )  # fmt: skip

    async def run() -> tuple[list[float], list[float]]:
        decided, settled = [], []
        for one in map(call, range(CALLS)):
            line = _line(one)
            began = time.perf_counter()
            assert await gate.decide(one, claim, "", prices, header=lambda name: None) is None
            decided.append(time.perf_counter() - began)
            began = time.perf_counter()
            gate.settle([line])
            settled.append(time.perf_counter() - began)
        return decided[WARM:], settled[WARM:]

    return asyncio.run(run())


def _line(call: Call) -> dict[str, Any]:
    """What the ledger will say of a call."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(call.began))
    return {
        "id": call.id, "time": at, "provider": "openai", "request_model": "gpt-4o", "host": call.host, "status": 200,
        "outcome": "ok", "usage": {"input_tokens": 210, "output_tokens": 95, "total_tokens": 305},
        "usage_source": "reported", "cost_usd": Decimal("0.001475"), "billing": "metered", "labels": call.labels,
        "client": call.client, "operation": "chat",
    }  # fmt: skip


def main() -> None:
    """Prints median and p99 of each shape."""
    many = [{"limit": f"{100_000 + n} USD per month", "per": ["consumer"]} for n in range(100)]
    shapes = {
        "1 limit": ([{"limit": "100000 USD per month"}], 1),
        "100 limits, 15 touched": ([{**one, "match": {"project": f"p{n % 7}"}} for n, one in enumerate(many)], 700),
        "100 limits, all touched": (many, 100),
    }
    for name, (limits, callers) in shapes.items():
        decided, settled = map(_shown, measured(limits, callers))
        print(f"{name:24} decided {decided}   settled {settled}")


def _shown(took: list[float]) -> str:
    median, worst = statistics.median(took), sorted(took)[int(len(took) * 0.99)]
    return f"{median * 1e6:6.1f} us median {worst * 1e6:6.1f} us p99"


if __name__ == "__main__":
    main()
