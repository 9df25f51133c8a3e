"""Profiles: who answers on a host and path, and what the answer means; loaded from YAML, built-in and the user's alike.

Knows the files and the match (host, method, path) -> `Claim`. Must not know how a body is cut into events or counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llmtab.documents import fail
from llmtab.profiles.batch import Batch
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.files import ORIGIN, built_in, read_folder
from llmtab.profiles.patterns import captured, clean_path, compile_host, compile_path, is_literal, shown_path

GUESS: Final = "openai_compatible"
SOCKET: Final = "WS"
"""The method of a route for calls that become a WebSocket: `WS /v1/responses`."""
CACHE_SIZE: Final = 4096
"""Paths remembered with their claim; real clients use a handful, a scanner must not fill the memory."""
LONGEST_PATH: Final = 2048
"""Characters of a path that are looked at: the longest honest ones hold an ARN. Patterns and their cache cost by
length."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What one route of one provider means."""

    profile: str
    provider: str
    role: str
    dialects: tuple[Dialect, ...]
    stream: bool
    route: str
    headers: frozenset[bytes]
    """Lower-case names of all headers that a reference speaks of."""
    batch: Batch | None = None
    socket: bool = False
    """Whether its calls ask to become a WebSocket."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A binding for one call, with what host and path patterns caught."""

    binding: Binding
    captures: Mapping[str, str]
    path: str = ""
    """The path as the ledger shows it."""


class ProfileError(ValueError):
    """A profile that is well formed but cannot work: an unknown dialect, surface or provider."""


class Provider:
    """One provider file, its routes compiled when a call first asks for them."""

    def __init__(self, spec: Mapping[str, Any], library: "Profiles") -> None:
        self.spec = spec
        self.profile: str = spec.get("name") or spec["provider"]
        self._library = library
        self._routes: list[tuple[frozenset[str], Any, str, Any]] | None = None
        self._bindings: dict[str, Binding] = {}

    @property
    def routes(self) -> list[tuple[frozenset[str], Any, str, Any]]:
        """(methods, path pattern, "METHOD /path", what it speaks): the provider's own routes first, then its
        surfaces'."""
        if self._routes is None:
            self._routes = [_route(key, "", spec) for key, spec in (self.spec.get("routes") or {}).items()]
            for entry in self.spec.get("serves") or ():
                for surface, base in entry.items():
                    routes = self._library.surface(surface)["routes"]
                    self._routes += [_route(key, base.rstrip("/"), spec) for key, spec in routes.items()]
        return self._routes

    def claim(self, method: str, path: str, host: Mapping[str, str]) -> Claim | None:
        """The first route that fits."""
        for methods, pattern, key, spec in self.routes:
            if method in methods or "*" in methods:
                found = pattern.fullmatch(path)
                if found:
                    return _claim(self.binding(key, spec), {**host, **captured(found)}, path)
        return None

    def binding(self, key: str, spec: Any) -> Binding:
        """The compiled meaning of a route. Raises ProfileError where it names what does not exist."""
        if key not in self._bindings:
            route = {"dialect": spec} if isinstance(spec, str) else dict(spec)
            role, batch = route.pop("role", "billed"), route.pop("batch", None)
            named = route.pop("dialect", None)
            if named == "not_billed":
                role, named = "not_billed", None
            names = [named] if isinstance(named, str) else list(named or ())
            provider = route.pop("provider", None) or self.spec["provider"]
            if not names and any(route.get(word) for word in ("usage", "roots")):
                names = [""]
            dialects = tuple(self._dialect(name, route) for name in names)
            stream = bool(route.get("stream")) or any(dialect.stream for dialect in dialects)
            headers = frozenset(name.encode() for dialect in dialects for name in dialect.headers)
            items = Batch(batch, dialects) if isinstance(batch, Mapping) else None
            socket = key.startswith(f"{SOCKET} ")
            self._bindings[key] = Binding(self.profile, provider, role, dialects, stream, key, headers, items, socket)
        return self._bindings[key]

    def _dialect(self, name: str, route: Mapping[str, Any]) -> Dialect:
        overrides = self.spec.get("overrides") or {}
        spec = self._library.dialect(name) if name else {}
        for change in (overrides.get("*"), overrides.get(name), route, self._library.everywhere):
            spec = merged(spec, change or {})
        return self._library.compiled(name or f"{self.profile}.custom", spec)


