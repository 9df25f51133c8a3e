"""`llmtab proxy`: mitmdump with the addon, on this machine only unless told otherwise.

Knows where the addon's file is and which arguments mitmdump gets. Must not know what the addon does, nor what the modes
are good for (`doors`).
"""

import argparse
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmtab.entry import script
from llmtab.verbs import Verbs, add_verb

if TYPE_CHECKING:
    from llmtab.run.doors import Door

HIGHEST: Final = 65535
DETAILS = """
--reverse and --upstream add modes, each with a line on how to use it. Other arguments go to mitmdump as they are
(--mode reverse:https://api.openai.com, --set llmtab_ledger=FILE, ...; see mitmdump --help, llmtab proxy --options)."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "proxy",
        run,
        summary="start the proxy with the live table",
        details=DETAILS,
        example="llmtab proxy -p 8081 --reverse openai --set llmtab_ledger=team.jsonl",
        passes_on=True,
    )
    parser.add_argument("-p", "--listen-port", metavar="PORT", type=int, default=8080, help="default: 8080")
    parser.add_argument("--listen-host", metavar="HOST", default="127.0.0.1", help="default: 127.0.0.1")
    reverse = "also stand in for a provider (openai, anthropic, google, ... or a URL) on the next port, for clients "
    reverse += "that take a base URL: they need no CA; several times, NAME@PORT for a port of your choice"
    parser.add_argument("--reverse", metavar="NAME|URL", action="append", default=[], help=reverse)
    parser.add_argument("--upstream", metavar="URL", help="go out through another proxy, a company's for instance")
    parser.add_argument("--by", metavar="WORD", help="how the table groups: model (default), provider, project, ...")
    parser.add_argument(
        "--insecure-open-proxy",
        action="store_true",
        help="listen beyond this machine although clients need not authenticate (--proxyauth)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs mitmdump in this process until it is told to stop. mitmdump leaves by SystemExit where it cannot start."""
    host, port = args.listen_host, args.listen_port
    rest = [*_modes(args), *(["--set", f"llmtab_by={args.by}"] if args.by else []), *args.rest]
    if not args.insecure_open_proxy and (open_to := _open_to_all(host, rest)):
        raise ValueError(
            f"whoever reaches {open_to} could use this proxy: ask for a password with --proxyauth user:password, "
            "or say --insecure-open-proxy"
        )
    if _listens_there(rest) and _taken(host, port):
        raise OSError(f"port {port} of {host} is in use; choose another with -p PORT")
    for door in _doors(rest, host, port):
        if door.port != port and _taken(door.host, door.port):
            raise OSError(f"port {door.port} of {door.host or 'this machine'} is in use; name another: ...@PORT")
    if not {"--options", "--commands", "--version"} & {*rest}:
        _check(settings(rest))
    from llmtab.run.dump import start

    start(["-s", str(script()), "--listen-host", host, "-p", str(port), *_quiet(rest), *rest])
    return 0


def _check(words: Sequence[str]) -> None:
    """mitmdump would say in the midst of other lines that these cannot be. Raises ValueError or OSError."""
    from llmtab import origins
    from llmtab.setup import OPTIONS, held

    folder = next((word.partition("=")[2] for word in reversed(words) if word.startswith("confdir=")), "")
    place = Path(folder, "config.yaml") if folder else origins.MITMPROXY
    try:
        given = origins.given(OPTIONS, [word for word in words if word.startswith("llmtab_")])
    except ValueError as error:
        raise ValueError(f"{error} (llmtab proxy --options shows all)") from None
    values = origins.options(OPTIONS, given, os.environ, place)
    held(argparse.Namespace(**{value.name: value.value for value in values}))


def settings(words: Sequence[str]) -> list[str]:
    """What `--set` says among mitmdump's arguments."""
    return _values(words, "--set")


def _modes(args: argparse.Namespace) -> list[str]:
    """mitmdump's arguments for --reverse and --upstream; beside them the usual mode stays, unless --mode says which."""
    from llmtab.run.doors import reverse_modes

    if not args.reverse and not args.upstream:
        return []
    modes = list(reverse_modes(args.reverse, args.listen_port))
    extra: list[str] = []
    if args.upstream:
        from llmtab.clients import way_out

        if not re.search(r"://|:\d+/?$", args.upstream):  # a word alone would be a host that nobody knows
            raise ValueError(f"--upstream {args.upstream}: expected a URL like http://proxy.example.com:3128")
        mode, user = way_out(args.upstream)
        modes.insert(0, mode)
        extra = ["--set", f"upstream_auth={user}"] if user else []
    elif not named_modes(args.rest):
        modes.insert(0, "regular")
    return [word for mode in modes for word in ("--mode", mode)] + extra


def named_modes(words: Sequence[str]) -> list[str]:
    """The modes that mitmdump's arguments name."""
    return _values(words, "--mode", "-m")


def _values(words: Sequence[str], option: str, *short: str) -> list[str]:
    """What follows an option, each time it is said."""
    found = []
    for word, value in pairwise([*words, ""]):
        if word in (option, *short):
            found.append(value)
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def _doors(rest: Sequence[str], host: str, port: int) -> "list[Door]":
    from llmtab.run.doors import doors

    return doors(named_modes(rest) or ["regular"], host, port)


def _quiet(rest: Sequence[str]) -> list[str]:
    """mitmdump prints the URLs that pass, keys in their queries among them, unless told what to print."""
    said = any("flow_detail" in word or "flow-detail" in word or word in ("-v", "--verbose") for word in rest)
    return [] if said else ["--set", "flow_detail=0"]


def _open_to_all(host: str, rest: Sequence[str]) -> str | None:
    """The address beyond this machine that the proxy would listen on without asking who is there, or None."""
    if any(_asks_who(word, value) for word, value in pairwise([*rest, ""])):
        return None
    named = [mode.rpartition("@")[2] for mode in rest if "@" in mode and "/" not in mode.rpartition("@")[2]]
    hosts = [host, *(place.rpartition(":")[0].strip("[]") for place in named if ":" in place)]
    return next((one or "every address" for one in hosts if not _is_loopback(one)), None)


def _asks_who(word: str, value: str) -> bool:
    """Whether an argument (and the one after it) sets `proxyauth` to something a stranger does not know."""
    name, equals, said = word.removeprefix("--set=").partition("=")
    if name == "--proxyauth" and not equals:
        said = value
    return name in ("proxyauth", "--proxyauth") and said not in ("", "any")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listens_there(rest: Sequence[str]) -> bool:
    """Whether the port is used at all: each mode may name its own (`regular@8081`)."""
    return any("@" not in mode for mode in named_modes(rest) or [""])


def _taken(host: str, port: int) -> bool:
    """mitmdump says it too, but in two lines with a wrong hint."""
    if not 0 <= port <= HIGHEST:
        raise ValueError(f"port {port}, expected 0 to {HIGHEST}")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
