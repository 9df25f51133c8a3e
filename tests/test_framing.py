"""Framing: what a user of a framer may rely on, for every way the bytes may be cut."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.wire.framing import FRAMERS, MAX_TAIL, Framer, framer, sniff

LF = b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n'
THREE = [b'{"a":1}', b'{"b":2}', b"[DONE]"]
ANTHROPIC = b'event: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {"type":"ping"}\n\n'
GEMINI_ERROR = (
    b'{\n  "error": {\n    "code": 503,\n\n    "message": "a } \\" { brace",\n    "status": "UNAVAILABLE"\n  }\n}\n'
)
GEMINI_ARRAY = b'[{\n  "text": "a]}{["\n}\n,\r\n{\n  "usage": {"n": 1}\n}\n]\n'

# name: (kind, body, frames)
CASES: dict[str, tuple[str, bytes, list[bytes]]] = {
    "lf": ("sse", LF, THREE),
    "crlf": ("sse", LF.replace(b"\n", b"\r\n"), THREE),
    "cr": ("sse", LF.replace(b"\n", b"\r"), THREE),
    "mixed ends": ("sse", b'data: {"a":1}\r\n\ndata: {"b":2}\r\r\ndata: [DONE]\n\r\n', THREE),
    "more blank lines": ("sse", b"\n\n" + LF.replace(b"\n\n", b"\n\n\n\n"), THREE),
    "no space after the colon": ("sse", LF.replace(b"data: ", b"data:"), THREE),
    "only one space is taken": ("sse", b"data:  x\n\n", [b" x"]),
    "bom": ("sse", b"\xef\xbb\xbf" + LF, THREE),
    "no last blank line": ("sse", LF[:-1], THREE),
    "no last newline": ("sse", LF[:-2], THREE),
    "comments": ("sse", b": OPENROUTER PROCESSING\n\n" + LF + b":\n\n", THREE),
    "other fields": ("sse", ANTHROPIC, [b'{"type":"message_start"}', b'{"type":"ping"}']),
    "id and retry": ("sse", b"id: 7\nretry: 3000\ndata: x\n\nid: 8\n\n", [b"x"]),
    "unknown field": ("sse", b"foo: bar\ndata: x\n\n", [b"x"]),
    "data lines are joined": ("sse", b"data: {\ndata: }\n\n", [b"{\n}"]),
    "data without a colon": ("sse", b"data: a\ndata\ndata: b\n\n", [b"a\n\nb"]),
    "empty data is no frame": ("sse", b"data:\n\ndata: x\n\n", [b"x"]),
    "utf-8": ("sse", 'data: {"t":"日本語 😀\u2028"}\n\n'.encode(), ['{"t":"日本語 😀\u2028"}'.encode()]),
    "vertical tab is no line end": ("sse", b"data: a\x0b\x0c\x1c\x85b\n\n", [b"a\x0b\x0c\x1c\x85b"]),
    "bare json": ("sse", LF + GEMINI_ERROR, [*THREE, GEMINI_ERROR[:-1]]),
    "bare json, then events": ("sse", GEMINI_ERROR + b"\n" + LF, [GEMINI_ERROR[:-1], *THREE]),
    "bare array": ("sse", b'[{"error":\n{"code":1}}]\n', [b'{"error":\n{"code":1}}']),
    "bare json cut by an event": ("sse", b'{"a":\n\n' + LF, [b'{"a":\n\n', *THREE]),
    "an event ends where bare json begins": ("sse", b"data: x\n{}\n\n", [b"x", b"{}"]),
    "ndjson under an sse label": ("sse", b'{"a":1}\n{"b":2}\n', THREE[:2]),
    "ndjson": ("ndjson", b'{"a":1}\n{"b":2}\n', THREE[:2]),
    "ndjson crlf": ("ndjson", b'{"a":1}\r\n\r\n\n{"b":2}\r\n', THREE[:2]),
    "ndjson without its end": ("ndjson", b'\xef\xbb\xbf{"a":1}\n{"b":2}', THREE[:2]),
    "json": ("json", b'\xef\xbb\xbf\n\n \n{"a":1}\n', [b'{"a":1}']),
    "json of nothing": ("json", b" \n", []),
    "array": ("jsonarray", GEMINI_ARRAY, [b'{\n  "text": "a]}{["\n}', b'{\n  "usage": {"n": 1}\n}']),
    "array, compact": ("jsonarray", b'[{"a":"\\\\"},{"b":"\\""}]', [b'{"a":"\\\\"}', b'{"b":"\\""}']),
    "array of nothing": ("jsonarray", b"[]", []),
    "array of arrays": ("jsonarray", b'[[1,2,"{"],[{"a":[{}]}]]', [b'{"a":[{}]}']),
    "one object": ("jsonarray", b'\xef\xbb\xbf{"error":{"code":400}}\n', [b'{"error":{"code":400}}']),
    "objects after one another": ("jsonarray", b'{"a":1}{"b":2}\n\x1e{"c":3}', [b'{"a":1}', b'{"b":2}', b'{"c":3}']),
    "closers too many": ("jsonarray", b'}}]{"a":1}}', [b'{"a":1}']),
    "opaque": ("opaque", b"\x00\x01" + LF, []),
}


def run(reader: Framer, chunks: list[bytes]) -> list[bytes]:
    frames = [frame for chunk in chunks for frame in reader.feed(chunk)]
    return frames + reader.close()


def cuts(body: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, in odd sizes, in two at every place, with empty chunks between."""
    yield [body]
    for size in (1, 2, 3, 7, 64):
        yield [body[i : i + size] for i in range(0, len(body), size)]
    for i in range(len(body)):
        yield [body[:i], b"", body[i:]]


