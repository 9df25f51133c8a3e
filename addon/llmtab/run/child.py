"""A program run in our place: with our terminal and our signals, and its exit status for ours.

Knows processes and signals. Must not know what is run or why.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127
BY_SIGNAL: Final = 128
_PASSED_ON: Final = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_FROM_TERMINAL: Final = ("SIGINT", "SIGQUIT")
"""A terminal sends these to us and to the program alike."""


class StartError(OSError):
    """The program could not be started; `status` is what a shell would say: 126 or 127."""

    def __init__(self, program: str, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        super().__init__(f"{program}: {'command not found' if missing else error.strerror}")
        self.status = NOT_FOUND if missing else CANNOT_RUN


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a program to its end. Returns its exit status, 128 + the number of a signal that ended it."""
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is not None:
            process.send_signal(number)

    def leave(number: int, frame: FrameType | None) -> None:
        if not _in_foreground():
            pass_on(number, frame)

    with _handlers(dict.fromkeys(_PASSED_ON, pass_on) | dict.fromkeys(_FROM_TERMINAL, leave)):
        try:
            process = subprocess.Popen(command, env=dict(environment))
        except OSError as error:
            raise StartError(command[0], error) from None
        status = process.wait()
    return status if status >= 0 else BY_SIGNAL - status


def _in_foreground() -> bool:
    """Whether a terminal gave its Control-C to the program as well: we are in the group that it talks to."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _handlers(wanted: Mapping[str, object]) -> Iterator[None]:
    """Handlers, not SIG_IGN: what is ignored stays ignored in the program; a handler does not. What somebody (nohup)
    made us ignore stays so."""
    before = {}
    for name, handler in wanted.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
