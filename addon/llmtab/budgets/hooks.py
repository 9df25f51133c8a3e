"""What the shell's hooks do while there are budgets: stop a call, or say on its answer what is left.

Knows a flow by the few attributes it touches, and is given what makes a response. Must not import mitmproxy.
"""

from collections.abc import Callable
from typing import Any

from llmtab.budgets.guard import Guard

type Make = Callable[[int, bytes, dict[str, str]], Any]


def install(meter: Any, guard: Guard, state: str, make: Make) -> None:
    """Gives a meter the hooks of budgets: its own, so that without budgets there are none.

    `state`: under which name a flow keeps its exchange; `make` makes a response of status, body and headers.
    """
    estimate, heads = vars(meter).get("request"), type(meter).responseheaders

    async def request(flow: Any) -> None:
        """The request is whole and about to leave: a refused one gets its answer here and goes no further."""
        if estimate is not None:
            estimate(flow)
        exchange = vars(flow).get(state)
        if exchange is None or flow.response is not None:
            return
        header = flow.request.headers.get
        length = header("content-length", "")
        refused = await guard.refuses(exchange, length, header, lambda: not flow.client_conn.connected)
        if refused is not None:
            flow.response = make(refused.status, refused.body, dict(refused.headers))

    def responseheaders(flow: Any) -> None:
        """The answer's head has come: what each limit has left goes on it."""
        heads(meter, flow)
        exchange = vars(flow).get(state)
        if exchange is not None and flow.response is not None and not exchange.call.refused:
            for name, value in guard.gate.remaining(exchange.call.id).items():
                flow.response.headers[name] = value

    vars(meter)["request"] = request
    if guard.shows_headers:
        vars(meter)["responseheaders"] = responseheaders
