"""What the ledger's tests share: made-up lines, and a disk that fails when it is told to."""

import errno
import os
from pathlib import Path
from typing import Any

from llmtab.ledger.reader import Skipped, read


def call(number: int, **facts: Any) -> dict[str, Any]:
    return {"schema": 1, "id": f"call-{number}", "time": "2026-07-28T14:03:12.123Z", "provider": "openai", **facts}


def ids(path: Path, skipped: Skipped | None = None) -> list[str]:
    return [line["id"] for line in read(path, skipped)]


class Disk:
    """A write that can be told to fail: `quota` is how many bytes still fit (None: any number), then `error`."""

    def __init__(self, quota: int | None = None, error: int = errno.ENOSPC) -> None:
        self.quota = quota
        self.error = error
        self.writes = 0

    def __call__(self, fd: int, data: bytes) -> int:
        self.writes += 1
        if self.quota is None:
            return os.write(fd, data)
        if self.quota == 0:
            raise OSError(self.error, os.strerror(self.error))
        count = os.write(fd, data[: self.quota])
        self.quota -= count
        return count
