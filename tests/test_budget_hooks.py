"""The hooks of budgets: what goes wrong beside a decision does not spare a call the decision."""

import asyncio
from types import SimpleNamespace
from typing import Any

from llmtab.budgets.hooks import install
from llmtab.meter import Meter


def test_a_call_that_cannot_be_estimated_is_decided_on_all_the_same() -> None:
    """An estimate is said before the call; an error in it must not let the call past a limit."""

    def fails(flow: Any) -> None:
        raise RuntimeError("no")

    async def refuses(*_: Any) -> Any:
        return SimpleNamespace(status=429, body=b"{}", headers={})

    meter = Meter()
    vars(meter)["request"] = fails
    guard: Any = SimpleNamespace(refuses=refuses, shows_headers=False)
    install(meter, guard, "state", lambda status, body, headers: status, lambda flow, frame: None)
    flow = SimpleNamespace(
        state=object(), response=None, request=SimpleNamespace(headers={}), client_conn=SimpleNamespace(connected=True)
    )
    asyncio.run(vars(meter)["request"](flow))
    assert flow.response == 429
