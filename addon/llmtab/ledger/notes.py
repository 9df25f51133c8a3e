"""The notes beside a ledger: what happened to the ledger itself, one JSON line each, chained like the ledger.

Knows how a note is written. Must not know why. Nothing here raises once the ledger's folder is there.
"""

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmtab.ledger.appender import Appender, Write
from llmtab.ledger.chain import Chain
from llmtab.ledger.reader import notes_path
from llmtab.record import SCHEMA_VERSION, new_id


def utc_now() -> datetime:
    return datetime.now(UTC)


class Notes:
    """One writer's notes on the ledger at `path`. One thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        writer: str | None = None,
        key: bytes | None = None,
        now: Callable[[], datetime] = utc_now,
        write: Write = os.write,
    ) -> None:
        self._now = now
        self._chain = Chain(writer or secrets.token_hex(8), key)
        self._file = Appender(notes_path(path), write)

    def add(self, kind: str, **facts: Any) -> None:
        """Adds a note; what the disk refuses waits."""
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"schema": SCHEMA_VERSION, "id": new_id(), "writer": "", "seq": 0, "time": time, "note": kind}
        self._file.put(self._chain.seal(line | facts))

    def pump(self) -> None:
        """Tries again to write what waits."""
        self._file.pump()

    def close(self, *, sync: bool = True) -> bool:
        """Writes what waits, closes the file (the next note opens it again). Whether all of it is on the disk."""
        self._file.close(sync=sync)
        return not self._file.waiting
