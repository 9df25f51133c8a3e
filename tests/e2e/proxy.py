"""A real mitmdump with the addon, routed to the local upstream, and a client that goes through it."""

import base64
import contextlib
import http.client
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from upstream import Upstream

import records
from llmtab.ledger.reader import read

HERE = Path(__file__).parent
MAIN = HERE.parents[1] / "addon" / "main.py"
MITMDUMP = [sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()"]
WIDTH, HEIGHT = 140, 40
"""Of the terminal, where a test gives the proxy one."""
PATIENCE = 10.0
"""Seconds to wait for something that takes milliseconds on an idle machine."""


@dataclass(frozen=True)
class Got:
    """A whole response, as the client saw it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Proxy:
    """One mitmdump. `with Proxy(upstream, folder): ...` starts and stops it."""

    def __init__(
        self, upstream: Upstream, folder: Path, *arguments: str, script: Path = MAIN, conf: Path | None = None
    ) -> None:
        self.folder = folder
        self.terminal = False
        self._stuck = threading.Event()
        self.user = ""
        """`alice:x`: who the client says it is to the proxy."""
        self.ledger = folder / "ledger.jsonl"
        self.log = folder / "mitmdump.log"
        self.port = free_port()
        self._seen = 0
        self.conf = conf or folder / "conf"
        self.command = [
            *MITMDUMP, "-s", str(script), "-s", str(HERE / "route.py"), "--listen-host", "127.0.0.1",
            "-p", str(self.port), "--set", f"confdir={self.conf}", "--set", f"llmtab_ledger={self.ledger}",
            "--set", f"ssl_verify_upstream_trusted_ca={upstream.ca}", *arguments,
        ]  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        self.environment = inherited | {"LLMTAB_TEST_PORTS": f"{upstream.tls_port},{upstream.plain_port}"}

    def __enter__(self) -> "Proxy":
        if self.terminal:
            self._start_in_terminal()
        else:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment
                )
        try:
            until(self._listening, "mitmdump to listen")
            self.context = ssl.create_default_context(cafile=self.conf / "mitmproxy-ca-cert.pem")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def _start_in_terminal(self) -> None:
        """What it draws goes to the log, escape sequences and all."""
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, (HEIGHT, WIDTH))
        environment = self.environment | {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
        self.process = subprocess.Popen(self.command, stdin=its, stdout=its, stderr=its, env=environment)
        self._tty, self._keys = os.ttyname(its), ours
        os.close(its)
        log = self.log.open("wb", buffering=0)

        def copy() -> None:
            with log, contextlib.suppress(OSError):  # the terminal is gone when the process is
                while not self._stuck.is_set() and (data := os.read(ours, 65536)):
                    log.write(data)
                while self._stuck.is_set() and self.process.poll() is None:
                    time.sleep(0.05)
            os.close(ours)

        threading.Thread(target=copy, daemon=True).start()

    def type(self, text: str) -> None:
        """Keys on that terminal."""
        os.write(self._keys, text.encode())

    def stick(self) -> None:
        """From here on the terminal takes nothing more, as after Ctrl-S: its buffer is filled, and nobody reads it."""
        self._stuck.set()
        fd = os.open(self._tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                os.write(fd, b"x" * 4096)
            time.sleep(0.001)
        os.close(fd)

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.ledger.exists():
            for line in read(self.ledger):
                records.check(line)

    def _listening(self) -> bool:
        assert self.process.poll() is None, f"mitmdump ended at start:\n{self.output()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
            return True
        return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends mitmdump, if it has not ended yet; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"mitmdump did not stop:\n{self.output()}") from None

    def output(self) -> str:
        """Everything mitmdump has printed."""
        return self.log.read_text(errors="replace")

    def mark(self) -> None:
        """From here on `lines` gives only new lines."""
        self._seen += len(self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """The ledger since the mark: whole lines only, money as Decimal."""
        if not self.ledger.exists():
            return []
        text = self.ledger.read_text()
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line, parse_float=Decimal) for line in whole[self._seen :]]

    def settled(self, count: int, grace: float = 0.25) -> list[dict[str, Any]]:
        """The ledger once it holds `count` lines; fails where there are more, `grace` seconds later as well."""
        until(lambda: len(self.lines()) >= count, f"{count} ledger lines", lambda: f"{self.lines()}\n{self.output()}")
        time.sleep(grace)
        lines = self.lines()
        assert len(lines) == count, lines
        return lines

    def open(
        self, url: str, body: Any = None, headers: Sequence[tuple[str, str]] = (), method: str = "POST"
    ) -> http.client.HTTPResponse:
        """Sends one request on its own connection; the body is still to be read. Closing the response leaves."""
        parts = urlsplit(url)
        assert parts.hostname
        connection: http.client.HTTPConnection
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=PATIENCE)
            connection.set_tunnel(parts.hostname, parts.port or 443, dict(self._named()))
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            target = target if parts.port == self.port else url  # in reverse mode the proxy is the server
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.putrequest(method, target, skip_accept_encoding=True)
        sent = [("content-type", "application/json"), ("content-length", str(len(data or b""))), *headers]
        sent += self._named() if parts.scheme == "http" else []
        for name, value in sent:
            connection.putheader(name, value)
        try:
            connection.endheaders(data)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock:  # kept open by the response: closing that one closes the connection
            connection.sock.close()
            connection.sock = None
        return response

    def _named(self) -> list[tuple[str, str]]:
        coded = base64.b64encode(self.user.encode()).decode()
        return [("proxy-authorization", f"Basic {coded}")] if self.user else []

    def call(self, url: str, body: Any = None, headers: Sequence[tuple[str, str]] = (), method: str = "POST") -> Got:
        """Sends one request and reads the answer to its end."""
        with self.open(url, body, headers, method) as response:
            return Got(response.status, response.headers, response.read())


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str, say: Callable[[], str] = str) -> None:
    """Waits for the condition; fails, naming `what` it waited for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}: {say()}"
        time.sleep(0.01)
