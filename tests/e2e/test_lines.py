"""What lands on the ledger for whole calls, and what does not."""

import json
import ssl
from collections.abc import Callable
from decimal import Decimal

import pytest
from proxy import Proxy
from upstream import Upstream, gzipped, reply

OPENAI = "https://api.openai.com/v1/chat/completions"
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "the secret prompt"}]}
CHAT = {
    "id": "chatcmpl-A1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a secret answer"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 85,
        "total_tokens": 1285,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64},
    },
}
ORDER = [
    "schema", "id", "writer", "seq", "time", "provider", "api", "operation", "transport", "profile", "host", "method",
    "path", "status", "streamed", "request_model", "response_model", "response_id", "request_id", "service_tier",
    "finish_reasons", "pricing_tier", "region", "outcome", "error", "usage", "usage_source", "usage_reason", "cost_usd",
    "cost_source", "cost_reason", "cost_partial_usd", "cost_lines", "cost_list_usd", "cost_reported_usd", "price",
    "billing", "saved_usd", "timing", "bytes", "labels", "client", "estimate", "budget", "parent", "retry_of",
    "repeat_of", "batch", "flags", "chain",
]  # fmt: skip


def test_a_chat_call_gives_one_line(proxy: Proxy, upstream: Upstream) -> None:
    """One buffered call is one line: who was asked, what it used, what it cost and how that was worked out."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT, headers=[("x-request-id", "req_77")]))
    got = proxy.call(OPENAI, ASKED, [("authorization", "Bearer sk-secret"), ("user-agent", "OpenAI/Python 3.52.0")])
    assert (got.status, json.loads(got.body)) == (200, CHAT)

    [line] = proxy.settled(1)
    expected = {
        "schema": 1, "provider": "openai", "api": "openai.chat", "operation": "chat", "transport": "http",
        "profile": "openai", "host": "api.openai.com", "method": "POST", "path": "/v1/chat/completions", "status": 200,
        "streamed": False, "request_model": "gpt-4o-mini", "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": "chatcmpl-A1", "request_id": "req_77", "service_tier": "default", "finish_reasons": ["stop"],
        "pricing_tier": "standard", "outcome": "ok", "usage_source": "reported", "cost_source": "list",
        "billing": "metered",
    }  # fmt: skip
    assert expected.items() <= line.items()
    usage = {
        "input_tokens": 1200, "cache_read_input_tokens": 1024, "output_tokens": 85, "reasoning_output_tokens": 64,
        "total_tokens": 1285,
    }  # fmt: skip
    assert usage.items() <= line["usage"].items()
    assert line["cost_usd"] == sum(part["usd"] for part in line["cost_lines"]) > 0
    assert line["bytes"] == {"request": len(json.dumps(ASKED)), "response": len(got.body)}
    assert line["client"]["address"] == "127.0.0.1"
    assert line["timing"]["duration_ms"] >= line["timing"]["first_byte_ms"] >= 0


def test_keys_keep_their_order_and_money_its_point(proxy: Proxy, upstream: Upstream) -> None:
    """Keys stand in the order of the schema, `chain` last; money has a decimal point and never an exponent."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, ASKED)
    [line] = proxy.settled(1)
    assert [key for key in line if key not in ORDER] == []
    assert list(line) == sorted(line, key=ORDER.index)
    assert isinstance(line["cost_usd"], Decimal)
    assert '"cost_usd":0.0' in proxy.ledger.read_text()


def test_nothing_said_or_secret_reaches_the_ledger(own: Proxy, upstream: Upstream) -> None:
    """No prompt, no completion, no key, no query string is on the ledger or in what the proxy prints."""
    upstream.on("POST generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent", reply(
        {"candidates": [{"content": {"parts": [{"text": "a secret answer"}]}, "finishReason": "STOP"}],
         "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6,
                           "totalTokenCount": 20},
         "modelVersion": "gemini-2.5-flash", "responseId": "r1"}
    ))  # fmt: skip
    url = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent?key=secret-key"
    asked = {"contents": [{"parts": [{"text": "the secret prompt"}]}]}
    own.call(url, asked, [("x-goog-api-key", "secret-too"), ("cookie", "secret=1")])
    [line] = own.settled(1)
    assert line["path"] == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert line["usage"]["output_tokens"] == 10  # candidates and thoughts
    assert "secret" not in own.ledger.read_text()
    own.stop()
    assert "secret-key" not in own.output().replace(url, "")  # mitmdump itself prints URLs; we do not
    assert "secret prompt" not in own.output()


