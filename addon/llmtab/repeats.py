"""Whose figures are on the ledger already: a stored answer may be read again and again, and is paid once.

Knows lines, and how answers are found in a ledger. Must not know flows. Only what was read again (role `retrieve`) is
ever taken for a repeat: the same id on two calls is two calls. Bounded: the newest answers are remembered.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmtab.ledger.reader import files, open_file

REMEMBERED: Final = 100_000
"""Answers, of this process and of the ledger each."""
READ_BACK: Final = 256 * 1024 * 1024
"""Bytes of the ledger's newest files that are looked through: about 200,000 calls."""
_ANSWER: Final = re.compile(rb'"host":"([^"\\]*)".*?"response_id":"([^"\\]*)".*?"usage_source":"(?:reported|partial)"')


class Repeats:
    """The answers whose figures were booked, by host and id."""

    def __init__(self) -> None:
        self._booked: dict[int, None] = {}
        self._older: frozenset[int] | None = None

    @property
    def needs_thread(self) -> bool:
        """Whether the next stored answer costs a look through the ledger, which belongs in a thread."""
        return self._older is None

    def seen(self, retrieved: bool, line: Mapping[str, Any], ledger: Path | None = None) -> bool:
        """Whether a stored answer's figures were booked before, or has none yet; then it leaves no line.

        The first time `ledger` is read back, which blocks. Any thread.
        """
        figures = line["usage_source"] in ("reported", "partial") and line.get("response_id")
        if not figures:
            return retrieved
        key = hash((line.get("host"), line["response_id"]))
        if retrieved:
            if self._older is None:
                self._older = frozenset(_newest(ledger)) if ledger is not None else frozenset()
            if key in self._booked or key in self._older:
                return True
        self._booked[key] = None
        if len(self._booked) > REMEMBERED:
            self._booked.pop(next(iter(self._booked)), None)
        return False


def _newest(ledger: Path) -> Iterable[int]:
    """The keys of the newest answers on a ledger. Never raises for a file that is gone or broken."""
    found: dict[int, None] = {}
    left = READ_BACK
    for file in reversed(files(ledger)):
        try:
            size = file.stat().st_size
            found |= dict.fromkeys(_answers(file, max(0, size - left) if file == ledger else 0))
        except (OSError, ValueError, EOFError):
            continue
        left -= size
        if left <= 0 or len(found) >= REMEMBERED:
            break
    return found


def _answers(file: Path, start: int) -> Iterator[int]:
    with open_file(file) as opened:
        if start:  # what zstd unpacks cannot be sought in
            opened.seek(start)
            opened.readline()
        for line in opened:
            if b'"batch":{"id"' not in line and (answer := _ANSWER.search(line)):
                yield hash((answer[1].decode("ascii", "replace"), answer[2].decode("ascii", "replace")))
