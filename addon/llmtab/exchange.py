"""One call being observed: `feed(chunk)` while it passes, `close(how)` once, and out comes what is known of it.

Knows how long bytes are kept, when a reader has to take them one by one, and when a call is over. Must not know
mitmproxy, files or clocks: times and ids are handed in.
"""

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from llmtab.estimates.passed import keep, lacks
from llmtab.events import BIG
from llmtab.observation import Answer, Call, How, Observation
from llmtab.profiles import Claim
from llmtab.reader import STREAMS, Reader
from llmtab.record import new_id

TAP_LIMIT: Final = 1024 * 1024
"""Raw bytes kept of one stream; nearly every stream ends below it, and one scan at the end is the cheapest way."""
TAP_TOTAL: Final = 64 * 1024 * 1024
"""Raw bytes kept of all open streams together, besides each one's newest chunks (STRIDE or PIECE); above it each goes
on incrementally, in a few kilobytes."""
TIMED: Final = 64
"""Chunks whose size and arrival are written down: the first text stands among the first events."""
STRIDE: Final = 16 * 1024
"""What chunks may take before they are put together. Small enough that the next chunks use their memory again, while a
processor has it at hand: a thousand chunks kept to the end cost ten times what appending them costs."""
PIECE: Final = 4 * 1024
"""The same for a stream that is read as it passes: it may be one of ten thousand. Reading each small chunk by itself
costs twice as much."""
CHUNK_COST: Final = 64
"""Bytes that a chunk takes beside its own."""