def test_labels_are_read_and_removed(proxy: Proxy, upstream: Upstream) -> None:
    """`x-llmtab-project: web` becomes a label and does not reach the provider; other headers do."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, ASKED, [("x-llmtab-project", "web"), ("X-LLMTAB-Team", "blue team"), ("x-other", "stays")])
    [line] = proxy.settled(1)
    assert {"project": "web", "team": "blue team"}.items() <= line["labels"].items()
    headers = upstream.seen[-1].headers
    assert [name for name in headers if "llmtab" in name] == []
    assert headers["x-other"] == "stays"


def test_a_compressed_body_is_read_and_passed_on_as_it_came(proxy: Proxy, upstream: Upstream) -> None:
    """A gzip body reaches the client still compressed, and its usage reaches the ledger."""
    answer = gzipped(CHAT)
    upstream.on("POST api.openai.com/v1/chat/completions", answer)
    got = proxy.call(OPENAI, ASKED, [("accept-encoding", "gzip")])
    assert got.body == answer.steps[0]
    [line] = proxy.settled(1)
    assert line["usage"]["input_tokens"] == 1200
    assert line["bytes"]["response"] == len(got.body)


def test_an_error_is_a_line_that_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    """A 429 is on the tab as an error without usage, at no cost, and without the provider's message."""
    refusal = {"error": {"message": "the secret quota of org-1", "type": "tokens", "code": "rate_limit_exceeded"}}
    upstream.on("POST api.openai.com/v1/chat/completions", reply(refusal, 429))
    assert proxy.call(OPENAI, ASKED).status == 429
    [line] = proxy.settled(1)
    expected = {"status": 429, "outcome": "error", "error": "rate_limited", "cost_source": "not_billed"}
    assert expected.items() <= line.items()
    assert (line["cost_usd"], line["usage_source"]) == (Decimal("0.0"), "none")
    assert "secret" not in proxy.ledger.read_text()


def test_an_unknown_model_is_unpriced_not_free(proxy: Proxy, upstream: Upstream) -> None:
    """A model without a price keeps its usage; the cost is null and says why."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT | {"model": "gpt-nobody-knows"}))
    proxy.call(OPENAI, ASKED | {"model": "gpt-nobody-knows"})
    [line] = proxy.settled(1)
    assert (line["cost_usd"], line["cost_source"], line["cost_reason"]) == (None, "unpriced", "unknown_model")
    assert line["usage"]["input_tokens"] == 1200


@pytest.mark.parametrize("target", ["GET /v1/models", "GET /v1/files", "POST /v1/unknown/thing"])
def test_what_bills_nothing_gives_no_line(proxy: Proxy, upstream: Upstream, target: str) -> None:
    """Model lists, files and paths nobody knows give no line."""
    method, path = target.split()
    upstream.on(f"{method} api.openai.com{path}", reply({"object": "list", "data": []}))
    assert proxy.call(f"https://api.openai.com{path}", None, method=method).status == 200
    assert proxy.settled(0) == []


def test_other_hosts_are_not_decrypted(own: Proxy, upstream: Upstream) -> None:
    """A TLS connection to a host that is no LLM provider passes through with the server's own certificate."""
    upstream.on("GET bank.example.com/", reply({"balance": 1}))
    with pytest.raises(ssl.SSLCertVerificationError):
        own.call("https://bank.example.com/", method="GET")  # trusts the proxy's CA only
    own.context = ssl.create_default_context(cafile=upstream.ca)
    assert own.call("https://bank.example.com/", method="GET").status == 200
    assert own.settled(0) == []


def test_intercept_all_meters_a_guess(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """With `llmtab_intercept=all` an OpenAI-shaped answer of an unknown host gives a line marked as a guess."""
    proxy = start("--set", "llmtab_intercept=all")
    upstream.on("POST llm.example.com/v1/chat/completions", reply(CHAT | {"model": "house-model"}))
    proxy.call("https://llm.example.com/v1/chat/completions", ASKED)
    [line] = proxy.settled(1)
    assert (line["profile"], line["host"]) == ("openai_compatible", "llm.example.com")
    assert line["usage"]["input_tokens"] == 1200


def test_plain_http_is_matched_by_host_and_path(proxy: Proxy, upstream: Upstream) -> None:
    """A known provider asked over plain HTTP gives the same line as over TLS."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call("http://api.openai.com/v1/chat/completions", ASKED)
    [line] = proxy.settled(1)
    assert (line["profile"], line["host"], line["usage"]["input_tokens"]) == ("openai", "api.openai.com", 1200)


def test_a_refused_connection_is_a_line(proxy: Proxy) -> None:
    """A provider that cannot be reached over plain HTTP leaves one line without status and usage, at no cost."""
    got = proxy.call("http://refused.example.com/v1/chat/completions", ASKED)
    assert got.status == 502
    [line] = proxy.settled(1)
    assert line["outcome"] in ("broken", "error")
    assert (line["error"], line["usage_source"], line["cost_source"]) == ("connection", "none", "not_billed")
    assert "status" not in line
