"""What the shell's hooks do while there are budgets: stop a call, or say on its answer what is left.

Knows a flow by the few attributes it touches, and is given what makes a response. Must not import mitmproxy.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from inspect import isawaitable
from typing import Any, Final

from llmtab.budgets.guard import Guard
from llmtab.observation import Call
from llmtab.sockets.desk import STATE as SOCKET_STATE
from llmtab.sockets.socket import Socket

log = logging.getLogger("llmtab")

_DECIDED: Final = "_llmtab_decided"
"""The call of a socket that was asked about last."""

type Make = Callable[[int, bytes, dict[str, str]], Any]
type Send = Callable[[Any, bytes], None]


def install(meter: Any, guard: Guard, state: str, make: Make, send: Send) -> None:
    """Gives a meter the hooks of budgets: its own, so that without budgets there are none.

    `state`: under which name a flow keeps its exchange; `make` makes a response of status, body and headers;
    `send(flow, frame)` sends a text frame to the client of a socket.
    """
    _on_requests(meter, guard, state, make)
    _on_sockets(meter, guard, send)


def _on_requests(meter: Any, guard: Guard, state: str, make: Make) -> None:
    estimate, heads = vars(meter).get("request"), type(meter).responseheaders

    async def request(flow: Any) -> None:
        """The request is whole and about to leave: a refused one gets its answer here and goes no further."""
        if estimate is not None:
            try:
                estimate(flow)
            except Exception:  # a call nobody could estimate is still one that a budget decides on
                log.warning("llmtab: a call could not be estimated", exc_info=True)
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
            for name, value in guard.remaining(exchange.call.id).items():
                flow.response.headers[name] = value

    vars(meter)["request"] = request
    if guard.shows_headers:
        vars(meter)["responseheaders"] = responseheaders


def _on_sockets(meter: Any, guard: Guard, send: Send) -> None:
    passes = vars(meter).get("websocket_message")

    async def websocket_message(flow: Any) -> None:
        """A frame that asks for a response: a refused one is dropped, and the provider's error goes back instead."""
        message = flow.websocket.messages[-1]
        if message.injected or passes is None:
            return
        given = passes(flow)
        if isawaitable(given):
            await given
        socket: Socket | None = vars(flow).get(SOCKET_STATE)
        if socket is not None and message.from_client:
            await meter.sockets.heard(socket)  # mitmproxy holds the socket's other messages meanwhile
        call = socket.asked if socket is not None and message.from_client else None
        if socket is None or call is None or vars(flow).get(_DECIDED) == call.id:
            return
        setattr(flow, _DECIDED, call.id)
        frame = await _refused(guard, socket, call, message.content, flow)
        if frame is not None:
            message.drop()
            meter.sockets.refuse(socket, call)
            if frame:
                send(flow, frame)

    if passes is not None:
        vars(meter)["websocket_message"] = websocket_message


async def _refused(guard: Guard, socket: Socket, call: Call, content: bytes, flow: Any) -> bytes | None:
    """The frame that goes back in the place of one that a budget refuses; None where it may pass."""
    asked, claim = replace(call, body=lambda: content), socket.claim
    if model := socket.model(call):  # what was set up for the whole session stands in no frame that asks
        claim = replace(claim, captures={**claim.captures, "model": model})
    header, gone = flow.request.headers.get, lambda: not flow.client_conn.connected
    refused = await guard.frame(asked, claim, header, gone, lambda: socket.came(call))
    call.budget, call.refused = asked.budget, asked.refused
    return None if refused is None else refused.frame or b""
