"""Alerts: something a person should know leaves by the log, a webhook or a command, and never holds anybody up.

Knows how a message travels. Must not know what it is about: a mapping with an `event` and a `text` is all it asks for.
One thread sends; where messages come faster than they leave, the oldest are dropped and counted.
"""

import json
import logging
import subprocess
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

log = logging.getLogger("llmtab")

QUEUED: Final = 1_000
TRIES: Final = 4
TIMEOUT: Final = 10.0
"""Seconds for one try."""
PAUSE: Final = 1.0
"""Seconds before the second try; twice as long before each further one."""

type Message = Mapping[str, Any]
type Deliver = Callable[[bytes], None]
"""Sends a message's JSON. Raises OSError where it did not arrive."""


class Alerts:
    """`spec`: the checked plain form of `alerts:`. Nothing is started before there is something to send."""

    def __init__(self, spec: Mapping[str, Any], *, pause: float = PAUSE) -> None:
        self.dropped = 0
        self._doors: list[tuple[str, Deliver]] = []
        if url := spec.get("webhook"):
            headers = {"content-type": "application/json", **(spec.get("headers") or {})}
            self._doors.append(("webhook", lambda data: _post(url, headers, data)))
        if command := spec.get("command"):
            self._doors.append(("command", lambda data: _run(command, data)))
        self._pause = pause
        self._queue: deque[bytes] = deque()
        self._there = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def send(self, message: Message) -> None:
        """Queues a message. Never waits, never raises."""
        if not self._doors:
            return
        data = json.dumps(message, default=_plain).encode()
        with self._there:
            if len(self._queue) >= QUEUED:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="llmtab-alerts", daemon=True)
                self._thread.start()
            self._there.notify()

    def close(self, seconds: float = 2.0) -> None:
        """Gives what is queued a moment to leave."""
        with self._there:
            self._ended = True
            self._there.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._there:
                while not self._queue and not self._ended:
                    self._there.wait()
                if not self._queue:
                    return
                data = self._queue.popleft()
            for name, deliver in self._doors:
                self._deliver(name, deliver, data)

    def _deliver(self, name: str, deliver: Deliver, data: bytes) -> None:
        for attempt in range(TRIES):
            try:
                deliver(data)
                return
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                why = error.reason if isinstance(error, urllib.error.URLError) else error
                if attempt + 1 == TRIES or self._ended:
                    log.warning("llmtab: an alert did not leave by its %s: %s", name, type(why).__name__)
                    return
            with self._there:
                self._there.wait_for(lambda: self._ended, self._pause * 2**attempt)


def _post(url: str, headers: Mapping[str, str], data: bytes) -> None:
    request = urllib.request.Request(url, data, dict(headers), method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        answer.read(1)


def _run(command: Sequence[str], data: bytes) -> None:
    done = subprocess.run(command, input=data, timeout=TIMEOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode:
        raise OSError(f"status {done.returncode}")


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)
