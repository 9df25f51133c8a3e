"""Bytes of an answer to what they say: decoded, taken apart into events, and those that matter fed to the dialects.

Knows codings, framings and which frames are worth parsing (through `wire`), and how much of a large body may be looked
at. Must not know when bytes come, how a call ends, or what becomes of a reading. Nothing that came from the wire makes
it raise.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmtab.estimates.passed import Sampler
from llmtab.events import BIG, ends_of, head_and_tail, joined_ends, parse, request_reader
from llmtab.extract import Fold, Reading
from llmtab.observation import Answer, Call
from llmtab.profiles import Claim
from llmtab.profiles.refs import Scope
from llmtab.wire.decoding import Body, DecodeError, decode_all, decoder, fine
from llmtab.wire.framing import framer
from llmtab.wire.scan import Selector, select
from llmtab.wire.sniffing import sniff

DECODED_LIMIT: Final = 16 * 1024 * 1024
"""Of a coded body so much is decoded at once; of a larger one only both ends are looked at."""
WHOLE: Final = 8 * 1024 * 1024
"""A body whose lists have to be counted is parsed whole up to here (in a thread); beyond, its figures are partial."""
SNIFFED: Final = 4096
"""Decoded bytes that tell a body's framing."""
HEAD, TAIL = 12, 3
"""Events always parsed: the first bring model, id and the first text, the last the end."""
FRAME_ENDS: Final[Mapping[str, tuple[bytes, ...]]] = {"sse": (b"\n\n", b"\r\n\r\n", b"\r\r"), "ndjson": (b"\n",)}
STREAMS: Final = frozenset({"sse", "ndjson", "jsonarray", "eventstream"})
"""Framings of many events; any other body is one event, however it was passed on."""


