"""The few headers that matter, picked out of all that a message has.

Knows spellings: a name is understood once, as it is written, and recognised afterwards. Must not know what a header
means.
"""

from collections.abc import Callable, Iterable
from typing import Final

MOST_SPELLINGS: Final = 4096
"""Names remembered; real clients use a few dozen, a scanner must not fill the memory."""


class Picker:
    """Gives the wanted headers by lower-case name; the others are never even decoded.

    `wanted` holds lower-case names, `also` says of any other lower-case name whether it is wanted too.
    """

    __slots__ = ("_also", "_known", "_wanted")

    def __init__(self, wanted: frozenset[bytes], also: Callable[[bytes], bool] | None = None) -> None:
        self._wanted = wanted
        self._also = also
        self._known: dict[bytes, str] = {}

    def pick(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """The last value of each wanted header."""
        known, found = self._known, {}
        for name, value in fields:
            key = known.get(name)
            if key is None:
                key = self._learn(name)
            if key:
                found[key] = value.decode("utf-8", "replace")
        return found

    def _learn(self, name: bytes) -> str:
        lower = name.lower()
        wanted = lower in self._wanted or (self._also is not None and self._also(lower))
        if len(self._known) >= MOST_SPELLINGS:
            self._known.clear()
        key = self._known[name] = lower.decode("ascii", "replace") if wanted else ""
        return key
