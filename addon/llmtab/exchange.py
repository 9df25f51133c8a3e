"""One call being observed: `feed(chunk)` while it passes, `close(how)` once, and the ledger's lines come out.

Knows how bytes become events (through `wire`), which dialect reads them, and how what was read becomes a line. Must not know
mitmproxy, files or clocks: times and ids are handed in.
"""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from llmtab.events import BIG, ends_of, form_fields, parse
from llmtab.extract import Fold, Reading
from llmtab.profiles import Claim
from llmtab.profiles.refs import Scope
from llmtab.wire.decoding import DecodeError, decode_all, decoder
from llmtab.wire.framing import framer
from llmtab.wire.scan import Selector, select
from llmtab.wire.sniffing import sniff

type How = Literal["complete", "aborted", "broken"]

TAP_LIMIT: Final = 1024 * 1024
"""Raw bytes kept of one stream; nearly every stream ends below it, and one scan at the end is the cheapest way."""
TAP_TOTAL: Final = 64 * 1024 * 1024
"""Raw bytes kept of all open streams together; above it each goes on incrementally, in a few kilobytes."""
DECODED_LIMIT: Final = 16 * 1024 * 1024
"""Of a coded body so much is decoded at once; of a larger one only both ends are looked at."""
ENDS: Final = 64 * 1024
WHOLE: Final = 8 * 1024 * 1024
"""A body whose lists have to be counted is parsed whole up to here (in a thread); beyond, its figures are partial."""
SNIFFED: Final = 4096
"""Decoded bytes that tell a body's framing."""
HEAD, TAIL = 12, 3
"""Events always parsed: the first bring model, id and the first text, the last the end."""
FRAME_ENDS: Final[Mapping[str, tuple[bytes, ...]]] = {"sse": (b"\n\n", b"\r\n\r\n", b"\r\r"), "ndjson": (b"\n",)}
STREAMS: Final = frozenset({"sse", "ndjson", "jsonarray", "eventstream"})
"""Framings of many events; any other body is one event, however it was passed on."""


class TapMemory:
    """Raw bytes held by all open taps."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0


@dataclass(slots=True)
class Call:
    """The request's side, as the shell saw it. `began`: epoch seconds. `headers`: lower-case names, only those wanted."""

    id: str
    host: str
    method: str
    path: str
    began: float
    headers: Mapping[str, str]
    body: Callable[[], bytes | None]
    query: Callable[[str], str | None]
    labels: dict[str, str] = field(default_factory=dict)
    client: dict[str, str] = field(default_factory=dict)
    request_bytes: int = 0


