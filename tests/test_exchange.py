"""One call being observed: what reaches the line from the bytes, however they come, however much they are."""

import gzip
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmtab.exchange
import llmtab.reader
from effort import examples
from golden import built_in, load, text_of
from llmtab.events import BIG, ends_of, form_fields, parse
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call, Observation
from llmtab.profiles import Profiles

CHAT = {
    "id": "c1",
    "model": "m",
    "choices": [{"finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
EMBEDDINGS = "https://api.openai.com/v1/embeddings"


def exchange(
    path: str = "/v1/chat/completions", host: str = "api.openai.com", memory: TapMemory | None = None,
    profiles: Profiles | None = None, asked: Any = None, sent: dict[str, str] | None = None, **headers: str,
) -> Exchange:  # fmt: skip
    claim = (profiles or built_in()).match(host, 443, "POST", path)
    assert claim is not None
    body = asked if isinstance(asked, bytes) else text_of(asked if asked is not None else {"model": "asked"})
    found = Exchange(
        Call("i", host, "POST", path, 100.0, sent or {}, lambda: body, lambda _: None), claim, memory or TapMemory()
    )
    found.answer = Answer(200, {key.replace("_", "-"): value for key, value in headers.items()}, 100.5)
    return found


def observed(found: Exchange, body: bytes | None = None, how: Any = "complete", at: float = 102.0) -> Observation:
    seen = found.close(how, at, body)
    assert seen is not None
    return seen


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + text_of(event) + b"\n\n" for event in events)


# -- buffered bodies ---------------------------------------------------------------------------------------------------


JUNK = (b"", b" ", b"null", b"7", b'"text"', b"[]", b"{}", b"{", b"<html>", b"\xff\xfe\x00", b"\x1f\x8b\x08")


@pytest.mark.parametrize("body", [*JUNK, b"[" * 5000, b'{"usage":' * 900])
@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream", "text/html", "audio/mpeg", ""])
def test_no_body_raises_anything(body: bytes, media_type: str) -> None:
    """Whatever an upstream sends under whatever name, buffered or streamed, the call is observed: without usage."""
    seen = observed(exchange(content_type=media_type), body)
    assert seen.reading.counters == {}
    tapped = exchange(content_type=media_type)
    for byte in body[:300]:
        tapped.feed(bytes([byte]), 101.0)
    assert observed(tapped).reading.counters == {}


@settings(max_examples=examples(150))
@given(st.binary(max_size=400), st.sampled_from(["", "gzip", "br", "zstd", "deflate", "snappy"]), st.integers(1, 90))
def test_no_bytes_raise_anything(body: bytes, coding: str, size: int) -> None:
    """Random bytes under any content coding give an observation."""
    found = exchange(content_type="application/json", content_encoding=coding)
    for start in range(0, len(body), size):
        found.feed(body[start : start + size], 101.0)
    observed(found)
    observed(exchange(content_type="application/json", content_encoding=coding), body)


def test_no_response_at_all() -> None:
    """A call that nobody answered is an observation too."""
    found = exchange()
    found.answer = Answer()
    seen = observed(found, None, "broken")
    assert (seen.answer.status, seen.response_bytes, seen.streamed, seen.first_byte_at) == (None, 0, False, None)
    assert seen.reading.request_model == "asked"


@pytest.mark.parametrize("size", [BIG // 20, BIG])
@pytest.mark.parametrize("place", ["after", "before", "both"])
def test_big_bodies_are_read_at_their_ends(size: int, place: str) -> None:
    """The usage of a body of embeddings is found however long their list is, and wherever around it the rest stands."""
    rng = random.Random(1)
    data = [
        {"object": "embedding", "index": n, "embedding": [rng.random() for _ in range(8)]} for n in range(size // 100)
    ]
    rest: dict[str, Any] = {"object": "list", "model": "embed-x", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    before = rest if place == "before" else {"object": "list"} if place == "both" else {}
    after = {} if place == "before" else rest if place == "after" else {key: rest[key] for key in ("model", "usage")}
    body = json.dumps({**before, "data": data, **after}, indent=1).encode()
    for coding in ("", "gzip"):
        sent = gzip.compress(body) if coding else body
        seen = observed(exchange("/v1/embeddings", content_encoding=coding), sent)
        assert (seen.reading.model, seen.reading.counters) == ("embed-x", {"input_tokens": 9, "total_tokens": 9})


def test_a_big_body_of_another_form_is_read_whole() -> None:
    """A long text before the usage, or usage inside the list, is found as well."""
    for content in ("x" * BIG, "[" * BIG, '"usage": {"prompt_tokens": 1}]' * (BIG // 20)):
        body = {**CHAT, "choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
        seen = observed(exchange(), text_of({"usage": body.pop("usage"), **body}))
        assert seen.reading.counters == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        assert seen.reading.finish_reasons in (["stop"], [])


def test_lists_of_a_big_body_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the calls of a tool are billed by their number, a body is read whole; beyond all bounds it is marked."""
    calls = [{"type": "file_search_call"}] * 3 + [{"type": "message", "content": "x" * BIG}]
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
    body = text_of({"id": "resp_1", "object": "response", "status": "completed", "output": calls, "usage": usage})
    assert observed(exchange("/v1/responses"), body).reading.counters["file_search_requests"] == 3
    monkeypatch.setattr(llmtab.reader, "WHOLE", BIG)
    seen = observed(exchange("/v1/responses"), body)
    assert (seen.reading.counters["input_tokens"], seen.undecodable) == (7, "limit")


def test_big_bodies_are_left_to_a_thread() -> None:
    """What would take the event loop too long to parse is said beforehand."""
    found = exchange()
    assert not found.needs_thread(None)
    assert not found.needs_thread(b"x" * BIG)
    assert found.needs_thread(b"x" * (BIG + 1))


def test_the_coding_is_undone() -> None:
    """A compressed body is read; a coding nobody knows, or a wrong one, is named."""
    body = text_of(CHAT)
    assert observed(exchange(content_encoding="gzip"), gzip.compress(body)).reading.counters["input_tokens"] == 7
    assert observed(exchange(content_encoding="snappy"), body).undecodable == "snappy"
    assert observed(exchange(content_encoding="gzip"), b"\x1f\x8b\x08" + b"\xff" * 40).undecodable == "gzip"


# -- streams -----------------------------------------------------------------------------------------------------------

EVENTS = (
    {"id": "c1", "model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"id": "c1", "model": "m", "choices": [{"delta": {"content": "Hi"}}]},
    *({"id": "c1", "model": "m", "choices": [{"delta": {"content": f"w{n}"}}]} for n in range(40)),
    {"id": "c1", "model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    {
        "id": "c1",
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    },
    "[DONE]",
)


def test_times_of_a_stream() -> None:
    """First byte and first token are the moments of the chunks that brought them, compressed or not."""
    for coding in ("", "gzip"):
        found = exchange(content_type="text/event-stream", content_encoding=coding)
        body = b"".join(sse(event) for event in EVENTS)
        chunks = [sse(event) for event in EVENTS] if not coding else flushed([sse(event) for event in EVENTS])
        assert coding or b"".join(chunks) == body
        for number, chunk in enumerate(chunks):
            found.feed(chunk, 101.0 + number)
        seen = observed(found, at=200.0)
        assert (seen.first_byte_at, seen.first_token_at) == (101.0, 102.0), coding
        assert (seen.transport, seen.streamed, seen.reading.ended) == ("sse", True, True)


def flushed(chunks: list[bytes]) -> list[bytes]:
    """gzip, flushed after each chunk, as servers that stream do."""
    import zlib

    found = zlib.compressobj(wbits=31)
    out = [found.compress(chunk) + found.flush(zlib.Z_SYNC_FLUSH) for chunk in chunks]
    return [*out[:-1], out[-1] + found.flush()]


def test_a_label_that_lies() -> None:
    """SSE under the name of JSON is read as SSE, JSON under the name of SSE as JSON."""
    found = exchange(content_type="application/json")
    found.feed(sse(*EVENTS), 101.0)
    assert (found.close("complete", 102.0) or pytest.fail()).reading.counters["total_tokens"] == 10
    assert observed(exchange(content_type="application/json"), sse(*EVENTS)).transport == "sse"
    seen = observed(exchange(content_type="text/event-stream"), text_of(CHAT))
    assert seen.reading.counters["total_tokens"] == 10


def test_a_streamed_json_body_is_one_call_like_any_other() -> None:
    """A JSON body that was passed on chunk by chunk is no stream: it is one event."""
    found = exchange(content_type="application/json")
    for byte in text_of(CHAT):
        found.feed(bytes([byte]), 101.0)
    seen = observed(found)
    assert (seen.transport, seen.streamed, seen.reading.counters["total_tokens"]) == ("http", False, 10)


def test_memory_of_a_long_stream_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bytes a tap keeps a few kilobytes; at the end of a call it keeps nothing."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", 2000)
    memory = TapMemory()
    found, small = exchange(memory=memory), exchange(memory=memory)
    small.feed(sse(EVENTS[0]), 101.0)
    before = memory.used
    for event in (*EVENTS[:-2], *EVENTS[1:30] * 20, *EVENTS[-2:]):
        found.feed(sse(event), 101.0)
        assert memory.used <= before + 2000
    assert memory.used == before
    assert found.chunks == []
    assert observed(found).reading.counters["total_tokens"] == 10
    observed(small)
    assert memory.used == 0


def test_many_streams_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all taps together hold too much, each goes on in a few kilobytes, and reads the same."""
    monkeypatch.setattr(llmtab.exchange, "TAP_TOTAL", 3000)
    memory = TapMemory()
    many = [exchange(memory=memory, content_type="text/event-stream") for _ in range(10)]
    for event in EVENTS:
        for found in many:
            found.feed(sse(event), 101.0)
        assert memory.used <= 3000 + len(many) * 200
    assert [observed(found).reading.counters["total_tokens"] for found in many] == [10] * 10
    assert memory.used == 0


def test_a_long_json_body_is_read_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON body that was streamed past all bounds still tells its usage, if that stands at its end."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", 1000)
    found = exchange("/v1/embeddings", content_type="application/json")
    data = [{"embedding": [0.5] * 100, "index": n} for n in range(50)]
    body = text_of(
        {"object": "list", "data": data, "model": "embed-x", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    )
    for start in range(0, len(body), 512):
        found.feed(body[start : start + 512], 101.0)
    assert observed(found).reading.counters == {"input_tokens": 9, "total_tokens": 9}


@pytest.mark.parametrize("limit", [1000, 1_000_000])
@pytest.mark.parametrize("how", ["complete", "broken", "aborted"])
def test_half_a_json_body_is_never_whole(monkeypatch: pytest.MonkeyPatch, limit: int, how: Any) -> None:
    """A JSON text that was cut is told as such, whether its bytes were kept or read as they passed."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", limit)
    found = exchange("/v1/embeddings", content_type="application/json")
    body = text_of({"data": [{"embedding": [0.5] * 100, "index": n} for n in range(50)], "usage": {"prompt_tokens": 9}})
    for start in range(0, len(body) // 2, 512):
        found.feed(body[start : start + 512], 101.0)
    assert observed(found, how=how).undecodable == "json"


def test_a_long_stream_still_tells_its_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the tap's limit nothing is kept, but when the first text came is known by then."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", 2000)
    for coding in ("", "gzip"):
        found = exchange(content_type="text/event-stream", content_encoding=coding)
        events = [sse(event) for event in (*EVENTS[:-2], *EVENTS[1:30] * 90, *EVENTS[-2:])]
        for number, chunk in enumerate(flushed(events) if coding else events):
            found.feed(chunk, 101.0 + number)
        seen = observed(found, at=9000.0)
        assert (seen.first_byte_at, seen.first_token_at) == (101.0, 102.0), coding
        assert seen.reading.counters["total_tokens"] == 10


def test_a_long_stream_whose_beginning_unfolds_to_much_is_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the first chunks may be one at a time; nothing of it is left when all are read as they pass."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", 2000)
    monkeypatch.setattr(llmtab.reader, "DECODED_LIMIT", 3000)
    rest = [{key: value for key, value in event.items() if key != "model"} for event in EVENTS[1:-1]]
    found = exchange(content_type="text/event-stream", content_encoding="gzip")
    for chunk in flushed([sse(event) for event in (EVENTS[0], *rest[:30] * 90, *rest[-2:], EVENTS[-1])]):
        found.feed(chunk, 101.0)
    seen = observed(found, at=9000.0)
    assert (seen.reading.counters["total_tokens"], seen.reading.ended, seen.torn) == (10, True, False)
    assert seen.reading.model == "m"  # the first event says it, and no other


@pytest.mark.parametrize("limit", [1000, 10_000_000])
def test_a_large_json_text_that_was_passed_on_is_left_to_a_thread(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Kept or not: one text is parsed in one go; a stream of the same size is not. Nothing is counted as held then."""
    monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", limit)
    memory = TapMemory()
    for kind, body in (("application/json", text_of({"data": [0.5] * BIG})), ("text/event-stream", sse(*EVENTS) * 300)):
        found = exchange(content_type=kind, memory=memory)
        for start in range(0, len(body), 60_000):
            found.feed(body[start : start + 60_000], 101.0)
        assert len(body) > BIG
        assert found.needs_thread(None) is (kind == "application/json")
        found.hand_over()
        assert memory.used == 0
        found.close("complete", 102.0)


def test_a_broken_tap_is_told() -> None:
    """If our own code failed on a chunk, the observation says so."""
    found = exchange()
    found.broken_tap = True
    assert observed(found, text_of(CHAT)).tap_error


# -- the request -------------------------------------------------------------------------------------------------------


def test_the_request_names_the_model() -> None:
    """The asked model is read from JSON, compressed JSON, or a form; a request of another kind harms nothing."""
    form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--B\r\n'
    form += b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-x\r\n--B--\r\n'
    for asked, sent, model in (
        ({"model": "asked"}, {}, "asked"),
        (gzip.compress(b'{"model": "asked"}'), {"content-encoding": "gzip"}, "asked"),
        (form, {"content-type": "multipart/form-data; boundary=B"}, "whisper-x"),
        (b"", {}, None),
        (b"\xff\x00", {}, None),
        ([1], {}, None),
        ({"model": ["x"]}, {}, None),
    ):
        assert observed(exchange(asked=asked, sent=sent), text_of({})).reading.request_model == model


# -- a guess by shape --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60},
                "output_tokens": 5,
                "total_tokens": 105,
            },
            (100, 60),
        ),
        ({"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 5}, (160, 60)),
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens": 5}, (100, 60)),
    ],
)
def test_a_guess_takes_what_explains_most(usage: dict[str, Any], read: tuple[int, int]) -> None:
    """On a path nobody described the shape tells whether the cache is inside the input or beside it."""
    counters = observed(exchange("/v9/new"), text_of({"model": "m", "usage": usage})).reading.counters
    assert (counters["input_tokens"], counters["cache_read_input_tokens"]) == read


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b" [1] ", [1]),
        (b"[DONE]", "[DONE]"),
        (b"", None),
        (b"DONE", None),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b"[" * 5000 + b"]" * 5000, None),
        (b'{"a":' * 300 + b"1" + b"}" * 300, None),
        (b'{"a": 1', None),
    ],
)
def test_parse(frame: bytes, event: Any) -> None:
    """One frame is one JSON value, even where a server cut text by bytes; anything else is nothing."""
    assert parse(frame) == event


@pytest.mark.parametrize(
    ("body", "around"),
    [
        (b'{"data": [1, [2], "]"], "usage": {"n": 1}}', {"usage": {"n": 1}}),
        (b'{"object": "list", "data": [], "model": "m"}', {"object": "list", "model": "m"}),
        (b'{"data" : [1] }', {}),
        (b'{"a": 1}', None),
        (b"[1, 2]", None),
        (b'{"a": {"b": [1], "c": 2}, "usage": 3}', None),
        (b'{"a": [1], "b": [2], "usage": 3}', {"usage": 3}),
    ],
)
def test_ends_of(body: bytes, around: dict[str, Any] | None) -> None:
    """The members around the big list of a body, without the list; nothing where it has another form."""
    assert ends_of(body) == around


def test_form_fields_are_short_text() -> None:
    """Of an upload only its short text fields are read."""
    assert form_fields(b"no form at all") == {}
    assert form_fields(b'form-data; name="a"') == {}
    long = b'form-data; name="a"\r\n\r\n' + b"x" * 2000 + b"\r\n--B"
    assert form_fields(long + b'\r\nform-data; name="b"\r\n\r\nshort\r\n--B--') == {"b": "short"}


def test_cases_are_claimed_once() -> None:
    """The same call is claimed by the same profile every time."""
    case = load("openai/chat")
    assert case.profiles.match("api.openai.com", 443, "POST", "/v1/chat/completions?x=1") is case.profiles.match(
        "api.openai.com", 443, "POST", "/v1/chat/completions"
    )
