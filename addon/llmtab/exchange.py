"""One call being observed: `feed(chunk)` while it passes, `close(how)` once, and the ledger's lines come out.

Knows how bytes become events (through `wire`), which dialect reads them, and how what was read becomes a line. Must
not know mitmproxy, files or clocks: times and ids are handed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from llmtab.events import BIG, ends_of, head_and_tail, joined_ends, parse, request_reader
from llmtab.extract import Fold, Reading
from llmtab.passed import Passed, Sampler, keep, lacks
from llmtab.profiles import Claim
from llmtab.profiles.refs import Scope
from llmtab.record import new_id
from llmtab.wire.decoding import Body, DecodeError, decode_all, decoder
from llmtab.wire.framing import framer
from llmtab.wire.scan import Selector, select
from llmtab.wire.sniffing import sniff

type How = Literal["complete", "aborted", "broken"]

TAP_LIMIT: Final = 1024 * 1024
"""Raw bytes kept of one stream; nearly every stream ends below it, and one scan at the end is the cheapest way."""
CHUNK_COST: Final = 48
"""What a kept chunk takes besides its bytes: a body dripped in two bytes at a time would fill the memory unseen."""
TAP_TOTAL: Final = 64 * 1024 * 1024
"""Raw bytes kept of all open streams together; above it each goes on incrementally, in a few kilobytes."""
DECODED_LIMIT: Final = 16 * 1024 * 1024
"""Of a coded body so much is decoded at once; of a larger one only both ends are looked at."""
WHOLE: Final = 8 * 1024 * 1024
"""A body whose lists have to be counted is parsed whole up to here (in a thread); beyond, its figures are partial."""
SNIFFED: Final = 4096
"""Decoded bytes that tell a body's framing."""
TIMED: Final = 64
"""Chunks whose arrival is written down: the first text stands among the first events."""
STRIDE: Final = 16 * 1024
"""Bytes that may be kept between two looks at the bounds above."""
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


class Progress(NamedTuple):
    """Of a call under way: bytes, chunks (None: no longer counted), and when the first chunks came (epoch seconds)."""

    bytes: int
    chunks: int | None
    times: tuple[float, ...]

    @property
    def first_at(self) -> float | None:
        return self.times[0] if self.times else None


@dataclass(slots=True)
class Call:
    """The request's side, as the shell saw it. `began`: epoch seconds. `headers`: lower-case names, only those
    wanted."""

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
    follows: bool = False
    """Whether this is what came behind the last event of a call: a call only if it tells a usage of its own."""
    estimate: tuple[dict[str, Any], bool] | None = None
    """What was expected of the call before it left, and whether that is more than the user wants to be warned of."""
    budget: dict[str, Any] | None = None
    """What its line says of the limits it touches; None while there are none."""
    refused: bool = False
    """Whether a budget said no: the answer is ours, and nobody was asked."""
    server: tuple[str, int] = ("", 0)
    """Where the request goes, as the proxy names it."""
    later: Callable[[Callable[[], Any], Reading], None] | None = None
    """Adds the labels that only the request's JSON or what was read tells; None where there are none to be had."""


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
    passed: Passed | None = None
    """The answer's bytes, for an estimate, where not all figures came."""


