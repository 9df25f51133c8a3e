"""An observation becomes lines: outcome, how sure the usage is, what it cost, and what the ledger may hold."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from golden import DATA, built_in, text_of
from llmtab.booking import book
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
from llmtab.profiles.files import validated
from llmtab.record import FIELDS, decode, encode

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
BODY = {"id": "c1", "model": "gpt-test", "choices": [{"finish_reason": "stop"}], "usage": USAGE}
FIRST = {"id": "c1", "model": "gpt-test", "choices": [{"delta": {"content": "Hi"}}]}
LAST = {"id": "c1", "model": "gpt-test", "choices": [{"delta": {}, "finish_reason": "stop"}]}
PAID = {**LAST, "usage": USAGE}
ERROR = {"error": {"type": "server_error", "code": None}}
START = {
    "type": "message_start",
    "message": {
        "id": "m1",
        "type": "message",
        "model": "claude-test",
        "usage": {"input_tokens": 9, "output_tokens": 1},
    },
}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STOP = {"type": "message_stop"}
OVERLOAD = {"type": "error", "error": {"type": "overloaded_error"}}


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    return PriceBook.load(DATA / "prices.yaml")


def lines(
    prices: PriceBook, *, path: str = CHAT, host: str = "api.openai.com", status: int | None = 200, body: Any = None,
    events: Any = None, how: Any = "complete", headers: Any = None, cut: int = 0, labels: Any = None,
    client: Any = None, broken_tap: bool = False, profiles: Profiles | None = None, asked: Any = None,
) -> list[dict[str, Any]]:  # fmt: skip
    claim = (profiles or built_in()).match(host, 443, "POST", path)
    assert claim is not None
    request = text_of(asked if asked is not None else {"model": "gpt-test"})
    call = Call(
        "id-1",
        host,
        "POST",
        path,
        1_790_000_000.1234,
        {},
        lambda: request,
        lambda _: None,
        labels or {},
        client or {},
        77,
    )
    found = Exchange(call, claim, TapMemory())
    found.answer = Answer(
        status, headers or {"content-type": "text/event-stream" if events is not None else "application/json"}, 0.0
    )
    found.broken_tap = broken_tap
    if events is not None:
        sent = b"".join(b"data: " + text_of(event) + b"\n\n" for event in events)
        found.feed(sent[: len(sent) - cut] or b"\n", 1_790_000_000.5)
    seen = found.close(how, 1_790_000_002.0, text_of(body) if body is not None else None)
    assert seen is not None
    return book(seen, prices)


def line(prices: PriceBook, **call: Any) -> dict[str, Any]:
    found = lines(prices, **call)
    assert len(found) == 1
    return found[0]


# -- outcome and usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "outcome", "source", "reason", "cost_source"),
    [
        # buffered
        ({"body": BODY}, "ok", "reported", None, "list"),
        ({"body": {**BODY, "usage": None}}, "ok", "none", "no_usage", "unpriced"),
        ({"body": ERROR, "status": 500}, "error", "none", "error_response", "not_billed"),
        ({"body": "<html>", "status": 502}, "error", "none", "error_response", "not_billed"),
        ({"body": {**BODY, "error": {}}, "status": 200}, "error", "reported", None, "list"),
        ({"body": BODY, "status": 400}, "error", "reported", None, "list"),
        ({"body": "{", "how": "broken"}, "broken", "none", "broken", "unpriced"),
        ({"body": "{", "how": "aborted"}, "aborted", "none", "aborted", "unpriced"),
        ({"body": "{"}, "broken", "none", "undecodable:json", "unpriced"),
        ({"body": BODY, "headers": {"content-encoding": "snappy"}}, "broken", "none", "undecodable:snappy", "unpriced"),
        ({"how": "aborted"}, "aborted", "none", "aborted", "unpriced"),
        ({"how": "broken"}, "broken", "none", "broken", "unpriced"),
        ({"body": "x", "headers": {"content-type": "audio/mpeg"}}, "ok", "none", "undecodable:audio.mpeg", "unpriced"),
        ({"body": "x", "headers": {"content-type": "application/grpc"}}, "ok", "none", "undecodable:grpc", "unpriced"),
        # OpenAI's stream: [DONE] or the finish reason ends it
        ({"events": [FIRST, PAID, "[DONE]"]}, "ok", "reported", None, "list"),
        ({"events": [FIRST, PAID, "[DONE]"], "how": "aborted"}, "ok", "reported", None, "list"),
        ({"events": [FIRST, PAID, "[DONE]"], "how": "broken"}, "ok", "reported", None, "list"),
        ({"events": [FIRST, PAID]}, "ok", "reported", None, "list"),
        ({"events": [FIRST, PAID], "how": "aborted"}, "aborted", "partial", "aborted", "estimated"),
        ({"events": [FIRST, PAID], "how": "broken"}, "broken", "partial", "broken", "estimated"),
        ({"events": [FIRST, LAST, "[DONE]"]}, "ok", "none", "no_usage_in_stream", "unpriced"),
        ({"events": [FIRST], "how": "aborted"}, "aborted", "none", "aborted", "unpriced"),
        ({"events": [FIRST, ERROR]}, "error", "none", "error_response", "not_billed"),
        ({"events": [FIRST, PAID, "[DONE]"], "broken_tap": True}, "ok", "reported", None, "list"),
        # Anthropic's stream: the figures are final before the stream ends
        ({"path": MESSAGES, "events": [START, DELTA, STOP]}, "ok", "reported", None, "list"),
        ({"path": MESSAGES, "events": [START, DELTA], "how": "aborted"}, "aborted", "reported", None, "list"),
        ({"path": MESSAGES, "events": [START], "how": "aborted"}, "aborted", "partial", "aborted", "estimated"),
        ({"path": MESSAGES, "events": [START]}, "broken", "partial", "broken", "estimated"),
        ({"path": MESSAGES, "events": [START, OVERLOAD]}, "error", "partial", "broken", "estimated"),
    ],
)  # fmt: skip
def test_outcomes(
    prices: PriceBook, call: dict[str, Any], outcome: str, source: str, reason: str | None, cost_source: str
) -> None:
    """How a call ended is judged by what its stream said; figures that are not final are marked, as is their cost."""
    host = "api.anthropic.com" if call.get("path") == MESSAGES else "api.openai.com"
    found = line(prices, host=host, **call)
    got = (found["outcome"], found["usage_source"], found.get("usage_reason"), found["cost_source"])
    assert got == (outcome, source, reason, cost_source)
    assert ("usage" in found) == (source != "none")
    assert (found["cost_usd"] is None) == (cost_source == "unpriced")


def test_a_stream_cut_inside_an_event(prices: PriceBook) -> None:
    """A stream that ends in the middle of an event keeps what came before, as partial."""
    found = line(prices, host="api.anthropic.com", path=MESSAGES, events=[START, DELTA], cut=20, how="broken")
    assert (found["outcome"], found["usage_source"], found["usage"]["output_tokens"]) == ("broken", "partial", 1)


def test_an_unanswered_call(prices: PriceBook) -> None:
    """A call that got no response at all is an error of the connection, without status; an abort is no error."""
    found = line(prices, status=None, how="broken")
    assert found["error"] == "connection"
    assert "status" not in found
    assert found["outcome"] in ("error", "broken")
    aborted = line(prices, status=None, how="aborted")
    assert aborted["outcome"] == "aborted"


def test_a_tap_error_is_told(prices: PriceBook) -> None:
    """If our own code failed on the way, the line says so."""
    assert line(prices, events=[FIRST, PAID, "[DONE]"], broken_tap=True)["flags"] == ["tap_error"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": {"type": "invalid_request_error", "code": "invalid_api_key"}}, "auth"),
        (404, {}, "not_found"),
        (429, {"error": {"type": "requests", "code": "rate_limit_exceeded"}}, "rate_limited"),
        (429, {"error": {"code": "insufficient_quota"}}, "quota"),
        (429, "too many", "rate_limited"),
        (503, {"error": {"message": "secret words"}}, "overloaded"),
        (500, {}, "server"),
        (418, {}, "invalid_request"),
    ],
)
def test_errors_are_classes(prices: PriceBook, status: int, body: Any, error: str) -> None:
    """An error is one short word, from the provider's own word or the status; its message is never kept."""
    found = line(prices, status=status, body=body)
    assert found["error"] == error
    assert b"secret" not in encode(found)


