"""The demonstration: a provider on this machine and a handful of calls that go through a real proxy to it.

Knows how to start and stop both. Must not know how calls are metered: it runs the same addon as everybody.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from llmtab.demo.calls import CALLS, Call
from llmtab.demo.provider import Provider

MITMDUMP: Final = "from mitmproxy.tools.main import mitmdump; mitmdump()"
START_SECONDS: Final = 30.0


def run(script: Path, pace: float) -> Path:
    """Plays the calls, `pace` seconds between the events of a stream; returns where their ledger is.

    Raises OSError where the proxy does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="llmtab-demo-"))
    with Provider(pace) as provider, _proxy(script, provider.port, folder) as port:
        for number, call in enumerate(CALLS):
            _play(call, number, port)
            time.sleep(pace)
        time.sleep(4 * pace)  # let the table show the last of it
    return folder / "ledger.jsonl"


@contextmanager
def _proxy(script: Path, upstream: int, folder: Path) -> Iterator[int]:
    """A real mitmdump with the addon, that takes the provider for the way to the outside. Yields its port."""
    port = _free_port()
    options = {
        "llmtab_ledger": folder / "ledger.jsonl",
        "confdir": folder / "mitmproxy",
        "flow_detail": 0,
        "termlog_verbosity": "warn",
    }
    command = [sys.executable, "-c", MITMDUMP, "-s", str(script), "--listen-host", "127.0.0.1", "-p", str(port)]
    command += ["--mode", f"upstream:http://127.0.0.1:{upstream}"]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    # A home of its own: the user's config, budgets and ledger have no part in this.
    process = subprocess.Popen(command, env=os.environ | {"LLMTAB_HOME": str(folder)}, stdin=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Until it listens, and still does a moment later: mitmproxy looks for errors of its start after that."""
    deadline = time.monotonic() + START_SECONDS
    listens = False
    while not listens and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            listens = True
    time.sleep(0.2)
    if not listens or process.poll() is not None:
        raise OSError("the proxy did not start")


def _play(call: Call, number: int, port: int) -> None:
    """One call through the proxy; one that leaves closes the connection after so many events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/json", "user-agent": call.agent, "x-demo-call": str(number)}
    headers |= {f"x-llmtab-{name}": value for name, value in call.labels.items()}
    try:
        connection.request("POST", call.url, call.request, headers)
        response = connection.getresponse()
        if call.leaves_after is None:
            response.read()
        for _ in range(call.leaves_after or 0):
            response.read1()
        response.close()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
