"""The tap on a stream: every chunk passes through here, unchanged and at once.

Knows one exchange and when its bytes look like the stream's last event. Must not know flows, nor what an event means.
"""

from collections.abc import Callable, Iterable
from time import time
from typing import Any, Final

from llmtab.exchange import CHUNK_COST, Exchange

LINE_END: Final = 10
CARRIED: Final = 64
"""Bytes of an unfinished line that are kept: a needle may be cut in two."""
FALSE_ALARMS: Final = 3
"""Each costs a scan of what was kept; a stream that talks about streams is then left to its end."""


def tapped(
    exchange: Exchange, before: Any, over: Callable[[Exchange], bool] | None = None
) -> Callable[[bytes], bytes | Iterable[bytes]]:
    """The stream callable: watches every chunk and gives back the very object. It never raises, never changes anything.

    An exception here would hang the client until its own time-out, so this is the one place that catches everything.
    `before`: the callable of an addon that came first, which keeps its say. `over(exchange)` is asked, before the chunk
    goes on, where a chunk brings what looks like the last event: clients leave when they have seen it. Its answer is
    whether the call is booked.
    """
    feed, passes = exchange.feed, before if callable(before) else None
    keep, room = exchange.chunks.append, 0
    needles = exchange.end_needles() if over is not None else ()
    looks_over = watch(needles)
    alarms = FALSE_ALARMS

    def tap(chunk: bytes) -> bytes | Iterable[bytes]:
        nonlocal feed, keep, room, needles, alarms
        try:
            room -= len(chunk) + CHUNK_COST
            if room > 0:  # nearly every chunk: the exchange looks at its bounds, and at the clock, only now and then
                keep(chunk)
            elif chunk:
                room = feed(chunk, time())
            if needles and chunk and looks_over(chunk) and over is not None:
                alarms -= 1
                if not alarms:
                    needles = ()
                if over(exchange):
                    needles = ()
                    if exchange.following is not None:
                        feed, keep, room = exchange.following.feed, exchange.following.chunks.append, 0
        except Exception:
            (exchange.following or exchange).broken_tap = True
        return chunk if passes is None else passes(chunk)

    return tap


def watch(needles: Iterable[bytes]) -> Callable[[bytes], bool]:
    """A function that is shown every chunk and says when one ends a line with a needle in it, however it is cut."""
    needles = tuple(needles)
    carry, armed = b"", False

    def looks_over(chunk: bytes) -> bool:
        if not carry and chunk[-1] == LINE_END:
            for needle in needles:  # noqa: SIM110 - a generator takes three times as long
                if chunk.rfind(needle) >= 0:  # 70 ns for 250 bytes; `needle in chunk` raises inside and takes 370
                    return True
            return False
        return in_pieces(chunk)

    def in_pieces(chunk: bytes) -> bool:
        nonlocal carry, armed
        line = carry + chunk
        hit = armed or any(line.rfind(needle) >= 0 for needle in needles)
        carry, armed = (b"", False) if chunk[-1] == LINE_END else (line[-CARRIED:], hit)
        return hit and not carry

    return looks_over
