"""Whether clients of this shell would come through the proxy and believe it.

Knows the CA's file, proxy and CA variables, and settings of mitmproxy that undo us. Must not know the ledger.
"""

import stat
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from llmtab import clients
from llmtab.doctor import Finding
from llmtab.run.authority import CERTIFICATE, PRIVATE, expires
from llmtab.run.neighbour import listening

SOON: Final = timedelta(days=30)
PORT: Final = 8080
_LLM_HOSTS: Final = ("api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com")
_AGAIN: Final = "rm -r {folder} && llmtab run -- true"


def authority(folder: Path, now: datetime) -> Iterator[Finding]:
    """The CA: there, its key private, not expiring; and whether this system trusts it."""
    certificate, private = folder / CERTIFICATE, folder / PRIVATE
    if not certificate.is_file() or not private.is_file():
        yield Finding("ca", "note", f"no CA in {folder} yet: the first start makes one", "llmtab run -- true")
        return
    again = _AGAIN.format(folder=folder)
    try:
        end = expires(certificate)
    except ValueError:
        yield Finding("ca", "error", f"{certificate} is no certificate", again)
        return
    if end < now:
        yield Finding("ca", "error", f"the CA ended on {end:%Y-%m-%d}: every client refuses it", again)
    elif end < now + SOON:
        yield Finding("ca", "warning", f"the CA ends on {end:%Y-%m-%d}", again)
    else:
        trusted = _system_trusts(certificate)
        how = "trusted by this system" if trusted else "trusted where variables say so (llmtab run, llmtab env)"
        yield Finding("ca", "ok", f"{certificate}, until {end:%Y-%m-%d}; {how}")
    if (mode := stat.S_IMODE(private.stat().st_mode)) & 0o077:
        text = f"{private} can be read by others (mode {mode:04o}): they could read what trusts it"
        yield Finding("ca", "error", text, f"chmod 600 {private}")


def _system_trusts(certificate: Path) -> bool:
    try:
        return certificate.read_bytes().strip() in clients.system_roots()
    except OSError:
        return False


def shell(environment: Mapping[str, str], certificate: Path) -> Iterator[Finding]:
    """The variables of this shell: a proxy that answers, a CA that its clients will find."""
    named = {name for name, kind, _ in clients.VARIABLES if kind == "proxy" and environment.get(name)}
    url = environment.get("HTTPS_PROXY") or environment.get("https_proxy") or ""
    if not url:
        text = "no proxy in this shell: only programs under llmtab run are metered"
        yield Finding("shell", "note", text, 'eval "$(llmtab env)"')
        return
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        number = parts.port or PORT
    except ValueError:
        text = f"HTTPS_PROXY is no URL like http://127.0.0.1:{PORT}"
        yield Finding("shell", "error", text, "unset HTTPS_PROXY https_proxy")
        return
    shown, here = f"{parts.hostname}:{number}", (parts.hostname or "") in clients.LOCAL
    there = listening(parts.hostname or "", number) if here else "somebody"
    usual = here and number == PORT
    env = 'eval "$(llmtab env)"' if usual else f'eval "$(llmtab env --proxy http://{shown})"'
    if there == "nobody":
        start = "llmtab proxy" if usual else f"llmtab proxy -p {number}"
        yield Finding("shell", "error", f"nothing answers at the proxy {shown}: calls fail", start)
    elif there == "somebody":
        yield Finding("shell", "note", f"this shell goes out through {shown}", "llmtab run goes on through it")
        return
    else:
        yield Finding("shell", "ok", f"this shell goes through the proxy {shown}")
    if missing := [name for name in ("HTTPS_PROXY", "https_proxy") if name not in named]:
        text = f"{missing[0]} is not set: some clients read only that spelling"
        yield Finding("shell", "warning", text, env)
    yield from _bypassed(environment)
    yield from _unbelieved(environment, certificate, env)


def _bypassed(environment: Mapping[str, str]) -> Iterator[Finding]:
    said = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    for host in hosts:
        if any(host == "*" or name.endswith(host.lstrip("*")) or fnmatch(name, host) for name in _LLM_HOSTS):
            text = f"NO_PROXY has {host}: calls to LLM hosts go past the proxy"
            yield Finding("shell", "error", text, f"export NO_PROXY={clients.bypassed({}, local=False)}")
    if not environment.get("NODE_USE_ENV_PROXY"):
        text = "NODE_USE_ENV_PROXY is not set: Node.js goes past the proxy without a word"
        yield Finding("shell", "warning", text, "export NODE_USE_ENV_PROXY=1")


def _unbelieved(environment: Mapping[str, str], certificate: Path, env: str) -> Iterator[Finding]:
    """CA variables that name no file, or one without our CA. `env`: the command that sets them."""
    ours = certificate.read_bytes().strip() if certificate.is_file() else b""
    for name, kind, readers in clients.VARIABLES:
        if kind not in ("replaces", "adds"):
            continue
        value = environment.get(name)
        if value and not Path(value).is_file():
            text = f"{name} names {value}, which is not there"
            yield Finding("shell", "error", text, env)
        elif ours and value and ours not in Path(value).read_bytes():
            text = f"{name} names {value}, which lacks our CA: {readers} will refuse the proxy"
            yield Finding("shell", "error", text, env)
        elif ours and not value and name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
            yield Finding("shell", "warning", f"{name} is not set: {readers}", env)


def port(number: int = PORT) -> Iterator[Finding]:
    """Whether `llmtab proxy` would find its port free."""
    there = listening("127.0.0.1", number)
    if there == "somebody":
        yield Finding("port", "warning", f"port {number} is taken by another program", f"llmtab proxy -p {number + 1}")
    else:
        text = f"a mitmproxy listens on port {number}" if there == "mitmproxy" else f"port {number} is free"
        yield Finding("port", "ok", text)


def settings(folder: Path) -> Iterator[Finding]:
    """What mitmproxy's own config.yaml does to us: it holds for every mitmproxy of this user."""
    path = next((path for name in ("config.yaml", "config.yml") if (path := folder / name).is_file()), None)
    if path is None:
        return
    from llmtab.documents import ConfigError, load

    try:
        said: Any = load(path) or {}
    except ConfigError as error:
        yield Finding("settings", "error", str(error), f"mend {path}")
        return
    if not isinstance(said, dict):
        return
    bad = {
        "ignore_hosts": "LLM hosts among them pass unseen",
        "allow_hosts": "LLM hosts that are not among them pass unseen",
        "ssl_insecure": "whoever stands between you and the provider reads along",
        "rawtcp": "protocols are not looked at",
    }
    for name, effect in bad.items():
        if said.get(name) not in (None, False, "false", [], ""):
            yield Finding("settings", "warning", f"{path} sets {name}: {effect}", f"remove {name} from {path}")


def base_urls(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Base URLs in this shell lead a client elsewhere, past what is set for the provider's own host."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        if value := environment.get(name):
            host = urlsplit(value).hostname or value
            local = host in clients.LOCAL
            text = f"{name} leads to {host}" + (
                " on this machine, past the proxy unless it is its reverse mode" * local
            )
            yield Finding("shell", "note", text, "" if local else f"llmtab check {value}")
