"""Whatever comes over the wire: no exception, bounded memory, and the same line however it was cut on its way."""

import contextlib
import json
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmtab.exchange
from effort import examples, exhaustive, sampled
from golden import built_in, compressed, load, names, pieces, whole
from llmtab.booking import book
from llmtab.exchange import TAP_LIMIT, Exchange, TapMemory
from llmtab.observation import Answer, Call, How
from llmtab.pricing import PriceBook
from llmtab.record import FIELDS, decode, encode
from llmtab.wire.decoding import decode_all
from llmtab.wire.framing import FRAMERS, MAX_FRAME
from llmtab.wire.scan import Selector, select
from test_eventstream import event

BEGAN, HEAD, ENDED = 1_790_000_000.0, 1_790_000_000.25, 1_790_000_002.0
URLS = (
    "api.openai.com/v1/chat/completions",
    "api.openai.com/v1/responses",
    "api.openai.com/v1/unheard/of",
    "api.openai.com/v1/images/generations",
    "api.anthropic.com/v1/messages",
    "generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent",
    "bedrock-runtime.us-east-1.amazonaws.com/model/m/converse-stream",
    "bedrock-runtime.us-east-1.amazonaws.com/model/m/invoke-with-response-stream",
    "api.cohere.com/v2/chat",
    "llm.example.com/api/chat",
)
MEDIA_TYPES = (
    "", "application/json", "text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream",
    "application/grpc", "text/html", "audio/mpeg", "application/json; charset=\xff",
)  # fmt: skip
CODINGS = ("", "gzip", "deflate", "br", "zstd", "gzip, br", "compress", "\x00")
HOWS: tuple[How, ...] = ("complete", "aborted", "broken")
VARYING = ("id", "timing", "bytes")
KEYS = ("usage", "usageMetadata", "finish_reason")

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([-1, 0, 1, 10**15, 10**16, 10**4000, "12", "1e5", "NaN", "-3", 1e300, 2.5])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=5,
)
CASES = names()


def opened(url: str, headers: dict[str, str], memory: TapMemory) -> Exchange:
    """A call whose response's head has come."""
    host, _, path = url.partition("/")
    claim = built_in().match(host, 80, "POST", f"/{path}")
    assert claim is not None, url
    call = Call("id", host, "POST", f"/{path}", BEGAN, {}, lambda: b'{"model":"m"}', lambda name: None)
    exchange = Exchange(call, claim, memory)
    exchange.answer = Answer(200, headers, HEAD)
    return exchange


def observed(url: str, headers: dict[str, str], chunks: Iterator[bytes], how: How) -> list[dict[str, Any]]:
    """The lines of a call whose response came in these chunks."""
    exchange = opened(url, headers, TapMemory())
    for chunk in chunks:
        exchange.feed(chunk, HEAD)
    seen = exchange.close(how, ENDED)
    assert seen is not None
    return checked(book(seen, prices()))


