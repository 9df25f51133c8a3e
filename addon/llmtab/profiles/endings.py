"""What the bytes of a stream's terminal event must hold, so that its end can be noticed while it passes.

Knows the `end` tests of the profile language. Must not know streams or what follows from their end: a needle in a chunk
is a hint, and the events themselves decide.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from llmtab.profiles.refs import pointer_parts, split_ref

DONE: Final = b"[DONE]"
SHORTEST: Final = 4
"""Characters of a value that is worth looking for; a shorter one would stand in half of all events."""
_GLOB: Final = frozenset("*?[")
_WORDS: Final = frozenset({"present", "absent"})


def end_needles(spec: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Bytes of which one stands in every event that meets one of the dialect's plain `end` tests.

    Values are looked for with their quotes: inside a text of the model these are escaped. Tests for presence, patterns,
    and tests of several conditions give none: such streams end where they end. So do sums over events.
    """
    rows = (spec.get("usage") or {}).values()
    if any(isinstance(row, Mapping) and row.get("fold") == "sum" for row in rows):
        return ()
    found = dict.fromkeys(needle for where in spec.get("end") or () if len(where) == 1 for needle in _needles(where))
    if len(found) > 1:  # where there is an event of its own as well, `[DONE]` comes after it
        found.pop(DONE, None)
    return tuple(found)


def _needles(where: Mapping[str, Any]) -> Iterator[bytes]:
    [(ref, expected)] = where.items()
    kind, rest = split_ref(ref)
    if kind not in ("", "event"):
        return
    if not rest:
        if expected == "[[]DONE]":
            yield DONE
        return
    if expected is True:
        yield f'"{pointer_parts(rest)[-1]}":true'.encode()
        return
    values: Sequence[Any] = expected if isinstance(expected, list) else [expected]
    if all(isinstance(value, str) and not _GLOB & set(value) and value not in _WORDS for value in values):
        yield from (f'"{value}"'.encode() for value in values if len(value) >= SHORTEST)
