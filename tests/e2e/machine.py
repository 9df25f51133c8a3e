"""`llmtab run` in tests: a real one, in a home of its own, whose way out leads to the local upstream."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from proxy import MAIN
from way_out import WayOut

import records
from llmtab.ledger.reader import read

SECONDS = 120
DROPPED = ("_proxy", "_api_key", "_token", "_base_url", "_ca_certs", "_ca_bundle", "_cainfo", "ssl_cert_file")
"""Ends of variables that would lead a program elsewhere."""
LLMTAB = [sys.executable, "-m", "llmtab.cli"]


@dataclass(frozen=True)
class Done:
    """A run that is over."""

    status: int
    out: str
    err: str

    @property
    def bill(self) -> dict[str, Any]:
        """Its bill, where it was run with --json."""
        text = next(line for line in self.err.splitlines() if line.startswith('{"status"'))
        return dict(json.loads(text, parse_float=Decimal))


class Machine:
    """A user's machine: a home, the company's proxy and its roots in the environment. `used`: a folder in which
    several machines keep what is made once on each (CA, bytecode, parsed tables); None: nothing has been run here yet.
    """

    def __init__(self, folder: Path, way: WayOut, used: Path | None = None) -> None:
        self.folder = folder
        self.ledger = folder / ".llmtab" / "ledger.jsonl"
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(DROPPED)}
        self.environment = kept | {
            "HOME": str(folder), "LLMTAB_HOME": str(folder / ".llmtab"), "PYTHONPATH": str(MAIN.parent),
            "HTTPS_PROXY": way.url, "SSL_CERT_FILE": str(way.upstream.ca), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        if used:
            for name, place in (("mitmproxy", folder / ".mitmproxy"), ("cache", folder / ".llmtab" / "cache")):
                (used / name).mkdir(exist_ok=True)
                place.parent.mkdir(exist_ok=True, mode=0o700)
                place.symlink_to(used / name)

    def command(self, *arguments: str) -> list[str]:
        """What starts llmtab on this machine."""
        return [*LLMTAB, *arguments]

    def llmtab(self, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = SECONDS) -> Done:
        """Runs llmtab to its end."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=seconds, cwd=self.work,
            env=self.environment | dict(env or {}), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *command: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Done:
        """`llmtab run OPTIONS --json -- COMMAND`."""
        return self.llmtab("run", *options, "--json", "--", *command, env=env)

    def lines(self) -> list[dict[str, Any]]:
        """The ledger, each line checked."""
        lines = list(read(self.ledger)) if self.ledger.exists() else []
        for line in lines:
            records.check(line)
        return lines
