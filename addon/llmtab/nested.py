"""A gateway on this machine and its upstream both cross the proxy: that is one call, and it is counted once.

Knows calls, their times and places. Must not know flows or bytes. The rule: response id, model and all counters are
equal, one call lies inside the other in time, they go to different servers, and the inner one comes from this machine.
Then the inner line says `repeat_of` the outer one's id, and has neither usage nor cost.

A ledger is never edited, and the inner call ends first. So its line waits, for a few seconds at most, but only while an
enclosing call is open that may be its outer one: to another server, one that runs on this machine, where the gateway
must be that asks from here. Nobody without such a server ever waits. Where the wait was too short, the outer line,
which comes later, says that it repeats the inner one. It is the inner line that repeats because the outer one knows
who asked, and for whom: the inner one's labels, key and client are the gateway's. What waits lies beside the ledger
(`ledger/held.py`), so that a kill loses no call.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from llmtab.exchange import Exchange
from llmtab.observation import Call
from llmtab.record import in_order

PATIENCE: Final = 10.0
"""Seconds that an inner line waits: a gateway passes on what it has."""
GRACE: Final = 1.0
"""Seconds after the last enclosing call was closed: its line may be made in a thread."""
MOST: Final = 1_000
"""Lines that wait, and inner lines remembered that waited in vain; servers known."""
FIGURES: Final = (
    "usage", "usage_reason", "estimated", "estimate_method", "cost_reason", "cost_partial_usd", "cost_lines",
    "cost_list_usd", "cost_reported_usd", "price", "saved_usd",
)  # fmt: skip
"""What a line has no more that repeats another."""

type Line = dict[str, Any]
type Server = tuple[str, int]


@dataclass(slots=True)
class Waiting:
    """An inner call's lines. `outer`: the calls of which one may enclose it; `until`: epoch seconds."""

    lines: list[Line]
    call: Call
    ended_at: float
    outer: set[str]
    until: float
    lonely_since: float | None = None


