"""The search for the frames that matter: quick, and the same as reading every frame."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.wire import scan
from llmtab.wire.framing import FRAMERS, framer
from llmtab.wire.needles import Needles
from llmtab.wire.scan import Selector, frames, select

KEYS = ("usage", "error")


def chunk(i: int, usage: str = "null") -> bytes:
    return b'{"choices":[{"delta":{"content":"t%d"},"finish_reason":null}],"usage":%s}' % (i, usage.encode())


def sse(payloads: list[bytes], end: bytes = b"\n") -> bytes:
    return b"".join(b"data: " + payload + end * 2 for payload in payloads)


CHAT = [*map(chunk, range(100)), chunk(100, '{"prompt_tokens":1}'), chunk(101), chunk(102), b"[DONE]"]


def expected(body: bytes, kind: str, keys: tuple[str, ...], head: int, tail: int) -> list[tuple[int, bytes]]:
    """The definition, in the plainest words: every prefix framed anew, every frame searched."""
    wanted = re.compile(b"|".join(b'"%s"\\s*+:\\s*+(?!null)' % key.encode() for key in keys))
    found = list(frames(body, kind))
    return [f for i, f in enumerate(found) if i < head or i >= len(found) - tail or wanted.search(f[1])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_chat_stream_gives_its_first_last_and_telling_frames(end: bytes) -> None:
    """Of a hundred events, those come back that begin it, end it or name a key with a value; `null` is no value."""
    body = sse(CHAT, end)
    got = select(body, "sse", KEYS, 4, 2)
    assert [payload for _, payload in got] == [*CHAT[:4], CHAT[100], *CHAT[-2:]]
    assert got[0][0] == len(b"data: " + CHAT[0] + end * 2)
    assert got[-1][0] == len(body)


@pytest.mark.parametrize(
    ("member", "hit"),
    [
        (b'"usage":{}', True),
        (b'"usage" \t:\r\n 1', True),
        (b'"usage":null', False),
        (b'"usage" : \n null', False),
        (b'"usage":nul', True),
        (b'"usage"', False),
        (b'"kind":"usage"', False),
        (b'"text":"\\"usage\\": 5"', False),
        (b'"usage":null,"x":{"usage":1}', True),
        (b'"usages":1', False),
        (b'"error":"x"', True),
    ],
)
def test_a_hit_is_a_member_with_a_value(member: bytes, hit: bool) -> None:
    """A key counts where it is a JSON member whose value is not null: not inside text, not as a value."""
    frame = b"{" + member + b"}"
    assert Needles(KEYS).hit(frame) is hit
    body = sse([b"{}"] * 3 + [frame.replace(b"\r\n", b" ").replace(b"\n", b" ")] + [b"{}"] * 3)
    assert len(select(body, "sse", KEYS, 0, 0)) == hit


def test_each_frame_comes_once() -> None:
    """A frame that is first, last and a hit at once is in the result once."""
    body = sse([chunk(0, "1")])
    assert select(body, "sse", KEYS, 4, 4) == [(len(body), chunk(0, "1"))]


def test_the_end_of_a_frame_tells_what_had_to_come() -> None:
    """The offset is exact: without the byte before it the frame was not whole."""
    bodies = {
        "sse": sse(CHAT[:5]) + b"\n\n\n" + sse([chunk(1, "2")], b"\n"),
        "ndjson": b"\n".join(CHAT[:9]),
        "jsonarray": b"[" + b",\n".join(CHAT[:9]) + b"]",
    }
    for kind, body in bodies.items():
        for end, payload in select(body, kind, KEYS, 99, 0):
            if end < len(body):
                assert payload in framer_frames(body[:end], kind)
                assert payload not in framer_frames(body[: end - 1], kind)


def framer_frames(body: bytes, kind: str) -> list[bytes]:
    return framer(kind).feed(body)


LINE = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"event: x",
        b": comment",
        b"id: 1",
        b"retry: 1",
        b"foo: bar",
        b" ",
        b"\t",
        b"\xff",
        b'"usage":null',
        b'"usage": null',
        b'"usage" :  null',
        b'"usage":{"n":1}',
        b'"usage":\t7',
        b'"error"',
        b":1",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b'{"a":1}',
        b"\xef\xbb\xbf",
        b"[DONE]",
        b'"usage"',
        b"null",
        b",",
    ]
)
END = st.sampled_from([b"\n", b"\n", b"\n\n", b"\n\n", b"\n\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"", b""])
ODD = st.lists(st.tuples(LINE, END).map(b"".join), max_size=30).map(b"".join)
EVENT = st.sampled_from(
    [b'{"usage":null}', b'{"usage":{"n":1}}', b"[DONE]", b'{"error":"x","usage": null}', b"", b"{}"]
)


@st.composite
def plain(draw: st.DrawFn) -> bytes:
    """Bodies of one line end, most of them plain: the quick way must take them."""
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    parts = []
    for payload in draw(st.lists(EVENT, max_size=12)):
        extra = draw(
            st.sampled_from([b"", b"", b"event: e\n", b": c\n\n", b"data: more\n", b"\n", b"{\n", b"{}\ndata: y\n"])
        )
        parts.append((extra + b"data: " + payload + b"\n\n").replace(b"\n", end))
    body = b"".join(parts)
    return body[: len(body) - draw(st.integers(0, 4))]


@given(
    st.one_of(plain(), ODD, st.binary(max_size=60)),
    st.sampled_from(sorted(FRAMERS)),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_the_quick_way_is_the_slow_way(body: bytes, kind: str, head: int, tail: int) -> None:
    """For any body the result is what framing everything and looking at every frame would give."""
    assert select(body, kind, KEYS, head, tail) == expected(body, kind, KEYS, head, tail)


@given(st.one_of(plain(), ODD), st.sampled_from(["sse", "ndjson"]), st.integers(0, 4), st.integers(0, 4))
def test_lines_are_the_slow_way(body: bytes, kind: str, head: int, tail: int) -> None:
    """The same, for the framings that have a quick way."""
    assert select(body, kind, KEYS, head, tail) == expected(body, kind, KEYS, head, tail)


@given(
    st.one_of(plain(), ODD),
    st.sampled_from(sorted(FRAMERS.keys() - {"message"})),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 40),
)
def test_chunk_by_chunk_finds_the_same(body: bytes, kind: str, head: int, tail: int, size: int) -> None:
    """A Selector that is fed chunks hands out the same frames: wanted ones at once, the last ones at the close."""
    selector = Selector(kind, KEYS, head, tail)
    got = [frame for i in range(0, len(body), size) for frame in selector.feed(body[i : i + size])]
    got += selector.close()
    assert sorted(got) == sorted(payload for _, payload in select(body, kind, KEYS, head, tail))


def test_a_plain_stream_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain streams, with LF or CRLF, take the quick way."""
    monkeypatch.setattr(scan, "_slow", None)
    for end in (b"\n", b"\r\n"):
        assert len(select(sse(CHAT, end), "sse", KEYS, 4, 3)) == 8
    assert len(select(b"\n".join(CHAT), "ndjson", KEYS, 4, 3)) == 8