def checked(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines that may stand on a ledger: keys in order, readable again, their money the sum of its parts."""
    for line in lines:
        assert list(line) == [key for key in FIELDS if key in line]
        assert decode(encode(line)) == json.loads(encode(line), parse_float=Decimal)
        assert all(value >= 0 for value in (line.get("usage") or {}).values())
        if line["cost_source"] == "list" and line.get("cost_lines"):
            assert line["cost_usd"] == sum(part["usd"] for part in line["cost_lines"])
    return lines


@cache
def prices() -> PriceBook:
    return PriceBook.load()


def agree(dripped: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """Both say the same. Where compressed bytes are corrupt it depends on the pieces how much came before the fault:
    then both say so, and neither calls its figures final."""
    if whole and whole[0].get("usage_reason", "").removeprefix("undecodable:") in ("gzip", "deflate", "br", "zstd"):
        assert [line["usage_source"] for line in dripped if "parent" not in line] != ["reported"]
        assert dripped[0]["usage_reason"] == whole[0]["usage_reason"]
    else:
        assert [_fixed(line) for line in dripped] == [_fixed(line) for line in whole]


def _fixed(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in VARYING}


def cut(body: bytes, places: list[int]) -> Iterator[bytes]:
    """The body cut at these places (taken modulo its length), some of them perhaps empty pieces."""
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return (body[start:end] for start, end in pairwise(edges))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A body like a real one with a few bytes overwritten, inserted or taken out, or two of them run together."""
    case = load(draw(st.sampled_from(CASES)))
    body = bytearray(case.body)
    if draw(st.booleans()):
        body += load(draw(st.sampled_from(CASES))).body
    for _ in range(draw(st.integers(0, 4))):
        at, size = draw(st.integers(0, len(body))), draw(st.integers(0, 6))
        body[at : at + size] = draw(
            st.binary(max_size=6) | st.sampled_from([b"\n\n", b'"', b"}", b"\xed\xa0\x80", b"\\"])
        )
    return bytes(body)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """An AWS event stream, of honest messages or with a byte changed."""
    kind = st.sampled_from(["chunk", "metadata", "contentBlockDelta", ""])
    body = bytearray(b"".join(event(draw(kind), draw(st.binary(max_size=60))) for _ in range(draw(st.integers(0, 4)))))
    if body and draw(st.booleans()):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


BODIES = mutated() | st.binary(max_size=300) | messages()
PLACES = st.lists(st.integers(0, 20_000), max_size=8)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(URLS), BODIES, st.sampled_from(MEDIA_TYPES), st.sampled_from(CODINGS), st.booleans(), PLACES,
    st.sampled_from(HOWS),
)  # fmt: skip
def test_any_bytes_make_a_line_and_no_cut_matters(
    url: str, body: bytes, media_type: str, coding: str, honest: bool, places: list[int], how: How
) -> None:
    """Any body under any label, honestly compressed or not, gives valid lines, the same however it was cut."""
    if honest and coding in ("gzip", "deflate", "br", "zstd"):
        body = compressed(body, coding)
    headers = {"content-type": media_type} | ({"content-encoding": coding} if coding else {})
    whole = observed(url, headers, iter([body]), how)
    agree(observed(url, headers, cut(body, places), how), whole)


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from(URLS), BODIES, st.sampled_from(MEDIA_TYPES), st.sampled_from(["", "gzip", "br"]), PLACES)
def test_any_bytes_read_as_they_pass(url: str, body: bytes, media_type: str, coding: str, places: list[int]) -> None:
    """Beyond what a tap may keep any body gives valid lines as well, and no cut matters."""
    if coding:
        body = compressed(body, coding)
    headers = {"content-type": media_type} | ({"content-encoding": coding} if coding else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llmtab.exchange, "TAP_LIMIT", 16)
        whole = observed(url, headers, iter([body]), "complete")
        agree(observed(url, headers, cut(body, places), "complete"), whole)


@cache
def objects() -> list[str]:
    """The cases whose body is one JSON object."""
    return [
        name for name in CASES if not load(name).streamed and load(name).body[:1] == b"{" and _parses(load(name).body)
    ]


def _parses(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from leaves(child, (*at, key))


@st.composite
def distorted(draw: st.DrawFn) -> tuple[str, bytes]:
    """A buffered answer in which some values have been replaced by anything JSON can say."""
    name = draw(st.sampled_from(objects()))
    body = json.loads(load(name).body)
    for place in draw(st.lists(st.sampled_from(list(leaves(body))[1:] or [()]), min_size=1, max_size=4)):
        value = draw(VALUES)
        with contextlib.suppress(LookupError, TypeError):  # an earlier replacement took this place away
            here = body
            for key in place[:-1]:
                here = here[key]
            here[place[-1]] = value
    return name, json.dumps(body).encode()


@settings(max_examples=examples(300), deadline=None)
@given(distorted())
def test_any_value_anywhere_makes_a_line(found: tuple[str, bytes]) -> None:
    """Figures that are no figures, objects where numbers stood, numbers where objects stood: still valid lines."""
    case, body = load(found[0]), found[1]
    seen = whole(case, body)
    checked(book(seen, case.prices))


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from([*FRAMERS]), BODIES, PLACES, st.integers(0, 3), st.integers(0, 3))
def test_framers_and_selection_never_raise(kind: str, body: bytes, places: list[int], head: int, tail: int) -> None:
    """Any bytes through any framing give frames, the same ones however the body was cut."""
    whole = FRAMERS[kind](MAX_FRAME)
    dripped = FRAMERS[kind](MAX_FRAME)
    expected = whole.feed(body) + whole.close()
    if kind != "message":  # each piece of a socket is a message of its own
        assert [frame for piece in cut(body, places) for frame in dripped.feed(piece)] + dripped.close() == expected
    select(body, kind, KEYS, head, tail)
    selector = Selector(kind, KEYS, head, tail)
    assert len([f for piece in cut(body, places) for f in selector.feed(piece)] + selector.close()) <= len(body) + 1


