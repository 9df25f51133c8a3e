"""A gate and what asks it, for the tests of budgets."""

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from llmtab.budgets.amounts import SCALES, USD
from llmtab.budgets.gate import Gate
from llmtab.budgets.notices import Notices
from llmtab.budgets.policy import policy
from llmtab.budgets.refusal import Refusal, moment
from llmtab.budgets.store import Embedded
from llmtab.exchange import Exchange
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Claim, Profiles
from pricing_helpers import load_book

PICO = SCALES[USD]
CHAT = ("api.openai.com", "/v1/chat/completions")


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.load()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load_book(tmp_path_factory.mktemp("prices"))


class Desk:
    """A gate and what asks it."""

    def __init__(self, profiles: Profiles, book: PriceBook, budgets: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gate = Gate(
            policy({"limits": budgets} if isinstance(budgets, list) else budgets), Embedded(),
            Notices(lambda message: self.sent.append(dict(message))),
        )  # fmt: skip
        self.profiles, self.book, self.count = profiles, book, 0
        self.calls: dict[str, Exchange] = {}

    def call(self, body: Any = None, place: tuple[str, str] = CHAT, **labels: str) -> tuple[Call, Claim]:
        self.count += 1
        host, path = place
        raw = json.dumps(body if body is not None else asked()).encode()
        claim = self.profiles.match(host.partition(":")[0], int(host.partition(":")[2] or 443), "POST", path)
        assert claim
        return Call(
            f"id-{self.count}", host, "POST", path, time.time(), {}, lambda: raw, lambda name: None, labels
        ), claim

    async def ask(self, call: Call, claim: Claim, **header: str) -> Refusal | None:
        return await self.gate.decide(call, claim, "", self.book, header=header.get)

    async def let(self, *arguments: Any, **labels: str) -> Call:
        call, claim = self.call(*arguments, **labels)
        assert await self.ask(call, claim) is None
        return call

    async def refuse(self, *arguments: Any, **labels: str) -> Refusal:
        found = await self.ask(*self.call(*arguments, **labels))
        assert found is not None
        return found

    def end(self, call: Call, cost: str | None = "0.01", **more: Any) -> dict[str, Any]:
        line = {
            "id": call.id, "time": moment(call.began), "provider": "openai", "request_model": "gpt-4o",
            "host": call.host, "status": 200, "outcome": "ok",
            "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
            "usage_source": "reported", "cost_usd": None if cost is None else Decimal(cost), "billing": "metered",
            "labels": call.labels, "client": {}, **more,
        }  # fmt: skip
        if call.budget is not None:
            line["budget"] = call.budget
        self.gate.settle([line])
        return line

    def state(self, key: str = "") -> tuple[int, int]:
        found = self.gate.store.state(self.gate.policy.limits.all[0], key, time.time())
        return found.spent, found.reserved


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 100}], "max_tokens": 1000, **more}


@pytest.fixture
def desk(profiles: Profiles, book: PriceBook) -> Any:
    return lambda *budgets: Desk(profiles, book, budgets[0] if len(budgets) == 1 and isinstance(budgets[0], dict)
                                 and "limit" not in budgets[0] else list(budgets))  # fmt: skip


def usd(text: str = "1 USD per day", **more: Any) -> dict[str, Any]:
    return {"limit": text, "name": "day", **more}