class Reader:
    """Reads one answer. Either `whole` or `kept` (again and again, as more of them come), or `begin`, `feed` as often
    as pieces come, and `end`.

    `kind`: the framing that was found (`http`: none yet). `undecodable`: what could not be read. `torn`: the body ends
    inside a frame. `first_text`: the number of the chunk that brought the first text, where it is known.
    """

    __slots__ = (
        "_answer", "_call", "_claim", "_decoded", "_decoder", "_end", "_folds", "_held", "_look", "_selector",
        "first_text", "kind", "sample", "torn", "undecodable",
    )  # fmt: skip

    def __init__(self, call: Call, claim: Claim, answer: Answer) -> None:
        self._call = call
        self._claim = claim
        self._answer = answer
        self._folds: list[Fold] | None = None
        self._selector: Selector | None = None
        self._decoder: Any = None
        self._decoded: tuple[int, Body] | None = None  # of so many bytes, by `is_longer`
        self._held = b""
        self._end = b""
        self._look = 0  # at this size of the stream the sample wants the next piece
        self.sample: Sampler | None = None
        """Pieces of a stream that is not kept, for an estimate."""
        self.kind = "http"
        self.undecodable = ""
        self.torn = False
        self.first_text: int | None = None

    @property
    def coding(self) -> str:
        return self._answer.headers.get("content-encoding", "")

    @property
    def folds(self) -> list[Fold]:
        """What each of the claim's dialects has read so far."""
        if self._folds is None:
            request = request_reader(self._call.body, self._call.headers)
            self._folds = [
                Fold(
                    dialect,
                    Scope(self._answer.headers, self._call.headers, request, self._claim.captures, self._call.query),
                )
                for dialect in self._claim.binding.dialects
            ]
        return self._folds

    def request(self) -> Any:
        """The request's JSON, None where it is none: parsed once, by whoever asks first."""
        return self.folds[0].scope.request()

    def reading(self) -> Reading:
        """The first dialect whose usage came, else the first. Of a guess by shape the one that explains most of it: two
        dialects share the words `input_tokens` and `output_tokens`, and differ in what they say of the cache."""
        readings = [fold.reading() for fold in self.folds]
        if len(readings) == 1:
            return readings[0]
        found = [reading for reading in readings if reading.seen and reading.counters]
        if self._claim.binding.role == "by_shape":
            return max(found, key=lambda reading: len(reading.counters), default=readings[0])
        return next(iter(found), None) or next((reading for reading in readings if reading.estimate), readings[0])

    # -- a body that is there ------------------------------------------------------------------------------------------

    def whole(self, body: bytes) -> None:
        """A body that mitmproxy buffered. Nearly all are one plain JSON object, so that is tried first."""
        coding = self.coding
        self.kind = "json"
        if body[:1] == b"{" and not coding and len(body) <= BIG:
            event = parse(body)
            if event is not None:
                self._feed(event)
                return
        self.kept([body], coding)

    def is_text(self, start: bytes | bytearray) -> bool:
        """Whether a body that begins so is one JSON text, which is parsed whole."""
        return sniff(self._answer.headers.get("content-type", ""), bytes(start[:SNIFFED])) == "json"

    @property
    def is_one_text(self) -> bool:
        """The same of the body that is being fed."""
        return self._selector is not None and self._selector.kind == "json"

    def is_longer(self, chunks: list[bytes], most: int) -> bool:
        """Whether a coded body has more than `most` bytes. No more than these are decoded, and what is not longer has
        not to be decoded again."""
        found = decode_all(chunks, self.coding, most, 0)
        self._decoded = None if found.broken == "limit" else (sum(map(len, chunks)), found)
        return self._decoded is None

    def kept(self, chunks: list[bytes], coding: str) -> None:
        """Decode, find out the framing, feed the events that matter. From the beginning, whatever was read before."""
        self._folds, self.torn, self.first_text = None, False, None
        decoded, self._decoded = self._decoded, None
        size = sum(map(len, chunks))
        if decoded is not None and decoded[0] == size and coding:
            whole = decoded[1]
        else:
            most = max(DECODED_LIMIT, size if not coding else 0)
            whole = decode_all(chunks, coding, most, SNIFFED)
        self.undecodable = whole.broken
        media_type = self._answer.headers.get("content-type", "")
        self.kind = kind = sniff(media_type, whole.data[:SNIFFED])
        if kind == "opaque":
            return
        if kind == "json":
            self._feed_json(whole.data, chunks if whole.broken == "limit" else [], coding)
            return
        if whole.broken == "limit":
            self._unfold(chunks, coding)
            return
        self.torn = not whole.data.endswith(FRAME_ENDS.get(kind, (b"",)))
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
        self.first_text = self._first_text(whole, events[:HEAD])

    def _unfold(self, chunks: list[bytes], coding: str) -> None:
        """A stream that a few bytes unfold to: 100,000 events of one shape shrink fiftyfold, and its figures come
        last."""
        self._decoder, self.undecodable, self.sample = decoder(coding), "", Sampler(coded=True)
        for chunk in chunks:
            self.feed(chunk, 0)
        self.end()

    def _feed(self, event: Any) -> None:
        for fold in self.folds:
            fold.feed(event)

    def _feed_json(self, data: bytes, chunks: list[bytes], coding: str) -> None:
        """One JSON body. Of a large one the members around its big array are tried first, of one over the limit
        only they."""
        counted = any(dialect.counts_lists for dialect in self._claim.binding.dialects)
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
        if any(fold.seen for fold in self.folds):
            return True
        self._folds = None
        return False

    def _first_text(self, whole: Body, events: Sequence[tuple[int, Any]]) -> int | None:
        """The chunk that brought the first text, if it is among the first events."""
        for end, event in events:
            for fold in self.folds:
                for each in fold.dialect.text:
                    if any(isinstance(text, str) and text for _, text in each(fold.scope, event)):
                        return whole.chunk_at(end - 1)
        return None

    # -- a body that is too long to be kept ----------------------------------------------------------------------------

    def begin(self, first: list[bytes]) -> None:
        """From here on: a decoder, one partial frame, the counters. `first`: the first chunks, which will be fed like
        all others; they tell when the first text came."""
        self.kept(first, self.coding)
        self._folds, self.undecodable = None, ""
        self._selector, self._held, self._end, self._look = None, b"", b"", 0  # `kept` feeds what unfolds to much
        self.sample = Sampler(coded=bool(self.coding))
        try:
            self._decoder = decoder(self.coding)
        except DecodeError as error:
            self.undecodable = error.reason

    def feed(self, chunk: bytes, size: int) -> None:
        """The next encoded piece; `size`: bytes of the stream so far."""
        if self.undecodable:
            return
        try:
            for part in fine(chunk) if self.coding else (chunk,):
                for piece in self._decoder.feed(part):
                    self._feed_piece(piece, size)
        except DecodeError as error:
            self.undecodable = error.reason

    def end(self) -> None:
        """The stream is over."""
        if self._decoder is not None and not self.undecodable:
            try:
                for piece in self._decoder.close():
                    self._feed_piece(piece, 0)
            except DecodeError as error:
                self.undecodable = error.reason
        selector, held = self._selector, self._held
        if selector is None:
            selector = self._selector_for(held)
            self._feed_events(selector.feed(held))
        parsed = self._feed_events(selector.close())
        self.kind = selector.kind
        if self.kind == "json" and not parsed:
            self.undecodable = self.undecodable or "json"
        self.torn = not self._end.endswith(FRAME_ENDS.get(selector.kind, (b"",)))
        reader = selector.framer
        if getattr(reader, "broken", ""):
            self.undecodable = self.undecodable or selector.kind
        if reader.overflowed:
            self._past_the_limit(getattr(reader, "head", b""), getattr(reader, "tail", b""))

    def _feed_piece(self, piece: bytes, size: int) -> None:
        """Decoded bytes; the first ones are held until they tell the framing."""
        self._end = (self._end + piece)[-4:]
        if size >= self._look and self.sample is not None:
            self._look = self.sample.take(piece, size)
        if self._selector is None:
            self._held += piece
            if len(self._held) < SNIFFED:
                return
            piece = self._held
            self._selector = self._selector_for(piece)
        self._feed_events(self._selector.feed(piece))

    def _selector_for(self, start: bytes) -> Selector:
        self._held = b""
        kind = sniff(self._answer.headers.get("content-type", ""), start[:SNIFFED])
        return Selector(kind, self._keys(), HEAD, TAIL)

    def _feed_events(self, frames: Sequence[bytes]) -> bool:
        """Whether each frame was JSON."""
        events = [parse(frame) for frame in frames]
        for event in events:
            if event is not None:
                self._feed(event)
        return None not in events

    def _keys(self) -> list[str]:
        return sorted({key for dialect in self._claim.binding.dialects for key in dialect.keys})

    def _past_the_limit(self, head: bytes, tail: bytes) -> None:
        """A frame was larger than any we would keep: of a JSON body its ends may tell, of an event nothing is left."""
        counted = any(dialect.counts_lists for dialect in self._claim.binding.dialects)
        for around in (joined_ends(head + tail), ends_of(b'{"":[' + tail)) if tail else ():
            if around is not None and self._ends_suffice(around):
                self.undecodable = self.undecodable or ("limit" if counted else "")
                return
        if tail or not any(fold.seen for fold in self.folds):
            self.undecodable = self.undecodable or "limit"
