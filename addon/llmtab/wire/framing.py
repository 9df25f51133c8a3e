"""Framings: a body's bytes, in whatever chunks, to the payloads they carry.

Knows SSE, NDJSON, JSON arrays, whole JSON bodies, AWS event streams and socket messages. Must not know JSON's meaning
or LLMs. The same bytes give the same frames however they are cut; no bytes raise anything; no frame is rescanned.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from llmtab.wire.eventstream import EventStream
from llmtab.wire.jsonobjects import JsonObjects
from llmtab.wire.lines import BOM, Ndjson, Sse, whole
from llmtab.wire.sniffing import sniff as sniff

MAX_FRAME: Final = 16 * 1024 * 1024
"""Bytes of one frame. The largest honest ones are images in base64 inside one event (a 4K PNG: about 12 MiB)."""

MAX_TAIL: Final = 256 * 1024
"""Bytes kept of the end of a JSON body that is over the cap: usage stands at the end, after images and embeddings."""

MAX_HEAD: Final = 64 * 1024
"""And of its beginning: the model often stands there."""


class Framer(Protocol):
    """Bytes in, payloads out.

    `feed` returns the frames that became whole, `close` the tail as it is. `overflowed`: a frame was over the limit
    and is missing. `partial`: the body ended inside a frame. `broken`: why decoding stopped for good, or "".
    """

    overflowed: bool
    partial: bool
    broken: str

    def feed(self, data: bytes) -> list[bytes]: ...

    def close(self) -> list[bytes]: ...


class Json:
    """The whole body is one frame, without BOM and surrounding white space.

    `head` and `tail`: both ends of a body that was over the limit and gave no frame.
    """

    broken = ""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.overflowed = False
        self.partial = False
        self.head = self.tail = b""
        self._limit = limit
        self._body = bytearray()  # one buffer: a list of tiny chunks would take twenty times their bytes

    def feed(self, data: bytes) -> list[bytes]:
        self._body += data
        if len(self._body) > self._limit and not self.overflowed:
            self.overflowed = True
            self.head = bytes(self._body[:MAX_HEAD])
        if self.overflowed and len(self._body) > 2 * MAX_TAIL:
            del self._body[:-MAX_TAIL]
        return []

    def close(self) -> list[bytes]:
        body = bytes(self._body)
        self._body.clear()
        if self.overflowed:
            self.tail = body[-MAX_TAIL:]
            return []
        body = body.strip().removeprefix(BOM).strip()
        self.partial = not whole(body)
        return [body] if body else []


class Message:
    """A WebSocket message is already a frame."""

    broken = ""
    partial = False

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.overflowed = False
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        if len(data) > self._limit:
            self.overflowed = True
            return []
        return [data] if data else []

    def close(self) -> list[bytes]:
        return []


class Opaque:
    """Bytes that carry no payload we can read: audio, gRPC, HTML."""

    broken = ""
    overflowed = False
    partial = False

    def __init__(self, limit: int = MAX_FRAME) -> None:
        pass

    def feed(self, data: bytes) -> list[bytes]:
        return []

    def close(self) -> list[bytes]:
        return []


FRAMERS: Final[Mapping[str, Callable[[int], Framer]]] = MappingProxyType(
    {
        "json": Json,
        "sse": Sse,
        "ndjson": Ndjson,
        "jsonarray": JsonObjects,
        "eventstream": EventStream,
        "message": Message,
        "opaque": Opaque,
    }
)


def framer(kind: str, limit: int = MAX_FRAME) -> Framer:
    """A framer for one of the kinds of FRAMERS; `limit`: bytes of one frame. ValueError for another kind."""
    if kind not in FRAMERS:
        raise ValueError(f"unknown framing {kind!r}, expected one of {', '.join(FRAMERS)}")
    return FRAMERS[kind](limit)
