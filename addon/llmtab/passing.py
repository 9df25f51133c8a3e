"""Which bodies are passed on as they come, and which are held until they are whole.

Knows media types, and the few words of a request that ask for a stream. Must not know flows or providers. A stream that
is held is a client that waits for nothing; a JSON body is held as mitmproxy holds it.
"""

import re
from typing import Final

UPLOAD: Final = 64 * 1024
"""A request body above this that nobody will read is passed on as it comes."""
_STREAMING: Final = re.compile(
    r"text/event-stream|application/(?:x-ndjson|stream\+json|x-jsonl|jsonl|vnd\.amazon\.eventstream|grpc|connect)", re.I
)
_ASKS_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')

is_stream = _STREAMING.match
"""Whether a content type is one of streams, whoever sends it."""


def streams(content_type: str, request: bytes) -> bool:
    """Whether the answer to a claimed call comes bit by bit: its type says so, or the request asked for it (some
    servers label event streams as JSON, of one kind or another, or not at all)."""
    if content_type and "json" not in content_type.lower():
        # audio, images, event streams under a name of their own: nothing a JSON reader would want whole
        return True
    return b'"stream"' in request and bool(
        _ASKS_STREAM.search(request, 0, UPLOAD) or _ASKS_STREAM.search(request, max(0, len(request) - UPLOAD))
    )


def is_large(length: str | None, transfer_encoding: str | None) -> bool:
    """Whether a request body is large, or may be, by these two headers."""
    return int(length) > UPLOAD if length and length.isdecimal() else transfer_encoding is not None
