"""What a decision costs: microseconds from a request at the gate to its reservation, in this process.

    python scripts/budget_cost.py

100 limits and 10,000 buckets, in three shapes: one limit; a call that touches one limit in seven; one that touches all.
"""

import asyncio
import json
import statistics
import sys
import time
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


def measured(limits: list[dict[str, Any]], callers: int) -> list[float]:
    """Seconds of each decision, once every caller has its buckets."""
    gate, profiles, prices = Gate(policy({"limits": limits}), Embedded()), Profiles.load(), PriceBook.load()
    claim = profiles.match("api.openai.com", 443, "POST", PATH)
    assert claim

    def call(number: int) -> Call:
        labels = {"consumer": f"c{number % callers}", "project": f"p{number % 7}"}
        return Call(
            f"id{number}", "api.openai.com", "POST", PATH, time.time(), {}, BODY.encode, lambda name: None, labels,
            {"address": "127.0.0.1", "key": "k_1"},
        )  # fmt: skip

    async def run() -> list[float]:
        took = []
        for one in map(call, range(CALLS)):
            began = time.perf_counter()
            assert await gate.decide(one, claim, "", prices, header=lambda name: None) is None
            took.append(time.perf_counter() - began)
            gate.store.release(one.id)
            gate.forget(one.id)
        return took[WARM:]

    return asyncio.run(run())


def main() -> None:
    """Prints median and p99 of each shape."""
    many = [{"limit": f"{100_000 + n} USD per month", "per": ["consumer"]} for n in range(100)]
    shapes = {
        "1 limit": ([{"limit": "100000 USD per month"}], 1),
        "100 limits, 15 touched": ([{**one, "match": {"project": f"p{n % 7}"}} for n, one in enumerate(many)], 700),
        "100 limits, all touched": (many, 100),
    }
    for name, (limits, callers) in shapes.items():
        took = sorted(measured(limits, callers))
        print(
            f"{name:24} {statistics.median(took) * 1e6:6.1f} us median {took[int(len(took) * 0.99)] * 1e6:6.1f} us p99"
        )


if __name__ == "__main__":
    main()