# -- lines -------------------------------------------------------------------------------------------------------------


def test_a_line_in_full(prices: PriceBook) -> None:
    """The keys come in the ledger's order, with the times, sizes, labels and client of the call."""
    found = line(prices, body=BODY, labels={"project": "web shop"}, client={"address": "10.0.0.9", "agent": "a/1"})
    assert list(found) == [key for key in FIELDS if key in found]
    assert found["time"] == "2026-09-21T14:13:20.123Z"
    assert found["timing"]["duration_ms"] == pytest.approx(1876.6, abs=0.1)
    assert found["bytes"] == {"request": 77, "response": len(text_of(BODY))}
    assert (found["labels"], found["client"]) == ({"project": "web shop"}, {"address": "10.0.0.9", "agent": "a/1"})
    assert found["price"]["id"] == "openai/gpt-test"
    assert found["price"]["at"] == "2026-09-21T14:13:22.000Z"
    assert sum(term["usd"] for term in found["cost_lines"]) == found["cost_usd"] == Decimal("0.0028")
    assert encode(decode(encode(found))) == encode(found)


def test_labels_of_the_ledgers_alphabet(prices: PriceBook) -> None:
    """A label that the ledger may not hold is left out; sixteen are kept."""
    labels = {"bad": "naïve", "long": "x" * 200, **{f"l{number}": "x" for number in range(40)}}
    found = line(prices, body=BODY, labels=labels)["labels"]
    assert len(found) == 16
    assert not {"bad", "long"} & found.keys()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completions?api-key=secret", "/v1/chat/completions"),
        ("/v1//chat/completions/", "/v1/chat/completions"),
        ("/v9/things/resp_68a1b2c3d4e5f6a7b8/items", "/v9/things/{id}/items"),
        ("/v9/things/0b1c7f3e-8d52-4c1c-9a45-3c7a1f0e9d11", "/v9/things/{id}"),
        ("/v9/things/1234567890", "/v9/things/{id}"),
        ("/v9/things/file-AbCdEf123456", "/v9/things/{id}"),
        ("/v9/things/v2", "/v9/things/v2"),
        ("/v9/naïve stuff", "/v9/{id}"),
    ],
)
def test_paths_hold_no_secrets(prices: PriceBook, path: str, shown: str) -> None:
    """No query, no id of content, and no character outside the ledger's alphabet is kept of a path."""
    assert line(prices, path=path, body=BODY)["path"] == shown


