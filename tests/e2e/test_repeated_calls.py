"""Stored answers read again, and gateways whose upstream crosses the proxy as well: each call is counted once."""

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from proxy import Proxy, free_port, until
from upstream import Upstream, reply, stream

RESPONSES = "https://api.openai.com/v1/responses"
CHAT = "https://api.openai.com/v1/chat/completions"
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
ANSWER = {"id": "chatcmpl-N1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "choices": [],
          "usage": USAGE}  # fmt: skip


def stored(ident: str, status: str = "completed") -> dict[str, Any]:
    """A response object as it is when it is read again."""
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13} if status == "completed" else None
    return {"id": ident, "object": "response", "status": status, "model": "gpt-4.1-2025-04-14", "background": True,
            "output": [], "usage": usage}  # fmt: skip


def test_a_background_response_is_booked_when_it_is_ready(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """The order has no figures, the first poll that has them is their line, and no later one, also after a restart."""
    proxy = start()
    upstream.on("POST api.openai.com/v1/responses", reply(stored("resp_1", "queued")))
    proxy.call(RESPONSES, {"model": "gpt-4.1", "background": True, "input": ""})
    for status in ("queued", "in_progress", "completed", "completed"):
        upstream.on("GET api.openai.com/v1/responses/resp_1", reply(stored("resp_1", status)))
        proxy.call(f"{RESPONSES}/resp_1", method="GET")
    ordered, polled = proxy.settled(2)
    assert ("usage" in ordered, polled["usage"]["total_tokens"], polled["method"]) == (False, 13, "GET")
    assert proxy.stop() == 0
    again = start()
    again.call(f"{RESPONSES}/resp_1", method="GET")
    upstream.on("GET api.openai.com/v1/responses/resp_2", reply(stored("resp_2")))
    again.call(f"{RESPONSES}/resp_2", method="GET")
    assert [line["response_id"] for line in again.settled(3)] == ["resp_1", "resp_1", "resp_2"]


def test_an_answer_of_a_call_is_not_booked_again(proxy: Proxy, upstream: Upstream) -> None:
    """Reading a stored answer whose call had its figures gives no line."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply({**ANSWER, "id": "chatcmpl-S1"}))
    upstream.on("GET api.openai.com/v1/chat/completions/chatcmpl-S1", reply({**ANSWER, "id": "chatcmpl-S1"}))
    proxy.call(CHAT, {"model": "gpt-4o-mini", "messages": [], "store": True})
    proxy.call(f"{CHAT}/chatcmpl-S1", method="GET")
    [line] = proxy.settled(1)
    assert line["method"] == "POST"


def test_the_same_id_on_two_calls_is_two_calls(proxy: Proxy, upstream: Upstream) -> None:
    """Calls one after the other are never merged, whatever id their answers have."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(ANSWER))
    for _ in range(2):
        proxy.call(CHAT, {"model": "gpt-4o-mini", "messages": []})
    assert all(line["usage"]["total_tokens"] == 42 and "repeat_of" not in line for line in proxy.settled(2))


@contextmanager
def gateway(proxy: Any, change: Callable[[bytes], bytes] = bytes) -> Iterator[int]:
    """A gateway on this machine that asks OpenAI through the proxy; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got = proxy.call(CHAT, self.rfile.read(int(self.headers["content-length"])))
            data = change(got.body)
            self.send_response(200)
            self.send_header("content-type", got.headers["content-type"])
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def check_one_call(lines: list[dict[str, Any]]) -> None:
    """The two lines of a gateway and its upstream: the inner one repeats the outer one."""
    outer, inner = sorted(lines, key=lambda line: line["host"] == "api.openai.com")
    assert outer["usage"]["total_tokens"] == 42
    assert inner["repeat_of"] == outer["id"]
    assert "usage" not in inner
    assert "cost_lines" not in inner
    assert (inner["cost_usd"], inner["cost_source"]) == (0, "not_billed")


def test_a_gateway_and_its_upstream_are_one_call(proxy: Proxy, upstream: Upstream) -> None:
    """The inner call's line repeats the outer one: no usage, no cost; whole answers and streams."""
    events = [{**ANSWER, "object": "chat.completion.chunk", "usage": usage} for usage in (None, USAGE)]
    with gateway(proxy) as port:
        for answer in (reply(ANSWER), stream(*events, b"data: [DONE]\n\n"), reply(ANSWER)):
            proxy.mark()
            upstream.on("POST api.openai.com/v1/chat/completions", answer)
            asked = {"model": "gpt-4o-mini", "messages": [], "stream": answer.framing == "chunked"}
            proxy.call(f"http://127.0.0.1:{port}/v1/chat/completions", asked)
            check_one_call(proxy.settled(2))


def test_a_kill_does_not_lose_the_inner_call(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """The inner call is over and waits for its gateway when the proxy is killed: the next start books it, once."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(ANSWER))
    proxy, held = start(), threading.Event()

    def pause(body: bytes) -> bytes:
        until(lambda: bool([*proxy.folder.glob("*.held-*")]), "the line to wait")
        assert proxy.lines() == []
        os.kill(proxy.process.pid, signal.SIGKILL)
        held.set()
        return body

    with gateway(proxy, pause) as port, pytest.raises((OSError, http.client.HTTPException)):
        proxy.call(f"http://127.0.0.1:{port}/v1/chat/completions", {"model": "gpt-4o-mini", "messages": []})
    assert held.is_set()
    for _ in range(2):
        with Proxy(upstream, proxy.folder, conf=proxy.conf) as again:
            [line] = again.settled(1)
            assert (line["usage"]["total_tokens"], "repeat_of" in line) == (42, False)
    assert [*proxy.folder.glob("*.held-*")] == []


def test_a_gateway_behind_a_reverse_proxy(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """The application asks the proxy as if it were the gateway, the gateway asks its upstream through the same one."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(ANSWER))
    found: list[Proxy] = []
    with gateway(SimpleNamespace(call=lambda *how: found[0].call(*how))) as port:
        door = free_port()
        found.append(start("--mode", "regular", "--mode", f"reverse:http://127.0.0.1:{port}@{door}"))
        body = json.dumps({"model": "gpt-4o-mini", "messages": []})
        connection = http.client.HTTPConnection("localhost", door, timeout=10)
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        assert json.loads(connection.getresponse().read())["id"] == "chatcmpl-N1"
        connection.close()
        check_one_call(found[0].settled(2))


@pytest.mark.parametrize(
    "change",
    [(b"chatcmpl-N1", b"chatcmpl-N2"), (b"gpt-4o-mini-2024-07-18", b"gpt-4o-2024-11-20"), (b": 30", b": 31")],
    ids=["id", "model", "counter"],
)
def test_a_gateway_that_says_otherwise_is_another_call(
    proxy: Proxy, upstream: Upstream, change: tuple[bytes, bytes]
) -> None:
    """Where id, model or one counter differ, both calls keep their figures."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(ANSWER))
    with gateway(proxy, lambda body: body.replace(*change)) as port:
        proxy.call(f"http://127.0.0.1:{port}/v1/chat/completions", {"model": "gpt-4o-mini", "messages": []})
        assert all("usage" in line and "repeat_of" not in line for line in proxy.settled(2))
