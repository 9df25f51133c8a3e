"""Writes the table of providers into README.md, from the profiles: to be run after a profile has changed.

Knows what a row says. Must not know how profiles are read or matched. A test holds README against it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "addon"))

from llmtab.profiles import GUESS, Profiles, Provider  # noqa: E402

README = ROOT / "README.md"
BEGIN, END = "<!-- providers: written by scripts/provider_table.py -->", "<!-- /providers -->"
HOSTS = 3
"""Of a provider with more hosts than that the first ones are named."""
SURFACES = {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini", "cohere": "Cohere"}
"""Sets of routes that many serve, by the name that everybody knows them under."""


def table() -> str:
    """The rows, by title: who it is, where it is reached, and what is read there."""
    found = Profiles.load().providers.values()
    providers = sorted(found, key=lambda one: (one.profile == GUESS, title(one).lower()))
    return "\n".join(["| provider | hosts | speaks |", "| --- | --- | --- |", *map(row, providers)]) + "\n"


def title(provider: Provider) -> str:
    return str(provider.spec.get("title") or provider.profile)


def row(provider: Provider) -> str:
    """One provider's line."""
    hosts = [f"`{plain(host)}`" for host in provider.spec.get("hosts") or ()]
    more = f" and {len(hosts) - HOSTS} more" if len(hosts) > HOSTS else ""
    return f"| {title(provider)} | {', '.join(hosts[:HOSTS]) or 'any'}{more} | {', '.join(spoken(provider))} |"


def plain(host: str) -> str:
    """A host pattern as people write one: what a name stands for, instead of the name."""

    def choice(found: re.Match[str]) -> str:
        words = found[1].split("|")
        return words[0] if len(words) == 1 else f"{{{','.join(words)}}}"

    return re.sub(r"\{\w+=([^}]+)\}", choice, host)


def spoken(provider: Provider) -> Iterator[str]:
    """What is read on its paths: whole surfaces first, then the dialects of its own routes, each once."""
    served = dict.fromkeys(name for entry in provider.spec.get("serves") or () for name in entry)
    yield from (SURFACES.get(name, name) for name in served)
    own: dict[str, None] = {}
    for spec in (provider.spec.get("routes") or {}).values():
        route = {"dialect": spec} if isinstance(spec, str) else spec
        named = route.get("dialect") or ("a shape of its own" if route.get("usage") else [])
        own |= dict.fromkeys([named] if isinstance(named, str) else named)
    known = tuple(f"{name}." for name in served)
    yield from (
        name if " " in name else f"`{name}`" for name in own if name != "not_billed" and not name.startswith(known)
    )


def written(text: str) -> str:
    """README with today's table between its markers. Raises ValueError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name} has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
