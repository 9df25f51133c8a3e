"""One response on a socket, from the frame that asked for it to its last event.

Knows its events, when its first text came, and the little of it that an estimate would need. Must not know other
responses, nor how events are told apart.
"""

from collections.abc import Iterator
from typing import Any, Final

from llmtab.estimates.asking import Asked
from llmtab.estimates.passed import Passed, Sampler, lacks
from llmtab.extract import Fold, Reading
from llmtab.observation import Call, How

HEAD: Final = 12
"""Frames of a response that are parsed to see when its first text, or sound, came."""
HEARD: Final = 128 * 1024
"""Bytes of a response's text frames that are kept until it is over; of the rest some slices."""


class Account:
    """One response: asked for, under way, over."""

    __slots__ = (
        "asked", "call", "first_byte_at", "first_token_at", "fold", "heard", "key", "lane", "looked", "over",
        "received",
    )  # fmt: skip

    def __init__(self, call: Call, fold: Fold, lane: str | None, key: str | None) -> None:
        self.call = call
        self.fold = fold
        self.lane = lane
        self.key = key
        self.first_byte_at: float | None = None
        self.first_token_at: float | None = None
        self.received = 0
        self.looked = 0
        self.over = False
        self.asked = Asked(0)
        self.heard: Sampler | None = None
        """Its text as it came, for an estimate; dropped when the response is over."""

    @property
    def searched(self) -> bool:
        """Whether nobody looks for its first text any more."""
        return self.first_token_at is not None or self.looked >= HEAD

    def feed(self, event: Any, size: int, now: float) -> bool:
        """One event of this response. Whether it is over."""
        self.pass_by(size, now)
        if not self.searched:
            self.looked += 1
            if any(_has_text(each(self.fold.scope, event)) for each in self.fold.dialect.text):
                self.first_token_at = now
        self.fold.feed(event)
        return self.over or self.fold.final or (self.fold.ended and not self.fold.dialect.final)

    def hear(self, data: bytes) -> None:
        """Keep a frame that brings text."""
        if self.heard is None:
            self.heard = Sampler(coded=True, first=HEARD)
        self.heard.take(data.replace(b"\n", b" ") + b"\n", self.received)

    def pass_by(self, size: int, now: float) -> None:
        """A frame of this response that nobody has to read."""
        self.received += size
        if self.first_byte_at is None:
            self.first_byte_at = now

    def passed(self, reading: Reading, how: How) -> Passed | None:
        """What an estimate is made from; None where the figures came, or no text did."""
        if self.heard is None or not lacks(reading, how, streamed=True, whole=True):
            return None
        frame = self.fold.scope.request()
        return Passed([], "", "", "ndjson", self.heard, self.received, self.asked, frame)


def _has_text(found: Iterator[tuple[Any, Any]]) -> bool:
    return any(isinstance(text, str) and text for _, text in found)
