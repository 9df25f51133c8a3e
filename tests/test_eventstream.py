"""The AWS event stream: real messages, encoded here, and everything that can be wrong with them."""

import base64
import datetime
import json
import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.wire.eventstream import MAX_HEADERS, MAX_PAYLOAD, EventStream, headers, prelude
from llmtab.wire.framing import framer

type Value = bool | int | bytes | str | datetime.datetime | uuid.UUID

# From the specification (and botocore's tests): a message of no headers and no payload.
EMPTY_MESSAGE = b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff"


def encode_header(name: str, value: Value) -> bytes:
    head = bytes([len(name)]) + name.encode()
    match value:
        case bool():
            return head + (b"\x00" if value else b"\x01")
        case int():
            return head + b"\x05" + struct.pack(">q", value)
        case bytes():
            return head + b"\x06" + struct.pack(">H", len(value)) + value
        case str():
            return head + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        case datetime.datetime():
            return head + b"\x08" + struct.pack(">q", int(value.timestamp() * 1000))
        case uuid.UUID():
            return head + b"\x09" + value.bytes


def message(fields: dict[str, Value], payload: bytes, raw_headers: bytes | None = None) -> bytes:
    encoded = b"".join(encode_header(*item) for item in fields.items()) if raw_headers is None else raw_headers
    start = struct.pack(">II", len(encoded) + len(payload) + 16, len(encoded))
    body = start + struct.pack(">I", zlib.crc32(start)) + encoded + payload
    return body + struct.pack(">I", zlib.crc32(body))


def event(name: str, payload: bytes) -> bytes:
    fields: dict[str, Value] = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(fields, payload)


