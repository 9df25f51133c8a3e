"""`llmtab proxy`: mitmdump with the addon, on this machine only unless told otherwise.

Knows where the addon's file is and which arguments mitmdump gets. Must not know what the addon does.
"""

import argparse
import errno
import ipaddress
import socket
from itertools import pairwise
from pathlib import Path

from llmtab.verbs import Verbs, add_verb

DETAILS = """Other arguments go to mitmdump as they are
(--mode reverse:https://api.openai.com, --set llmtab_ledger=FILE, ...; see mitmdump --help and mitmdump --options)."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "proxy",
        run,
        summary="start the proxy with the live table",
        details=DETAILS,
        example="llmtab proxy -p 8081 --set llmtab_ledger=team.jsonl",
        passes_on=True,
    )
    parser.add_argument("-p", "--listen-port", metavar="PORT", type=int, default=8080, help="default: 8080")
    parser.add_argument("--listen-host", metavar="HOST", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument(
        "--insecure-open-proxy",
        action="store_true",
        help="listen beyond this machine although clients need not authenticate (--proxyauth)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs mitmdump in this process until it is told to stop. mitmdump leaves by SystemExit where it cannot start."""
    host, port = args.listen_host, args.listen_port
    if not args.insecure_open_proxy and (open_to := _open_to_all(host, args.rest)):
        raise ValueError(
            f"whoever reaches {open_to} could use this proxy: ask for a password with --proxyauth user:password, "
            "or say --insecure-open-proxy"
        )
    if _listens_there(args.rest) and _taken(host, port):
        raise OSError(f"port {port} of {host} is in use; choose another with -p PORT")
    from mitmproxy.tools.main import mitmdump

    mitmdump(["-s", str(script()), "--listen-host", host, "-p", str(port), *args.rest])
    return 0


def script() -> Path:
    """The file for mitmdump's -s: `addon/main.py` of the checkout, or the copy of it that a wheel holds."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "main.py"
    return installed if installed.is_file() else package.with_name("main.py")


def _open_to_all(host: str, rest: list[str]) -> str | None:
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


def _listens_there(rest: list[str]) -> bool:
    """Whether the port is used at all: a mode may name its own (`regular@8081`)."""
    return not any("@" in part for part in rest)


def _taken(host: str, port: int) -> bool:
    """mitmdump says it too, but in two lines with a wrong hint."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