@settings(max_examples=examples(200), deadline=None)
@given(BODIES, st.sampled_from(CODINGS), PLACES)
def test_decoding_never_raises(body: bytes, coding: str, places: list[int]) -> None:
    """Any bytes under any coding are decoded, the same in one piece and in many; corrupt ones as far as they go."""
    whole = decode_all([body], coding)
    dripped = decode_all(list(cut(body, places)), coding)
    assert dripped.broken == whole.broken
    assert dripped.data == whole.data or (whole.broken and dripped.data.startswith(whole.data))


ENDLESS = {
    "one endless line": (b"data: {", b'"x":"y",' * 8192, 48),
    "a deep array": (b"[", b"[[[[[[[[" * 8192, 48),
    "one huge string": (b'{"choices":"', b"word " * 16384, 48),
    "noise": (b"\x00", bytes(range(256)) * 256, 48),
    "events": (b"", b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n' * 1024, 4),
    "events that all look like usage": (
        b"",
        b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n' * 1024,
        2,
    ),
    "lines": (b"", b'{"done":false,"response":"word"}\n' * 2048, 2),
    "messages": (b"", event("chunk", b'{"bytes":"e30="}') * 512, 2),
}
"""How a body begins, how it goes on, and its size in MiB: large where that is cheap to watch."""


@pytest.mark.parametrize("coding", ["", pytest.param("gzip", marks=exhaustive)])
@pytest.mark.parametrize("what", sampled(ENDLESS, "one endless line", "events that all look like usage", "messages"))
def test_no_body_fills_the_memory(what: str, coding: str) -> None:
    """A response of whatever kind and length is watched within a few frames' limit and leaves nothing behind."""
    start, filler, size = ENDLESS[what]
    url = URLS[7] if what == "messages" else URLS[0]
    body = compressed(start + filler * (size * 2**20 // len(filler)), coding)
    chunks = list(pieces(body, 4096 if coding else 256 * 1024))
    memory = TapMemory()
    exchange = opened(url, {"content-type": "text/event-stream", "content-encoding": coding}, memory)
    tracemalloc.start()
    try:
        for chunk in chunks:
            exchange.feed(chunk, HEAD)
            assert memory.used <= TAP_LIMIT
        seen = exchange.close("aborted", ENDED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen is not None
    checked(book(seen, prices()))
    assert peak < 4 * MAX_FRAME, f"{peak / 2**20:.1f} MiB"
    assert memory.used == 0


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_long_stream_of_few_bytes_is_read_to_its_end(coding: str, buffered: bool) -> None:
    """A compressed stream whose events would fill the memory, though its bytes are few, still gives its figures."""
    piece = b'data: {"id":"c-1","model":"gpt-4o","choices":[{"index":0,"delta":{"content":" word"}}],"usage":null}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":200000}}\n\ndata: [DONE]\n\n'
    body = compressed(piece * 200_000 + usage, coding)
    assert len(body) < TAP_LIMIT
    exchange = opened(URLS[0], {"content-type": "text/event-stream", "content-encoding": coding}, TapMemory())
    for chunk in () if buffered else pieces(body, 1000):
        exchange.feed(chunk, HEAD)
    seen = exchange.close("complete", ENDED, body if buffered else None)
    assert seen is not None
    [line] = checked(book(seen, prices()))
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")
    assert line["usage"]["output_tokens"] == 200_000
