"""All price tables of a run, and the price of a call.

Knows how the user's files stand over the shipped one, and keeps rate cards that were already built: a call must be
priced in microseconds. Must not know arithmetic on usage. The store is bounded and each card says until when it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from llmtab.pricing import card as cards
from llmtab.pricing.card import Card, Span, Terms
from llmtab.pricing.charge import Cost, Unpriced, charge
from llmtab.pricing.finder import Finder, Match
from llmtab.pricing.table import default_path, of_data, read
from llmtab.usage import Usage

__all__ = ["PriceBook", "default_path"]

MOST_CARDS: Final = 4096
STALE_DAYS: Final = 60
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""Calendars end soon after it."""

type Key = tuple[str, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices calls by the tables of `finder`."""

    finder: Finder
    _cards: dict[Key, tuple[datetime, datetime, Card | str]]

    @classmethod
    def load(
        cls,
        shipped: Path | None = None,
        extra: Sequence[Path] = (),
        overrides: Any = None,
        *,
        overrides_path: Path | str = "llmtab.yaml",
    ) -> "PriceBook":
        """Later files of `extra` win over earlier ones; `overrides`, the `pricing:` part of llmtab.yaml in the same
        form, wins over all. A later entry replaces the whole price of an earlier one. Raises ConfigError."""
        tables = [read(shipped or default_path(), user=False), *(read(path, user=True) for path in extra)]
        if overrides:
            tables.append(of_data(overrides, overrides_path))
        finder = Finder(tuple(reversed(tables)))
        finder.check()
        return cls(finder, {})

    def price(
        self,
        usage: Usage,
        provider: str,
        model: str,
        *,
        pricing_tier: str | None = None,
        region: str | None = None,
        at: datetime,
    ) -> Cost | Unpriced:
        """The cost in USD of one call that ended `at` (aware, else ValueError), or why there is none."""
        found = self.card(provider, model, pricing_tier, region, at)
        return Unpriced(found, None, [], None) if isinstance(found, str) else charge(found, usage)

    def card(self, provider: str, model: str, pricing_tier: str | None, region: str | None, at: datetime) -> Card | str:
        """The rates that hold for a model at a moment, or the reason why there are none."""
        if at.tzinfo is None:
            raise ValueError("the time of a call needs a time zone")
        key = (provider, model, pricing_tier, region)
        kept = self._cards.get(key)
        if kept is not None and kept[0] <= at < kept[1]:
            return kept[2]
        found, (since, until) = self._build(key, min(at, LATEST).astimezone(UTC))
        if len(self._cards) >= MOST_CARDS:
            self._cards.clear()
        self._cards[key] = (since, until, found)
        return found

    def find(self, provider: str, model: str, at: datetime) -> Match | None:
        """The entry that prices a model at a moment, whatever the tier."""
        return self.finder.find(provider, model, at.astimezone(UTC).date().isoformat())

    @property
    def as_of(self) -> str | None:
        """The day the shipped prices were collected, YYYY-MM-DD."""
        found: str | None = self.finder.tables[-1].data.get("as_of")
        return found

    def stale_days(self, today: date) -> int | None:
        """The age of the shipped prices in days where it is above 60, else None."""
        age = (today - date.fromisoformat(self.as_of)).days if self.as_of else 0
        return age if age > STALE_DAYS else None

    def stale_note(self, today: date) -> str | None:
        """A sentence about shipped prices older than 60 days."""
        age = self.stale_days(today)
        said = f"prices of {self.as_of} are {age} days old: update llmtab, or add new ones to llmtab.yaml"
        return None if age is None else said

    def _build(self, key: Key, at: datetime) -> tuple[Card | str, Span]:
        provider, model, tier, region = key
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        match = self.find(provider, model, at)
        if match is None:
            return "unknown_model", (day, day + timedelta(days=1))
        period, span = cards.period_at(match.entry["prices"], at)
        if match.how == "dated":  # whether a snapshot date is in the future depends on the day of the call
            span = (max(span[0], day), min(span[1], day + timedelta(days=1)))
        if period is None:
            return "unknown_model", span
        price = {"id": f"{match.provider}/{match.model}", "from": period.get("from", ""), "table": match.table.digest}
        terms = Terms(
            match.entry.get("regions", self.finder.setting(provider, "regions") or {}),
            match.entry.get("discount", self.finder.setting(provider, "discount")),
            self.finder.setting(match.provider, "tiers_from"),
        )
        price = {name: value for name, value in price.items() if value}
        found, inner = cards.build(period, terms, tier, region, at, price)
        return found, (max(span[0], inner[0]), min(span[1], inner[1]))