class Exchange:
    """One observed call. `feed` is the hot path: append and return; what it costs is measured by `scripts/bench`."""

    __slots__ = (
        "_counted", "_decoder", "_end", "_first_token_at", "_folds", "_held", "_incremental", "_look",
        "_memory", "_sample", "_scanned", "_selector", "_settled", "_size", "_times", "_torn", "_transport", "answer",
        "broken_tap", "call", "chunks", "claim", "closed", "following", "undecodable", "unsent",
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
        self.chunks: list[bytes] = []
        self._times: list[float] = []
        self._size = 0
        self._settled = 0  # chunks that `_size` knows of
        self._counted = 0
        self._incremental = False
        self._held = b""
        self._end = b""
        self._selector: Selector | None = None
        self._decoder: Any = None
        self._folds: list[Fold] | None = None
        self._transport = "http"
        self._torn = False
        self._scanned = 0  # chunks that the folds know of
        self.following: Exchange | None = None
        """What came behind the last event: nothing, as a rule; some relays glue a second answer there."""
        self._first_token_at: float | None = None
        self._sample: Sampler | None = None
        self._look = 0  # at this size of the stream it wants the next piece

    @property
    def tapped(self) -> bool:
        """Whether body bytes came through `feed`."""
        return self._size > 0

    def feed(self, chunk: bytes, now: float) -> int:
        """A piece of the response body as it is on the wire (still encoded), at `now` (epoch seconds).

        Returns how many bytes the caller may append to `chunks` by himself before he comes back with the next piece.
        """
        if self._incremental:
            self._size += len(chunk)
            self._select(chunk)
            return 0
        if self.closed:
            self.chunks.clear()
            return STRIDE
        self.chunks.append(chunk)
        if len(self._times) < TIMED:
            self._times.append(now)
        self._settle()
        if self._counted > TAP_LIMIT or self._memory.used > TAP_TOTAL:
            self._go_incremental()
            return 0
        return STRIDE if len(self._times) == TIMED else 0

    def progress(self) -> Progress:
        """What has come so far. For those who look on: counted when they ask, not while the bytes pass."""
        fresh = sum(map(len, self.chunks[self._settled :]))
        chunks = None if self._incremental else len(self.chunks)
        return Progress(self._size + fresh, chunks, tuple(self._times))

    def _settle(self) -> None:
        """Count what was kept since the last time."""
        fresh = self.chunks[self._settled :]
        new = sum(map(len, fresh))
        self._settled += len(fresh)
        self._size += new
        held = new + CHUNK_COST * len(fresh)
        self._counted += held
        self._memory.used += held

    def _go_incremental(self) -> None:
        """From here on: a decoder, one partial frame, the counters; what was kept goes through them first."""
        self._forget_scan()
        self._incremental = True
        self._sample = Sampler(coded=bool(self.answer.headers.get("content-encoding")))
        kept, self.chunks = self.chunks, []
        self._memory.used -= self._counted
        self._counted = 0
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
        if self._size >= self._look and self._sample is not None:
            self._look = self._sample.take(piece, self._size)
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
                self._feed(event)

    def _keys(self) -> list[str]:
        return sorted({key for dialect in self.claim.binding.dialects for key in dialect.keys})

    def _open_folds(self) -> list[Fold]:
        if self._folds is None:
            request = request_reader(self.call.body, self.call.headers)
            self._folds = [
                Fold(
                    dialect,
                    Scope(self.answer.headers, self.call.headers, request, self.claim.captures, self.call.query),
                )
                for dialect in self.claim.binding.dialects
            ]
        return self._folds

    def request(self) -> Any:
        """The request's JSON, None where it is none: parsed once, by whoever asks first."""
        return self._open_folds()[0].scope.request()

    def needs_thread(self, body: bytes | None) -> bool:
        """Whether `close` would have to parse more than the event loop should wait for."""
        stacked = "," in self.answer.headers.get("content-encoding", "")  # a bomb more often than not
        return body is not None and (len(body) > BIG or stacked)

    def close(self, how: How, ended_at: float, body: bytes | None = None) -> Observation | None:
        """The call is over; None if it was closed before. `body`: the whole encoded body where it was not fed.

        Never raises for anything that came from the wire.
        """
        if self.closed:
            return None
        if self.chunks:
            self._settle()
        self.closed = True
        first_byte_at = None
        if self._size:
            first_byte_at = self._times[0] if self._times else None
            self._close_stream()
        elif body:
            first_byte_at = self.answer.head_at
            self._close_whole(body)
        kind, reading = self._transport, self._best()
        seen = Observation(
            self.call, self.claim, self.answer, reading, how, ended_at, "http" if kind == "json" else kind,
            kind in STREAMS, self.undecodable, self._torn, self.unsent, first_byte_at, self._first_token_at,
            self._size or len(body or b""), self.broken_tap,
        )  # fmt: skip
        if lacks(reading, how, streamed=kind in STREAMS, whole=not (self._torn or self.undecodable)):
            chunks = self.chunks[:] if self._size else [body or b""]
            seen.passed = keep(self.answer, chunks, kind, self._sample, self._size)
        self.chunks.clear()
        self._memory.used -= self._counted
        self._counted = 0
        return seen

    def end_needles(self) -> tuple[bytes, ...]:
        """Bytes of which one stands in the last event of this call's stream; () where it cannot be seen while it
        passes."""
        if self.answer.headers.get("content-encoding", "identity") != "identity":
            return ()
        return tuple({needle for dialect in self.claim.binding.dialects for needle in dialect.end_needles})

    def close_early(self, ended_at: float) -> Observation | None:
        """Like `close`, when what looks like the last event has come: clients leave then, before any end of the body.

        None, and nothing is changed, where no event so far ends the call, or its figures have not come yet: some
        gateways send them behind the end. A body over TAP_LIMIT is left to its end.
        """
        if self.closed or self._incremental:
            return None
        self._settle()
        self._scan_again("")
        if self._transport in STREAMS and any(fold.ended and fold.seen for fold in self._open_folds()):
            if any(fold.dialect.begin for fold in self._open_folds()):
                call = replace(self.call, id=new_id(int(ended_at * 1e9)), began=ended_at, follows=True)
                self.following = Exchange(call, self.claim, self._memory)
                self.following.answer = self.answer
            return self.close("complete", ended_at)
        return None

    def _best(self) -> Reading:
        """The first dialect whose usage came, else the first. Of a guess by shape the one that explains most of it: two
        dialects share the words `input_tokens` and `output_tokens`, and differ in what they say of the cache."""
        readings = [fold.reading() for fold in self._open_folds()]
        if len(readings) == 1:
            return readings[0]
        found = [reading for reading in readings if reading.seen and reading.counters]
        if self.claim.binding.role == "by_shape":
            return max(found, key=lambda reading: len(reading.counters), default=readings[0])
        return next(iter(found), None) or next((reading for reading in readings if reading.estimate), readings[0])

    def _close_whole(self, body: bytes) -> None:
        """A body that mitmproxy buffered. Nearly all are one plain JSON object, so that is tried first."""
        coding = self.answer.headers.get("content-encoding", "")
        self._transport = "json"
        if body[:1] == b"{" and not coding and len(body) <= BIG:
            event = parse(body)
            if event is not None:
                self._feed(event)
                return
        self._scan([body], coding)

    def _scan(self, chunks: list[bytes], coding: str) -> None:
        """Decode, find out the framing, feed the events that matter."""
        whole = decode_all(chunks, coding, max(DECODED_LIMIT, sum(map(len, chunks)) if not coding else 0))
        self.undecodable = whole.broken
        media_type = self.answer.headers.get("content-type", "")
        self._transport = kind = sniff(media_type, whole.data[:SNIFFED])
        if kind == "opaque":
            return
        if kind == "json":
            self._feed_json(whole.data, chunks if whole.broken == "limit" else [], coding)
            return
        if whole.broken == "limit":
            self._unfold(chunks, coding)
            return
        self._torn = not whole.data.endswith(FRAME_ENDS.get(kind, (b"",)))
        reader = framer(kind)
        frames = select(whole.data, kind, self._keys(), HEAD, TAIL, reader)
        events = [(end, parse(frame)) for end, frame in frames]
        for _, event in events:
            if event is not None:
                self._feed(event)
        if getattr(reader, "broken", ""):
            self.undecodable = self.undecodable or kind
        if reader.overflowed:
            self._past_the_limit(b"", b"")
        if self._times:
            self._first_token_at = self._first_token(whole, events[:HEAD])

    def _unfold(self, chunks: list[bytes], coding: str) -> None:
        """A stream that a few bytes unfold to: 100,000 events of one shape shrink fiftyfold, and its figures come
        last."""
        self._decoder, self.undecodable, self._sample = decoder(coding), "", Sampler(coded=True)
        for chunk in chunks:
            self._select(chunk)
        self._close_incremental()

    def _feed(self, event: Any) -> None:
        for fold in self._open_folds():
            fold.feed(event)

    def _feed_json(self, data: bytes, chunks: list[bytes], coding: str) -> None:
        """One JSON body. Of a large one the members around its big array are tried first, of one over the limit
        only they."""
        counted = any(dialect.counts_lists for dialect in self.claim.binding.dialects)
        if chunks or len(data) > (WHOLE if counted else BIG):
            around = joined_ends(head_and_tail(chunks, coding)) if chunks else ends_of(data)
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

    def _close_stream(self) -> None:
        if self._incremental:
            self._close_incremental()
        elif self._scanned < self._settled:
            self._scan_again(self.answer.headers.get("content-encoding", ""))

    def _scan_again(self, coding: str) -> None:
        """Scan what was kept, from its beginning: an earlier look may have come too soon."""
        self._forget_scan()
        self._scanned = self._settled
        self._scan(self.chunks, coding)

    def _forget_scan(self) -> None:
        if self._scanned:
            self._folds, self.undecodable, self._scanned = None, "", 0

    def _close_incremental(self) -> None:
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
        self._transport = selector.kind
        self._torn = not self._end.endswith(FRAME_ENDS.get(selector.kind, (b"",)))
        reader = selector.framer
        if getattr(reader, "broken", ""):
            self.undecodable = self.undecodable or selector.kind
        if reader.overflowed:
            self._past_the_limit(getattr(reader, "head", b""), getattr(reader, "tail", b""))

    def _past_the_limit(self, head: bytes, tail: bytes) -> None:
        """A frame was larger than any we would keep: of a JSON body its ends may tell, of an event nothing is left."""
        counted = any(dialect.counts_lists for dialect in self.claim.binding.dialects)
        for around in (joined_ends(head + tail), ends_of(b'{"":[' + tail)) if tail else ():
            if around is not None and self._ends_suffice(around):
                self.undecodable = self.undecodable or ("limit" if counted else "")
                return
        if tail or not any(fold.seen for fold in self._open_folds()):
            self.undecodable = self.undecodable or "limit"

    def _first_token(self, whole: Body, events: Sequence[tuple[int, Any]]) -> float | None:
        """When the chunk came that brought the first text, if it is among the first events and the first chunks."""
        for end, event in events:
            for fold in self._open_folds():
                for each in fold.dialect.text:
                    if any(isinstance(text, str) and text for _, text in each(fold.scope, event)):
                        number = whole.chunk_at(end - 1)
                        return self._times[number] if number < len(self._times) else None
        return None
