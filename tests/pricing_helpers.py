"""A small price table and how to ask it, for the tests of pricing."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.pricing import Cost, PriceBook, Unpriced
from llmtab.usage import Usage

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)  # a Friday

TABLE = """
version: 1
as_of: 2026-11-20
providers:
  openai:
    tiers_from: 2026-10-14
    models:
      gpt-4o: {dated: [2024-08-06, 2024-11-20], input: 2.5, cache_read: 1.25, output: 10, web_search: 10}
      gpt-4o-2024-05-13: {input: 5, output: 15}
      gpt-5.4-mini: {input: 0.75, cache_read: 0.075, output: 4.5}
      gpt-audio: {input: 2.5, output: 10, input_audio: 32, output_audio: 64}
      gpt-realtime: {input: 4, cache_read: 0.4, output: 16, input_audio: 32, input_image: 5, cache_read_audio: 0.4,
          cache_read_image: 0.5, output_audio: 64}
      gpt-tts: {characters: 15}
      whisper-1: {audio_hour: 0.36}
      sonar: {input: 1, output: 1, request: 12}
      gpt-5.6-sol:
        aliases: [gpt-5.6]
        dated: true
        regions: {'*': 1.1, global: 1}
        prices:
          - {input: 5, cache_read: 0.5, cache_write: 6.25, output: 30,
            above: {272000: {input: 10, cache_read: 1, cache_write: 12.5, output: 45}}}
          - {from: 2026-08-21, input: 4, cache_read: 0.4, cache_write: 5, cache_write_12h: 10, output: 20,
            web_search: 10, above: {272000: {input: 8, cache_read: 0.8, cache_write: 10, output: 30}},
            tiers: {flex: x0.5, batch: {input: 2, output: 10}, priority: {input: 8, cache_read: 0.8, output: 40}}}
          - {from: 2027-01-01, input: 3, output: 15}
  anthropic:
    models:
      claude-sonnet-4-5: {dated: true, input: 3, cache_read: 0.3, cache_write: 3.75, cache_write_1h: 6, output: 15,
          web_search: 10, tiers: {batch: x0.5, fast: x2}, regions: {us: 1.1}}
      claude-old: {input: 3, cache_read: 0.3, cache_write: 3.75, output: 15}
      claude-haiku-5-5: {input: 0.1, cache_read: 0.01, cache_write: 0.125, output: 0.5,
          above: {100000: {input: 0.5, cache_read: 0.05, cache_write: 0.625, output: 2.5}}}
  google:
    models:
      gemini-2.5-flash: {input: 0.3, cache_read: 0.03, output: 2.5, input_audio: 1, cache_read_audio: 0.1,
          grounding: 35}
      gemini-flat: {input: 0.3, cache_read: 0.03, output: 2.5, input_audio: 0.3, input_video: 0.6}
      gemma-3: {free: true}
  cohere:
    models:
      command-a: {input: 2.5, output: 10}
      rerank-v3.5: {search_unit: 2}
  deepseek:
    models:
      deepseek-flash: {input: 0.15, cache_read: 0.003, cache_write: input, output: 0.6, windows: [
          {utc: ['01:00-04:00', '06:00-10:00'], days: mon-fri, not: 2026-10-01..2026-10-07, times: 2}]}
      deepseek-night: {input: 0.5, output: 2, windows: [{utc: '22:30-00:30', days: fri, input: 0.1, output: 0.4}]}
  bedrock:
    models:
      us.anthropic.claude-sonnet-4-5-20250929-v1:0: {input: 3.3, output: 16.5}
      global.anthropic.claude-sonnet-4-5-20250929-v1:0: {input: 3, output: 15}
  fireworks:
    models: {glm-5: {input: 1, output: 3}}
  azure: {models_of: openai, aliases: {my-prod: gpt-4o}}
"""

type Pricer = Callable[..., Any]


def load_book(folder: Path, **more: Any) -> PriceBook:
    """The table above as a book; its cache stays in `folder`."""
    path = folder / "pricing.yaml"
    path.write_text(TABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTAB_HOME", str(folder))
        return PriceBook.load(path, **more)


def pricer(book: PriceBook) -> Pricer:
    """`price("provider/model", counter=value, ...)`."""

    def price(
        place: str, at: datetime = NOW, tier: str | None = None, region: str | None = None, **counters: Any
    ) -> Any:
        provider, _, model = place.partition("/")
        return book.price(Usage(counters), provider, model, pricing_tier=tier, region=region, at=at)

    return price


def usd(found: Cost | Unpriced) -> Decimal:
    """The cost, its lines checked."""
    assert isinstance(found, Cost), found
    assert sum((line["usd"] for line in found.lines), Decimal(0)) == found.usd
    return found.usd


def why(found: Cost | Unpriced) -> str:
    """The reason why there is no cost."""
    assert isinstance(found, Unpriced), found
    return found.reason
