"""A profile for an answer that nobody claims: pointers to numbers whose names look like usage, as lines of llmtab.yaml.

Knows the words that usage goes by. Must not know profiles or the meter. Never shows a
value: names and pointers only.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llmtab.hosts import routes_of
from llmtab.profiles.refs import EACH

HOST: Final = "llm.example.com"
"""Stands for the host where none was said."""
_NAME: Final = re.compile(r"[A-Za-z_$@][A-Za-z0-9_.$@-]{0,63}")
"""Member names that are shown; anything else might be content."""
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_USAGE: Final = frozenset(
    {"usage", "token", "tokens", "tok", "toks", "stats", "billed", "units", "metrics", "meta", "count", "counts"}
)
_NEVER: Final = frozenset(
    {"index", "created", "timestamp", "time", "date", "id", "status", "code", "version", "latency", "duration", "ms",
     "ns", "seconds", "max", "limit", "remaining", "seed", "size", "width", "height", "logprob", "per",
     "cost", "price", "usd"}
)  # fmt: skip
_CACHED: Final = frozenset({"cache", "cached", "caching"})
_WRITTEN: Final = frozenset({"write", "writes", "written", "creation", "create", "created", "store"})
_THOUGHT: Final = frozenset({"reasoning", "reason", "thinking", "thought", "thoughts"})
_TOTAL: Final = frozenset({"total", "sum", "all"})
_INPUT: Final = frozenset({"input", "prompt", "in", "query", "request", "sent"})
_OUTPUT: Final = frozenset(
    {"output", "completion", "out", "generated", "generation", "candidates", "response", "eval", "predicted", "answer",
     "reply", "received"}
)  # fmt: skip
_MODEL: Final = frozenset({"model", "model_id", "modelid", "modelversion", "model_name", "modelname", "model_version"})
_ID: Final = frozenset({"id", "response_id", "responseid"})


def looks_like_usage(pointer: Iterable[str]) -> bool:
    """Whether a number at this place may be a count of something used."""
    parts = [part for part in pointer if part != EACH]
    own = _words(parts[-1]) if parts else set()
    around = set().union(*map(_words, parts))
    return not own & _NEVER and bool(around & _USAGE or own & (_INPUT | _OUTPUT | _CACHED | _THOUGHT))


def shown(pointer: Iterable[str]) -> str:
    """A place as it may be shown: names that might be content are `?`."""
    return "".join(f"/{part if part == EACH or _NAME.fullmatch(part) else '?'}" for part in pointer)


def counter_of(pointer: Iterable[str]) -> str | None:
    """The counter that a place seems to be, by the words of its names; None where they do not say."""
    parts = [part for part in pointer if part != EACH]
    own, around = _words(parts[-1]), set().union(*map(_words, parts))
    if around & _CACHED:
        return "cache_creation_input_tokens" if around & _WRITTEN else "cache_read_input_tokens"
    if around & _THOUGHT:
        return "reasoning_output_tokens"
    if own & _TOTAL:
        return None
    for said in (own, around):
        side = "input" if said & _INPUT else "output" if said & _OUTPUT else ""
        if side:
            kind = next((f"{kind}_" for kind in ("audio", "image") if kind in around), "")
            return f"{kind}{side}_tokens"
    return None


def proposed(
    events: Iterable[Any], host: str | None = None, path: str | None = None, *, stream: bool = False
) -> str | None:
    """An entry of llmtab.yaml for answers like these (parsed JSON values), None where no number looks like usage."""
    rows: dict[str, str] = {}
    others: list[str] = []
    facts: dict[str, str] = {}
    for pointer, value in (found for event in events for found in _scalars(event)):
        text = "/" + "/".join(pointer)
        if isinstance(value, str):
            name = pointer[-1].lower()
            fact = "model" if name in _MODEL else "id" if name in _ID and len(pointer) < 3 else None
            if fact and EACH not in pointer:
                facts.setdefault(fact, text)
        elif looks_like_usage(pointer):
            counter = counter_of(pointer)
            if counter and rows.setdefault(counter, text) == text:
                continue
            if text not in others:
                others.append(text)
    if not {"input_tokens", "output_tokens"} & rows.keys():
        return None
    return "\n".join(_yaml(host or HOST, path, facts, rows, others, stream)) + "\n"


def served(host: str | None, path: str | None, dialect: str, method: str = "POST") -> str:
    """An entry of llmtab.yaml for a host that speaks a known dialect."""
    [route] = routes_of({"path": f"{method} {path}"}) if path else routes_of({})
    return f"hosts:\n  {host or HOST}:\n    routes: {{{route}: {dialect}}}\n"


def _yaml(
    host: str, path: str | None, facts: Mapping[str, str], rows: Mapping[str, str], others: Iterable[str], stream: bool
) -> Iterator[str]:
    yield "hosts:"
    yield f"  {host}:"
    if path:
        yield f"    path: {path}"
    if stream:
        yield "    stream: true"
    for key, pointer in facts.items():
        yield f"    {key}: {pointer}"
    for counter, pointer in rows.items():
        yield f"    {counter}: {f'{{sum: {pointer}}}' if EACH in pointer.split('/') else pointer}"
    if any("cache" in counter for counter in rows):
        yield "    # input_tokens is all of the prompt: if the cache's share stands beside it, make it a list of both"
    for pointer in others:
        yield f"    # not used: {pointer}"


def _scalars(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int | str]]:
    """Whole numbers and texts with where they stand, under names that may be shown."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if _NAME.fullmatch(key):
                yield from _scalars(inside, (*at, key))
    elif isinstance(value, list):
        for inside in value:
            yield from _scalars(inside, (*at, EACH))
    elif at and isinstance(value, str | int) and not isinstance(value, bool) and (isinstance(value, str) or value >= 0):
        yield at, value


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}
