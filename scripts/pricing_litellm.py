"""What litellm's price table says, as rows of our own price file.

Knows its flat keys and prefixes. Must not know whether it is right. Read as data: litellm is never imported.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pricing_rows import Offer, Row, exact, ordered, shortened

from llmtab.pricing.names import spellings, undated
from llmtab.pricing.rates import RATES

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


class Litellm:
    """litellm's price table."""

    def __init__(self, path: Path | None) -> None:
        name = "model_prices_and_context_window_backup.json"
        if path is None:
            files = importlib.metadata.files("litellm") or []
            path = next(Path(str(file.locate())) for file in files if file.name == name)
            self.version = importlib.metadata.version("litellm")
        else:
            named = re.search(r"\d+\.\d+\.\d+", path.name)
            self.version = named[0] if named else f"table {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.table: dict[str, Any] = json.loads(path.read_text(), parse_float=Decimal)

    def offers(self, providers: Sequence[str], skip: str | None) -> dict[str, Offer]:
        """Every id it has for these providers of its own, without its own prefixes; `skip` matches ids to leave out.
        Where it has an id twice, the provider named first stands, and of one provider the row that knows regions."""
        found: dict[str, tuple[int, Offer]] = {}
        for name, data in self.table.items():
            provider = data.get("litellm_provider")
            if provider not in providers or (skip and re.search(skip, name)):
                continue
            bare = re.sub(r"^(vertex_ai|[a-z_]+)/", "", name) if name.split("/")[0] in _prefixes(provider) else name
            offer = _litellm_offer(bare.lower(), data)
            rank, known = found.get(spellings(bare)[-1], (len(providers), None))
            better = known is not None and bool(offer.regions) and not known.regions
            if known is None or providers.index(provider) < rank or (providers.index(provider) == rank and better):
                found[spellings(bare)[-1]] = providers.index(provider), offer
        return {name: offer for name, (_, offer) in found.items()}


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
        its = ordered(its) | (
            {"above": {size: ordered(above[size]) for size in sorted(above, key=int)}} if above else {}
        )
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
