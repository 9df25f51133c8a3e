"""What is known before a call leaves, and prices that change while the proxy runs."""

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from proxy import Proxy, until
from upstream import Upstream, reply, stream

HOST = "api.openai.com"
TARGET = f"POST {HOST}/v1/chat/completions"
URL = f"https://{HOST}/v1/chat/completions"
ANSWER = {
    "id": "chatcmpl-E1",
    "object": "chat.completion",
    "model": "our-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
PRICES = "providers: {{openai: {{models: {{our-model: {{input: {0}, output: 10}}}}}}}}\n"


def asked(text: str = "hello " * 600, **more: object) -> dict[str, object]:
    return {"model": "our-model", "messages": [{"role": "user", "content": text}], **more}


def test_estimates_are_off_unless_asked_for(proxy: Proxy, upstream: Upstream) -> None:
    """Without the option a line has no estimate."""
    upstream.on(TARGET, reply(ANSWER))
    proxy.call(URL, asked())
    [line] = proxy.settled(1)
    assert "estimate" not in line


def test_an_estimate_is_on_the_line(start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path) -> None:
    """What was expected stands beside what came; a call that may cost too much is logged and marked, and passes on."""
    (tmp_path / "prices.yaml").write_text(PRICES.format(2))
    proxy = start("--set", f"llmtab_pricing={tmp_path}/prices.yaml", "--set", "llmtab_warn_usd=0.5")
    upstream.on(TARGET, reply(ANSWER))
    small, large = asked(max_tokens=200), asked(max_tokens=100_000)
    for body in (small, large):
        assert json.loads(proxy.call(URL, body, [("x-llmtab-project", "web")]).body) == ANSWER
    one, two = proxy.settled(2)
    tokens = round(len(json.dumps(small)) / 3.5)
    assert one["estimate"] == {
        "input_tokens": tokens, "output_tokens": 200, "cost_usd": tokens * Decimal("0.000002") + Decimal("0.002"),
        "cost_p90_usd": one["estimate"]["cost_p90_usd"],
    }  # fmt: skip
    assert "flags" not in one
    assert two["flags"] == ["over_warn"]
    assert two["estimate"]["cost_p90_usd"] > 1
    assert two["cost_usd"] == Decimal("0.003")
    warned = [line for line in proxy.output().splitlines() if "llmtab_warn_usd" in line]
    assert len(warned) == 1
    assert "openai/our-model may cost $1.0" in warned[0]
    assert "hello" not in warned[0]


def test_streams_are_estimated_too(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """A streamed call has its estimate; whether its answer ever says its usage does not matter."""
    proxy = start("--set", "llmtab_estimate=true")
    upstream.on(TARGET, stream({"model": "gpt-4o", "choices": []}, b"data: [DONE]\n\n"))
    proxy.call(URL, {**asked(), "model": "gpt-4o", "stream": True})
    [line] = proxy.settled(1)
    assert line["estimate"]["cost_usd"] > 0


def test_an_edited_price_holds_from_then_on(start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path) -> None:
    """A price edited while the proxy runs; a broken edit keeps the last good price and says so, once, until mended."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES.format(2))
    proxy = start("--set", f"llmtab_pricing={prices}")
    upstream.on(TARGET, reply(ANSWER))

    def cost() -> Decimal:
        proxy.mark()
        proxy.call(URL, asked())
        [line] = proxy.settled(1)
        return line["cost_usd"]

    assert cost() == Decimal("0.003")
    prices.write_text(PRICES.format(7))
    until(lambda: "changed openai/our-model: input 2 -> 7" in proxy.output(), "the edit")
    assert cost() == Decimal("0.008")
    prices.write_text(PRICES.format("cheap"))
    until(lambda: "an edit is not in force" in proxy.output(), "the error")
    time.sleep(2.5)
    assert proxy.output().count("an edit is not in force") == 1
    assert "prices.yaml:1:" in proxy.output()
    assert cost() == Decimal("0.008")
    prices.write_text(PRICES.format(1))
    until(lambda: "input 7 -> 1" in proxy.output(), "the mended file")
    assert cost() == Decimal("0.002")


def test_a_host_added_to_the_config_is_metered(start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path) -> None:
    """A provider added to llmtab.yaml while the proxy runs has its next call on the ledger."""
    config = tmp_path / "llmtab.yaml"
    config.write_text("hosts: {}\n")
    proxy = start("--set", f"llmtab_config={config}", "--set", "llmtab_intercept=all")
    upstream.on("POST llm.example.com/ask", reply({"stats": {"in": 12, "out": 3}}))
    proxy.call("https://llm.example.com/ask", asked())
    config.write_text(
        "hosts:\n  llm.example.com: {path: /ask, input_tokens: /stats/in, output_tokens: /stats/out}\n"
        "pricing: {providers: {llm.example.com: {models: {'*': {input: 1, output: 1}}}}}\n"
    )
    until(lambda: "profiles: new" in proxy.output(), "the edit")
    proxy.call("https://llm.example.com/ask", asked())
    [line] = proxy.settled(1)
    assert (line["host"], line["usage"]["input_tokens"]) == ("llm.example.com", 12)
