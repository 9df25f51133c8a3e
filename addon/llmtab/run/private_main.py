"""A mitmdump that belongs to its starter: says on standard output when it is ready, ends when standard input does.

Knows mitmproxy's master and how readiness and the end are told. Must not know who started it or why. Run by `private`
only: the first line of standard input is a JSON list of mitmdump's arguments (passwords among them stay out of `ps`),
the one line of standard output a JSON object: `port`, `writer`, `ledger`, `ca`.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.tools.cmdline import mitmdump
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.main import run

from llmtab.run.announced import announce, withdraw
from llmtab.run.authority import CERTIFICATE


class Announcer:
    """The addon that tells. `stdout`: the file descriptor that the other side reads; `said`: names of options given."""

    name = "llmtab-announcer"

    def __init__(self, stdout: int, said: Collection[str]) -> None:
        self._stdout = stdout
        self._said = said
        self._note: TextIO | None = None

    def running(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(0, self._ended)
        loop.call_later(0.01, self._announce)  # mitmproxy looks for errors of its start once more after `running`

    def _announce(self) -> None:
        meter = ctx.master.addons.get("llmtab")
        if meter is None or meter.desk.setup is None:  # why is in the log by now
            ctx.master.shutdown()
            return
        # ignored options would be broken promises: a budget that nobody holds
        if unknown := [name for name in ctx.options.deferred if name in self._said or name.startswith("llmtab_")]:
            print(f"llmtab: there is no option {', '.join(sorted(unknown))}", file=sys.stderr)
            ctx.master.shutdown()
            return
        setup = meter.desk.setup
        ready = {
            "port": ctx.master.addons.get("proxyserver").listen_addrs()[0][1],
            "writer": setup.ledger.writer,
            "ledger": str(setup.ledger.path.absolute()),
            "ca": str(Path(ctx.options.confdir).expanduser().absolute() / CERTIFICATE),
        }
        with contextlib.suppress(OSError):
            self._note = announce(ctx.master.addons.get("proxyserver").listen_addrs(), setup.ledger.path)
        with contextlib.suppress(OSError):  # nobody listens any more: standard input ends as well
            os.write(self._stdout, json.dumps(ready).encode() + b"\n")

    def done(self) -> None:
        if self._note is not None:
            withdraw(self._note)

    def _ended(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            ctx.master.shutdown()


def main() -> None:
    """Runs until standard input ends or a signal comes. What mitmproxy has to say goes to standard error."""
    arguments: list[str] = json.loads(_first_line())
    stdout = os.dup(1)
    os.dup2(2, 1)
    said = {value.partition("=")[0] for word, value in pairwise(arguments) if word == "--set"}

    class PrivateMaster(DumpMaster):
        def __init__(self, options: Options) -> None:
            super().__init__(options, with_dumper=False)
            self.addons.add(Announcer(stdout, said))

    run(PrivateMaster, mitmdump, arguments, _no_filter)


def _first_line() -> bytes:
    """Read byte by byte: what follows on standard input is the event loop's to wait for."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def _no_filter(_: Any) -> dict[str, Any]:
    return {}
