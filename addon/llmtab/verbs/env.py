"""`llmtab env`: the variables that lead a shell, a container or a CI job through a running proxy.

Knows how each kind of shell is told. Must not know what the variables mean: that is `clients`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from llmtab.verbs import Verbs, add_verb

DETAILS: Final = """
For a proxy that runs already (llmtab proxy); `llmtab run` needs none of this. To undo it: --unset.
For a container: docker run $(llmtab env --docker) IMAGE. For GitHub Actions:
llmtab env --shell dotenv >> $GITHUB_ENV."""
USUAL: Final = "http://127.0.0.1:8080"
IN_CONTAINER: Final = "/etc/llmtab-ca.pem"
WAIT_SECONDS: Final = 30.0
SHELLS: Final = ("sh", "fish", "powershell", "dotenv")


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    summary = "print the variables that lead a shell's programs through the proxy"
    parser = add_verb(verbs, "env", run, summary=summary, details=DETAILS, example='eval "$(llmtab env)"')
    parser.add_argument("--proxy", metavar="URL", default=USUAL, help=f"where the proxy is (default: {USUAL})")
    parser.add_argument("--shell", choices=SHELLS, help="whose language (default: your shell's; dotenv: NAME=VALUE)")
    parser.add_argument("--docker", action="store_true", help="arguments for docker run or podman run, on one line")
    label = "a label of every call, e.g. project=web; may be said several times"
    parser.add_argument("-l", "--label", metavar="NAME=VALUE", action="append", default=[], help=label)
    local = "meter servers on this machine as well (Ollama, vLLM); by default they are reached directly"
    parser.add_argument("--local", action="store_true", help=local)
    parser.add_argument("--ca", metavar="FILE", type=Path, help="the proxy's CA (default: mitmproxy's in ~/.mitmproxy)")
    parser.add_argument("--wait", action="store_true", help="until the proxy answers, half a minute at most")
    parser.add_argument("--unset", action="store_true", help="what takes the variables back")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints them."""
    from llmtab import clients
    from llmtab.attribution.labels import stated_labels

    if args.unset:
        if args.json or args.docker:
            print(
                f"llmtab env: --unset goes with --shell, not with {'--json' if args.json else '--docker'}",
                file=sys.stderr,
            )
            return 2
        print("\n".join(_undoing(args.shell or _shell())))
        return 0
    stated = {name: value for label in args.label for name, value in stated_labels(label).items()}
    address = _address(args.proxy)
    if args.ca:
        _check_ca(args.ca)
    if not _there(address, WAIT_SECONDS if args.wait else 0) and args.wait:
        return 1
    url = clients.with_user(address, stated)
    found = _for_container(url, args) if args.docker else _for_shell(url, address, args)
    if args.json:
        import json

        print(json.dumps(found, indent=2))
    elif args.docker:
        print(_docker(found, url, _ca_bundle(args)))
    else:
        shell = args.shell or _shell()
        print("\n".join(_SET[shell](name, value) for name, value in found.items()))
    return 0


def _address(text: str) -> str:
    from llmtab.clients import address

    try:
        return address(text)
    except ValueError as error:
        raise ValueError(f"--proxy: {error}") from None


def _check_ca(path: Path) -> None:
    """Clients would trust nothing, or everybody, with a file that is something else."""
    from llmtab.run.authority import expires

    expected = "expected the proxy's certificate, PEM, as in ~/.mitmproxy/mitmproxy-ca-cert.pem"
    if b"PRIVATE KEY" in path.read_bytes():
        raise ValueError(f"--ca {path}: has a private key in it, {expected}")
    try:
        expires(path)
    except ValueError:
        raise ValueError(f"--ca {path}: {expected}") from None


def _undoing(shell: str) -> Iterator[str]:
    """Lines that make the environment what it was before. What has got a value of the user's own since is left alone,
    and what is not set here is unset all the same: the lines may be for a shell that is not this one."""
    from llmtab import clients
    from llmtab.home import home

    names = [*(variable.name for variable in clients.VARIABLES), clients.LEDGER, clients.RUNNING, clients.CA]
    for name in names:
        before, now = os.environ.get(f"{clients.SAVED}{name}"), os.environ.get(name)
        own = now and name != clients.CA and not clients.set_by_us(name, os.environ, home() / "ca")
        if before is not None:
            yield _UNSET[shell](f"{clients.SAVED}{name}")
        if before is not None and not own:
            yield _SET[shell](name, before)
        elif not own:
            yield _UNSET[shell](name)


