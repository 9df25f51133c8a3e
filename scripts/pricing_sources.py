"""What genai-prices and litellm say, as rows of our own price file.

Knows both packages' data models and spellings. Must not know which of the two is right, or our file's text. litellm's table
is read as data; neither package is ever imported by llmtab itself.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from llmtab.pricing.names import spellings, undated
from llmtab.pricing.rates import RATES

type Row = dict[str, Any]
"""Prices of one case, in the words of pricing.yaml."""

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
LITELLM_KEYS = {
    "input_cost_per_token": "input", "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read", "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "input_cost_per_audio_token": "input_audio", "output_cost_per_audio_token": "output_audio",
    "cache_read_input_audio_token_cost": "cache_read_audio", "cache_read_input_image_token_cost": "cache_read_image",
    "input_cost_per_image_token": "input_image", "output_cost_per_image_token": "output_image",
    "input_cost_per_video_token": "input_video", "output_cost_per_video_token": "output_video",
    "output_cost_per_reasoning_token": "reasoning", "citation_cost_per_token": "citation",
    "input_cost_per_character": "characters", "ocr_cost_per_page": "page",
    "annotation_cost_per_page": "annotated_page", "code_interpreter_cost_per_session": "code_session",
}  # fmt: skip
LITELLM_MODES = {  # keys whose meaning hangs on the mode
    ("input_cost_per_second", "audio_transcription"): "audio_hour",
    ("output_cost_per_second", "video_generation"): "video_second",
    ("output_cost_per_image", "image_generation"): "image",
    ("input_cost_per_query", "rerank"): "search_unit",
}
TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "ultrafast": "ultrafast"}
_SUFFIX = re.compile(r"^(.*?)(?:_above_(\d+)k_tokens)?(?:_(batches|flex|priority|ultrafast))?$")


@dataclass(frozen=True)
class Offer:
    """One id at one source: its dated prices in our words, and what else the source says about it."""

    group: str
    prices: list[Row]
    max_output: int | None = None
    regions: Mapping[str, Decimal] | None = None
    empty: bool = False


def exact(value: Any) -> Decimal:
    """A price without float noise: nine places per million, as vendors print at most six."""
    found = Decimal(str(value)).quantize(Decimal("1e-9")).normalize()
    return found if found.as_tuple().exponent <= 0 else found.quantize(Decimal(1))


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
        row = {key: value for key, value in _genai_row(variant.prices).items() if key not in RATES or not RATES[key].fee}
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
        raise SystemExit(f"genai-prices prices {sorted(unknown)}: map it in scripts/pricing_sources.py")
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


class Litellm:
    """litellm's price table."""

    def __init__(self, path: Path | None) -> None:
        name = "model_prices_and_context_window_backup.json"
        if path is None:
            files = importlib.metadata.files("litellm") or []
            path = next(Path(str(file.locate())) for file in files if file.name == name)
            self.version = importlib.metadata.version("litellm")
        else:
            self.version = f"table {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.table: dict[str, Any] = json.loads(path.read_text(), parse_float=Decimal)

    def offers(self, providers: Iterable[str], skip: str | None) -> dict[str, Offer]:
        """Every id it has for these providers of its own, without its own prefixes; `skip` matches ids to leave out."""
        found: dict[str, Offer] = {}
        for name, data in self.table.items():
            provider = data.get("litellm_provider")
            if provider not in providers or (skip and re.search(skip, name)):
                continue
            bare = re.sub(r"^(vertex_ai|[a-z_]+)/", "", name) if name.split("/")[0] in _prefixes(provider) else name
            offer = _litellm_offer(bare.lower(), data)
            known = found.get(spellings(bare)[-1])
            if known is None or (offer.regions and not known.regions):
                found[spellings(bare)[-1]] = offer
        return found


def _prefixes(provider: str) -> set[str]:
    return {provider, provider.split("-")[0], provider.removesuffix("_text"), "cohere"}


def _litellm_offer(name: str, data: Mapping[str, Any]) -> Offer:
    base: Row = {}
    steps: dict[str, Row] = {}
    tiers: dict[str, Row] = {}
    tier_steps: dict[str, dict[str, Row]] = {}
    for key, value in data.items():
        if not isinstance(value, int | Decimal) or isinstance(value, bool):
            continue
        ours, size, tier = _litellm_key(key, str(data.get("mode")))
        if ours is None:
            continue
        price = exact(value * RATES[ours].per)
        if size and tier:
            tier_steps.setdefault(tier, {}).setdefault(size, {})[ours] = price
        elif size:
            steps.setdefault(size, {})[ours] = price
        elif tier:
            tiers.setdefault(tier, {})[ours] = price
        else:
            base[ours] = price
    _searches(data, base)
    return _assembled(name, data, base, steps, tiers, tier_steps)


