"""Our table against genai-prices and litellm: where both agree, ours agrees exactly or says why it has no price.

Run it with the extra `refresh` installed; LITELLM_PRICES may name a copy of litellm's table instead of the package.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.pricing import Cost, PriceBook, Unpriced
from llmtab.pricing.names import spellings
from llmtab.usage import Usage

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
TABLE = "model_prices_and_context_window_backup.json"
LONG = 300_001

# dimension: our counters, genai-prices' key, litellm's key, and the tier
CASES: dict[str, tuple[dict[str, int], str, str, str | None]] = {
    "input": ({"input_tokens": 1000}, "input_mtok", "input_cost_per_token", None),
    "output": ({"input_tokens": 0, "output_tokens": 1000}, "output_mtok", "output_cost_per_token", None),
    "cache_read": (
        {"input_tokens": 1000, "cache_read_input_tokens": 1000},
        "cache_read_mtok",
        "cache_read_input_token_cost",
        None,
    ),
    "cache_write": (
        {"input_tokens": 1000, "cache_creation_input_tokens": 1000},
        "cache_write_mtok",
        "cache_creation_input_token_cost",
        None,
    ),
    "cache_write_1h": (
        {"input_tokens": 1000, "cache_creation_input_tokens": 1000, "cache_creation_1h_input_tokens": 1000},
        "cache_write_1h_mtok",
        "cache_creation_input_token_cost_above_1hr",
        None,
    ),
    "audio input": (
        {"input_tokens": 1000, "audio_input_tokens": 1000},
        "input_audio_mtok",
        "input_cost_per_audio_token",
        None,
    ),
    "audio output": (
        {"input_tokens": 0, "output_tokens": 1000, "audio_output_tokens": 1000},
        "output_audio_mtok",
        "output_cost_per_audio_token",
        None,
    ),
    "long input": ({"input_tokens": LONG}, "input_mtok", "input_cost_per_token", None),
    "long output": ({"input_tokens": LONG, "output_tokens": 1000}, "output_mtok", "output_cost_per_token", None),
}
for _tier, _suffix in (("batch", "_batches"), ("flex", "_flex"), ("priority", "_priority")):
    for _case in ("input", "output", "cache_read"):
        _usage, _genai, _litellm, _ = CASES[_case]
        CASES[f"{_tier} {_case}"] = (_usage, _genai, _litellm + _suffix, _tier)


def litellm_table() -> dict[str, Any]:
    path = os.environ.get("LITELLM_PRICES")
    if path is None:
        if importlib.util.find_spec("litellm") is None:
            pytest.skip("litellm is not installed (extra `refresh`), and LITELLM_PRICES names no copy of its table")
        files = importlib.metadata.files("litellm") or []
        path = str(next(file.locate() for file in files if file.name == TABLE))
    found: dict[str, Any] = json.loads(Path(path).read_text(), parse_float=Decimal)
    return found


@pytest.fixture(scope="module")
def answers() -> list[tuple[str, str, str, str]]:
    """Each case that both sources price alike: provider, model, dimension, and what ours said about it."""
    genai = pytest.importorskip("genai_prices.data", reason="genai-prices is not installed (extra `refresh`)")
    table = litellm_table()
    sys.path.insert(0, str(SCRIPTS))
    from pricing_merge import PROVIDERS

    book = PriceBook.load()
    at = datetime.fromisoformat(f"{book.as_of}T12:00:00+00:00").astimezone(UTC)
    found = []
    for ours in PROVIDERS:
        theirs = next((item for item in genai.providers if item.id == ours.genai), None)
        for name, data in table.items():
            if theirs is None or data.get("litellm_provider") not in ours.litellm:
                continue
            if ours.skip and re.search(ours.skip, name):
                continue
            bare = spellings(re.sub(rf"^({'|'.join(ours.litellm)}|vertex_ai|azure|cohere)/", "", name))[-1]
            if not re.search(ours.keep, bare):
                continue
            model = theirs.find_model(bare, all_providers=genai.providers if ours.fallback else None)
            own = model is not None and any(model is item for item in theirs.models)
            for case, rates in agreed(model, data, at) if model else ():
                if not own and CASES[case][3]:
                    continue  # genai-prices itself applies no tiers to another seller's model
                found.append((ours.name, bare, case, judged(book, ours.name, bare, case, rates, at)))
    return found


def agreed(model: Any, data: dict[str, Any], at: datetime) -> Iterator[tuple[str, set[Decimal]]]:
    """Dimensions on which both sources have one price but for a halved one rounded to the cent; USD for one unit."""
    for case, (usage, genai_key, litellm_key, tier) in CASES.items():
        one = genai_rate(model, genai_key, tier, usage["input_tokens"], at)
        two = litellm_rate(data, litellm_key, usage["input_tokens"])
        if one and two and abs(one - two) <= one / 1000:
            yield case, {one, two}


def genai_rate(model: Any, key: str, tier: str | None, prompt: int, at: datetime) -> Decimal | None:
    if tier is None:
        prices = model.get_prices(at)
    else:
        context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
        variants = [item for item in model.price_variants or () if item.when == context]
        current = [item for item in variants if item.constraint is None or item.constraint.active(at)]
        prices = current[0].prices if current else None
    value = getattr(prices, key, None)
    for step in getattr(value, "tiers", ()):
        if prompt > step.start:
            value = step.price
            break
    value = getattr(value, "base", value)
    return None if value is None else Decimal(value) / 1_000_000


def litellm_rate(data: dict[str, Any], key: str, prompt: int) -> Decimal | None:
    steps = sorted((int(step[1]), name) for name in data if (step := re.fullmatch(rf"{key}_above_(\d+)k_tokens", name)))
    reached = [name for size, name in steps if prompt > size * 1000]
    value = data.get(reached[-1] if reached else key)
    return Decimal(value) if isinstance(value, int | Decimal) else None


def judged(book: PriceBook, provider: str, model: str, case: str, rates: set[Decimal], at: datetime) -> str:
    usage, _, _, tier = CASES[case]
    found = book.price(Usage(usage), provider, model, pricing_tier=tier, at=at)
    if isinstance(found, Unpriced):
        return found.reason
    assert isinstance(found, Cost)
    if case == "long output":
        found_usd = next(line["usd"] for line in found.lines if line["counter"] == "output_tokens")
    else:
        found_usd = sum((line["usd"] for line in found.lines if line["counter"] != "requests"), Decimal(0))
    quantity = LONG if case == "long input" else 1000
    expected = {(rate * quantity).quantize(Decimal("1e-12")) for rate in rates}
    return "" if found_usd in expected else f"wrong: {found_usd} for {expected}"


def test_nothing_both_sources_agree_on_is_priced_otherwise(answers: list[tuple[str, str, str, str]]) -> None:
    """Wrong is 0: for every model and dimension where both sources agree, ours has that price or none with a reason."""
    assert len(answers) > 1_000
    assert [answer for answer in answers if answer[3].startswith("wrong")] == []


def test_little_of_it_is_unpriced(answers: list[tuple[str, str, str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Less than 5 % of what both sources price has no price here; the share a provider is printed."""
    cases, missing = Counter[str](), Counter[str]()
    for provider, _, _, said in answers:
        cases[provider] += 1
        missing[provider] += bool(said)
    with capsys.disabled():
        print()
        for provider in sorted(cases):
            print(f"  {provider:12} {cases[provider]:5} cases  {missing[provider] / cases[provider]:6.1%} unpriced")
    assert missing.total() / cases.total() < 0.05, [answer for answer in answers if answer[3]][:40]