@pytest.mark.parametrize("name", CASES)
def test_any_cut_gives_the_same_frames(name: str) -> None:
    """However the network cuts a body, its frames are the same, byte for byte."""
    kind, body, frames = CASES[name]
    for chunks in cuts(body):
        assert run(framer(kind), chunks) == frames, chunks


@pytest.mark.parametrize("name", CASES)
def test_a_cut_body_gives_a_beginning(name: str) -> None:
    """A body cut anywhere gives the frames that were whole, perhaps a part of the next one, and no exception."""
    kind, body, frames = CASES[name]
    for end in range(len(body)):
        got = run(framer(kind), [body[:end]])
        same = [a == b for a, b in zip(got, frames, strict=False)]
        assert all(same[:-1])
        assert len(got) <= len(frames) + 1


PIECES = st.sampled_from(
    [
        b"data:",
        b"data: ",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b":",
        b"event: x",
        b",",
        b"\xef\xbb\xbf",
        b" ",
        b'{"a":1}',
        b'"usage":null',
        b"\xe2\x82\xac",
        b"\x00",
        b"data",
        b"id:",
    ]
)
BODIES = st.one_of(st.lists(PIECES, max_size=40).map(b"".join), st.binary(max_size=200))


@given(
    st.sampled_from(sorted(FRAMERS.keys() - {"message"})),
    BODIES,
    st.lists(st.integers(0, 200), max_size=8),
    st.sampled_from([5, 24, 1 << 20]),
)
def test_no_bytes_raise_and_no_cut_matters(kind: str, body: bytes, places: list[int], limit: int) -> None:
    """Any bytes at all, cut anywhere, under any limit: the same frames and flags, never an exception."""
    places = [0, *sorted(places), len(body)]
    chunks = [body[a:b] for a, b in itertools.pairwise(places)]
    readers = [framer(kind, limit) for _ in range(3)]
    whole = run(readers[0], [body])
    assert run(readers[1], chunks) == whole
    assert run(readers[2], [body[i : i + 1] for i in range(len(body))]) == whole
    assert len({(r.overflowed, r.partial, r.broken) for r in readers}) == 1
    assert all(len(frame) <= limit or kind == "eventstream" for frame in whole)


@pytest.mark.parametrize(
    ("kind", "before", "big", "after"),
    [
        ("sse", b"data: a\n\n", b"data: " + b"x" * 90 + b"\n\n", b"data: b\n\n"),
        ("sse", b"data: a\n\n", b"event: e\n" + b"data: xxxxxxxxxx\n" * 9 + b"\n", b"data: b\n\n"),
        ("sse", b"data: a\n\n", b'{"big":\n"' + b"x" * 90 + b'"}\n\n', b"data: b\n\n"),
        ("ndjson", b"a\n", b"x" * 90 + b"\n", b"b\n"),
    ],
)
def test_a_frame_over_the_limit_is_dropped_alone(kind: str, before: bytes, big: bytes, after: bytes) -> None:
    """A frame over the limit is left out and flagged; those before and after it are delivered."""
    body = before + big + after
    for size in (1, 7, len(body)):
        reader = framer(kind, 64)
        assert run(reader, [body[i : i + size] for i in range(0, len(body), size)]) == [b"a", b"b"]
        assert reader.overflowed


def test_an_element_over_the_limit_is_dropped_alone() -> None:
    """The same for an element of a JSON array."""
    body = b'[{"a":1},{"big":"' + b"{" * 90 + b'"},{"b":2}]'
    for size in (1, 7, len(body)):
        reader = framer("jsonarray", 64)
        assert run(reader, [body[i : i + size] for i in range(0, len(body), size)]) == [b'{"a":1}', b'{"b":2}']
        assert reader.overflowed


