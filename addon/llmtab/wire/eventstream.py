"""The AWS event stream: binary messages with checksums, each made the JSON of one event.

Knows the encoding (https://smithy.io/2.0/aws/amazon-eventstream.html) and the wrapping of Bedrock's chunks. Must not
know what the events mean.
"""

import base64
import binascii
import functools
import json
import re
import struct
import zlib
from typing import Final

MAX_HEADERS: Final = 128 * 1024
MAX_PAYLOAD: Final = 24 * 1024 * 1024
"""botocore's limits (eventstream.py: _MAX_HEADERS_LENGTH, _MAX_PAYLOAD_LENGTH), checked before anything is kept."""

PRELUDE: Final = 12
"""Total length, headers length, CRC-32 of both; big-endian, 4 bytes each."""
OVERHEAD: Final = PRELUDE + 4
"""A message's bytes besides its headers and payload: the prelude and the message's CRC-32."""

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by type: true, false, byte, short, int, long, timestamp, UUID."""
_BYTES, _STRING = 6, 7

_USUAL_HEADERS: Final = 512
"""Headers up to this many bytes are remembered: a stream's events repeat four or five sets of them."""
_CHUNK: Final = re.compile(rb'\{"bytes":"([A-Za-z0-9+/]*+={0,2})"(?:,"p":"[A-Za-z0-9]*+")?\}')
"""A chunk as Bedrock writes it; any other spelling is left to the JSON parser."""


def prelude(head: bytes) -> tuple[int, int]:
    """Total length and headers length of the message that begins here. ValueError: `crc`, `length`, or too short."""
    if len(head) < PRELUDE:
        raise ValueError("short")
    total, headers, checksum = _PRELUDE.unpack_from(head)
    if zlib.crc32(head[:8]) != checksum:
        raise ValueError("crc")
    if headers > MAX_HEADERS or not headers + OVERHEAD <= total <= headers + OVERHEAD + MAX_PAYLOAD:
        raise ValueError("length")
    return total, headers


def headers(data: bytes) -> dict[str, str]:
    """The string headers by name; values of every other type are skipped. ValueError(`headers`) for bad encoding."""
    found: dict[str, str] = {}
    position = 0
    try:
        while position < len(data):
            size = data[position]
            name = data[position + 1 : position + 1 + size]
            position += 1 + size
            kind = data[position]
            position += 1
            if kind in (_BYTES, _STRING):
                (length,) = struct.unpack_from(">H", data, position)
                position += 2
            else:
                length = _FIXED[kind]
            if position + length > len(data):
                raise ValueError("headers")
            if kind == _STRING:
                found[name.decode()] = data[position : position + length].decode()
            position += length
    except (LookupError, struct.error, UnicodeDecodeError):
        raise ValueError("headers") from None
    return found


_usual_headers = functools.lru_cache(32)(headers)


def frame(fields: dict[str, str], payload: bytes) -> bytes:
    """The JSON text of one message: `{"<event-type>": <payload>}`, for Bedrock's chunks the JSON inside.

    Exceptions and errors give `{"error": {"type": "..."}}`; their message text is left out.
    """
    if fields.get(":message-type") in ("exception", "error"):
        kind = fields.get(":exception-type") or fields.get(":error-code") or ""
        return json.dumps({"error": {"type": kind}}).encode()
    event = fields.get(":event-type")
    payload = payload.strip() or b"{}"
    if event == "chunk":
        return _unwrapped(payload) or b'{"chunk":' + payload + b"}"
    return payload if event is None else _opening(event) + payload + b"}"


@functools.lru_cache(32)
def _opening(event: str) -> bytes:
    return b"{" + json.dumps(event).encode() + b":"


def _unwrapped(payload: bytes) -> bytes:
    """What stands in base64 in `{"bytes": ...}` (beside it a padding member `p`); empty if there is none."""
    usual = _CHUNK.fullmatch(payload)
    try:
        inner = usual[1] if usual else json.loads(payload)["bytes"]
        return base64.b64decode(inner, validate=True)
    except (ValueError, TypeError, LookupError, RecursionError, binascii.Error):
        return b""


class EventStream:
    """Framer. A bad checksum or length stops it for good: after it nothing tells where the next message begins.

    `broken` is then `crc`, `length` or `headers`, and the messages before it have been delivered.
    """

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self.overflowed = False
        self.partial = False
        self.broken = ""
        self._limit = limit
        self._buffer = bytearray()
        self._need = PRELUDE  # bytes before which looking again is useless

    def feed(self, data: bytes) -> list[bytes]:
        if self.broken:
            return []
        self._buffer += data
        frames: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= self._need:
            try:
                size = self._message(position, frames)
            except ValueError as error:
                self.broken = str(error)
                self._buffer.clear()
                return frames
            position += size
        del self._buffer[:position]
        return frames

    def close(self) -> list[bytes]:
        """Nothing: a message without its checksum is not believed."""
        self.partial = bool(self._buffer)
        self._buffer.clear()
        return []

    def _message(self, start: int, frames: list[bytes]) -> int:
        """Take one message off the buffer: its size, or 0 if more bytes are needed first."""
        total, size = prelude(bytes(self._buffer[start : start + PRELUDE]))
        if len(self._buffer) - start < total:
            self._need = total
            return 0
        self._need = PRELUDE
        message = bytes(self._buffer[start : start + total])
        if zlib.crc32(message[:-4]) != _CRC.unpack_from(message, total - 4)[0]:
            raise ValueError("crc")
        body = PRELUDE + size
        read = _usual_headers if size <= _USUAL_HEADERS else headers
        fields = read(message[PRELUDE:body])
        if total - OVERHEAD - size > self._limit:
            self.overflowed = True
        else:
            frames.append(frame(fields, message[body:-4]))
        return total