def _for_shell(url: str, address: str, args: argparse.Namespace) -> dict[str, str]:
    from llmtab import clients
    from llmtab.home import home
    from llmtab.run.announced import ledger_of
    from llmtab.run.authority import certificate

    ca, folder = (args.ca or certificate()).absolute(), home() / "ca"
    found = clients.environment(url, ca, os.environ, folder, local=args.local)
    ledger = ledger_of(address)
    if ledger is not None:
        found[clients.LEDGER] = str(ledger)
    saved = clients.to_save([*found, clients.LEDGER], os.environ, folder)
    return saved | found | {clients.RUNNING: address, clients.CA: str(ca)}


def _for_container(url: str, args: argparse.Namespace) -> dict[str, str]:
    """One bundle serves all there; what this machine's variables name is not there."""
    from llmtab import clients
    from llmtab.run.authority import certificate

    found = clients.environment(url, args.ca or certificate(), {}, _ca_bundle(args).parent, local=args.local)
    kinds = {variable.name: variable.kind for variable in clients.VARIABLES}
    return {name: IN_CONTAINER if kinds[name] in ("replaces", "adds") else value for name, value in found.items()}


def _ca_bundle(args: argparse.Namespace) -> Path:
    from llmtab.clients import certificates
    from llmtab.home import home
    from llmtab.run.authority import certificate

    return certificates("replaces", None, args.ca or certificate(), home() / "ca")


def _docker(found: Mapping[str, str], url: str, bundle: Path) -> str:
    """`$(...)` splits at white space and knows no quotes: there must be none. Raises ValueError where there is."""
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    words = ["--network", "host"] if _is_loopback(host) else []
    if host == "host.docker.internal":
        words = ["--add-host", "host.docker.internal:host-gateway"]
    words += ["-v", f"{bundle}:{IN_CONTAINER}:ro"]
    for name, value in found.items():
        words += ["-e", f"{name}={value}"]
    if bad := next((word for word in words if any(char.isspace() for char in word)), None):
        raise ValueError(f"{bad!r} has a space, which $(...) cannot carry; move LLMTAB_HOME, or use --json")
    return " ".join(words)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _there(address: str, seconds: float) -> bool:
    """Whether the proxy answers, by then at the latest; says so where it does not."""
    import time
    from urllib.parse import urlsplit

    from llmtab.run.neighbour import listening

    parts, until = urlsplit(address), time.monotonic() + seconds
    if not _is_loopback(parts.hostname or ""):
        return True  # a container may know it by a name that this machine does not
    while listening(parts.hostname or "", parts.port or 80) == "nobody":
        if time.monotonic() >= until:
            print(f"llmtab env: nothing listens at {address} yet; start it: llmtab proxy", file=sys.stderr)
            return False
        time.sleep(0.05)
    return True


def _shell() -> str:
    if os.environ.get("SHELL", "").endswith("fish"):
        return "fish"
    return "powershell" if "SHELL" not in os.environ and "PSModulePath" in os.environ else "sh"


def _sh(value: str) -> str:
    from shlex import quote

    return quote(value)


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _power(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_SET: Final[Mapping[str, Callable[[str, str], str]]] = {
    "sh": lambda name, value: f"export {name}={_sh(value)}",
    "fish": lambda name, value: f"set -gx {name} {_fish(value)}",
    "powershell": lambda name, value: f"$env:{name} = {_power(value)}",
    "dotenv": lambda name, value: f"{name}={value}",
}
_UNSET: Final[Mapping[str, Callable[[str], str]]] = {
    "sh": lambda name: f"unset {name}",
    "fish": lambda name: f"set -e {name}",
    "powershell": lambda name: f"Remove-Item Env:{name} -ErrorAction SilentlyContinue",
    "dotenv": lambda name: f"{name}=",
}