def test_a_json_body_over_the_limit_keeps_its_tail() -> None:
    """Of a JSON body too big to keep, the end is kept: that is where usage stands."""
    from llmtab.wire.framing import Json

    reader = Json(1000)
    body = b'{"data":"' + b"x" * 3 * MAX_TAIL + b'","usage":{"n":1}}'
    assert run(reader, [body[i : i + 999] for i in range(0, len(body), 999)]) == []
    assert reader.overflowed
    assert reader.tail == body[-MAX_TAIL:]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("sse", b'data: {"a":'), ("json", b'{"a":'), ("ndjson", b'{"a":1}\n{"b"'), ("jsonarray", b'[{"a":')],
)
def test_a_truncated_tail_is_delivered_and_flagged(kind: str, body: bytes) -> None:
    """What is left when the stream breaks is handed over as it is, and `partial` says so."""
    reader = framer(kind)
    assert run(reader, [body])[-1][:2] == b'{"'
    assert reader.partial
    whole = framer(kind)
    run(whole, [CASES["lf"][1] if kind == "sse" else b'{"a":1}'])
    assert not whole.partial


def test_a_socket_message_is_a_frame() -> None:
    """WebSocket messages come out as they came in."""
    reader = framer("message", 8)
    assert run(reader, [b"{}", b"", b"[1]", b"x" * 9]) == [b"{}", b"[1]"]
    assert reader.overflowed


def test_an_unknown_kind_is_a_value_error() -> None:
    """A framing nobody knows is named in the error."""
    with pytest.raises(ValueError, match="morse"):
        framer("morse")


SNIFFED = [
    ("text/event-stream", b"data: x", "sse"),
    ("text/event-stream; charset=utf-8", b"", "sse"),
    ("text/event-stream", b'{\n "error": {}}', "sse"),
    ("text/event-stream", b'[{\n "error": {}}]', "sse"),
    ("Application/JSON; charset=utf-8", b'{"a":1}', "json"),
    ("application/json", b"\n\n\n{", "json"),
    ("application/json", b'data: {"a":1}\n\n', "sse"),
    ("application/json", b"event: completion\r\n", "sse"),
    ("application/json", b": OPENROUTER PROCESSING\n", "sse"),
    ("application/json", b"dat", "sse"),
    ("application/json", b"\xef\xbb\xbf[{", "jsonarray"),
    ("application/json", b"", "json"),
    ("application/json", b"<html>", "json"),
    ("application/problem+json", b"{", "json"),
    ("application/json", b'{"a":1}\n{"b":2}\n', "ndjson"),
    ("application/json", b'{"a":1}\n', "json"),
    ("application/json", b'{\n "a": {}\n}', "json"),
    ("", b'{"a":1}\r\n{"b"', "ndjson"),
    ("", b'{"a":1}', "json"),
    ("", b"[1]", "jsonarray"),
    ("", b"data:{}", "sse"),
    ("", b"hello", "opaque"),
    ("text/plain", b'{"a":1}', "json"),
    ("application/octet-stream", b'{"custom_id":"a"}\n{"custom_id":"b"}\n', "ndjson"),
    ("application/octet-stream", b"\x89PNG", "opaque"),
    ("application/x-ndjson", b'{"a":1}', "ndjson"),
    ("application/stream+json", b"{", "ndjson"),
    ("application/x-jsonl", b'{"a":1}\n', "ndjson"),
    ("application/jsonl", b"", "ndjson"),
    ("application/x-ndjson", b'{\n "error": "x"\n}', "jsonarray"),
    ("application/x-ndjson", b"data: {}\n", "sse"),
    ("application/vnd.amazon.eventstream", b"", "eventstream"),
    ("application/vnd.amazon.eventstream", b'{"message":"no"}', "json"),
    ("application/vnd.amazon.eventstream", b"\x00\x00\x00", "eventstream"),
    ("application/grpc+proto", b"{", "opaque"),
    ("application/connect+proto", b"\x00\x00", "opaque"),
    ("audio/mpeg", b"ID3", "opaque"),
    ("image/png", b"data:", "opaque"),
]


@pytest.mark.parametrize(("media_type", "head", "kind"), SNIFFED)
def test_sniff(media_type: str, head: bytes, kind: str) -> None:
    """The Content-Type is believed as far as the first bytes do not say otherwise."""
    assert sniff(media_type, head) == kind


def test_sniff_finds_an_event_stream_under_any_label() -> None:
    """The AWS prelude carries a checksum: it is believed over the header."""
    message = bytes.fromhex("00000010000000000 5c248eb".replace(" ", "")) + b"\x7d\x98\xc8\xff"
    assert sniff("application/json", message) == "eventstream"


@given(st.text(max_size=40), st.one_of(BODIES, st.just(b"")))
def test_sniff_never_raises(media_type: str, head: bytes) -> None:
    """Any header and any bytes give one of the framings."""
    assert sniff(media_type, head) in FRAMERS
