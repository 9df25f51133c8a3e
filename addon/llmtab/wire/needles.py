"""JSON member names, looked for in bytes without parsing.

Knows how a member is written. Must not know framings, nor what the names mean.
"""

import functools
import re
from collections.abc import Iterable
from typing import Final

_SPACE: Final = rb"[ \t\r\n]*+"

type Row = tuple[bytes, re.Pattern[bytes], re.Pattern[bytes]]
"""The quoted name; the member with a value other than null; the member with null, on one line."""


class Needles:
    """Some member names: `"key"`, a colon, and a value that is not null.

    The quotes make it safe: inside a JSON string they are escaped. A member may stand at any depth.
    """

    __slots__ = ("rows",)

    def __init__(self, keys: Iterable[str]) -> None:
        self.rows = tuple(_row(key) for key in keys)

    def hit(self, frame: bytes) -> bool:
        """Whether any of the names occurs in the frame with a value."""
        for quoted, valued, _ in self.rows:
            start = frame.find(quoted)
            if start >= 0 and valued.search(frame, start):
                return True
        return False


@functools.lru_cache(256)
def _row(key: str) -> Row:
    quoted = b'"' + key.encode() + b'"'
    name = re.escape(quoted)
    valued = re.compile(name + _SPACE + rb":" + _SPACE + rb"(?!null)")
    return quoted, valued, re.compile(name + rb"[ \t]*+:[ \t]*+null")
