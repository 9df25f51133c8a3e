"""The chain that makes a ledger tamper-evident: how a line is sealed and how a sealed line is taken apart.

Knows bytes and hashes only: the chain of a line is SHA-256 (or HMAC-SHA-256, where a key is given) over the hex of the
same writer's previous chain and this line's bytes before `,"chain"`. A writer's first line follows the writer's own id.
Must not know files, what a line means, or who reads it.
"""

import hashlib
import hmac
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from llmtab.record import encode

KEY: Final = b',"chain":"'
SHORTEST_KEY: Final = 16
_HEX: Final = 64
TAIL: Final = len(KEY) + _HEX + len(b'"}')
# Every line opens with its version, a number. No value inside a line can look like this: quotes are escaped in strings,
# and the only objects with keys of a user's choice (labels) hold strings. So a line glued to a torn one is found.
START: Final = re.compile(rb'\{"schema":\d+,"(?:id|writer)":"')
HEAD: Final = re.compile(rb'\{"schema":\d+,(?:"id":"[^"\\]*",)?"writer":"([^"\\]*)","seq":(\d{1,18}),')

type Link = Callable[[bytes, bytes], bytes]
"""(previous chain, line's bytes before the chain) -> this line's chain, all ASCII bytes."""


def chain_key(path: Path) -> bytes:
    """The key in a file, byte for byte. Raises ValueError if it is too short to keep anybody out, OSError as usual."""
    key = path.read_bytes()
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"{path}: {len(key)} bytes, expected a random key of {SHORTEST_KEY} bytes or more")
    return key


def link(key: bytes | None = None) -> Link:
    """The function that computes a chain: SHA-256, or HMAC with `key` (safe from those who recompute hashes)."""
    if key is None:
        return lambda previous, body: hashlib.sha256(previous + body).hexdigest().encode()
    return lambda previous, body: hmac.digest(key, previous + body, "sha256").hex().encode()


class Chain:
    """One writer's numbering and chain. Not thread-safe: the process's only writer uses it from one thread."""

    def __init__(self, writer: str, key: bytes | None = None) -> None:
        self.writer = writer
        self.seq = 0
        """Lines sealed so far, which is the number of the next one."""
        self.last = writer.encode()
        """The newest chain, or the writer's id before the first line."""
        self._link = link(key)

    def seal(self, line: Mapping[str, Any]) -> bytes:
        """The line with `writer`, `seq` and `chain` in their places, newline included. TypeError: not JSON-able."""
        mine = {"writer": self.writer, "seq": self.seq}
        if "seq" in line:  # their places are kept for them
            body = encode(line, mine)[:-1]
        else:
            first = {key: line[key] for key in ("schema", "id") if key in line}
            body = encode({**first, **mine, **line}, mine)[:-1]
        chain = self._link(self.last, body)
        self.seq += 1
        self.last = chain
        return b"".join((body, KEY, chain, b'"}\n'))


def split(raw: bytes) -> tuple[bytes, bytes] | None:
    """A sealed line without its newline as (bytes before the chain, chain), or None if it does not end in a chain."""
    if raw[-TAIL : -_HEX - 2] != KEY or raw[-2:] != b'"}':
        return None
    return raw[:-TAIL], raw[-_HEX - 2 : -2]


def numbering(raw: bytes) -> tuple[bytes, int] | None:
    """(writer, seq) of a line, or None if it does not open like one."""
    head = HEAD.match(raw)
    return (head[1], int(head[2])) if head else None


def unglue(raw: bytes) -> list[bytes]:
    """What one physical line holds: itself; where a torn line was followed by others, each piece from its start."""
    starts = [found.start() for found in START.finditer(raw)]
    if len(starts) < 2 and (not starts or starts[0] == 0):
        return [raw]
    edges = [*sorted({0, *starts}), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(edges)]
