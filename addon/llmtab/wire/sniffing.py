"""Which framing a body has, from its media type and its first bytes.

Knows media types and how framings begin. A media type is believed only as far as it is right: SSE is sent as JSON,
batch results as octet streams. Must not know providers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llmtab.wire.eventstream import prelude
from llmtab.wire.lines import BOM

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "text/event-stream": "sse",
        "application/json": "json",
        "application/x-ndjson": "ndjson",
        "application/ndjson": "ndjson",
        "application/jsonl": "ndjson",
        "application/x-jsonl": "ndjson",
        "application/jsonlines": "ndjson",
        "application/x-jsonlines": "ndjson",
        "application/stream+json": "ndjson",
        "application/json-seq": "jsonarray",
        "application/vnd.amazon.eventstream": "eventstream",
        "application/x-protobuf": "opaque",
        "application/protobuf": "opaque",
        "application/pdf": "opaque",
        "application/zip": "opaque",
        "text/html": "opaque",
    }
)
_OPAQUE: Final = ("application/grpc", "application/connect+", "audio/", "image/", "video/", "font/", "multipart/")
_FIELDS: Final = (b"data", b"event", b"id", b"retry")


def kind_of(media_type: str) -> str:
    """The framing that a Content-Type header names; "" for one that says nothing (text/plain, octet-stream, none)."""
    essence = media_type.partition(";")[0].strip().lower()
    kind = MEDIA_TYPES.get(essence)
    if kind:
        return kind
    if essence.startswith(_OPAQUE):
        return "opaque"
    return "json" if essence.endswith("+json") else ""


def sniff(media_type: str, head: bytes) -> str:
    """The kind of framer for a body of this Content-Type that begins with `head` (decoded; the first chunk will do).

    One of the kinds of `framing.FRAMERS` except `message`. Never raises.
    """
    said = kind_of(media_type)
    if _is_eventstream(head):
        return "eventstream"
    if said == "opaque":
        return said
    text = head.strip().removeprefix(BOM).lstrip()
    if not text:
        return said or "json"
    if is_sse(text):
        return "sse"
    if text[:1] == b"{":
        return _objects(said, text)
    if text[:1] == b"[":
        return "sse" if said == "sse" else "jsonarray"
    return said or "opaque"


def is_sse(text: bytes) -> bool:
    """Whether this is the start of an event stream: a comment, or a field (perhaps cut) that no JSON begins with."""
    name, colon, _ = text[:8].partition(b":")
    return name in (b"", *_FIELDS) if colon else any(field.startswith(text) for field in _FIELDS)


def _is_eventstream(head: bytes) -> bool:
    try:
        prelude(head)
    except ValueError:
        return False
    return True


def _objects(said: str, text: bytes) -> str:
    """One object, or one a line."""
    first, newline, rest = text.partition(b"\n")
    ends = first.rstrip()[-1:] == b"}"
    if said == "sse":
        return said
    if said == "ndjson":
        # An object over several lines under an NDJSON label: the finder of objects reads that, and NDJSON as well.
        return "ndjson" if ends or not newline else "jsonarray"
    if ends and rest.lstrip()[:1] == b"{":
        return "ndjson"
    return said if said == "jsonarray" else "json"
