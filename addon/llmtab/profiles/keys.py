"""Which members of an event tell that it matters: what has to be parsed of a stream, and of a large body.

Knows where the words of a dialect point. Must not know values or how a stream is cut into events.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from llmtab.profiles.refs import EACH, pointer_parts, split_ref


def keys_of(spec: Mapping[str, Any]) -> set[str]:
    """Member names that stand, with a value, in every event that has to be parsed.

    From the usage roots, from references into the event inside rows and money, from what ends a choice, and from tests
    for a member's presence. Everything else (model, id) is found in the first and last events of a stream, which are
    always parsed.
    """
    keys: set[str] = set()
    for ref in spec.get("roots") or ("/usage",):
        kind, rest = split_ref(ref)
        if kind in ("", "event"):
            parts = [part for part in pointer_parts(rest) if part != EACH]
            keys.update(parts[-1:] or first_members(spec.get("usage") or {}))
    keys.update(_event_members([spec.get("usage"), spec.get("money"), spec.get("parts")]))
    for ref in spec.get("finish") or ():
        if isinstance(ref, str):
            keys.update(_last_member(ref))
    for tests in ("begin", "final", "end", "error"):
        for where in spec.get(tests) or ():
            for ref, expected in where.items():
                if expected == "present":
                    keys.update(_last_member(ref))
    return keys


def _last_member(ref: str) -> list[str]:
    return [part for part in pointer_parts(split_ref(ref)[1]) if part != EACH and not part.isdecimal()][-1:]


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            if key not in ("where", "distinct"):
                yield from _strings(inside)
    elif isinstance(value, (list, tuple)):
        for inside in value:
            yield from _strings(inside)


def counts_lists(spec: Mapping[str, Any]) -> bool:
    """Whether a counter looks into the lists of a body (the calls of tools in the output): its ends tell too little."""
    said = [text for key in ("usage", "parts", "money") for text in _strings(spec.get(key))]
    inside = [text.removeprefix("event:") for text in said if text.startswith("event:/")]
    inside += [text for text in _strings(spec.get("estimate")) if text.startswith("/")]
    return any(EACH in pointer_parts(ref)[1:] for ref in inside)


def _event_members(values: Any) -> set[str]:
    return {name for text in _strings(values) if text.startswith("event:/") for name in _last_member(text)}


def first_members(rows: Mapping[str, Any]) -> set[str]:
    """Where the whole event is the usage object: the members that its rows begin with."""
    refs = (text for text in _strings(list(rows.values())) if text.startswith("/"))
    return {pointer_parts(text)[0] for text in refs} - {EACH}
