"""How clients are led through the proxy: the environment variables they read, and the CA bundle these name.

Knows variable names, who reads them, and where a system keeps its roots. Must not know mitmproxy, shells or verbs. A
variable that adds to a client's own roots gets our CA, one that replaces them gets a bundle: what the variable named
before (a company's roots, say) or the system's roots, and our CA behind it.
"""

import hashlib
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from llmtab.home import private_folder

type Kind = Literal["proxy", "bypass", "replaces", "adds", "switch"]


class Variable(NamedTuple):
    """One variable: what it holds, and whose it is."""

    name: str
    kind: Kind
    readers: str


VARIABLES: Final = (
    Variable("HTTPS_PROXY", "proxy", "almost every client"),
    Variable("https_proxy", "proxy", "curl, wget, Python"),
    Variable("HTTP_PROXY", "proxy", "almost every client, for plain HTTP"),
    Variable("http_proxy", "proxy", "curl (this spelling only), wget, Python"),
    Variable("NO_PROXY", "bypass", "almost every client"),
    Variable("no_proxy", "bypass", "curl, wget, Python"),
    Variable("SSL_CERT_FILE", "replaces", "OpenSSL, Python's httpx and aiohttp, Go, Rust, Ruby, .NET, Bun"),
    Variable("REQUESTS_CA_BUNDLE", "replaces", "Python's requests"),
    Variable("CURL_CA_BUNDLE", "replaces", "curl, requests, Copilot CLI"),
    Variable("AWS_CA_BUNDLE", "replaces", "boto3, AWS CLI, AWS SDKs"),
    Variable("GIT_SSL_CAINFO", "replaces", "git"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "replaces", "gRPC: xAI's SDK, Google's older SDKs"),
    Variable("CODEX_CA_CERTIFICATE", "replaces", "Codex"),
    Variable("NODE_EXTRA_CA_CERTS", "adds", "Node.js, Bun: Claude Code, Gemini CLI, opencode, Copilot CLI, Qwen Code"),
    Variable("DENO_CERT", "adds", "Deno"),
    Variable("NODE_USE_ENV_PROXY", "switch", "Node.js from 22.21 and 24.5 on, which ignores the proxy without it"),
)
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
PORT: Final = 8080
"""Of a proxy whose URL names none: mitmproxy's own default."""
EXPECTED_URL: Final = f"expected the URL of a proxy like http://127.0.0.1:{PORT}"
_IS_HOST: Final = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?"
).fullmatch
SAVED: Final = "LLMTAB_SAVED_"
"""Before the name of a variable: what it held before `llmtab env`, for `llmtab env --unset`."""
RUNNING: Final = "LLMTAB_PROXY"
"""Names the proxy that a program runs behind, so that `llmtab run` inside it uses the same one."""
LEDGER: Final = "LLMTAB_LEDGER"
"""Names the ledger of that proxy."""
CA: Final = "LLMTAB_CA"
"""Names the file of that proxy's CA certificate."""
ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
    "/usr/local/etc/ssl/cert.pem",  # FreeBSD
)


def environment(url: str, ca: Path, before: Mapping[str, str], folder: Path, *, local: bool = False) -> dict[str, str]:
    """The variables that lead a client through the proxy at `url`, in the order of VARIABLES.

    `ca`: our certificate (PEM). `before`: the environment they will be added to. Bundles are written into `folder`.
    `local`: servers on this machine are reached through the proxy as well. OSError where a file cannot be had.
    """
    found: dict[str, str] = {}
    for name, kind, _ in VARIABLES:
        if kind == "proxy":
            found[name] = url
        elif kind == "bypass":
            if (hosts := bypassed(before, local=local)) or before.get(name):
                found[name] = hosts
        elif kind == "switch":
            found[name] = "1"
        else:
            found[name] = str(certificates(kind, before.get(name), ca, folder))
    return found


def set_by_us(name: str, environment: Mapping[str, str], folder: Path) -> bool:
    """Whether a variable's value is one that `llmtab env` or `llmtab run` gave it. `folder`: of our bundles."""
    value, running = environment.get(name, ""), environment.get(RUNNING, "")
    if not running or not value:
        return False
    kind = next((variable.kind for variable in VARIABLES if variable.name == name), None)
    if kind == "proxy":
        return endpoint(value) == endpoint(running)
    if kind in ("replaces", "adds"):
        return value == environment.get(CA) or Path(value).parent == folder
    if kind == "bypass":
        return {*LOCAL} <= {*value.split(",")}
    return True


