"""The doors of a proxy: its modes, the port of each, and the line that tells a client how to use it.

Knows mitmproxy's spelling of modes and the base-URL variables of well-known clients. Must not know options, the addon,
or whether the proxy runs.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit


class Base(NamedTuple):
    """A provider as clients know it: where it is, which variable holds its base URL, and what the URL ends in."""

    url: str
    variable: str = ""
    path: str = ""


BASES: Final = {
    "openai": Base("https://api.openai.com", "OPENAI_BASE_URL", "/v1"),
    "anthropic": Base("https://api.anthropic.com", "ANTHROPIC_BASE_URL"),
    "google": Base("https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL"),
    "mistral": Base("https://api.mistral.ai"),
    "xai": Base("https://api.x.ai", "", "/v1"),
    "deepseek": Base("https://api.deepseek.com"),
    "groq": Base("https://api.groq.com", "GROQ_BASE_URL"),
    "cohere": Base("https://api.cohere.com", "CO_API_URL"),
    "openrouter": Base("https://openrouter.ai", "", "/api/v1"),
    "together": Base("https://api.together.xyz", "TOGETHER_BASE_URL", "/v1"),
    "ollama": Base("http://127.0.0.1:11434", "OLLAMA_HOST"),
}
_BY_URL: Final = {base.url: base for base in BASES.values()}


class Door(NamedTuple):
    """One mode. `host`: "" is every address; `port`: 0 is any free one; `target`: of reverse and upstream modes."""

    kind: str
    host: str
    port: int
    target: str = ""

    @property
    def url(self) -> str:
        host = self.host if self.host not in ("", "0.0.0.0", "::") else "THIS-MACHINE"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def doors(modes: Sequence[str], host: str, port: int) -> list[Door]:
    """The doors of mitmproxy's mode specs (`regular`, `reverse:https://api.openai.com@8081`, ...) that clients can
    knock at. `host`, `port`: where a mode listens that does not say it. Raises ValueError on a bad spec."""
    from mitmproxy.proxy.mode_specs import ProxyMode

    found = []
    for text in modes:
        try:
            spec = ProxyMode.parse(text)
        except ValueError as error:
            raise ValueError(f"--mode {text}: {error}") from None
        at = spec.listen_port(port)
        if at is not None and spec.type_name in ("regular", "upstream", "reverse", "socks5"):
            found.append(Door(spec.type_name, spec.listen_host(host), at, spec.data.partition("@")[0]))
    return found


def reverse_modes(names: Sequence[str], port: int) -> Iterator[str]:
    """Mode specs for `--reverse openai`, `--reverse https://llm.example.com@9001`: each on the next port after `port`,
    where it names none. Raises ValueError where a name is unknown."""
    for name in names:
        word, at, own = name.rpartition("@")
        target, own = (word, own) if at and own.isdecimal() else (name, "")
        url = BASES[target].url if target in BASES else target
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"--reverse {name}: expected a URL, or one of {', '.join(BASES)}")
        port += not own
        yield f"reverse:{url}@{own or port}"


def how(door: Door) -> str:
    """One line for a person: the address, and what to do with it. A port that is not known yet has none."""
    if not door.port:
        return ""
    if door.kind == "reverse":
        base = _BY_URL.get(door.target.rstrip("/"), Base(door.target))
        url = door.url + base.path
        said = f"export {base.variable}={url}" if base.variable else f"base URL {url}"
        return f"{door.url}  instead of {door.target}, no CA needed: {said}"
    if door.kind == "socks5":
        return f"{door.url.replace('http', 'socks5h')}  for clients that know SOCKS: export ALL_PROXY=..."
    env = "llmtab env" if door.url == "http://127.0.0.1:8080" else f"llmtab env --proxy {door.url}"
    onward = f", on through {door.target}" if door.kind == "upstream" else ""
    return f'{door.url}  any client{onward}: eval "$({env})"'