def _route(key: str, base: str, spec: Any) -> tuple[frozenset[str], Any, str, Any]:
    methods, _, path = key.partition(" ")
    return frozenset(methods.split("|")), compile_path(base + path), f"{methods} {base}{path}", spec


def merged(spec: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `spec`: rows of `usage`, `tiers` and `regions` one by one, every other key whole."""
    out = {**spec, **{key: value for key, value in change.items() if value is not None}}
    for key in ("usage", "tiers", "regions"):
        if spec.get(key) and change.get(key):
            out[key] = {**spec[key], **change[key]}
    return out


class Profiles:
    """All profiles in force. Later files win: a user's provider of the same name replaces the built-in one."""

    def __init__(self, specs: Iterable[Mapping[str, Any]]) -> None:
        self._dialects: dict[str, Mapping[str, Any]] = {}
        self._surfaces: dict[str, Mapping[str, Any]] = {}
        self.providers: dict[str, Provider] = {}
        for spec in specs:
            self._add(spec)
        self._exact: dict[str, list[Provider]] = {}
        self._patterns: list[tuple[Any, Provider]] = []
        for provider in reversed(self.providers.values()):
            for host in provider.spec.get("hosts") or ():
                if is_literal(host):
                    self._exact.setdefault(host.lower(), []).append(provider)
                else:
                    self._patterns.append((compile_host(host), provider))
        self._hosts: dict[str, list[tuple[Provider, dict[str, str]]]] = {}
        self._compiled: dict[str, Dialect] = {}
        self.everywhere: Mapping[str, Any] = {}
        self._claims: dict[tuple[str, int, str, str], Claim | None] = {}

    @classmethod
    def load(
        cls,
        folders: Sequence[Path] = (),
        extra: Iterable[Mapping[str, Any]] = (),
        everywhere: Mapping[str, Any] | None = None,
    ) -> "Profiles":
        """The built-in profiles, then those in `folders`, then `extra` (validated, from the config); `everywhere` is
        said of all dialects besides. Raises ConfigError."""
        own = [spec for folder in folders for spec in read_folder(folder)]
        profiles = cls([*built_in(), *own, *extra])
        profiles.everywhere = everywhere or {}
        profiles.check(name for name, provider in profiles.providers.items() if ORIGIN in provider.spec)
        return profiles

    def _add(self, spec: Mapping[str, Any]) -> None:
        if "dialect" in spec:
            self._dialects[spec["dialect"]] = spec
        elif "surface" in spec:
            self._surfaces[spec["surface"]] = spec
        else:
            provider = Provider(self._whole(spec) if "like" in spec else spec, self)
            self.providers.pop(provider.profile, None)
            self.providers[provider.profile] = provider

    def _whole(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """A provider with what it is `like` underneath. Raises ConfigError (ProfileError where it is in no file)."""
        base = self.providers.get(spec["like"])
        if base is None:
            wanted = spec["like"]
            raise _misplaced(spec, (), f"profile {wanted!r} is not known, {_expected(wanted, self.providers)}")
        below = base.spec
        out = {**below, "name": spec.get("name") or spec.get("provider") or base.profile, **spec}
        own, others = spec.get("overrides") or {}, below.get("overrides") or {}
        routes = spec.get("routes") or {}
        out["routes"] = {**routes, **(below.get("routes") or {}), **routes}  # its own come first
        out["serves"] = [*(spec.get("serves") or ()), *(below.get("serves") or ())]
        out["overrides"] = {key: merged(others.get(key, {}), own.get(key, {})) for key in {**others, **own}}
        out["hosts"] = [*(below.get("hosts") or () if out["name"] == base.profile else ()), *(spec.get("hosts") or ())]
        return out

    def dialect(self, name: str) -> Mapping[str, Any]:
        """A dialect's rows, those of the dialect it is `like` underneath. Raises ProfileError."""
        if name not in self._dialects:
            raise ProfileError(f"dialect {name!r} is not known, {_expected(name, self._dialects)}")
        spec = self._dialects[name]
        parent = spec.get("like")
        return merged(self.dialect(parent), {**spec, "api": spec.get("api") or name}) if parent else spec

    def compiled(self, name: str, spec: Mapping[str, Any]) -> Dialect:
        """A dialect made ready to run, once for all routes that mean the same: there are ten times as many routes."""
        key = f"{name} {spec!r}"
        if key not in self._compiled:
            self._compiled[key] = Dialect(name, spec)
        return self._compiled[key]

    def tiers(self, provider: str) -> dict[str, str]:
        """A provider's own words for service tiers, whatever dialect it speaks."""
        found: dict[str, str] = {}
        for its in self.providers.values():
            if its.spec["provider"] == provider:
                for override in (its.spec.get("overrides") or {}).values():
                    found |= override.get("tiers") or {}
        return found

    @property
    def priced_as_asked(self) -> frozenset[str]:
        """Providers whose calls are priced by the model that was asked for: their answers name it otherwise."""
        specs = [
            (route.get("provider") or its.spec["provider"], route)
            for its in self.providers.values()
            for route in (*(its.spec.get("overrides") or {}).values(), *(its.spec.get("routes") or {}).values())
            if isinstance(route, Mapping)
        ]
        return frozenset(provider for provider, route in specs if route.get("price_model"))

    def surface(self, name: str) -> Mapping[str, Any]:
        """A set of routes. Raises ProfileError."""
        if name not in self._surfaces:
            raise ProfileError(f"surface {name!r} is not known, {_expected(name, self._surfaces)}")
        return self._surfaces[name]

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compile these providers (all where None), so that a mistake shows at the start. Raises ConfigError with file
        and line, ProfileError where a provider is in no file."""
        for provider in self.providers.values() if names is None else map(self.providers.__getitem__, names):
            loc: tuple[str, ...] = ("serves",)
            try:
                for _, _, key, spec in provider.routes:
                    loc = ("routes", key)
                    provider.binding(key, spec)
                for name in provider.spec.get("overrides") or {}:
                    loc = ("overrides", name)
                    self.dialect(name) if name != "*" else None
            except ValueError as error:
                raise _misplaced(provider.spec, loc, str(error)) from error

    def at_host(self, host: str, port: int | None = None) -> list[tuple[Provider, dict[str, str]]]:
        """The providers that claim a host (given in lower case), with what their pattern caught."""
        key = f"{host}:{port}"
        found = self._hosts.get(key)
        if found is None:
            bare = host.rstrip(".")  # `api.openai.com.` is the same host, spelt in full
            names = (f"{bare}:{port}", bare)
            found = [(provider, {}) for name in names for provider in self._exact.get(name, ())]
            for pattern, provider in self._patterns:
                match = pattern.fullmatch(names[1]) or pattern.fullmatch(names[0])
                if match:
                    found.append((provider, captured(match)))
            if len(self._hosts) >= CACHE_SIZE:
                self._hosts.clear()
            self._hosts[key] = found
        return found

    def match(self, host: str, port: int, method: str, path: str) -> Claim | None:
        """The claim for a call: the host's provider by path, else a guess by the path's shape, else None."""
        claim = self._claims.get((host, port, method, path))  # most paths are clean as they come
        if claim is not None:
            return claim
        path = clean_path(path)[:LONGEST_PATH]
        key = (host, port, method, path)
        if key in self._claims:
            return self._claims[key]
        claim = self._match(host.lower(), port, method, path)
        if len(self._claims) >= CACHE_SIZE:
            self._claims.clear()
        self._claims[key] = claim
        return claim

    def _match(self, host: str, port: int, method: str, path: str) -> Claim | None:
        at_host = self.at_host(host, port)
        for provider, caught in at_host:
            claim = provider.claim(method, path, caught)
            if claim:
                return claim
        guess = self.providers.get(GUESS)
        claim = guess.claim(method, path, {}) if guess else None
        if claim and claim.binding.role == "by_shape" and not at_host:
            return None
        if claim and at_host:
            owner = at_host[0][0]
            return replace(
                claim,
                binding=_owned(claim.binding, owner.spec["provider"]),
                captures={**at_host[0][1], **claim.captures},
            )
        return claim


def _claim(binding: Binding, captures: Mapping[str, str], path: str) -> Claim:
    return Claim(binding, captures, shown_path(path, captures))


def _owned(binding: Binding, provider: str) -> Binding:
    """A guess by shape on the host of a known provider: its prices apply, the guess stays visible."""
    return replace(binding, provider=provider)


def _misplaced(spec: Mapping[str, Any], loc: tuple[str, ...], message: str) -> ValueError:
    if ORIGIN not in spec:
        return ProfileError(f"profile {spec.get('name') or spec.get('provider')}, {' '.join(loc)}: {message}")
    file, *where = spec[ORIGIN]
    return fail(file, (*where, *loc), message)


def _expected(name: str, known: Iterable[str]) -> str:
    """The name that was meant, if one is close; else all of them."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"expected {close[0]!r}?" if close else f"expected one of: {', '.join(sorted(known))}"
