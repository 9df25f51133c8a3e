"""Lines that wait for another line to be written first, kept beside the ledger so that no kill loses them.

Knows one file a writer, `ledger.jsonl.held-WRITER-N`: it exists only while lines wait, and what is on the ledger by
now does not count in it. Must not know why a line waits. What a writer that is gone has left, the next start books.
Nothing here raises but `left_behind`: a disk that refuses leaves lines in memory, as everywhere.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from llmtab.ledger.locks import alone, claim_alive
from llmtab.ledger.reader import files, open_file
from llmtab.record import decode, encode

log = logging.getLogger("llmtab")

STALE_BYTES: Final = 1024 * 1024
"""Of lines that wait no more; past it the file begins again with those that do."""
BLOCK: Final = 4 * 1024 * 1024

type Line = Mapping[str, Any]


class Held:
    """The lines of one writer that wait. All but `sync` belong to one thread (the event loop)."""

    def __init__(self, path: Path, writer: str) -> None:
        self._stem = path.with_name(f"{path.name}.held-{writer}")
        self._waiting: dict[str, bytes] = {}
        self._file: Path | None = None
        self._fd = -1
        self._size = 0
        self._whole = True  # the file ends with a whole line
        self._files = 0
        self._closing = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def keep(self, lines: Sequence[Line]) -> None:
        """The lines of one call wait from now on."""
        data = b"".join([encode(line) + b"\n" for line in lines])
        self._waiting[lines[0]["id"]] = data
        try:
            if self._fd < 0 or not self._whole:
                self._begin()
            else:
                self._size += self._write(self._fd, data)
        except OSError as error:
            log.warning("llmtab: lines that wait are in memory only: %s", error.strerror or error)

    def let_go(self, calls: Iterable[str]) -> None:
        """These calls are on the ledger now, or were given up."""
        for call in calls:
            self._waiting.pop(call, None)
        if not self._waiting:
            self.close()
        elif self._size > STALE_BYTES + sum(map(len, self._waiting.values())):
            with contextlib.suppress(OSError):
                self._begin()

    def sync(self) -> None:
        """What waits is on the disk when this returns. Any thread; raises nothing."""
        with contextlib.suppress(OSError), self._closing:
            if self._fd >= 0:
                os.fsync(self._fd)

    def close(self) -> None:
        """Nothing waits here any more."""
        self._waiting.clear()
        self._drop(self._file, self._fd)
        self._file, self._fd = None, -1

    def _begin(self) -> None:
        """A new file with all that waits; only then the old one goes."""
        path, fd = self._new()
        try:
            size = self._write(fd, b"".join(self._waiting.values()))
        except OSError:
            self._drop(path, fd)
            raise
        old = self._file, self._fd
        self._file, self._fd, self._size, self._whole = path, fd, size, True
        self._drop(*old)

    def _new(self) -> tuple[Path, int]:
        """An empty file that says that its writer lives: whoever found it before it said so has deleted it."""
        while True:
            self._files += 1
            path = self._stem.with_name(f"{self._stem.name}-{self._files}")
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            claim_alive(fd)
            if os.fstat(fd).st_nlink:
                return path, fd
            os.close(fd)

    def _write(self, fd: int, data: bytes) -> int:
        self._whole = os.write(fd, data) == len(data)
        if not self._whole:
            raise OSError("the disk is full")
        return len(data)

    def _drop(self, path: Path | None, fd: int) -> None:
        if path is not None:
            with contextlib.suppress(OSError), self._closing:
                path.unlink(missing_ok=True)
                os.close(fd)


def left_behind(ledger: Path) -> Iterator[tuple[Path, list[list[Line]]]]:
    """What writers that are gone have left waiting: each file, and the lines of its calls that are not on the ledger.

    While the caller works on one, nobody else gets it; he deletes it once its lines are written. OSError as usual.
    """
    for path in sorted(ledger.parent.glob(f"{ledger.name}.held-*")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file, alone(file.fileno()) as mine:
            if mine and os.fstat(file.fileno()).st_nlink:
                calls = _calls(file)
                there = _on_ledger(ledger, calls) if calls else set()
                yield path, [lines for lines in calls if lines[0]["id"] not in there]


def _calls(file: Iterable[bytes]) -> list[list[Line]]:
    found: list[list[Line]] = []
    for raw in file:
        with contextlib.suppress(ValueError):
            line = decode(raw)
            if "parent" in line and found:
                found[-1].append(line)
            elif isinstance(line.get("id"), str):
                found.append([line])
    return found


def _on_ledger(ledger: Path, calls: Sequence[Sequence[Line]]) -> set[str]:
    """Which of the calls have their line: looked for by their ids in the files that are young enough."""
    wanted = {lines[0]["id"] for lines in calls}
    began = min(str(lines[0].get("time", "")) for lines in calls)
    with contextlib.suppress(ValueError):
        oldest = datetime.fromisoformat(began).timestamp()
        return {ident for file in files(ledger) if file.stat().st_mtime >= oldest - 1 for ident in _among(file, wanted)}
    return {ident for file in files(ledger) for ident in _among(file, wanted)}


def _among(file: Path, wanted: set[str]) -> set[str]:
    needles = {ident: f'"id":"{ident}"'.encode() for ident in wanted}
    found, rest = set(), b""
    longest = max(map(len, needles.values()))
    with contextlib.suppress(OSError, ValueError, EOFError), open_file(file) as opened:
        while data := opened.read(BLOCK):
            block = rest + data
            found |= {ident for ident, needle in needles.items() if needle in block}
            rest = block[-longest:]
    return found