def test_a_bare_error_among_events_is_found() -> None:
    """Gemini's pretty-printed error without `data:` is found between events and at the end."""
    error = b'{\n  "error": {\n    "code": 503\n\n  }\n}'
    body = sse(CHAT[:9], b"\r\n") + error + b"\r\n\r\n" + sse(CHAT[9:19], b"\r\n")
    assert [p for _, p in select(body, "sse", KEYS, 0, 0)] == [error]
    assert [p for _, p in select(sse(CHAT[:9]) + error, "sse", KEYS, 0, 1)] == [error]


def test_a_reader_tells_what_was_wrong() -> None:
    """A framer given to select says afterwards whether the body was broken or cut."""
    reader = framer("eventstream")
    assert select(b"\0" * 16, "eventstream", KEYS, 1, 1, reader) == []
    assert reader.broken == "crc"
    reader = framer("jsonarray")
    assert len(select(b'[{"a":1},{"b"', "jsonarray", KEYS, 1, 1, reader)) == 2
    assert reader.partial


def test_hits_are_handed_out_at_once_and_held_frames_are_bounded() -> None:
    """A Selector keeps only the last frames, and of those none that is huge."""
    selector = Selector("ndjson", KEYS, 0, 2)
    assert selector.feed(b'{"usage":1}\n{}\n') == [b'{"usage":1}']
    assert selector.feed(b'"' + b"x" * scan.MAX_HELD + b'"\n') == []
    assert selector.feed(b"{}") == []
    assert selector.close() == [b"{}"]
    assert selector.close() == []


def test_many_names_in_one_frame_cost_one_look() -> None:
    """A huge frame that says a key's name thousands of times without a value takes no noticeable time."""
    body = sse([b"[" + b'"usage",' * 50_000 + b"1]"] * 2)
    assert len(select(body, "sse", KEYS, 0, 0)) == 0