class Nested:
    """Belongs to the event loop, except `note`. `possible`: whether there can be a gateway at all."""

    def __init__(self) -> None:
        self.possible = False
        self._servers: set[Server] = set()
        self._local: set[Server] = set()
        self._own: set[str] = set()
        self._ended: dict[str, tuple[Call, float]] = {}
        self._waiting: dict[str, Waiting] = {}
        self._in_vain: dict[str, Waiting] = {}

    def __contains__(self, call: str) -> bool:
        """Whether the lines of that call wait."""
        return call in self._waiting

    def connected(self, server: Any) -> None:
        """A connection to a server was made (`address`, `peername`, `sockname`, `via`, as mitmproxy has them)."""
        if not server.address or not server.peername or len(self._servers) >= MOST:
            return
        place = (server.address[0].lower(), server.address[1])
        ours = server.sockname[0] if server.sockname else ""
        self._servers.add(place)
        self._own.add(ours)
        if server.via is None and (server.peername[0] == ours or is_loopback(server.peername[0])):
            self._local.add(place)
        self.possible = bool(self._local) and len(self._servers) > 1

    def note(self, call: Call, ended_at: float) -> None:
        """A call is over, and its lines are about to be written."""
        self._ended[call.id] = call, ended_at
        if len(self._ended) > MOST:
            self._ended.pop(next(iter(self._ended)), None)

    def sort(self, lines: list[Line], calls: Mapping[str, Exchange], now: float) -> list[list[Line]]:
        """What is to be written of these lines, and of those that waited for them: one list a call."""
        call, ended_at = self._ended.pop(lines[0]["id"], (None, 0.0))
        if call is None:
            return [lines]
        later = self._inside(call, ended_at, lines)
        if missed := self._missed(call, ended_at, lines):
            return [repeated(lines, missed), *later]
        if (outer := self._around(call, lines, calls)) and len(self._waiting) < MOST:
            self._waiting[call.id] = Waiting(lines, call, ended_at, outer, now + PATIENCE)
            return later
        return [lines, *later]

    def _around(self, call: Call, lines: Sequence[Line], calls: Mapping[str, Exchange]) -> set[str]:
        """The open calls that may be this one's outer call."""
        if not self._is_here(call) or not _has_figures(lines):
            return set()
        place, ident = _place(call), lines[0]["response_id"].encode()
        return {
            name
            for name, other in calls.items()
            if other.call.began <= call.began
            and (there := _place(other.call)) != place
            and there in self._local
            and name != call.id
            and not _speaks_of_others(other, ident)
        }

    def _is_here(self, call: Call) -> bool:
        address = call.client.get("address", "")
        return address in self._own or is_loopback(address)

    def _inside(self, call: Call, ended_at: float, lines: Sequence[Line]) -> list[list[Line]]:
        """The lines that waited for this call to end, where they wait for no other."""
        out = []
        for name, inner in list(self._waiting.items()):
            if call.id not in inner.outer:
                continue
            inner.outer.discard(call.id)
            if inner.ended_at <= ended_at and _equal(inner.lines, lines):
                out.append(repeated(inner.lines, call.id))
            elif not inner.outer:
                out.append(inner.lines)
            else:
                continue
            del self._waiting[name]
        return out

    def _missed(self, call: Call, ended_at: float, lines: Sequence[Line]) -> str | None:
        """The id of an inner call that is on the ledger already, because it waited in vain for this one."""
        if _place(call) not in self._local or not _has_figures(lines):
            return None
        for name, inner in self._in_vain.items():
            inside = call.began <= inner.call.began and inner.ended_at <= ended_at
            if inside and _place(inner.call) != _place(call) and _equal(inner.lines, lines):
                del self._in_vain[name]
                return name
        return None

    def release(self, now: float | None = None, calls: Iterable[str] = ()) -> list[list[Line]]:
        """Lines that have waited too long, or whose outer calls are gone; all of them where `now` is None."""
        out, still = [], set(calls)
        for name, inner in list(self._waiting.items()):
            if now is not None:
                if inner.outer & still:
                    inner.lonely_since = None
                elif inner.lonely_since is None:
                    inner.lonely_since = now
                lonely = inner.lonely_since is not None and now - inner.lonely_since >= GRACE
                if now < inner.until and not lonely:
                    continue
            del self._waiting[name]
            out.append(inner.lines)
            self._in_vain[name] = inner
            if len(self._in_vain) > MOST:
                del self._in_vain[next(iter(self._in_vain))]
        return out


def repeated(lines: Sequence[Line], outer: str) -> list[Line]:
    """The line of a call whose figures stand on another line: its sub-lines, shares of those figures, are gone."""
    line = {key: value for key, value in lines[0].items() if key not in FIGURES}
    told = {"usage_source": "none", "usage_reason": "not_billed", "cost_usd": Decimal(0), "cost_source": "not_billed"}
    return [in_order({**line, **told, "repeat_of": outer})]


@lru_cache(1024)
def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own by its form: 127.0.0.0/8, ::1, or the former written as the latter."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or (mapped is not None and mapped.is_loopback)


def _place(call: Call) -> Server:
    return call.server[0].lower(), call.server[1]


def _has_figures(lines: Sequence[Line]) -> bool:
    return bool(lines[0].get("usage") and lines[0].get("response_id"))


def _figures(lines: Sequence[Line]) -> list[Any]:
    first = lines[0].get("response_id"), lines[0].get("response_model")
    return [first, *((line.get("usage"), line.get("response_model")) for line in lines)]


def _equal(some: Sequence[Line], others: Sequence[Line]) -> bool:
    return _has_figures(some) and _figures(some) == _figures(others)


def _speaks_of_others(exchange: Exchange, ident: bytes) -> bool:
    """Whether an open stream, readable as it is, has begun without this id: then it passes on another answer."""
    if exchange.answer.headers.get("content-encoding", "identity") != "identity":
        return False
    start = b"".join(exchange.first_chunks())
    return len(start) > 4096 and ident not in start