def _litellm_key(key: str, mode: str) -> tuple[str | None, str | None, str | None]:
    if key in LITELLM_KEYS:
        return LITELLM_KEYS[key], None, None
    if (key, mode) in LITELLM_MODES:
        return LITELLM_MODES[key, mode], None, None
    found = _SUFFIX.match(key)
    ours = LITELLM_KEYS.get(found[1]) if found else None
    if found is None or ours is None:
        return None, None, None
    return ours, str(int(found[2]) * 1000) if found[2] else None, TIERS.get(found[3] or "")


def _searches(data: Mapping[str, Any], base: Row) -> None:
    sizes = data.get("search_context_cost_per_query")
    if isinstance(sizes, dict) and len(set(sizes.values())) == 1:
        base["web_search"] = exact(next(iter(sizes.values())) * 1000)


def _assembled(
    name: str, data: Mapping[str, Any], base: Row, steps: dict[str, Row], tiers: dict[str, Row],
    tier_steps: dict[str, dict[str, Row]],
) -> Offer:  # fmt: skip
    zeros = bool(base) and not any(base.values())
    row = ordered(_cleaned(base))
    if steps:
        row["above"] = {size: ordered(steps[size]) for size in sorted(steps, key=int)}
    for tier, its in tiers.items():
        above = tier_steps.get(tier)
        its = ordered(its) | ({"above": {size: ordered(above[size]) for size in sorted(above, key=int)}} if above else {})
        if "input" in its or "output" in its or "input" not in row:
            row.setdefault("tiers", {})[tier] = shortened(its, row)
    priced = any(value for key, value in row.items() if key in RATES and not RATES[key].fee)
    if zeros:
        row = {"free": True}
    cap = data.get("max_output_tokens")
    found = undated(name)
    return Offer(
        found[0] if found else name,
        [row] if row else [],
        int(cap) if isinstance(cap, int | Decimal) and cap > 0 and data.get("mode") in ("chat", "responses") else None,
        _regions(data),
        empty=not priced,
    )


def _cleaned(base: Row) -> Row:
    """Without what is no price: zeros that stand for "none" (DeepSeek's cache writes, tokens of image models, output of
    embeddings), and prices a piece of what is billed by the token."""
    row = dict(base)
    if row.get("reasoning") == row.get("output"):
        row.pop("reasoning", None)
    for token, piece in (("output_image", "image"), ("output_video", "video_second"), ("input_audio", "audio_hour")):
        if token in row:
            row.pop(piece, None)
    return {key: value for key, value in row.items() if value or RATES[key].fee}


def _regions(data: Mapping[str, Any]) -> dict[str, Decimal] | None:
    """Multipliers for where a call ran: regional hosts of OpenAI, locations of Vertex, `inference_geo` of Anthropic."""
    anywhere = data.get("regional_endpoint_uplift_multiplier") or data.get("regional_processing_uplift_multiplier_us")
    if anywhere:
        return {"*": exact(anywhere), "global": Decimal(1)}
    us = (data.get("provider_specific_entry") or {}).get("us")
    return {"us": exact(us)} if isinstance(us, Decimal) else None


def ordered(row: Row) -> Row:
    """Keys in the order of the table of rates."""
    first = {"from": row["from"]} if "from" in row else {}
    return first | {key: row[key] for key in RATES if key in row} | {key: row[key] for key in row if key not in RATES}


def shortened(row: Row, base: Row) -> Row | str:
    """`x0.5` where a tier is the base row times one factor in every price, else the row."""
    mine, its = _flat(row), {key: value for key, value in _flat(base).items() if not RATES[key[1]].fee}
    factors = {mine[key] / its[key] for key in mine if its.get(key)}
    if mine.keys() == its.keys() and len(factors) == 1 and all(its.values()):
        factor = factors.pop().normalize()
        if len(factor.as_tuple().digits) <= 4:  # not 1.6666...
            return f"x{factor:f}"
    return row


def _flat(row: Row) -> dict[tuple[str, str], Decimal]:
    flat = {("", key): value for key, value in row.items() if key in RATES}
    for size, step in row.get("above", {}).items():
        flat |= {(size, key): value for key, value in step.items()}
    return flat
