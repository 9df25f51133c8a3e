"""What the meter would make of a URL or of a saved answer, with the reference behind every figure.

Knows how to ask the meter's own code (`Exchange`, `book`) for its reasons: a second reading of the same bytes, in which every
reference of a row is a row of its own. Must not know the command line, nor what is proposed for what nobody claims.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from llmtab.booking import book
from llmtab.exchange import Answer, Call, Exchange, Observation, TapMemory
from llmtab.pricing import PriceBook
from llmtab.profiles import GUESS, Claim, ProfileError, Profiles, merged
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import EACH, pointer_parts, split_ref
from llmtab.proposal import looks_like_usage
from llmtab.record import new_id
from llmtab.usage import Quantity

METERED: Final = frozenset({"billed", "retrieve", "by_shape"})
"""Roles of routes whose answers are read."""
OURS: Final = ("id", "writer", "seq", "time", "timing", "bytes", "host", "method", "status")
"""Keys of a line that say nothing about a saved answer."""

type Leaf = tuple[str, int, str]
"""Counter, number of its term, reference."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes."""

    method: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]
    plain: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A saved answer and what is known of its call. `headers`: the response's, lower-case names."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One way to read a sample.

    `sources`: for each counter the references that gave something, and what. `unread`: members of the usage object that
    no row looks at, and whether they ever were anything but 0. `fit`: how well it explains the sample.
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
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL, expected something like https://api.openai.com/v1/chat/completions")
    plain = parts.scheme == "http"
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return Place(method, parts.hostname.lower(), parts.port or (80 if plain else 443), parts.path or "/", query, plain)


def claim_of(profiles: Profiles, at: Place) -> Claim | None:
    """Who reads calls to this place, as the meter asks."""
    return profiles.match(at.host, at.port, at.method, at.path)


def meanings(profiles: Profiles, claim: Claim) -> list[tuple[str, dict[str, Any]]]:
    """(name, words) of each dialect of a claim: what its functions were made from, overrides and route worked in."""
    provider = profiles.providers[claim.binding.profile]
    route = next((spec for _, _, key, spec in provider.routes if key == claim.binding.route), None)
    overrides = provider.spec.get("overrides") or {}
    found = []
    for dialect in claim.binding.dialects:
        try:
            spec = profiles.dialect(dialect.name)
        except ProfileError:  # a route that says everything itself
            spec = {}
        for change in (overrides.get("*"), overrides.get(dialect.name), route if isinstance(route, Mapping) else None):
            spec = merged(spec, change or {})
        found.append((dialect.name, dict(spec)))
    return found


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
            if shape[0] == "not_billed" or route.get("role", "billed") not in ("billed", "retrieve") or shape in known:
                continue
            known.add(shape)
            yield Claim(profiles.providers[name].binding(key, spec), {})


def observe(claim: Claim, at: Place | None, sample: Sample, now: float) -> Observation:
    """The sample, passed through the meter's own reader as the answer to a call that ends `now` (epoch seconds)."""
    asked = b'{"model":"' + sample.model.encode() + b'"}' if sample.model else b"{}"
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
    probe = _Probe(*meanings(profiles, claim)[number])
    binding = replace(claim.binding, dialects=(probe.dialect,), role="billed")
    asked = observe(replace(claim, binding=binding), at, sample, now).reading
    sources = probe.sources(asked.counters or asked.estimate)
    unread = probe.unread()
    reading = seen.reading
    facts = (reading.model, reading.response_id, reading.finish_reasons, reading.ended, reading.final, reading.failed)
    fit = (len(probe.explained()) - len(unread), sum(map(bool, facts)))
    return Finding(claim, seen, lines, sources, unread, fit)


def best(profiles: Profiles, prices: PriceBook, provider: str | None, sample: Sample, now: float) -> Finding | None:
    """The shape that explains most of a sample whose URL nobody knows; None where none finds a figure."""
    findings = (read(profiles, prices, claim, None, sample, now) for claim in shapes(profiles, provider))
    return max((one for one in findings if one.counted), key=lambda one: one.fit, default=None)