INNER = b'{"type":"message_start","message":{"usage":{"input_tokens":8}}}'
CHUNK = b'{"bytes":"' + base64.b64encode(INNER) + b'","p":"abcdefghij"}'
FAILURE = message({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"secret"}')
ERROR = message({":message-type": "error", ":error-code": "500", ":error-message": "secret"}, b"")
STREAM = b"".join(
    [
        event("messageStart", b'{"role":"assistant"}'),
        event("chunk", CHUNK),
        event("metadata", b'{"usage":{"inputTokens":1}}'),
        event("messageStop", b""),
    ]
)
FRAMES = [
    b'{"messageStart":{"role":"assistant"}}',
    INNER,
    b'{"metadata":{"usage":{"inputTokens":1}}}',
    b'{"messageStop":{}}',
]


def run(reader: EventStream, body: bytes, size: int = 1 << 20) -> list[bytes]:
    frames = [frame for i in range(0, len(body), size) for frame in reader.feed(body[i : i + size])]
    return frames + reader.close()


@pytest.mark.parametrize("size", [1, 2, 11, 12, 13, 100, 1 << 20])
def test_events_come_out_as_json(size: int) -> None:
    """Each event is `{event-type: payload}`, a Bedrock chunk is the JSON it wraps, in any cut."""
    reader = EventStream()
    assert run(reader, STREAM, size) == FRAMES
    assert (reader.broken, reader.partial, reader.overflowed) == ("", False, False)


def test_failures_come_out_as_errors_without_their_text() -> None:
    """An exception in the stream gives its type; its message, which may quote the prompt, is left out."""
    frames = run(EventStream(), FAILURE + ERROR)
    assert [json.loads(frame) for frame in frames] == [
        {"error": {"type": "throttlingException"}},
        {"error": {"type": "500"}},
    ]


@pytest.mark.parametrize("payload", [b'{"bytes":7}', b'{"bytes":"?"}', b"[]", b"{", b'{"text":"x"}', b'{"bytes":""}'])
def test_a_chunk_that_wraps_nothing_is_an_event(payload: bytes) -> None:
    """A chunk without base64 inside is handed over as any other event."""
    assert run(EventStream(), event("chunk", payload)) == [b'{"chunk":' + payload + b"}"]


@pytest.mark.parametrize(
    "payload",
    [CHUNK, CHUNK.replace(b":", b" : "), b'{"p":"ab","bytes"' + CHUNK[8:]],
)
def test_a_chunk_in_any_spelling(payload: bytes) -> None:
    """Padding before or after, white space: the JSON inside is the same."""
    assert run(EventStream(), event("chunk", payload)) == [INNER]
    slashed = b'{"bytes":"' + base64.b64encode(b'{"a":"???"}').replace(b"/", b"\\/") + b'"}'
    assert run(EventStream(), event("chunk", slashed)) == [b'{"a":"???"}']


def test_every_type_of_header_is_understood() -> None:
    """Headers of all ten types are read or skipped, in any order."""
    fixed = b"\x01a\x02\x01" + b"\x01b\x03\x00\x01" + b"\x01c\x04\x00\x00\x00\x01"
    fields: dict[str, Value] = {
        "t": True,
        "f": False,
        "n": 2**40,
        "raw": b"\xff\x00",
        "at": datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
        "id": uuid.UUID(int=7),
        ":event-type": "metadata",
    }
    raw = fixed + b"".join(encode_header(*item) for item in fields.items())
    assert headers(raw) == {":event-type": "metadata"}
    assert run(EventStream(), message({}, b"{}", raw)) == [b'{"metadata":{}}']


def test_an_event_without_a_type_is_its_payload() -> None:
    """Where no event type is given the payload stands for itself; an empty message is an empty object."""
    assert run(EventStream(), message({}, b'{"a":1}') + EMPTY_MESSAGE) == [b'{"a":1}', b"{}"]


def test_an_event_type_is_escaped() -> None:
    """A quote in an event type cannot break out of its string."""
    assert json.loads(run(EventStream(), event('a"b', b"1"))[0]) == {'a"b': 1}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("place", [0, 5, 9, 14, 40, -2])
def test_a_bad_checksum_stops_for_good(place: int, size: int) -> None:
    """One wrong bit: the messages before it are delivered, nothing after it, and `broken` says crc."""
    first, bad = event("messageStart", b"{}"), bytearray(event("metadata", b'{"usage":{"inputTokens":1}}'))
    bad[place] ^= 1
    reader = EventStream()
    assert run(reader, first + bytes(bad) + STREAM, size) == [b'{"messageStart":{}}']
    assert reader.broken == "crc"


@pytest.mark.parametrize(
    ("total", "size"),
    [(15, 0), (0, 0), (100, 90), (MAX_PAYLOAD + 17, 0), (2**32 - 1, 0), (MAX_HEADERS + 17, MAX_HEADERS + 1)],
)
def test_a_lying_length_is_not_waited_for(total: int, size: int) -> None:
    """Lengths over the caps or in contradiction break at the prelude, before anything is kept for them."""
    start = struct.pack(">II", total, size)
    reader = EventStream()
    assert reader.feed(start + struct.pack(">I", zlib.crc32(start))) == []
    assert reader.broken == "length"


@pytest.mark.parametrize(
    "raw", [b"\x05ab", b"\x01a\x0a", b"\x01a\x07\x00\x05x", b"\x01a\x07\x00", b"\x01\xff\x07\x00\x00"]
)
def test_bad_headers_stop_for_good(raw: bytes) -> None:
    """Headers that do not decode are reported, not guessed at."""
    reader = EventStream()
    assert run(reader, message({}, b"{}", raw) + STREAM) == []
    assert reader.broken == "headers"


def test_a_stream_cut_anywhere_gives_the_whole_messages() -> None:
    """A cut stream gives the messages that came whole; `partial` says that one was on its way."""
    ends = [i for i in range(len(STREAM) + 1) if not framed(STREAM[:i])[1]]
    assert len(ends) == len(FRAMES) + 1
    for end in range(len(STREAM)):
        frames, _ = framed(STREAM[:end])
        assert frames == FRAMES[: sum(e <= end for e in ends) - 1]


def framed(body: bytes) -> tuple[list[bytes], bool]:
    reader = EventStream()
    frames = run(reader, body)
    return frames, reader.partial


def test_a_payload_over_the_limit_is_dropped_alone() -> None:
    """A payload over the framer's limit is left out and flagged."""
    reader = framer("eventstream", 100)
    frames = reader.feed(event("a", b'"' + b"x" * 100 + b'"') + event("b", b"{}"))
    assert frames == [b'{"b":{}}']
    assert reader.overflowed


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_raise(body: bytes, size: int) -> None:
    """Any bytes, alone or after a good message, give no exception."""
    assert run(EventStream(), event("a", b"{}") + body, size)[:1] == [b'{"a":{}}']
    run(EventStream(), message({}, b"{}", body))


def test_a_prelude_too_short_is_a_value_error() -> None:
    """Fewer than twelve bytes are no prelude."""
    with pytest.raises(ValueError, match="short"):
        prelude(EMPTY_MESSAGE[:11])
    assert prelude(EMPTY_MESSAGE) == (16, 0)


def test_botocore_reads_our_messages_the_same() -> None:
    """What these tests encode is what the AWS SDK decodes."""
    eventstream = pytest.importorskip("botocore.eventstream", reason="botocore is not installed")
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(STREAM)
    assert [m.headers[":event-type"] for m in buffer] == ["messageStart", "chunk", "metadata", "messageStop"]
