"""mitmdump as `llmtab proxy` starts it: wrong arguments are one line, and how to use it is told once it listens.

Knows mitmproxy's master and its parser of arguments. Must not know which arguments it gets or why.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TextIO

from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.tools import main
from mitmproxy.tools.cmdline import mitmdump
from mitmproxy.tools.dump import DumpMaster

from llmtab.run.announced import announce, withdraw
from llmtab.run.doors import Door, how

log = logging.getLogger("llmtab")

HELP: Final = "see llmtab proxy --help, mitmdump --help"


class Herald:
    """The addon that tells people and other programs of ours where the proxy is. `said`: names that `--set` gave."""

    name = "llmtab-herald"

    def __init__(self, said: Sequence[str]) -> None:
        self._said = said
        self._note: TextIO | None = None

    def running(self) -> None:
        if unknown := [name for name in self._said if name in ctx.options.deferred]:
            log.error("llmtab: there is no option %s; llmtab proxy --options shows all", ", ".join(unknown))
            return
        servers = [server for server in ctx.master.addons.get("proxyserver").servers if server.listen_addrs]
        for server in servers:
            host, port, *_ = server.listen_addrs[0]
            if line := how(Door(server.mode.type_name, host, port, server.mode.data.partition("@")[0])):
                print(f"llmtab: {line}", flush=True)
        meter = ctx.master.addons.get("llmtab")
        if meter is not None and meter.desk.setup is not None:
            self._announce([address for server in servers for address in server.listen_addrs], meter)

    def _announce(self, listens: Sequence[Sequence[Any]], meter: Any) -> None:
        try:
            self._note = announce(listens, meter.desk.setup.ledger.path)
        except OSError as error:
            log.warning("llmtab: llmtab run cannot ask this proxy for its ledger: %s", error)

    def done(self) -> None:
        if self._note is not None:
            withdraw(self._note)


def start(arguments: Sequence[str]) -> None:
    """Runs until it is told to stop. Raises ValueError for wrong arguments, SystemExit where it cannot start."""
    said: list[str] = []

    def master(options: Options) -> DumpMaster:
        found = DumpMaster(options)
        found.addons.add(Herald(said))
        chain = found.addons.chain
        chain.insert(0, chain.pop())  # it speaks before the live table has the screen
        return found

    main.run(master, _parser(said), arguments, _filters)  # type: ignore[arg-type] # it is only called


def _parser(said: list[str]) -> Callable[[Options], argparse.ArgumentParser]:
    """mitmdump's parser; the names that `--set` gives are noted in `said`."""

    def wrong(message: str) -> NoReturn:
        raise ValueError(f"{message} ({HELP})")

    def make(options: Options) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = mitmdump(options)
        parse = parser.parse_args

        def parsed(words: Sequence[str]) -> argparse.Namespace:
            args = parse(words)
            said.extend(word.partition("=")[0] for word in args.setoptions)
            return args

        vars(parser).update(error=wrong, parse_args=parsed)
        return parser

    return make


def _filters(args: Any) -> dict[str, Any]:
    """As mitmdump itself understands its last arguments."""
    said = " ".join(args.filter_args)
    return {"save_stream_filter": said, "readfile_filter": said, "dumper_filter": said} if said else {}
