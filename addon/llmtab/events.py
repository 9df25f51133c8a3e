"""Frames to events: JSON text to plain values, however odd the text.

Knows JSON, upload forms, and which reader is fastest. Must not know what an event means.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic_core import from_json

from llmtab.wire.decoding import DecodeError, decode_all, decoder

ENDS: Final = 64 * 1024
"""Bytes of the head of a large body that are looked at, and four times as many of its tail."""
BIG: Final = 256 * 1024
"""Bodies above this are never parsed on the event loop: 1 MB of embeddings takes 1.3 ms, 10 MB 16 ms."""

DEEPEST: Final = 200
"""Levels of JSON: what `from_json` allows as well. Honest answers have ten; deeper ones exhaust the stack."""


def parse(frame: bytes) -> Any:
    """The event of one frame: a JSON value, the text `[DONE]`, or None where the frame is neither. Never raises."""
    if frame[:6] == b"[DONE]":
        return "[DONE]"
    try:
        return from_json(frame)
    except ValueError as error:
        if "recursion limit" in str(error):
            return None  # nested deeper than any honest answer: nobody walks through that
    try:  # lone surrogates and invalid UTF-8 happen where servers cut text by bytes
        found = json.loads(frame.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if _is_shallow(found) else None


def _is_shallow(value: Any) -> bool:
    """Whether a value nests no deeper than DEEPEST; asked level by level, so that no depth can exhaust the stack."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inside
            for each in level
            for inside in (each.values() if type(each) is dict else each if type(each) is list else ())
        ]
        if not level:
            return True
    return False


def ends_of(body: bytes) -> dict[str, Any] | None:
    """The scalar and object members around the one big array of a body, e.g. of embeddings: the array itself is
    skipped.

    `{"object":"list","data":[...],"model":"m","usage":{...}}` gives object, model and usage. None where the body has
    another form: then it has to be parsed whole.
    """
    start, stop = body.find(b"["), body.rfind(b"]")
    if start < 0 or stop < start:
        return None
    head = body[:start].rstrip()
    quote = head.rstrip(b" \t\r\n:").rfind(b'"', 0, len(head.rstrip(b" \t\r\n:")) - 1)
    before = head[:quote].rstrip().rstrip(b",")
    after = body[stop + 1 :].lstrip(b" \t\r\n").lstrip(b",")
    try:
        first = from_json(before + b"}") if before.strip() != b"{" else {}
        last = from_json(b"{" + after)
    except ValueError:
        return None
    return {**first, **last} if isinstance(first, dict) and isinstance(last, dict) else None


def head_and_tail(chunks: list[bytes], coding: str) -> bytes:
    """The first and the last part of a decoded body that is too large to be kept: enough for the members around its
    array."""
    head, tail = bytearray(), b""
    with contextlib.suppress(DecodeError):
        stream = decoder(coding)
        for piece in itertools.chain(*map(stream.feed, chunks), stream.close()):
            if len(head) < ENDS:
                head += piece[: ENDS - len(head)]
            tail = (tail + piece)[-4 * ENDS :]
    return bytes(head) + tail


def request_reader(body: Callable[[], bytes | None], headers: Mapping[str, str]) -> Callable[[], Any]:
    """A function that gives the request's JSON (or a form's fields), read when first asked for."""
    found: list[Any] = []

    def read() -> Any:
        if not found:
            data = body() or b""
            if headers.get("content-encoding"):
                data = decode_all([data], headers["content-encoding"]).data
            if headers.get("content-type", "").startswith("multipart/form-data"):
                found.append(form_fields(data))
            else:
                found.append(parse(data) if data else None)
        return found[0]

    return read


def joined_ends(ends: bytes) -> dict[str, Any] | None:
    """The members that stand in both ends of a body whose middle was left out: an array, or a part of a long text.

    That the joint is valid JSON tells that it lies on one level: what stands at the top in the last part stood there.
    """
    around = ends_of(ends)
    if around is None:
        found = parse(ends)
        around = found if type(found) is dict else None
    return around


def form_fields(body: bytes) -> dict[str, str]:
    """Short text fields of a multipart form (an upload names its model there); files are passed over."""
    fields: dict[str, str] = {}
    at = 0
    while len(fields) < 32 and (at := body.find(b'form-data; name="', at)) >= 0:
        at += 17
        line_end = body.find(b"\r\n", at, at + 512)
        if line_end < 0:
            continue
        name, _, rest = body[at:line_end].partition(b'"')
        value_end = body.find(b"\r\n--", line_end + 4, line_end + 4 + 512)
        if value_end >= 0 and b"filename" not in rest and body[line_end : line_end + 4] == b"\r\n\r\n":
            fields[name.decode("ascii", "replace")] = body[line_end + 4 : value_end].decode("utf-8", "replace")
    return fields
