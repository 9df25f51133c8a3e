"""Budgets on sockets: the frame that asks is what is refused, and the socket lives on."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from proxy import Proxy
from socket_upstream import WAIT, SocketUpstream
from test_budgets import config
from test_websockets import CREATE, RESPONSES, URL, dial, provider, start

__all__ = ["provider", "start"]

LIVE = "generativelanguage.googleapis.com/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
TOLD = {"promptTokenCount": 5, "responseTokenCount": 3, "totalTokenCount": 8}
OVER = {"serverContent": {"turnComplete": True}, "usageMetadata": TOLD}
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


def test_a_slow_response_keeps_its_reservation(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path
) -> None:
    """A model that thinks for longer than a lost call is waited for still holds what it may cost; another socket's
    frame is refused meanwhile."""
    impatient = tmp_path / "impatient.py"
    impatient.write_text("def running():\n    from llmtab.budgets import gate\n\n    gate.LOST = 0.5\n")
    proxy = start(*config(tmp_path, "  - {name: one, limit: 1 requests per month}\n"), "-s", str(impatient))
    provider.scripts[RESPONSES] = [WAIT, 5.0, done(1)]
    before = len(provider.heard)
    with dial(proxy, URL) as slow, dial(proxy, URL) as other:
        slow.send(json.dumps(CREATE))
        time.sleep(3.5)
        other.send(json.dumps(CREATE))
        assert json.loads(other.recv(5))["error"]["code"] == "rate_limit_exceeded"  # room may be given back
        assert json.loads(slow.recv(10))["type"] == "response.completed"
    assert len(provider.heard) - before == 1
    assert [line["outcome"] for line in proxy.settled(2)] == ["refused", "ok"]


@pytest.mark.parametrize(("model", "passes"), [("gemini-live-2.5-flash", True), ("nobody-knows", False)])
def test_a_session_says_its_model_once(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path, model: str, passes: bool
) -> None:
    """The frames that ask name none: what was set up for the session tells which limits hold, and what is priced."""
    proxy = start(
        *config(tmp_path, f"  - {{name: own, limit: 1 USD, unpriced: refuse, match: {{model: '*{model}'}}}}\n")
    )
    provider.scripts[LIVE] = [WAIT, {"setupComplete": {}}, WAIT, {"serverContent": {"modelTurn": {"parts": []}}}, OVER]
    before = len(provider.heard)
    with dial(proxy, f"wss://{LIVE}?key=x") as client:
        client.send(json.dumps({"setup": {"model": f"models/{model}"}}))
        client.recv(5)
        client.send(json.dumps({"clientContent": {"turns": [], "turnComplete": True}}))
        if passes:
            client.recv(5)
            client.recv(5)
    [line] = proxy.settled(1)
    assert (line["budget"]["limits"], line["outcome"]) == (["own"], "ok" if passes else "refused")
    assert len(provider.heard) - before == 1 + passes


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
