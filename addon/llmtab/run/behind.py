"""A proxy for one run, private or running already: how its clients are told, and which lines are the run's.

Knows which of the two is wanted and what each needs. Must not know the program or what becomes of the lines.
"""

import argparse
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from llmtab import clients
from llmtab.entry import script
from llmtab.home import home
from llmtab.ledger.follow import Follower
from llmtab.run.announced import ledger_of
from llmtab.run.authority import certificate
from llmtab.run.neighbour import listening
from llmtab.run.private import PrivateProxy, arguments, own_environment
from llmtab.run.project import stated

RUN: Final = "run"
"""The label that tells the lines of a run at a proxy that serves others as well."""
_OURS: Final = {
    "llmtab_table": "the terminal is the program's; llmtab top shows the calls in another one",
    "mode": "--proxy URL uses a proxy that runs as you want it",
    "server": "the program needs its proxy",
    "listen_host": "it listens on this machine only",
    "listen_port": "its port is any free one",
}
"""Options that a private proxy cannot take, and why."""
QUIET: Final = 0.3
"""Seconds without a new line after which a running proxy has written all of a program that has ended."""


class Behind(Protocol):
    """`environment`: what the program gets. `lines()` ends the run and may be asked once, `said()` after it."""

    environment: dict[str, str]
    ledger: Path
    labels: dict[str, str]
    sure: bool
    """Whether it is known that the proxy writes this ledger."""

    def lines(self) -> Iterator[dict[str, Any]]: ...
    def said(self) -> list[str]: ...


def behind(args: argparse.Namespace, labels: Mapping[str, str]) -> Behind:
    """The proxy that the arguments of `llmtab run` ask for. Raises OSError or ValueError with one line."""
    url = args.proxy or ("" if args.private else os.environ.get(clients.RUNNING, ""))
    if not url:
        return Private(args, dict(labels))
    for named in ("budget", "set", "config", "ledger"):
        if vars(args)[named]:
            raise ValueError(f"--{named} is for a proxy of the run's own, and {url} runs already: add --private")
    return Shared(url, args, dict(labels))


class Private:
    """A proxy that belongs to the run: every line that it writes is the run's."""

    sure = True

    def __init__(self, args: argparse.Namespace, labels: dict[str, str]) -> None:
        self.labels = labels
        options: dict[str, str | Path] = {}
        trusted = os.environ.get("SSL_CERT_FILE", "")
        if trusted and Path(trusted).is_file():  # what the program would have trusted, the proxy trusts
            options["ssl_verify_upstream_trusted_ca"] = trusted
        mode, options = _way_out(options, args.private)
        if labels:
            options["llmtab_labels"] = stated(labels)
        if args.budget:
            options["llmtab_budget"] = _budget(args.budget)
        for name, value in (("llmtab_ledger", args.ledger), ("llmtab_config", args.config)):
            if value is not None:
                options[name] = value.absolute()
        words = arguments(script(), options, mode=mode)
        for setting in args.set:
            words += ["--set", _ours_to_set(setting)]
        self._proxy = PrivateProxy(words, own_environment())
        ready = self._proxy.ready()
        self.ledger, self._writer = ready.ledger, ready.writer
        self._follower = Follower(ready.ledger)
        self.environment = _told(f"http://127.0.0.1:{ready.port}", ready.ca, ready.ledger, {}, args.local)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Ends the proxy; then all that it wrote."""
        self._early = not self._proxy.alive
        self._proxy.stop()
        yield from (line for line in self._follower.poll() if line.get("writer") == self._writer)
        self._follower.close()

    def said(self) -> list[str]:
        """Its warnings; that it ended before the program did, first."""
        return [*(["it ended before the program did"] if self._early else []), *self._proxy.said()]


class Shared:
    """A proxy that serves others as well: the run's lines carry a label of their own, by the proxy's user."""

    def __init__(self, url: str, args: argparse.Namespace, labels: dict[str, str]) -> None:
        self._address = _answering(url)
        self.labels = labels | {RUN: secrets.token_hex(6)}
        if bad := next((value for value in self.labels.values() if "+" in value), None):
            raise ValueError(f"{bad!r}: a + cannot stand in a label at a running proxy: add --private")
        found = ledger_of(self._address)
        self.sure = found is not None
        self.ledger = (found or Path(os.environ.get(clients.LEDGER) or home() / "ledger.jsonl")).expanduser().absolute()
        named = os.environ.get(clients.CA)
        ca = Path(named) if named else certificate()
        self._follower = Follower(self.ledger)
        self.environment = _told(self._address, ca, self.ledger, self.labels, args.local)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Those of the run, as soon as no new one comes."""
        mark, quiet = self.labels[RUN], time.monotonic() + QUIET
        while time.monotonic() < quiet:
            for line in self._follower.poll():
                if (line.get("labels") or {}).get(RUN) == mark:
                    yield line
                    quiet = time.monotonic() + QUIET
            time.sleep(0.02)
        self._follower.close()

    def said(self) -> list[str]:
        """Nothing: it speaks where it was started."""
        return []