def test_only_the_shape_makes_a_line_of_an_unknown_path(prices: PriceBook) -> None:
    """On a path nobody described there is a line only if the answer has usage."""
    assert lines(prices, path="/v9/new", body={"ok": True}) == []
    assert lines(prices, path="/v9/new", status=500, body=ERROR) == []
    assert lines(prices, path="/v9/new", how="aborted") == []
    assert line(prices, path="/v9/new", body=BODY)["profile"] == "openai_compatible"


def test_shares_follow_their_line(prices: PriceBook) -> None:
    """Another model's share is a line of its own right after the main one, with the same time, provider and labels."""
    steps = [
        {"type": "advisor_message", "model": model, "input_tokens": 10, "output_tokens": 1}
        for model in ("claude-adviser-test", "no-such")
    ]
    body = {
        "id": "m",
        "type": "message",
        "model": "claude-test",
        "usage": {"input_tokens": 4, "output_tokens": 2, "iterations": steps},
    }
    main, known, unknown = lines(prices, host="api.anthropic.com", path=MESSAGES, body=body, labels={"team": "a"})
    for share in (known, unknown):
        assert share["parent"] == main["id"] != share["id"]
        assert (share["time"], share["provider"], share["labels"]) == (main["time"], "anthropic", {"team": "a"})
        assert not {"status", "timing", "bytes", "path"} & share.keys()
        assert list(share) == [key for key in FIELDS if key in share]
    assert known["cost_usd"] == Decimal("0.000075")
    assert (unknown["cost_usd"], unknown["cost_source"], unknown["cost_reason"]) == (None, "unpriced", "unknown_model")


def test_a_partial_line_has_partial_shares(prices: PriceBook) -> None:
    """A share of a call whose stream broke is as unsure as the call."""
    usage = {
        "input_tokens": 4,
        "iterations": [{"type": "advisor_message", "model": "claude-adviser-test", "input_tokens": 10}],
    }
    start = {"type": "message_start", "message": {**START["message"], "usage": usage}}  # type: ignore[dict-item]
    _, share = lines(prices, host="api.anthropic.com", path=MESSAGES, events=[start], how="broken")
    assert (share["usage_source"], share["cost_source"], share["outcome"]) == ("partial", "estimated", "broken")


