"""What genai-prices says, as rows of our own price file.

Knows its data model: match clauses, dated and daily prices, variants. Must not know whether it is right.
"""

import importlib.metadata
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Any

from pricing_rows import Offer, Row, exact, ordered, shortened

from llmtab.pricing.names import spellings
from llmtab.pricing.rates import RATES

GENAI_KEYS = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cache_read", "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h", "input_audio_mtok": "input_audio", "output_audio_mtok": "output_audio",
    "cache_audio_read_mtok": "cache_read_audio", "input_image_mtok": "input_image", "output_image_mtok": "output_image",
    "cache_image_read_mtok": "cache_read_image", "input_video_mtok": "input_video", "output_video_mtok": "output_video",
    "output_reasoning_mtok": "reasoning", "output_citation_mtok": "citation", "input_mchars": "characters",
    "web_searches_kcount": "web_search", "storage_searches_kcount": "file_search", "requests_kcount": "request",
    "input_document_kpages": "page", "input_annotated_document_kpages": "annotated_page",
    "input_audio_hours": "audio_hour",
}  # fmt: skip
GENAI_IGNORED = {
    "audio_hours": "input and output seconds in one figure: only `input_audio_hours` says which",
    "input_text_messages_kcount": "xAI voice; no counter for it",
}


class Genai:
    """genai-prices' snapshot."""

    def __init__(self) -> None:
        from genai_prices import data

        self.version = importlib.metadata.version("genai-prices")
        self.providers = {provider.id: provider for provider in data.providers}
        self.all = list(data.providers)
        self.named = {name: _named(provider) for name, provider in self.providers.items()}
        """By provider: every id that is spelt out, not merely matched by a pattern; bare spelling to its own."""

    def find(self, provider: str, name: str, tiers_from: str, *, fallback: bool = False) -> Offer | None:
        """What it charges for a name, prefix matches included (the caller decides whether to believe them)."""
        spelt = self.named[provider].get(name, name)
        model = self.providers[provider].find_model(spelt, all_providers=self.all if fallback else None)
        if model is None:
            return None
        prices = [row for row in _genai_prices(model, tiers_from) if row]
        return Offer(model.id, prices, empty=not any(key in RATES for row in prices for key in row))

    def same(self, provider: str, one: str, two: str) -> bool:
        """Whether two names find one model."""
        return self.providers[provider].find_model(one) is self.providers[provider].find_model(two)

    def covers_dates(self, provider: str, name: str) -> bool:
        """Whether any snapshot date after the name would find the same model."""
        its = self.providers[provider].find_model(name)
        probes = (f"{name}-20260115", f"{name}-2026-01-15", f"{name}@20260115")
        return its is not None and any(self.providers[provider].find_model(probe) is its for probe in probes)


def _named(provider: Any) -> dict[str, str]:
    found = {}
    for model in provider.models:
        ids = set(_equals(model.match)) | ({model.id.lower()} if model.is_match(model.id) else set())
        found.update({spellings(name)[-1]: name for name in sorted(ids) if not name.endswith("-")})
    return found


def _equals(clause: Any) -> Iterator[str]:
    if type(clause).__name__ == "ClauseEquals":
        yield clause.equals.lower()
    elif type(clause).__name__ == "ClauseOr":
        for inner in clause.or_:
            yield from _equals(inner)


def _genai_prices(model: Any, tiers_from: str) -> list[Row]:
    """Its conditional prices and variants as whole dated rows."""
    listed = model.prices if isinstance(model.prices, list) else None
    if listed is None:
        based = [(None, model.prices)]
        windows = []
    else:
        based = [(_start(item.constraint), item.prices) for item in listed if not _hours(item.constraint)]
        windows = [item for item in listed if _hours(item.constraint)]
    starts = {start for start, _ in based}
    for variant in model.price_variants or ():
        start = _start(variant.constraint)
        if start and start > tiers_from:
            starts.add(start)
    rows = []
    for start, until in _spans(sorted(starts, key=lambda text: text or "")):
        row = _genai_row(_in_force(based, start))
        moment = max(start or "", tiers_from)
        tiers = _genai_tiers(model, row, moment) if until is None or moment < until else {}
        if tiers:
            row["tiers"] = tiers
        if windows and until is None:
            row["windows"] = [_genai_window(item) for item in windows]
        rows.append(({"from": start} if start else {}) | row)
    return rows


def _spans(starts: list[str | None]) -> Iterator[tuple[str | None, str | None]]:
    yield from zip(starts, [*starts[1:], None], strict=True)


def _in_force(based: list[tuple[str | None, Any]], start: str | None) -> Any:
    return [prices for since, prices in based if (since or "") <= (start or "")][-1]


def _start(constraint: Any) -> str | None:
    return constraint.start_date.isoformat() if hasattr(constraint, "start_date") else None


def _hours(constraint: Any) -> bool:
    return hasattr(constraint, "start_time")


def _genai_window(item: Any) -> Row:
    def utc(value: time) -> str:
        return datetime.combine(datetime(2026, 1, 1, tzinfo=UTC), value).astimezone(UTC).strftime("%H:%M")

    hours = f"{utc(item.constraint.start_time)}-{utc(item.constraint.end_time)}"
    return {"utc": hours, **_genai_row(item.prices)}


def _genai_tiers(model: Any, base: Row, moment: str) -> Row:
    """Variants in force at `moment`; a variant without any price of its own says nothing."""
    found: Row = {}
    for variant in model.price_variants or ():
        name = variant.when.get("processing") or variant.when.get("speed") or variant.when.get("service_tier")
        start = _start(variant.constraint)
        if name in (None, "default") or (start and start > moment):
            continue
        row = {
            key: value for key, value in _genai_row(variant.prices).items() if key not in RATES or not RATES[key].fee
        }
        if row and name not in found:
            found[name] = shortened(row, base)
    if found.get("fast") == found.get("priority"):
        found.pop("fast", None)
    return dict(sorted(found.items()))


def _genai_row(prices: Any) -> Row:
    row: Row = {}
    steps: dict[str, Row] = {}
    values = {key: value for key, value in vars(prices).items() if value is not None and key not in GENAI_IGNORED}
    unknown = values.keys() - GENAI_KEYS.keys()
    if unknown:
        raise SystemExit(f"genai-prices prices {sorted(unknown)}: map it in scripts/pricing_genai.py")
    sizes = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    for key, value in values.items():
        ours = GENAI_KEYS[key]
        row[ours] = exact(getattr(value, "base", value))
        if RATES[ours].fee:
            continue
        for size in sizes:
            reached = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= size]
            steps.setdefault(str(size), {})[ours] = exact(reached[-1]) if reached else row[ours]
    return ordered(row) | ({"above": {size: ordered(step) for size, step in steps.items()}} if steps else {})