def _told(url: str, ca: Path, ledger: Path, labels: Mapping[str, str], local: bool) -> dict[str, str]:
    """The variables for a program, those of proxies that run inside it among them."""
    found = clients.environment(clients.with_user(url, labels), ca, os.environ, home() / "ca", local=local)
    return found | {clients.RUNNING: url, clients.LEDGER: str(ledger), clients.CA: str(ca)}


def _way_out(options: dict[str, str | Path], private: bool) -> tuple[str, dict[str, str | Path]]:
    """The proxy's mode: direct, or through the proxy that the environment names by now.

    `private`: not through the one of ours that it names, but as the environment was before that one.
    """
    url = clients.upstream(os.environ)
    running = clients.endpoint(os.environ.get(clients.RUNNING, ""))
    if private and running and url and clients.endpoint(url) == running:
        saved = {name: os.environ.get(f"{clients.SAVED}{name}", "") for name in ("HTTPS_PROXY", "https_proxy")}
        url = clients.upstream(saved)
    if url is None:
        return "regular", options
    place = clients.endpoint(url)
    if place is None and urlsplit(url).scheme in ("http", "https"):  # without the value: it may hold a password
        raise ValueError("HTTPS_PROXY is no URL like http://127.0.0.1:8080")
    if place is not None and _is_here(place[0]) and listening(*place) == "mitmproxy":
        shown = f"http://{place[0]}:{place[1]}"
        raise ValueError(
            f"the environment names a mitmproxy on this machine, {shown}, and every call would be counted by both: "
            f"use it with --proxy {shown}, or unset HTTPS_PROXY"
        )
    mode, user = clients.way_out(url)
    return mode, options | ({"upstream_auth": user} if user else {})


def _is_here(host: str) -> bool:
    return host in clients.LOCAL or host.startswith("127.")


def _ours_to_set(setting: str) -> str:
    """An option for the private proxy. Raises ValueError for one that would keep it from serving the run."""
    from llmtab import origins
    from llmtab.setup import OPTIONS

    name, _, value = setting.partition("=")
    if why := _OURS.get(name):
        if (name, value) != ("llmtab_table", "off"):
            raise ValueError(f"--set {name} cannot be set for llmtab run: {why}")
    elif name.startswith("llmtab_"):
        origins.given(OPTIONS, [setting])
    return setting


def _budget(text: str) -> str:
    from decimal import Decimal, InvalidOperation

    with suppress(InvalidOperation):
        amount = Decimal(text.removesuffix("USD").strip().lstrip("$"))
        if amount.is_finite() and amount > 0:
            return f"{amount:f} USD"
    raise ValueError(f"--budget: {text!r}, expected an amount in USD like 5 or 0.50")


def _answering(url: str) -> str:
    """The URL without a user, if somebody listens there."""
    parts = urlsplit(clients.address(url))
    try:
        socket.create_connection((parts.hostname, parts.port), 2).close()
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"no proxy answers at {url} ({why}): start llmtab proxy, or unset LLMTAB_PROXY") from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