@dataclass(slots=True)
class Answer:
    """The response's side. `status` is None where no response came; `head_at` is when its head came (epoch seconds)."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    head_at: float | None = None


@dataclass(slots=True)
class Observation:
    """What is known of a call when it is over: everything the line is made from."""

    call: Call
    claim: Claim
    answer: Answer
    reading: Reading
    how: How
    ended_at: float
    transport: str
    streamed: bool
    undecodable: str = ""
    torn: bool = False
    """The body ends inside a frame."""
    unsent: bool = False
    """No connection to the upstream was ever made."""
    first_byte_at: float | None = None
    first_token_at: float | None = None
    response_bytes: int = 0
    tap_error: bool = False


class Exchange:
    """One observed call. `feed` is the hot path: append and return; what it costs is measured by `scripts/bench`."""

    __slots__ = (
        "_chunks", "_counted", "_decoder", "_end", "_folds", "_held", "_hits", "_incremental", "_memory", "_selector",
        "_size", "_times", "answer", "broken_tap", "call", "claim", "closed", "undecodable", "unsent",
    )  # fmt: skip

    def __init__(self, call: Call, claim: Claim, memory: TapMemory) -> None:
        self.call = call
        self.claim = claim
        self.answer = Answer()
        self.closed = False
        self.broken_tap = False
        self.unsent = False
        self.undecodable = ""
        self._memory = memory
        self._chunks: list[bytes] = []
        self._times: list[float] = []
        self._size = 0
        self._counted = 0
        self._incremental = False
        self._held = b""
        self._end = b""
        self._selector: Selector | None = None
        self._decoder: Any = None
        self._folds: list[Fold] | None = None
        self._hits = 0

    @property
    def tapped(self) -> bool:
        """Whether body bytes came through `feed`."""
        return self._size > 0

    def feed(self, chunk: bytes, now: float) -> None:
        """A piece of the response body as it is on the wire (still encoded), at `now` (epoch seconds)."""
        self._size += len(chunk)
        if self._incremental:
            self._select(chunk)
            return
        self._chunks.append(chunk)
        self._times.append(now)
        self._counted += len(chunk)
        memory = self._memory
        memory.used += len(chunk)
        if self._size > TAP_LIMIT or memory.used > TAP_TOTAL:
            self._go_incremental()

    def _go_incremental(self) -> None:
        """From here on: a decoder, one partial frame, the counters; what was kept goes through them first."""
        self._incremental = True
        kept, self._chunks = self._chunks, []
        self._memory.used -= self._counted
        self._counted = 0
        del self._times[64:]
        try:
            self._decoder = decoder(self.answer.headers.get("content-encoding", ""))
        except DecodeError as error:
            self.undecodable = error.reason
        for chunk in kept:
            self._select(chunk)

    def _select(self, chunk: bytes) -> None:
        if self.undecodable:
            return
        try:
            for piece in self._decoder.feed(chunk):
                self._feed_piece(piece)
        except DecodeError as error:
            self.undecodable = error.reason

    def _feed_piece(self, piece: bytes) -> None:
        """Decoded bytes; the first ones are held until they tell the framing."""
        self._end = (self._end + piece)[-4:]
        if self._selector is None:
            self._held += piece
            if len(self._held) < SNIFFED:
                return
            piece = self._held
            self._selector = self._selector_for(piece)
        self._feed_events(self._selector.feed(piece))

    def _selector_for(self, start: bytes) -> Selector:
        self._held = b""
        kind = sniff(self.answer.headers.get("content-type", ""), start[:SNIFFED])
        return Selector(kind, self._keys(), HEAD, TAIL)

    def _feed_events(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            event = parse(frame)
            if event is not None:
                for fold in self._open_folds():
                    fold.feed(event)

    def _keys(self) -> list[str]:
        return sorted({key for dialect in self.claim.binding.dialects for key in dialect.keys})

    def _open_folds(self) -> list[Fold]:
        if self._folds is None:
            request = _request_reader(self.call)
            self._folds = [
                Fold(
                    dialect,
                    Scope(self.answer.headers, self.call.headers, request, self.claim.captures, self.call.query),
                )
                for dialect in self.claim.binding.dialects
            ]
        return self._folds

    def needs_thread(self, body: bytes | None) -> bool:
        """Whether `close` would have to parse more than the event loop should wait for."""
        return body is not None and len(body) > BIG

    def close(self, how: How, ended_at: float, body: bytes | None = None) -> Observation | None:
        """The call is over; None if it was closed before. `body`: the whole encoded body where it was not fed.

        Never raises for anything that came from the wire.
        """
        if self.closed:
            return None
        self.closed = True
        seen = Observation(
            self.call, self.claim, self.answer, Reading(self.claim.binding.dialects[0]), how, ended_at, "http", False,
            response_bytes=self._size if self.tapped else len(body or b""), tap_error=self.broken_tap,
        )  # fmt: skip
        if self.tapped:
            self._close_stream(seen)
        elif body:
            self._close_whole(seen, body)
            seen.first_byte_at = self.answer.head_at
        seen.reading = self._best()
        seen.undecodable = self.undecodable
        seen.unsent = self.unsent
        seen.streamed = seen.transport in STREAMS
        if seen.transport == "json":
            seen.transport = "http"
        self._chunks, self._times = [], []
        self._memory.used -= self._counted
        self._counted = 0
        return seen

    def _best(self) -> Reading:
        """The first dialect whose usage came, else the first. Of a guess by shape the one that explains most of it: two
        dialects share the words `input_tokens` and `output_tokens`, and differ in what they say of the cache."""
        readings = [fold.reading() for fold in self._open_folds()]
        found = [reading for reading in readings if reading.seen and reading.counters]
        if self.claim.binding.role == "by_shape":
            return max(found, key=lambda reading: len(reading.counters), default=readings[0])
        return next(iter(found), None) or next((reading for reading in readings if reading.estimate), readings[0])

    def _close_whole(self, seen: Observation, body: bytes) -> None:
        """A body that mitmproxy buffered. Nearly all are one plain JSON object, so that is tried first."""
        coding = self.answer.headers.get("content-encoding", "")
        seen.transport = "json"
        if body[:1] == b"{" and not coding and len(body) <= BIG:
            event = parse(body)
            if event is not None:
                self._feed(event)
                return
        self._scan(seen, [body], coding)

    def _scan(self, seen: Observation, chunks: list[bytes], coding: str) -> Any:
        """Decode, find out the framing, feed the events that matter. Gives back the decoded body and the frames' ends."""
        whole = decode_all(chunks, coding, max(DECODED_LIMIT, sum(map(len, chunks)) if not coding else 0))
        self.undecodable = whole.broken
        media_type = self.answer.headers.get("content-type", "")
        seen.transport = kind = sniff(media_type, whole.data[:SNIFFED])
        if kind == "opaque":
            return whole, []
        if kind == "json":
            self._feed_json(whole.data, chunks if whole.broken == "limit" else [], coding)
            return whole, []
        seen.torn = not whole.data.endswith(FRAME_ENDS.get(kind, (b"",)))
        reader = framer(kind)
        frames = select(whole.data, kind, self._keys(), HEAD, TAIL, reader)
        self._feed_events([frame for _, frame in frames])
        if getattr(reader, "broken", ""):
            self.undecodable = self.undecodable or kind
        return whole, frames

    def _feed(self, event: Any) -> None:
        for fold in self._open_folds():
            fold.feed(event)

    def _feed_json(self, data: bytes, chunks: list[bytes], coding: str) -> None:
        """One JSON body. Of a large one the members around its big array are tried first, of one over the limit only they."""
        counted = any(dialect.counts_lists for dialect in self.claim.binding.dialects)
        if chunks or len(data) > (WHOLE if counted else BIG):
            around = ends_of(_head_and_tail(chunks, coding) if chunks else data)
            if around is not None and self._ends_suffice(around):
                self.undecodable = "limit" if counted else "" if chunks else self.undecodable
                return
        event = parse(data) if not chunks else None
        if event is None:
            self.undecodable = self.undecodable or ("json" if data.strip() else "")
        else:
            self._feed(event)

    def _ends_suffice(self, around: dict[str, Any]) -> bool:
        """Whether the members around the big array hold the usage; if not the body is parsed whole."""
        self._feed(around)
        if any(fold.seen for fold in self._open_folds()):
            return True
        self._folds = None
        return False

    def _close_stream(self, seen: Observation) -> None:
        seen.first_byte_at = self._times[0] if self._times else None
        if self._incremental:
            self._close_incremental(seen)
            return
        whole, frames = self._scan(seen, self._chunks, self.answer.headers.get("content-encoding", ""))
        seen.first_token_at = self._first_token(whole, frames[:HEAD])

    def _close_incremental(self, seen: Observation) -> None:
        if self._decoder is not None and not self.undecodable:
            try:
                for piece in self._decoder.close():
                    self._feed_piece(piece)
            except DecodeError as error:
                self.undecodable = error.reason
        selector, held = self._selector, self._held
        if selector is None:
            selector = self._selector_for(held)
            self._feed_events(selector.feed(held))
        self._feed_events(selector.close())
        seen.transport = selector.kind
        seen.torn = not self._end.endswith(FRAME_ENDS.get(selector.kind, (b"",)))
        reader = selector.framer
        if getattr(reader, "broken", ""):
            self.undecodable = self.undecodable or selector.kind
        tail = getattr(reader, "tail", b"")
        if tail and getattr(
            reader, "overflowed", False
        ):  # a JSON body larger than any we would parse: its end may tell
            around = ends_of(b'{"":[' + tail)
            if around is None or not self._ends_suffice(around):
                self.undecodable = self.undecodable or "limit"

    def _first_token(self, whole: Any, frames: Sequence[tuple[int, bytes]]) -> float | None:
        """When the chunk came that brought the first text, if it is among the first events."""
        for end, frame in frames:
            event = parse(frame)
            for fold in self._open_folds():
                for each in fold.dialect.text:
                    if any(isinstance(text, str) and text for _, text in each(fold.scope, event)):
                        return self._times[min(whole.chunk_at(end - 1), len(self._times) - 1)]
        return None


def _head_and_tail(chunks: list[bytes], coding: str) -> bytes:
    """The first and the last part of a decoded body that is too large to be kept: enough for the members around its array."""
    head, tail = bytearray(), b""
    with contextlib.suppress(DecodeError):
        stream = decoder(coding)
        for piece in itertools.chain(*map(stream.feed, chunks), stream.close()):
            if len(head) < ENDS:
                head += piece[: ENDS - len(head)]
            tail = (tail + piece)[-4 * ENDS :]
    return bytes(head) + tail


def _request_reader(call: Call) -> Callable[[], Any]:
    """The request's JSON (or a form's fields), read when first asked for."""
    found: list[Any] = []

    def read() -> Any:
        if not found:
            body = call.body() or b""
            if call.headers.get("content-encoding"):
                body = decode_all([body], call.headers["content-encoding"]).data
            if call.headers.get("content-type", "").startswith("multipart/form-data"):
                found.append(form_fields(body))
            else:
                found.append(parse(body) if body else None)
        return found[0]

    return read
