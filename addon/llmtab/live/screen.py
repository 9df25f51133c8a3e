"""A terminal that never makes anybody wait: what is written goes out in a thread of its own.

Knows a file and one thread. Must not know what is written. A terminal can stop taking text for minutes (Ctrl-S, a
suspended window, a dead connection), and a write to it then blocks; here it blocks nobody but the thread.
"""

import os
import sys
import threading
from typing import Final, TextIO

PATIENCE: Final = 0.5
"""Seconds that `close` waits for the last picture to leave."""
ENOUGH: Final = 1 << 20
"""Characters that may wait; more is thrown away: the terminal is stuck, and pictures come anew."""


class Screen:
    """Looks like the text file it writes to, as far as a console asks. Written to by one thread."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout
        self._file.flush()
        self._number = self._file.fileno()
        self._written: list[str] = []
        self._waiting: list[str] = []
        self._wake = threading.Condition()
        self._closed = False
        self._writing = False
        self._thread = threading.Thread(target=self._run, name="llmtab-screen", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether earlier text is still on its way."""
        with self._wake:
            return self._writing or bool(self._waiting)

    @property
    def encoding(self) -> str:
        return self._file.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._number

    def write(self, text: str) -> int:
        """Keeps the text until `flush`."""
        self._written.append(text)
        return len(text)

    def flush(self) -> None:
        """Hands over what was written. Returns at once."""
        text = "".join(self._written)
        self._written.clear()
        with self._wake:
            if text and sum(map(len, self._waiting)) < ENOUGH:
                self._waiting.append(text)
                self._wake.notify()

    def close(self) -> None:
        """Waits a moment for what was handed over, and writes no more after it."""
        self.flush()
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if not self._waiting:
                    return
                text = "".join(self._waiting)
                self._waiting.clear()
                self._writing = True
            try:
                # Not through the file: a thread stuck in there would hold its lock when the interpreter ends.
                data = text.encode(self.encoding, "replace")
                while data:
                    data = data[os.write(self._number, data) :]
            except OSError:  # the terminal is gone
                with self._wake:
                    self._closed = True
                    self._waiting.clear()
                    self._writing = False
                return
            with self._wake:
                self._writing = False
