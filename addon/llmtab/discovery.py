"""What the meter would make of a URL or of a saved answer, and why.

Knows how to ask the meter's own code (`Exchange`, `book`), and asks it twice: the second time with a `Probe`. Must not
know the command line, nor what is proposed for what nobody claims.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from llmtab.booking import book
from llmtab.events import parse
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call, Observation
from llmtab.pricing import PriceBook
from llmtab.probe import Probe
from llmtab.profiles import GUESS, SOCKET, Claim, Profiles
from llmtab.reader import SNIFFED
from llmtab.record import new_id
from llmtab.usage import Quantity
from llmtab.wire.decoding import decode_all
from llmtab.wire.scan import frames
from llmtab.wire.sniffing import sniff

METERED: Final = frozenset({"billed", "retrieve", "by_shape"})
"""Roles of routes whose answers are read."""
OURS: Final = ("id", "writer", "seq", "time", "timing", "bytes", "host", "method", "status")
"""Keys of a line that say nothing about a saved answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes."""

    method: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]
    plain: bool

    @property
    def name(self) -> str:
        """The host as llmtab.yaml names it: with its port where that is not the usual one."""
        return self.host if self.port == (80 if self.plain else 443) else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A saved answer and what is known of its call.

    `headers`: the response's, lower-case names. `model`: the one asked for. `request`: the request's body.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    request: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One way to read a sample.

    `sources`: for each counter the references that gave something, and what. `unread`: members of the usage object that
    no row looks at, and whether they ever were anything but 0. `fit`: how much of the sample it explains, and how much
    of it is members of the usage object.
    """

    claim: Claim
    seen: Observation
    lines: list[dict[str, Any]]
    sources: Mapping[str, list[tuple[str, Quantity]]]
    unread: Mapping[str, bool]
    fit: tuple[int, int]

    @property
    def counted(self) -> bool:
        """Whether it has a figure that is not 0."""
        return bool(self.lines) and any((self.lines[0].get("usage") or {}).values())


def place(url: str, method: str = "POST") -> Place:
    """A URL taken apart. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL, expected something like https://api.openai.com/v1/chat/completions")
    plain = parts.scheme in ("http", "ws")
    method = SOCKET if parts.scheme.startswith("ws") else method
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return Place(method, parts.hostname.lower(), parts.port or (80 if plain else 443), parts.path or "/", query, plain)


def claim_of(profiles: Profiles, at: Place) -> Claim | None:
    """Who reads calls to this place, as the meter asks."""
    return profiles.match(at.host, at.port, at.method, at.path)


def shapes(profiles: Profiles, provider: str | None) -> Iterator[Claim]:
    """A claim for each wire shape: those of one provider, or all there are, the most copied ones first."""
    names = [GUESS, *(name for name in profiles.providers if name != GUESS)] if provider is None else []
    names = names or [n for n, p in profiles.providers.items() if provider in (n, p.spec["provider"])]
    if not names:
        raise ValueError(f"{provider} is no provider of any profile")
    known = set()
    for name in names:
        for _, _, key, spec in profiles.providers[name].routes:
            route = {"dialect": spec} if isinstance(spec, str) else spec
            named = route.get("dialect")
            shape = (
                named if isinstance(named, str) else tuple(named or (key,)),
                route.get("api") if provider else None,
            )
            if key.startswith(f"{SOCKET} "):
                continue  # its answers come message by message
            if shape[0] == "not_billed" or route.get("role", "billed") not in ("billed", "retrieve") or shape in known:
                continue
            known.add(shape)
            yield Claim(profiles.providers[name].binding(key, spec), {})


def observe(claim: Claim, at: Place | None, sample: Sample, now: float) -> Observation:
    """The sample, passed through the meter's own reader as the answer to a call that ends `now` (epoch seconds)."""
    asked = sample.request or json.dumps({"model": sample.model} if sample.model else {}).encode()
    if sample.model and "model" not in claim.captures:
        claim = replace(claim, captures={**claim.captures, "model": sample.model})
    query: Callable[[str], str | None] = at.query.get if at else lambda name: None
    host, method = (at.host, at.method) if at else ("", "POST")
    call = Call(new_id(), host, method, claim.path, now, {}, lambda: asked, query)
    exchange = Exchange(call, claim, TapMemory())
    exchange.answer = Answer(200, sample.headers, now)
    seen = exchange.close("complete", now, sample.body)
    assert seen is not None  # it was never closed before
    return seen


def read(profiles: Profiles, prices: PriceBook, claim: Claim, at: Place | None, sample: Sample, now: float) -> Finding:
    """The sample read by one claim, and the reasons."""
    seen = observe(claim, at, sample, now)
    lines = [{k: v for k, v in line.items() if k not in OURS} for line in book(seen, prices)]
    number = next((n for n, one in enumerate(claim.binding.dialects) if one is seen.reading.dialect), 0)
    asked_of = claim.binding.dialects[number]
    probe = Probe(asked_of.name, asked_of.spec)
    binding = replace(claim.binding, dialects=(probe.dialect,), role="billed")
    asked = observe(replace(claim, binding=binding), at, sample, now).reading
    counted = lines[0].get("usage") or {} if lines else {}
    sources = probe.sources(asked.counters or asked.estimate, counted)
    unread = probe.unread()
    reading = seen.reading
    facts = (reading.model, reading.response_id, reading.finish_reasons, reading.ended, reading.final, reading.failed)
    members = len(probe.explained()) - len(unread)
    fit = (members + 2 * sum(map(bool, facts)), members)
    return Finding(claim, seen, lines, sources, unread, fit)


def best(profiles: Profiles, prices: PriceBook, provider: str | None, sample: Sample, now: float) -> Finding | None:
    """The shape that explains most of a sample whose URL nobody knows; None where none finds a figure."""
    counting = (
        claim
        for claim in shapes(profiles, provider)
        if any(observe(claim, None, sample, now).reading.counters.values())
    )
    findings = (read(profiles, prices, claim, None, sample, now) for claim in counting)
    return max((one for one in findings if one.counted), key=lambda one: one.fit, default=None)


def events(sample: Sample) -> Iterator[Any]:
    """Every event of a sample as a JSON value, those that are none left out."""
    data = decode_all([sample.body], sample.headers.get("content-encoding", "")).data
    kind = sniff(sample.headers.get("content-type", ""), data[:SNIFFED])
    return (event for _, frame in frames(data, kind) if (event := parse(frame)) is not None)
