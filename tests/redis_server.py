"""A real Redis (or Valkey) for tests, on a socket of its own; tests that need one are skipped where there is none."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")


def needs_redis() -> pytest.MarkDecorator:
    """Skips a test where there is no server, or the client package is not installed."""
    reason = "redis-server is not installed" if PROGRAM is None else "the package redis is not installed"
    return pytest.mark.skipif(PROGRAM is None or find_spec("redis") is None, reason=reason)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A server that keeps nothing; its URL."""
    assert PROGRAM
    socket = folder / "redis.sock"
    command = [PROGRAM, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "redis.log").read_text()
            time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(10)
