"""Ledgers with something to count on them, and guards and keepers that count them."""

import json
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llmtab.budgets.guard import Guard, guard_for
from llmtab.budgets.keeper import Keeper
from llmtab.budgets.limits import Limits
from llmtab.budgets.policy import policy
from llmtab.ledger.writer import Ledger
from llmtab.pricing import PriceBook

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


CHAT = "/v1/chat/completions"


def setup_of(ledger: Ledger, budgets: Any, run: str = "", **sections: Any) -> Any:
    """What llmtab.yaml says, and the budget of this run."""
    config = SimpleNamespace(sections={"budgets": budgets, **sections}, timezone=UTC)
    return SimpleNamespace(config=config, budget=run, ledger=ledger, prices=PriceBook.load())


def guarded(setup: Any, old: Guard | None = None) -> Guard:
    guard = guard_for(setup, old)
    assert guard is not None
    return guard


def made(folder: Path, soft: str = "1 USD") -> Guard:
    """The budgets of a proxy."""
    budgets = {"limits": [{"limit": "1 USD", "name": "ever", "soft": soft}]}
    return guarded(setup_of(Ledger(folder / "ledger.jsonl", writer="w"), budgets))


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


EVER = [{"limit": "5000 USD", "name": "ever"}]


USD = 1_000_000_000_000


def ever(path: Path, found: Limits | None = None, writer: str = "") -> int:
    """US dollars that a start counts."""
    keeper = counted(path, found or limits(EVER), writer)
    spending = keeper.store.state(keeper._limits.all[0], "", time.time()).spent // USD
    keeper._dirty = True
    keeper.close()
    return spending


def written(path: Path, first: int, last: int, at: float | None = None) -> None:
    """A line of one dollar from each of so many writers."""
    with path.open("a") as file:
        for number in range(first, last):
            one = {**line(at or time.time(), "1"), "writer": f"w{number}"}
            file.write(json.dumps(one, default=float, separators=(",", ":")) + "\n")