# -- money -------------------------------------------------------------------------------------------------------------


def gateway(**spec: Any) -> Profiles:
    """A gateway that names its own price, as a user's profile."""
    route = {"dialect": "openai.chat", "money": [{"ref": "/cost"}], **spec}
    return Profiles.load(
        extra=[
            validated(
                {
                    "provider": "openai",
                    "name": "gw",
                    "hosts": ["gw.x"],
                    "source": "https://gw.example",
                    "routes": {"POST /c": route},
                },
                "x",
            )
        ]
    )


def paid(prices: PriceBook, cost: Any, model: str = "gpt-test", **spec: Any) -> dict[str, Any]:
    body = {**BODY, "model": model, "usage": {**USAGE, "cost": cost}}
    return line(prices, profiles=gateway(**spec), host="gw.x", path="/c", body=body)


def test_both_prices_are_kept(prices: PriceBook) -> None:
    """Where a provider names its price the line has both; our list is the cost unless the profile trusts the other."""
    found = paid(prices, 0.0028)
    assert (found["cost_usd"], found["cost_source"]) == (Decimal("0.0028"), "list")
    assert (found["cost_list_usd"], found["cost_reported_usd"]) == (Decimal("0.0028"), Decimal("0.0028"))
    assert "flags" not in found
    trusted = paid(prices, 0.0021, trust=True)
    assert (trusted["cost_usd"], trusted["cost_source"]) == (Decimal("0.0021"), "reported")
    assert trusted["cost_list_usd"] == Decimal("0.0028")
    assert trusted["flags"] == ["cost_differs"]


def test_a_trusted_price_needs_no_table(prices: PriceBook) -> None:
    """A model that our table does not know has the cost that a trusted provider names; untrusted, it has none."""
    trusted = paid(prices, "0.5", "no-such-model", trust=True)
    assert (trusted["cost_usd"], trusted["cost_source"]) == (Decimal("0.5"), "reported")
    assert not {"cost_reason", "cost_partial_usd", "cost_list_usd"} & trusted.keys()
    other = paid(prices, "0.5", "no-such-model")
    assert (other["cost_usd"], other["cost_reason"], other["cost_reported_usd"]) == (
        None,
        "unknown_model",
        Decimal("0.5"),
    )


def test_what_is_not_billed_costs_nothing(prices: PriceBook) -> None:
    """A gateway's own cache, say: the usage is told, the cost is 0 and says why."""
    found = paid(prices, 0, not_billed=[{"header:content-type": "application/*"}])
    assert (found["cost_usd"], found["cost_source"]) == (0, "not_billed")
    assert encode(found).count(b'"cost_usd":0.0,') == 1


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
            "inconsistent:cache_read_input_tokens",
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "completion_tokens_details": {"image_tokens": 1}},
            "unpriced:image_output_tokens",
        ),
    ],
)
def test_why_there_is_no_price(prices: PriceBook, usage: dict[str, Any], reason: str) -> None:
    """A usage that cannot be priced by the list has no cost, and the reason."""
    found = line(prices, body={**BODY, "usage": usage})
    assert (found["cost_usd"], found["cost_source"], found["cost_reason"]) == (None, "unpriced", reason)


def test_the_served_model_is_priced(prices: PriceBook) -> None:
    """The price is that of the model that answered; where the answer names none, of the one that was asked."""
    assert line(prices, body=BODY, asked={"model": "embed-test"})["price"]["id"] == "openai/gpt-test"
    silent = {key: value for key, value in BODY.items() if key != "model"}
    assert line(prices, body=silent)["price"]["id"] == "openai/gpt-test"
    assert line(prices, body=silent, asked={})["cost_reason"] == "unknown_model"


def test_billing(prices: PriceBook, tmp_path: Path) -> None:
    """A known host is metered; a guess by shape does not know on what basis it is billed."""
    assert line(prices, body=BODY)["billing"] == "metered"
    assert line(prices, host="llm.internal", body=BODY)["billing"] == "unknown"