class TapMemory:
    """Raw bytes that all open taps have put together; it belongs to the event loop."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0


class Progress(NamedTuple):
    """Of a call under way: bytes, chunks, and when the first chunks came (epoch seconds)."""

    bytes: int
    chunks: int
    times: tuple[float, ...]

    @property
    def first_at(self) -> float | None:
        return self.times[0] if self.times else None


class Exchange:
    """One observed call. `feed` is the hot path: append and return; what it costs is measured by `scripts/bench`."""

    __slots__ = (
        "_count", "_held", "_incremental", "_kept", "_memory", "_reader", "_scanned", "_size", "_sizes", "_times",
        "answer", "broken_tap", "call", "chunks", "claim", "closed", "following", "unsent",
    )  # fmt: skip

    def __init__(self, call: Call, claim: Claim, memory: TapMemory) -> None:
        self.call = call
        self.claim = claim
        self.answer = Answer()
        self.closed = False
        self.broken_tap = False
        self.unsent = False
        self.chunks: list[bytes] = []
        """The newest chunks, appended by the tap: those that `_settle` has not put to the others yet."""
        self._kept = bytearray()
        self._memory = memory
        self._times: list[float] = []
        self._sizes: list[int] = []  # of the chunks of `_times`
        self._size = self._count = 0  # bytes and chunks that were settled
        self._scanned = 0  # bytes that the reader knows of
        self._held = 0  # bytes that `_memory` counts for this exchange
        self._incremental = False
        self._reader: Reader | None = None
        self.following: Exchange | None = None
        """What came behind the last event: nothing, as a rule; some relays glue a second answer there."""

    @property
    def tapped(self) -> bool:
        """Whether body bytes came through `feed`."""
        return self._size > 0

    @property
    def reader(self) -> Reader:
        """What reads the answer; made when it is first needed, for the answer's head has to be known then."""
        if self._reader is None:
            self._reader = Reader(self.call, self.claim, self.answer)
        return self._reader

    def feed(self, chunk: bytes, now: float) -> int:
        """A piece of the response body as it is on the wire (still encoded), at `now` (epoch seconds).

        Returns what chunks the caller may append to `chunks` by himself before he comes back with the next one: their
        bytes and CHUNK_COST for each.
        """
        if self.closed:
            self.chunks.clear()
            return STRIDE
        self.chunks.append(chunk)
        if self._incremental:
            self._settle()
            return PIECE
        if len(self._times) < TIMED:
            self._times.append(now)
            self._sizes.append(len(chunk))
        self._settle()
        if self._held > TAP_LIMIT or self._memory.used > TAP_TOTAL:
            self._go_incremental()
            return PIECE
        if len(self._times) < TIMED:
            return 0
        return STRIDE if self._memory.used < TAP_TOTAL // 4 else PIECE

    def progress(self) -> Progress:
        """What has come so far. For those who look on: counted when they ask, not while the bytes pass."""
        return Progress(self._size + sum(map(len, self.chunks)), self._count + len(self.chunks), tuple(self._times))

    def first_chunks(self) -> list[bytes]:
        """The chunks whose times `progress` tells, as long as the stream is kept."""
        ends = [0, *accumulate(self._sizes)] if self._kept else []
        return [bytes(self._kept[start:end]) for start, end in pairwise(ends)]

    def request(self) -> Any:
        """The request's JSON, None where it is none: parsed once, by whoever asks first."""
        return self.reader.request()

    def needs_thread(self, body: bytes | None) -> bool:
        """Whether `close` would have to decode or parse more than the event loop should wait for. The encoded size of
        a coded body tells little: it is decoded up to the bound to find out, and once only."""
        if body is not None and len(body) > BIG:
            return True
        if self.closed:
            return False
        if self._incremental:
            return self.reader.is_one_text
        coding = self.answer.headers.get("content-encoding")
        if not coding or coding == "identity":
            return body is None and self.progress().bytes > BIG and self.reader.is_text(self._kept)
        stacked = "," in coding  # a bomb more often than not
        if body is not None:
            return stacked or self.reader.is_longer([body], BIG)
        self._settle()
        return bool(self._kept) and (stacked or self.reader.is_longer(self._pieces(), TAP_LIMIT))

    def hand_over(self) -> None:
        """`close` will be called in a thread: nothing comes any more, and what all taps hold belongs to the loop."""
        self._settle()
        self._release()

    def end_needles(self) -> tuple[bytes, ...]:
        """Bytes of which one stands in the last event of this call's stream; () where it cannot be seen while it
        passes."""
        if self.answer.headers.get("content-encoding", "identity") != "identity":
            return ()
        return tuple({needle for dialect in self.claim.binding.dialects for needle in dialect.end_needles})

    def close(self, how: How, ended_at: float, body: bytes | None = None) -> Observation | None:
        """The call is over; None if it was closed before. `body`: the whole encoded body where it was not fed.

        Never raises for anything that came from the wire.
        """
        if self.closed:
            return None
        if self.chunks:
            self._settle()
        self.closed = True
        reader = self.reader
        first_byte_at = first_token_at = None
        if self._size:
            first_byte_at = self._times[0] if self._times else None
            self._close_stream()
            first_token_at = self._at(reader.first_text)
        elif body:
            first_byte_at = self.answer.head_at
            reader.whole(body)
        kind, reading = reader.kind, reader.reading()
        seen = Observation(
            self.call, self.claim, self.answer, reading, how, ended_at, "http" if kind == "json" else kind,
            kind in STREAMS, reader.undecodable, reader.torn, self.unsent, first_byte_at, first_token_at,
            self._size or len(body or b""), self.broken_tap,
        )  # fmt: skip
        if lacks(reading, how, streamed=kind in STREAMS, whole=not (reader.torn or reader.undecodable)):
            pieces = self._pieces() if self._size else [body or b""]
            seen.passed = keep(self.answer, pieces, kind, reader.sample, self._size)
        self._kept = bytearray()
        self._release()
        return seen

    def close_early(self, ended_at: float) -> Observation | None:
        """Like `close`, when what looks like the last event has come: clients leave then, before any end of the body.

        None, and nothing is changed, where no event so far ends the call, or its figures have not come yet: some
        gateways send them behind the end. A body over TAP_LIMIT is left to its end.
        """
        if self.closed or self._incremental:
            return None
        self._settle()
        self._scan("")
        folds = self.reader.folds
        if self.reader.kind in STREAMS and any(fold.ended and fold.seen for fold in folds):
            if any(fold.dialect.begin for fold in folds):
                call = replace(self.call, id=new_id(int(ended_at * 1e9)), began=ended_at, follows=True)
                self.following = Exchange(call, self.claim, self._memory)
                self.following.answer = self.answer
            return self.close("complete", ended_at)
        return None

    def _settle(self) -> None:
        """Put what came since the last time to what was kept, or have it read, and count it."""
        fresh = self.chunks
        if not fresh:
            return
        piece = fresh[0] if len(fresh) == 1 else b"".join(fresh)
        self._count += len(fresh)
        fresh.clear()  # not a new list: the tap appends to this one
        new = len(piece)
        self._size += new
        if self._incremental:
            self.reader.feed(piece, self._size)
            return
        self._kept += piece
        self._held += new
        self._memory.used += new

    def _pieces(self) -> list[bytes]:
        """What was kept: the first chunks as they came, then the rest as one."""
        rest = bytes(self._kept[sum(self._sizes) :])
        return [*self.first_chunks(), rest] if rest else self.first_chunks()

    def _release(self) -> None:
        """What this call holds is no longer counted."""
        if self._held:
            self._memory.used -= self._held
            self._held = 0

    def _go_incremental(self) -> None:
        """From here on the reader takes every piece at once; what was kept goes through it first."""
        self._incremental = True
        first = self.first_chunks() if sum(self._sizes) <= BIG else []
        kept, self._kept = bytes(self._kept), bytearray()
        self._release()
        self.reader.begin(first)
        self.reader.feed(kept, self._size)

    def _close_stream(self) -> None:
        if self._incremental:
            self.reader.end()
        elif self._scanned < self._size:
            self._scan(self.reader.coding)

    def _scan(self, coding: str) -> None:
        """Read what was kept, from its beginning: an earlier look may have come too soon."""
        self._scanned = self._size
        self.reader.kept(self._pieces(), coding)

    def _at(self, chunk: int | None) -> float | None:
        """When a chunk came, where it is one of the first."""
        return self._times[chunk] if chunk is not None and chunk < len(self._times) else None
