"""The engines: one small class per content coding, each bounded in what it hands out at once.

Knows the compression libraries and which of them is there. Must not know headers, stacks of codings or bodies.
"""

import codecs
import functools
import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

PIECE: Final = 256 * 1024
"""Bytes of decoded output handed out at once: a bomb never stands in memory, and zstd's blocks (128 KiB) fit in."""

ZSTD_WINDOW_LOG: Final = 23
"""8 MiB: RFC 9659 forbids a larger window in Content-Encoding, and browsers refuse it."""

_TEXT_STARTS: Final = ("{", "[", '"', "<", ":", "data:", "event:", "id:", "retry:")


class Engine(Protocol):
    """One coding's decoder. Raises one of `errors` for bad data; truncation is no error."""

    errors: tuple[type[Exception], ...]

    def decode(self, data: bytes) -> Iterator[bytes]: ...


class Identity:
    errors: tuple[type[Exception], ...] = ()

    def decode(self, data: bytes) -> Iterator[bytes]:
        return iter((data,)) if data else iter(())


class _Inflate:
    """gzip with any number of members, zlib, or raw deflate (`wbits` as zlib has it)."""

    errors: tuple[type[Exception], ...] = (zlib.error,)

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._zlib = zlib.decompressobj(wbits)
        self._over = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._over:
            if self._zlib.eof:
                # Zero padding, and junk after the last member: ignored, as the clients (urllib3, gzip -d) do.
                data = data.lstrip(b"\0")
                if data[:1] != b"\x1f":
                    self._over = bool(data)
                    return
                self._zlib = zlib.decompressobj(self._wbits)
            piece = self._zlib.decompress(data, PIECE)
            while piece:
                yield piece
                data = self._zlib.unconsumed_tail
                # A full piece may leave more output inside zlib although all input is taken.
                piece = self._zlib.decompress(data, PIECE) if data or len(piece) == PIECE else b""
            data = self._zlib.unused_data if self._zlib.eof else b""


class _Brotli:
    def __init__(self) -> None:
        module = importlib.import_module("brotli")
        self.errors: tuple[type[Exception], ...] = (module.error,)
        self._brotli: Any = module.Decompressor()
        self._limit = _brotli_limit()

    def decode(self, data: bytes) -> Iterator[bytes]:
        while not self._brotli.is_finished():
            piece = self._brotli.process(data, **self._limit)
            data = b""
            if piece:
                yield piece
            # brotli 1.2 hands out less than it may, and says that it wants input while it still has output.
            if not self._limit or not piece:
                return


class _Zstd:
    """Through `compression.zstd` (Python 3.14) or `backports.zstd`, which can bound their output."""

    def __init__(self, module: Any) -> None:
        self.errors: tuple[type[Exception], ...] = (module.ZstdError,)
        options = {module.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._new: Callable[[], Any] = functools.partial(module.ZstdDecompressor, options=options)
        self._zstd = self._new()

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data or not (self._zstd.eof or self._zstd.needs_input):
            if self._zstd.eof:
                self._zstd = self._new()
            piece = self._zstd.decompress(data, PIECE)
            data = self._zstd.unused_data if self._zstd.eof else b""
            if piece:
                yield piece


class _Dry(Exception):  # noqa: N818 - a signal, not an error
    """No input at the moment; more may come."""


class _Source:
    """What zstandard's reader reads from: one chunk at a time, and a signal instead of an end."""

    def __init__(self) -> None:
        self.data = b""

    def read(self, size: int) -> bytes:
        if not self.data:
            raise _Dry
        data, self.data = self.data[:size], self.data[size:]
        return data


class _Zstandard:
    """Through `zstandard` (mitmproxy brings it). Its push interface cannot bound its output, its reader can: the
    reader is given a source that raises when it is dry, and is asked again when the next chunk is there."""

    def __init__(self, module: Any) -> None:
        self.errors: tuple[type[Exception], ...] = (module.ZstdError,)
        self._source = _Source()
        decompressor = module.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG)
        self._reader: Any = decompressor.stream_reader(self._source, read_across_frames=True)

    def decode(self, data: bytes) -> Iterator[bytes]:
        self._source.data = data
        try:
            while piece := self._reader.read1(PIECE):
                yield piece
        except _Dry:
            return


@functools.cache
def _brotli_limit() -> dict[str, int]:
    """The keyword that bounds one call's output, for brotli >= 1.2; older versions have no such bound."""
    try:
        importlib.import_module("brotli").Decompressor().process(b"", output_buffer_limit=PIECE)
    except TypeError:
        return {}
    return {"output_buffer_limit": PIECE}


@functools.cache
def _zstd_engine() -> Callable[[], Engine]:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return functools.partial(_Zstd, importlib.import_module(name))
        except ImportError:
            continue
    return functools.partial(_Zstandard, importlib.import_module("zstandard"))


def _inflate(head: bytes) -> Engine:
    zlib_header = head[0] & 0x0F == 8 and len(head) > 1 and int.from_bytes(head[:2]) % 31 == 0
    if zlib_header or head[:2] == b"\x1f\x8b":
        return _Inflate(47)
    return _Inflate(-15)


ENGINES: Final[dict[str, Callable[[bytes], Engine]]] = {
    "gzip": lambda _head: _Inflate(47),
    "deflate": _inflate,
    "br": lambda _head: _Brotli(),
    "zstd": lambda _head: _zstd_engine()(),
}


def looks_like_text(head: bytes) -> bool:
    """Whether these first bytes can be the start of JSON, SSE or markup: printable UTF-8 that begins as they do.

    Once False it stays False for any longer head, so that it may be asked of the first byte already.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    text = text.removeprefix("\ufeff")
    if not all(c.isprintable() or c in "\t\r\n" for c in text):
        return False
    text = text.lstrip()
    return any(text.startswith(start) or start.startswith(text) for start in _TEXT_STARTS)