class _Probe:
    """A dialect whose rows are the single references of another one's rows, and which writes down what it was shown."""

    def __init__(self, name: str, spec: Mapping[str, Any]) -> None:
        self._leaves: dict[str, Leaf] = {}
        rows = {key: self._rows(spec.get(key) or {}, key) for key in ("usage", "estimate")}
        self.dialect = Dialect(name, {**spec, **rows, "parts": None, "money": None})
        self._patterns = [tuple(pattern) for pattern in _pointers(spec)]
        self._root = ""
        self._shown: dict[tuple[str, ...], bool] = {}
        texts = list(spec.get("roots") or ("/usage",))
        self.dialect.roots = [
            (inside, partial(self._show, text, get) if inside else get)
            for text, (inside, get) in zip(texts, self.dialect.roots, strict=True)
        ]

    def _rows(self, rows: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """A row for each reference, under the fold of the row that it comes from."""
        out: dict[str, Any] = {}
        for counter, row in rows.items():
            terms, fold = (row["terms"], row.get("fold")) if isinstance(row, Mapping) else (row or (), None)
            for number, term in enumerate(terms):
                for leaf in _alternatives(term):
                    name = f"{kind} {len(self._leaves)}"
                    self._leaves[name] = (counter, number, words(leaf))
                    plain = leaf["outside"] if isinstance(leaf, Mapping) and "outside" in leaf else leaf
                    out[name] = {"terms": [plain], "fold": fold} if fold else [plain]
        return out

    def _show(self, text: str, get: Callable[[Any, Any], Any], scope: Any, event: Any) -> Any:
        found = get(scope, event)
        if type(found) is dict:
            self._root = split_ref(text)[1]
            for pointer, value in numbers(found):
                self._shown[pointer] = self._shown.get(pointer, False) or bool(value)
        return found

    def sources(self, figures: Mapping[str, Quantity]) -> dict[str, list[tuple[str, Quantity]]]:
        """For each counter what each of its terms gave: of alternatives the first that had something."""
        found: dict[str, list[tuple[str, Quantity]]] = {}
        taken = set()
        for name, value in figures.items():
            leaf = self._leaves.get(name)
            if leaf is not None and leaf[:2] not in taken:
                taken.add(leaf[:2])
                at_root = leaf[2].startswith("/") and name.startswith("usage")
                found.setdefault(leaf[0], []).append((self._root + leaf[2] if at_root else leaf[2], value))
        return found

    def explained(self) -> list[tuple[str, ...]]:
        """Members of the usage object that a row looks at."""
        return [pointer for pointer in self._shown if any(_fits(pointer, pattern) for pattern in self._patterns)]

    def unread(self) -> dict[str, bool]:
        """The other ones, and whether they were ever more than 0. Of a whole body only what looks like usage."""
        read = set(self.explained())
        return {
            self._root + "/" + "/".join(pointer): value
            for pointer, value in self._shown.items()
            if pointer not in read and (self._root or looks_like_usage(pointer))
        }


def numbers(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int | float]]:
    """Every number in a JSON value with where it stands; the elements of a list share the place `*`."""
    inside: Sequence[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = [*value.items()]
    elif isinstance(value, list):
        inside = [(EACH, one) for one in value]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, value
    for key, one in inside:
        yield from numbers(one, (*at, key))


def _alternatives(term: Any) -> Iterator[Any]:
    if isinstance(term, Mapping) and "any" in term:
        for one in term["any"]:
            yield from _alternatives(one)
    else:
        yield term


def _pointers(spec: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every place of the usage object that the words of a dialect speak of."""
    for key in ("usage", "total", "money", "snapshot"):
        yield from _spoken(spec.get(key), ("", "usage"))
    for key in ("tier", "pricing_tier", "billing", "not_billed", "model", "id"):
        yield from _spoken(spec.get(key), ("usage",))
    for part in spec.get("parts") or ():
        for inside in _spoken([part["usage"], part.get("where"), part["model"]], ("",)):
            yield (*pointer_parts(split_ref(part["each"])[1]), *inside)


def _spoken(value: Any, kinds: Sequence[str]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        try:
            kind, rest = split_ref(value)
        except ValueError:  # what a condition expects
            return
        if kind in kinds and rest:
            yield pointer_parts(rest)
    elif isinstance(value, Mapping):
        for each in ("sum", "count"):
            if each in value:  # its conditions speak of the element
                base = next(iter(_spoken(value[each], kinds)), ())
                for inside in _spoken(list(value.get("where") or ()), ("",)):
                    yield (*base, *inside)
        for key, inside in value.items():
            yield from _spoken(inside, kinds)
            if key == "where" and not {"sum", "count"} & set(value):
                yield from _spoken(list(inside), kinds)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _spoken(inside, kinds)


def _fits(pointer: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(pointer) == len(pattern) and all(b in (EACH, a) for a, b in zip(pointer, pattern, strict=True))


def words(term: Any) -> str:
    """A term of a row, or a fact, in words."""
    if not isinstance(term, Mapping):
        return str(term)
    where = ", ".join(f"{ref or 'it'} is {_value(expected)}" for ref, expected in (term.get("where") or {}).items())
    said = f" where {where}" if where else ""
    if "any" in term:
        return ", else ".join(words(one) for one in term["any"])
    if "outside" in term:
        return f"{term['outside']} if {term['of']} is not reached without it"
    for verb, text in (("sum", "sum of "), ("count", "number of "), ("length", "characters of "), ("first", "first ")):
        if verb in term:
            return f"{text}{term[verb]}{said}"
    return f"{term['ref']}{said}"


def row_words(row: Any) -> str:
    """A counter's row in words: terms are added up."""
    terms, fold = (row["terms"], row.get("fold")) if isinstance(row, Mapping) else (row, None)
    said = " + ".join(words(term) for term in terms)
    return f"{said} ({fold} over the events)" if fold and fold != "last" else said


def _value(expected: Any) -> str:
    return " or ".join(map(str, expected)) if isinstance(expected, list) else str(expected)
