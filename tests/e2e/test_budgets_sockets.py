"""Budgets on sockets: the frame that asks is what is refused, and the socket lives on."""

import json
from collections.abc import Callable
from pathlib import Path

from proxy import Proxy
from socket_upstream import WAIT, SocketUpstream
from test_budgets import config
from test_websockets import CREATE, RESPONSES, URL, dial, provider, start

__all__ = ["provider", "start"]

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def done(number: int) -> dict[str, object]:
    response = {"id": f"resp_{number}", "object": "response", "model": "o4-mini", "status": "completed", "usage": USAGE}
    return {"type": "response.completed", "response": response}


def test_a_large_frame_is_refused_as_well(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path
) -> None:
    """A prompt of half a megabyte is decided on before it leaves, and so is what comes behind it."""
    proxy = start(*config(tmp_path, "  - {name: one, limit: 1 requests per month}\n"))
    provider.scripts[RESPONSES] = [WAIT, done(1), WAIT, done(2)]
    before, large = len(provider.heard), {**CREATE, "instructions": "long " * 100_000}
    with dial(proxy, URL) as client:
        client.send(json.dumps(large))
        assert json.loads(client.recv(5))["type"] == "response.completed"
        for frame in (large, CREATE):
            client.send(json.dumps(frame))
            assert json.loads(client.recv(5))["type"] == "error"
    assert len(provider.heard) - before == 1
    assert [line["outcome"] for line in proxy.settled(3)] == ["ok", "refused", "refused"]


def test_a_refused_frame_is_dropped_and_answered(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path
) -> None:
    """The first response comes, the second is refused in the provider's own words: it never reaches the provider."""
    proxy = start(*config(tmp_path, "  - {name: one, limit: 1 requests per month}\n"))
    provider.scripts[RESPONSES] = [WAIT, done(1), WAIT, done(2)]
    before = len(provider.heard)
    with dial(proxy, URL) as client:
        client.send(json.dumps(CREATE))
        assert json.loads(client.recv(5))["type"] == "response.completed"
        client.send(json.dumps(CREATE))
        error = json.loads(client.recv(5))
    assert (error["type"], error["error"]["code"]) == ("error", "insufficient_quota")
    assert "budget one: limit 1 requests per month, spent 1 requests" in error["error"]["message"]
    assert len(provider.heard) - before == 1
    passed, refused = proxy.settled(2)
    assert (passed["outcome"], passed["budget"]) == ("ok", {"limits": ["one"]})
    assert (refused["outcome"], refused["cost_usd"], refused["cost_source"]) == ("refused", 0, "not_billed")
    assert refused["budget"]["refused"]["limit"] == "one"
