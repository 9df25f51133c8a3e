"""One price file in memory: its providers and models, and the index from names to entries.

Knows the plain form of a price file, where the shipped one lies, and the cache. Must not know usage or how several
files combine. A start from the cache imports neither pydantic nor the YAML parser.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from llmtab.caching import bake, cached, encode
from llmtab.documents import ConfigError, load
from llmtab.pricing.names import covers, undated

VERSION = "prices-1"


class Names(NamedTuple):
    """A provider's names in one file, all in lower case, to entry ids."""

    exact: Mapping[str, str]
    aliases: Mapping[str, str]
    given: Mapping[str, str]
    globs: tuple[tuple[str, str], ...]
    dated: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """`digest`: the first 12 hex digits of the file's SHA-256. `user`: not the shipped file.
    `inside`: where in the file the prices stand, if they are not the whole of it."""

    name: str
    digest: str
    user: bool
    data: Mapping[str, Any]
    inside: tuple[str, ...] = ()
    _names: dict[str, Names] = field(default_factory=dict)

    @property
    def providers(self) -> Mapping[str, Any]:
        """Provider name to its plain form."""
        found: Mapping[str, Any] = self.data["providers"]
        return found

    def entry(self, provider: str, model: str) -> dict[str, Any] | None:
        """The entry with this id."""
        found: dict[str, Any] | None = self.providers.get(provider, {}).get("models", {}).get(model)
        return found

    def names(self, provider: str) -> Names:
        """The index of a provider's names, made on first use (a race makes it twice, equal both times)."""
        found = self._names.get(provider)
        if found is None:
            found = self._names[provider] = _index(self.providers.get(provider, {}))
        return found


def default_path() -> Path:
    """`pricing.yaml`: beside the package in a wheel, at the root of a checkout otherwise."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "pricing.yaml"
    return inside if inside.exists() else package.parent.parent / "pricing.yaml"


def read(path: Path, *, user: bool) -> Table:
    """The table of a file. Raises ConfigError."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        data = cached([path, *_code()], VERSION, _builder(path, user), extra=str(user))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from None
    return Table(str(path), digest, user, data)


def of_data(data: Any, path: Path | str) -> Table:
    """The table of prices written inside another file: the `pricing:` part of llmtab.yaml. Raises ConfigError."""
    text = encode(data)

    def build() -> Any:
        from llmtab.pricing.schema import validate

        return validate(data, path, user=True, inside=("pricing",))

    digest = hashlib.sha256(text).hexdigest()[:12]
    return Table(str(path), digest, True, cached(_code(), VERSION, build, extra=text.decode()), ("pricing",))


def bake_shipped(folder: Path, path: Path | None = None) -> Path:
    """Write the parsed form of the shipped file into `folder`: what the wheel's build hook calls."""
    path = path or default_path()
    return bake([path, *_code()], VERSION, _builder(path, False), folder, extra=str(False))


def _code() -> list[Path]:
    """What decides how a file is understood: part of the cache's key, so that no other code believes an old one."""
    room = Path(__file__).parent
    return [*sorted(room.glob("*.py")), room.parent / "documents.py", room.parent / "usage.py"]


def _builder(path: Path, user: bool) -> Callable[[], Any]:
    def build() -> Any:
        from llmtab.pricing.schema import validate

        return validate(load(path, cache=False), path, user=user)

    return build


def _index(provider: Mapping[str, Any]) -> Names:
    exact, aliases, dated = {}, {}, {}
    globs = []
    for model, entry in provider.get("models", {}).items():
        name = model.strip().lower()
        if "*" in name:
            globs.append((name, model))
            continue
        exact[name] = model
        for alias in entry.get("aliases", ()):
            aliases[alias.strip().lower()] = model
        if entry.get("dated"):
            dated[name] = model
    for alias, model in aliases.items():
        if provider["models"][model].get("dated") is True:
            dated.setdefault(alias, model)
    given = {alias.strip().lower(): target for alias, target in provider.get("aliases", {}).items()}
    globs.sort(key=lambda pair: -len(pair[0].split("*")[0]))
    return Names(exact, aliases, given, tuple(globs), dated)


def dated_match(table: Table, provider: str, name: str, today: str) -> str | None:
    """The entry whose `dated` covers `name`, a base name with a snapshot date."""
    found = undated(name)
    model = table.names(provider).dated.get(found[0]) if found else None
    if model is None or found is None:
        return None
    return model if covers(table.providers[provider]["models"][model]["dated"], found[1], today) else None
