"""From a provider and a model's name to the one entry that prices it, over all tables of a run.

Knows the order of precedence and what entries inherit from each other (`extends`, `models_of`, names that a replaced
entry keeps). Must not know usage, tiers or money. A provider comes from the profile and is never guessed from a
model's name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from llmtab.documents import fail
from llmtab.pricing.names import spellings
from llmtab.pricing.rates import RATES
from llmtab.pricing.table import Table, dated_match

DEEPEST: Final = 8

type Place = tuple[str, str]
"""Provider and entry id."""
type Found = tuple[str, str, int]
"""Provider, entry id, and the number of the first table that may say what the entry is."""


class Match(NamedTuple):
    """The entry a name found: its table, place, content with `extends` worked in, and the rule that found it."""

    table: Table
    provider: str
    model: str
    entry: Mapping[str, Any]
    how: str


@dataclass(frozen=True, slots=True)
class Finder:
    """`tables`: highest precedence first, the shipped one last."""

    tables: tuple[Table, ...]

    def find(self, provider: str, model: str, today: str) -> Match | None:
        """The entry for a name on the day `today` (YYYY-MM-DD, UTC). First the user's own statements (ids, aliases,
        then patterns), then ids, aliases, snapshot dates; then the same at the provider that `models_of` names, as
        `_lenders` tells."""
        for where, first in self._lenders(provider):
            for rule in (self._stated, self._pattern, self._exact, self._alias, self._dated):
                for name in spellings(model):
                    found = rule(where, name, today, first)
                    if found is not None:
                        return self.match(*found, rule.__name__.strip("_"))
        return None

    def match(self, provider: str, model: str, first: int, how: str) -> Match:
        """The entry at a place: the highest table that has it, from the table number `first` on. Raises KeyError."""
        for index, table in enumerate(self.tables[first:], first):
            entry = table.entry(provider, model)
            if entry is not None:
                return Match(table, provider, model, self._extended(index, (provider, model), entry, 0), how)
        raise KeyError(f"{provider}/{model}")

    def setting(self, provider: str, key: str) -> Any:
        """What the highest table that says so says about a provider as a whole."""
        for table in self.tables:
            if key in (found := table.providers.get(provider, {})):
                return found[key]
        return None

    def entries(self) -> Iterator[Match]:
        """Every entry, in the order of providers and ids."""
        places = {(name, model) for table in self.tables for name in table.providers
                  for model in table.providers[name]["models"]}  # fmt: skip
        for provider, model in sorted(places):
            yield self.match(provider, model, 0, "exact")

    def _lenders(self, provider: str) -> Iterator[tuple[str, int]]:
        """A provider, then those whose models it has as well, each with the first table that counts there.

        Models are lent as they stood when that was said: by the table that says `models_of` and those under it. A price
        that the user has replaced is his price with one provider; that it is another one's too only he can say.
        """
        seen: set[str] = set()
        where, first = provider, 0
        while where not in seen:
            seen.add(where)
            yield where, first
            lent = ((index, table.providers.get(where, {})) for index, table in enumerate(self.tables[first:], first))
            where, first = next(((its["models_of"], at) for at, its in lent if "models_of" in its), (where, first))

    def check(self) -> None:
        """What entries extend, aliases stand for and providers borrow from must exist. Raises ConfigError."""
        for index, table in enumerate(self.tables):
            for provider, its in table.providers.items():
                self._check_provider(index, table, provider, its)

    def _check_provider(self, index: int, table: Table, provider: str, its: Mapping[str, Any]) -> None:
        at = (*table.inside, "providers", provider)
        for model, entry in its["models"].items():
            try:
                self._extended(index, (provider, model), entry, 0)
            except KeyError:
                message = f"{entry['extends']!r} is in no table, or leads in a circle, expected a model's id"
                raise fail(table.name, (*at, "models", model, "extends"), message) from None
        for alias, target in its.get("aliases", {}).items():
            if self._target(provider, target) is None:
                message = f"{target!r} is no model of {provider}, expected a model's id"
                raise fail(table.name, (*at, "aliases", alias), message)
        if "models_of" in its and not any(its["models_of"] in other.providers for other in self.tables):
            raise fail(table.name, (*at, "models_of"), f"{its['models_of']!r}, expected a provider of a table")

    def _stated(self, provider: str, name: str, today: str, first: int) -> Found | None:
        for table in self.tables[first:]:
            if table.user:
                names = table.names(provider)
                if target := names.given.get(name):
                    return self._target(provider, target)
                if model := names.exact.get(name) or names.aliases.get(name):
                    return provider, model, first
        return None

    def _pattern(self, provider: str, name: str, today: str, first: int) -> Found | None:
        found = [(len(glob.split("*")[0]), model) for table in reversed(self.tables[first:]) if table.user
                 for glob, model in reversed(table.names(provider).globs)
                 if re.fullmatch(".*".join(map(re.escape, glob.split("*"))), name)]  # fmt: skip
        return (provider, max(reversed(found), key=lambda pair: pair[0])[1], first) if found else None

    def _exact(self, provider: str, name: str, today: str, first: int) -> Found | None:
        return next(((provider, table.names(provider).exact[name], first) for table in self.tables[first:]
                     if name in table.names(provider).exact), None)  # fmt: skip

    def _alias(self, provider: str, name: str, today: str, first: int) -> Found | None:
        for table in self.tables[first:]:
            names = table.names(provider)
            if target := names.given.get(name):
                return self._target(provider, target)
            if model := names.aliases.get(name):
                return provider, model, first
        return None

    def _dated(self, provider: str, name: str, today: str, first: int) -> Found | None:
        found = (dated_match(table, provider, name, today) for table in self.tables[first:])
        return next(((provider, model, first) for model in found if model), None)

    def _target(self, provider: str, target: str) -> Found | None:
        """What an alias stands for: an id or an alias, here or where models are borrowed from."""
        for where, first in self._lenders(provider):
            for table in self.tables[first:]:
                names = table.names(where)
                if model := names.exact.get(target.lower()) or names.aliases.get(target.lower()):
                    return where, model, first
        return None

    def _extended(self, index: int, place: Place, entry: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """The entry with what it extends: each dated price of the base takes the changes, from their own day on."""
        if "extends" not in entry:
            return entry
        base = self._base(index, place, entry["extends"])
        if base is None or depth > DEEPEST:
            raise KeyError(entry["extends"])
        changes = entry["prices"][0]
        whole = self._extended(*base, depth + 1)
        return {**whole, **entry, "prices": _changed(whole["prices"], changes)}

    def _base(self, index: int, place: Place, target: str) -> tuple[int, Place, Mapping[str, Any]] | None:
        """What is extended: a name equal to its own only in a table further down, any other name anywhere."""
        provider, _, model = target.partition("/")
        for candidate in ((place[0], target), (provider, model)):
            for at, table in enumerate(self.tables):
                entry = None if candidate == place and at <= index else table.entry(*candidate)
                if entry is not None:
                    return at, candidate, entry
        return None


def _changed(periods: Sequence[Mapping[str, Any]], changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dated prices with changes worked in: into all of them, or from a day on, what was before staying as it was."""
    gone = {"free"} if any(key in RATES for key in changes) else set()
    start = changes.get("from", "")
    before = [dict(period) for period in periods if period.get("from", "") < start]
    dated = {key: value for key, value in changes.items() if key != "from"}
    found = [
        {key: period[key] for key in period if key not in gone} | dated
        for period in [*({**period, "from": start} for period in before[-1:]), *periods[len(before) :]]
    ]
    return before + found
