"""Keys of a terminal as they are pressed, and a screen that is given back as it was found.

Knows the terminal's modes and a few control sequences. Must not know what a key does.
"""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

HIDE: Final = "\x1b[?1049h\x1b[?25l"
"""The other screen, without a cursor: what stood there before comes back afterwards."""
SHOW: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
REST_OF_LINE: Final = "\x1b[K"
REST_OF_SCREEN: Final = "\x1b[J"
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
_KEY: Final = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1b?.", re.S)
"""One key: a sequence, or a byte with or without Alt."""
_ARROWS: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left"}


class Keys:
    """What was pressed. Control-C still interrupts."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> list[str]:
        """The keys pressed until now, or the first within `seconds`; `q` too where the terminal is gone."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        if not ready:
            return []
        data = os.read(self._fd, 64)
        if not data:
            return ["q"]
        found = [_ARROWS.get(key, key.decode("ascii", "ignore")) for key in _KEY.findall(data)]
        return [key for key in found if not key.startswith("\x1b")]


@contextmanager
def screen() -> Iterator[Keys]:
    """The terminal in our hands: keys come one by one and unseen, and the screen is ours.

    Given back whatever happens, also when the process is told to end. Standard input and output are terminals.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handlers = {number: signal.signal(number, _end) for number in _ENDS}
    try:
        tty.setcbreak(fd)
        put(HIDE)
        yield Keys(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        put(SHOW)


def put(text: str) -> None:
    """Writes to the terminal at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _end(number: int, _: FrameType | None) -> None:
    """A signal that would end the process ends it through `finally`."""
    raise SystemExit(128 + number)
