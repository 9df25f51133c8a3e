"""Calls under way, as the live table shows them: what has come so far, and when the first text came.

Knows open exchanges, which it only reads, and only when a picture is drawn: the tap pays nothing for it. Must not know
flows or terminals. Each stream's first chunks are read once more until its first text is found, within bounds.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Final

from llmtab.cells import label
from llmtab.exchange import Exchange, TapMemory
from llmtab.live.rows import Flight

MOST: Final = 50
"""Calls looked at for one picture."""
PEEKS: Final = 4
"""Streams whose first chunks are read for one picture."""
TRIES: Final = 4
"""Pictures in which a stream's first text is looked for; one that only thinks for so long shows its first bytes."""
PEEKED: Final = 16 * 1024
"""Bytes of a stream that are read for that."""
MODEL_ENDS: Final = 4096
"""Bytes at both ends of a request that are searched for the model: SDKs put it before or behind the messages."""
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([!#-\[\]-~]{1,128})"')


@dataclass(slots=True)
class _Known:
    """What was found out of a call in earlier pictures."""

    model: str
    first_token_at: float | None = None
    tries: int = 0


class Flights:
    """Turns open exchanges into rows. One for each table; remembers what it has found out of calls that are open."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def seen(self, exchanges: Collection[Exchange]) -> list[Flight]:
        """The open calls as they are at this moment, oldest first; of those past MOST no more than that they are."""
        # What may follow an answer rarely does.
        shown = [one for one in exchanges if one.tapped or not one.call.follows]
        first = nsmallest(MOST, shown, key=lambda exchange: exchange.call.began)
        self._known = {one.call.id: self._known[one.call.id] for one in first if one.call.id in self._known}
        peeks = PEEKS
        rows = []
        for exchange in first:
            known = self._known.setdefault(exchange.call.id, _Known("-"))
            if known.model == "-":
                known.model = _asked_model(exchange)
            if peeks and known.first_token_at is None and known.tries < TRIES and exchange.progress().bytes:
                peeks -= 1
                _peek(exchange, known)
            rows.append(_row(exchange, known))
        rows += [_bare(exchange) for exchange in first[-1:]] * (len(shown) - len(first))
        return rows


def _row(exchange: Exchange, known: _Known) -> Flight:
    got, began = exchange.progress(), exchange.call.began
    first = known.first_token_at or got.first_at
    return replace(
        _bare(exchange),
        model=known.model,
        label=label({"labels": exchange.call.labels}),
        bytes=got.bytes,
        chunks=got.chunks,
        first_ms=max(0.0, (first - began) * 1000) if first else None,
        first_is_token=known.first_token_at is not None,
    )


def _bare(exchange: Exchange) -> Flight:
    return Flight(datetime.fromtimestamp(exchange.call.began, UTC), exchange.claim.binding.provider, "-")


def _asked_model(exchange: Exchange) -> str:
    """The model as the path or the request says it, `-` where neither does at a glance."""
    if model := exchange.claim.captures.get("model"):
        return model
    body = exchange.call.body() or b""
    for end in (body[:MODEL_ENDS], body[-MODEL_ENDS:]):
        if found := _MODEL.search(end):
            return found[1].decode("ascii")
    return "-"


def _peek(exchange: Exchange, known: _Known) -> None:
    """Reads the first chunks as if the call had ended there, on an exchange of its own."""
    known.tries += 1
    unasked = replace(exchange.call, body=_no_body)  # a long prompt need not be parsed for this
    twin, size = Exchange(unasked, exchange.claim, TapMemory()), 0
    twin.answer = exchange.answer
    for chunk, at in zip(exchange.first_chunks(), exchange.progress().times, strict=False):
        size += len(chunk)
        if size > PEEKED:
            break
        twin.feed(chunk, at)
    seen = twin.close("aborted", exchange.call.began)
    if seen is not None:
        known.first_token_at = seen.first_token_at
        known.model = seen.reading.model or known.model


def _no_body() -> None:
    return None