def to_save(names: Iterable[str], before: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The user's own values of variables that are about to be set, each under the name that keeps it."""
    return {
        f"{SAVED}{name}": before[name]
        for name in names
        if before.get(name) and f"{SAVED}{name}" not in before and not set_by_us(name, before, folder)
    }


def bypassed(before: Mapping[str, str], *, local: bool) -> str:
    """The value of NO_PROXY: what is in it by now, and this machine unless `local`."""
    said = before.get("NO_PROXY") or before.get("no_proxy") or ""
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    if local:
        return ",".join(host for host in hosts if host not in LOCAL)
    return ",".join(dict.fromkeys([*hosts, *LOCAL]))


def certificates(kind: Kind, before: str | None, ca: Path, folder: Path) -> Path:
    """The file for a variable that names certificates: our CA, behind those it named before or would replace."""
    ours = ca.read_bytes()
    base = _named(before) or (system_roots() if kind == "replaces" else b"")
    if base.strip() in (b"", ours.strip()):
        return ca
    if ours in base:  # a proxy inside a proxy, or a CA that the system trusts already
        return _kept(base, folder)
    return _kept(base.rstrip(b"\n") + b"\n" + ours, folder)


def system_roots() -> bytes:
    """The certificates that this system trusts, PEM. FileNotFoundError where it has none that we know of."""
    for place in (ssl.get_default_verify_paths().cafile, *ROOTS):
        if place and (found := _named(place)):
            return found
    from importlib.util import find_spec

    if find_spec("certifi"):  # comes with mitmproxy
        import certifi

        return Path(certifi.where()).read_bytes()
    raise FileNotFoundError(f"no file of trusted certificates, expected one at {ROOTS[0]}")


def _named(path: str | None) -> bytes:
    """A file of certificates; nothing where there is none, for a client would find nothing in it either."""
    try:
        return Path(path).read_bytes() if path else b""
    except OSError:
        return b""


def _kept(content: bytes, folder: Path) -> Path:
    """A file with this content, named by it: several runs share one, and none changes under a running program."""
    path = folder / f"bundle-{hashlib.sha256(content).hexdigest()[:12]}.pem"
    if not path.is_file() or path.stat().st_size != len(content):
        private_folder(folder)
        part = folder / f"{path.name}.{os.getpid()}"
        part.write_bytes(content)
        part.replace(path)
    return path


def address(url: str) -> str:
    """A proxy's URL, made whole: `proxy.corp` is `http://proxy.corp:8080`. Raises ValueError where it is none."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port, host = parts.port or PORT, parts.hostname or ""
    except ValueError:  # without the URL: it may hold a password
        raise ValueError(EXPECTED_URL) from None
    if parts.scheme not in ("http", "https") or not _IS_HOST(host) or parts.netloc.endswith(":"):
        raise ValueError(EXPECTED_URL)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{EXPECTED_URL}, without a path")
    user, at, _ = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user}{at}{f'[{host}]' if ':' in host else host}:{port}"


def endpoint(url: str) -> tuple[str, int] | None:
    """Host and port of a proxy's URL, whoever its user is; None where it is no such URL."""
    try:
        parts = urlsplit(address(url))
    except ValueError:
        return None
    return parts.hostname or "", parts.port or PORT


def with_user(url: str, labels: Mapping[str, str]) -> str:
    """A proxy's URL whose user carries labels (`http://+project=web:x@host:port`); as it is without labels.

    Clients send it as Proxy-Authorization, which never leaves the proxy.
    """
    if not labels:
        return url
    parts = urlsplit(url)
    user = "".join(f"+{name}={quote(value, safe='')}" for name, value in labels.items())
    return f"{parts.scheme}://{user}:x@{parts.netloc.rpartition('@')[2]}"


def upstream(before: Mapping[str, str]) -> str | None:
    """The proxy that clients of this environment go through by now (a company's), or None."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        if value := before.get(name):
            return value if "://" in value else f"http://{value}"
    return None


_HINTS: Final = (
    ("codex", "CODEX_CA_CERTIFICATE"),
    ("boto", "AWS_CA_BUNDLE"),
    ("aws", "AWS_CA_BUNDLE"),
    ("curl", "CURL_CA_BUNDLE"),
    ("git/", "GIT_SSL_CAINFO"),
    ("grpc", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
    ("deno", "DENO_CERT"),
    ("python-requests", "REQUESTS_CA_BUNDLE"),
    ("urllib3", "REQUESTS_CA_BUNDLE"),
    ("claude", "NODE_EXTRA_CA_CERTS"),
    ("gemini", "NODE_EXTRA_CA_CERTS"),
    ("qwen", "NODE_EXTRA_CA_CERTS"),
    ("copilot", "NODE_EXTRA_CA_CERTS"),
    ("opencode", "NODE_EXTRA_CA_CERTS"),
    ("node", "NODE_EXTRA_CA_CERTS"),
    ("undici", "NODE_EXTRA_CA_CERTS"),
    ("bun", "NODE_EXTRA_CA_CERTS"),
    ("axios", "NODE_EXTRA_CA_CERTS"),
    ("/js", "NODE_EXTRA_CA_CERTS"),
    ("go-http-client", "SSL_CERT_FILE"),
    ("python", "SSL_CERT_FILE"),
    ("httpx", "SSL_CERT_FILE"),
    ("aiohttp", "SSL_CERT_FILE"),
    ("reqwest", "SSL_CERT_FILE"),
)
"""(part of a user agent or a process's name, the variable that alone is enough for it); the first that fits counts."""
_ANY_HINT: Final = "SSL_CERT_FILE (Python, Go, Rust) or NODE_EXTRA_CA_CERTS (Node.js)"


def ca_hint(user_agent_or_process: str) -> str:
    """The variable that makes this client trust our CA; the two that serve most clients where it is not known."""
    said = user_agent_or_process.lower()
    return next((variable for part, variable in _HINTS if part in said), _ANY_HINT)


def way_out(url: str) -> tuple[str, str]:
    """mitmproxy's mode for going out through another proxy, and the user and password it asks for ("" for none).

    Raises ValueError where it is none that can be used.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{parts.scheme}://... is no proxy to go out through, expected http:// or https://; unset it")
    address(url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else ""
    return f"upstream:{parts.scheme}://{host}{port}", user
