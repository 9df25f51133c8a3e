"""Work that comes round once a second: an error in one part stops no other.

Knows functions. Must not know what they do.
"""

import logging
from collections.abc import Callable

log = logging.getLogger("llmtab")


class Rounds:
    """One for each meter. What fails is said once, and tried again every time."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def go(self, *parts: Callable[[], None]) -> None:
        """Each part in its turn, whatever the others do."""
        for part in parts:
            try:
                part()
            except Exception:
                if part.__qualname__ not in self._failed:
                    self._failed.add(part.__qualname__)
                    log.warning("llmtab: %s failed; it is tried again every second", part.__qualname__, exc_info=True)
