"""Which items of a batch are on the ledger: read back once a file, so that a restart books nothing twice.

Knows how a line names its batch. Must not know how the items got there. Reads in a thread: a ledger may be large.
"""

import hashlib
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmtab.ledger.reader import files, open_file
from llmtab.record import encode

BLOCK: Final = 4 * 1024 * 1024
_ITEM: Final = re.compile(rb',"item":(\d{1,15})\}')
_HOST: Final = re.compile(rb'"host":"([^"\\]*)"')
_NAME: Final = re.compile(rb'"custom_id":"(c_[0-9a-f]{16})"')
_FINGERPRINT: Final = re.compile(rb"c_[0-9a-f]{16}")
_RESPONSE: Final = re.compile(rb'"response_id":"([^"\\]*)"')


class Booked:
    """The items of one batch that are on the ledger, by their number and by their names."""

    def __init__(self) -> None:
        self._below = 0  # every item below this is booked
        self._others: set[int] = set()
        self._names: array[int] = array("Q")
        self._homeless: set[int] = set()
        self._new: set[int] = set()

    def __len__(self) -> int:
        return self._below + len(self._others) + len(self._homeless)

    def __contains__(self, item: int) -> bool:
        return item < self._below or item in self._others

    def add(self, item: int) -> None:
        """Book an item by its number."""
        if item == self._below:
            self._below += 1
            while self._below in self._others:
                self._others.discard(self._below)
                self._below += 1
        elif item > self._below:
            self._others.add(item)

    def next_item(self) -> int:
        """The first number above all that are booked."""
        return max(self._others, default=self._below - 1) + 1

    def add_name(self, name: int) -> None:
        """Book an item by its name as well."""
        self._new.add(name)

    def knows(self, name: int | None) -> bool:
        """Whether an item of that name is booked."""
        if name is None:
            return False
        at = bisect_left(self._names, name)
        return name in self._new or (at < len(self._names) and self._names[at] == name)

    def is_homeless(self, name: int | None) -> bool:
        """Whether an item of that name was booked before its number was known."""
        return name in self._homeless

    def read(self, path: Path, host: str, batch_id: str) -> "Booked":
        """Add what the ledger at `path` holds of this batch. Blocks; never raises for a file that is gone or broken."""
        names = []
        for item, name in _lines(path, host, batch_id):
            if item is not None:
                self.add(item)
            elif name is not None:
                self._homeless.add(name)
            if name is not None:
                names.append(name)
        self._names = array("Q", sorted(names))
        return self


def name_of(line: Mapping[str, Any]) -> int | None:
    """What an item is known by, wherever it stands: its `custom_id`'s fingerprint, else the answer's id."""
    return _name((line.get("labels") or {}).get("custom_id", "").encode(), (line.get("response_id") or "").encode())


def _name(fingerprint: bytes, response_id: bytes) -> int | None:
    if _FINGERPRINT.fullmatch(fingerprint):  # a label of that name may be the user's own
        return int(fingerprint[2:], 16)
    if response_id:
        return int.from_bytes(hashlib.blake2b(response_id, digest_size=8).digest())
    return None


def _lines(path: Path, host: str, batch_id: str) -> Iterator[tuple[int | None, int | None]]:
    """(item, name) of each line of this batch."""
    needle = encode({"batch": {"id": batch_id}})[1:-2]  # up to the id's closing quote
    wanted = host.encode()
    for line, at in _found(path, needle):
        its = _HOST.search(line)
        if its is None or its[1] != wanted:
            continue
        item, name, answer = _ITEM.match(line, at + len(needle)), _NAME.search(line), _RESPONSE.search(line)
        yield int(item[1]) if item else None, _name(name[1] if name else b"", answer[1] if answer else b"")


def _found(path: Path, needle: bytes) -> Iterator[tuple[bytes, int]]:
    """(line, where the needle stands in it) for every line that holds it; looked for block by block."""
    for file in files(path):
        try:
            with open_file(file) as opened:
                rest = b""
                while data := opened.read(BLOCK):
                    data = rest + data
                    end = data.rfind(b"\n") + 1
                    data, rest = data[:end], data[end:]
                    at = data.find(needle)
                    while at >= 0:
                        start, stop = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
                        yield data[start:stop], at - start
                        at = data.find(needle, stop)
        except (OSError, ValueError, EOFError):
            continue  # gone, or broken: what cannot be read cannot be known
