"""Whose figures are booked already: a stored answer may be read again, and is paid once.

Knows lines. Must not know flows. Bounded: the newest answers are remembered.
"""

from collections.abc import Mapping
from typing import Any, Final

REMEMBERED: Final = 20_000


class Repeats:
    """Remembers the answers whose figures were booked, by host and id."""

    def __init__(self) -> None:
        self._booked: dict[str, None] = {}

    def seen(self, retrieved: bool, line: Mapping[str, Any]) -> bool:
        """Whether a stored answer's figures were booked before. What was called twice is never taken for a repeat."""
        figures = line.get("usage") and line.get("response_id")
        key = f"{line.get('host')} {line.get('response_id')}"
        if retrieved and (not figures or key in self._booked):
            return True
        if figures:
            self._booked[key] = None
            if len(self._booked) > REMEMBERED:
                del self._booked[next(iter(self._booked))]
        return False
