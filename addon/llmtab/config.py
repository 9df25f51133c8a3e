"""`llmtab.yaml`: the user's hosts, profiles, prices and time zone, read once and checked whole.

Knows the file and turns its short forms into ordinary profiles and prices. Must not know flows, the wire, or how
profiles and prices are used. What was read is kept by content: a start with an unchanged file needs no pydantic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from llmtab import caching, documents
from llmtab.documents import ConfigError
from llmtab.hosts import expand, slug
from llmtab.profiles.files import ORIGIN, read_folder

__all__ = ["Config", "ConfigError", "load"]

VERSION: Final = "config-2"
_OWN: Final = ("hosts", "profiles", "pricing", "timezone", "ledger")
"""Sections that become profiles, prices and times here; every other one is handed on as it is."""
_CODE: Final = (
    "config.py",
    "config_schema.py",
    "budgets/alerts_schema.py",
    "attribution/schema.py",
    "budgets/amounts.py",
    "budgets/limits.py",
    "budgets/schema.py",
    "budgets/weights.py",
    "budgets/windows.py",
    "gravitee.py",
    "hosts.py",
    "ledger/retention.py",
    "ledger/rotation.py",
    "attribution/textmatch.py",
    "profiles/models.py",
    "profiles/terms.py",
    "profiles/refs.py",
    "usage.py",
)
"""What decides how the file is understood: part of the cache's key, so that a new version never believes an old one."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the file said.

    `profile_specs`: validated profiles, later ones win. `pricing`: price overrides in the form of a price file (None:
    none), handed to `PriceBook.load(overrides=..., overrides_path=path)`. `timezone`: where a day begins. `folders`: of
    profiles (or single files) that the file names.
    """

    path: Path | None = None
    profile_specs: tuple[Mapping[str, Any], ...] = ()
    pricing: Any = None
    timezone: tzinfo = UTC
    folders: tuple[Path, ...] = ()
    rotate: str = ""
    """When a file of the ledger is finished (`100MB`, `day`), "" for never."""
    keep: str = ""
    """How long finished files stay (`90d`), "" for ever."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What the other sections said (`attribution`, `rules`, ...), checked, as plain values; a silent one is absent."""
    key_names: Mapping[str, str] = field(default_factory=dict)
    """Names of key fingerprints: from a file of their own, see `keynames.py`."""


def load(path: Path | None) -> Config:
    """The configuration of a file; None is no file. Raises ConfigError with file, line, key and what was expected."""
    if path is None:
        return Config()
    room = Path(__file__).parent
    try:
        found = caching.cached([path, *(room / name for name in _CODE)], VERSION, lambda: _read(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from None
    specs: list[Mapping[str, Any]] = []
    for loc, spec in found["profiles"]:
        specs += _folder(path, loc, spec) if isinstance(spec, str) else [{**spec, ORIGIN: (str(path), *loc)}]
    zone = found["timezone"]
    named = [_place(path, spec) for _, spec in found["profiles"] if isinstance(spec, str)]
    place = UTC if zone == "UTC" else ZoneInfo(zone)
    rotate, keep = found["ledger"]
    return Config(path, tuple(specs), found["pricing"], place, tuple(named), rotate, keep, found["sections"])


def _folder(path: Path, loc: list[str | int], text: str) -> list[dict[str, Any]]:
    """The profiles of a folder or file that is named in the configuration, relative to it."""
    folder = _place(path, text)
    if not folder.exists():
        raise documents.fail(path, loc, f"{text!r}, expected a folder of profiles or one profile's file")
    return read_folder(folder)


def _place(path: Path, text: str) -> Path:
    return path.parent / Path(text).expanduser()


def _read(path: Path) -> dict[str, Any]:
    """The file, checked, as plain values: profiles with where they stand, prices, and the zone's name."""
    from llmtab.config_schema import File

    data = documents.load(path, cache=False)
    if data is not None and not isinstance(data, dict):
        raise documents.fail(path, (), f"expected a mapping of {', '.join(File.model_fields)}")
    file = documents.check(File, data or {}, path)
    profiles: list[tuple[list[str | int], Any]] = [
        (["profiles", number], profile if isinstance(profile, str) else _plain(profile))
        for number, profile in enumerate(file.profiles)
    ]
    prices: dict[str, Any] = {}
    names: dict[str, str] = {}
    for host, entry in file.hosts.items():
        if (other := names.setdefault(slug(host), host)) != host:
            raise documents.fail(path, ("hosts", host), f"cannot be told from {other!r}, expected one of them")
        specs, price = _expand(host, entry)
        profiles += [(["hosts", host], spec) for spec in specs]
        prices |= price
    return {
        "profiles": profiles,
        "pricing": _with_prices(data, prices, path),
        "timezone": file.timezone,
        "ledger": [file.ledger.rotate, file.ledger.keep],
        "sections": {name: _section(getattr(file, name)) for name in file.model_fields_set if name not in _OWN},
    }


def _section(value: Any) -> Any:
    """A section as plain values; Decimals stay Decimals."""
    if isinstance(value, list):
        return [_section(item) for item in value]
    if isinstance(value, dict):
        return {key: _section(item) for key, item in value.items()}
    return value.model_dump(by_alias=True, exclude_unset=True) if hasattr(value, "model_dump") else value


def _expand(host: str, entry: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if entry.gravitee is None:
        return [expand(host, _plain(entry))], {}
    from llmtab import gravitee

    specs, price = gravitee.expand(host, entry.gravitee, _plain(entry))
    return specs, price or {}


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return found


def _with_prices(data: Any, prices: Mapping[str, Any], path: Path) -> Any:
    """The `pricing:` part as it was written, with the prices of Gravitee's entries beside it."""
    said = (data or {}).get("pricing")
    if not prices:
        return said
    providers = (said or {}).get("providers") or {}
    if not isinstance(providers, dict):
        raise documents.fail(path, ("pricing", "providers"), "expected a mapping of providers")
    for name in prices:
        if name in providers:
            message = "this host's gravitee entry has prices as well, expected one of them"
            raise documents.fail(path, ("pricing", "providers", name), message)
    return {**(said or {}), "providers": {**providers, **prices}}
