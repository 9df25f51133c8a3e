"""Millions of priced lines add up to the exact total: no cent is lost to floating point on the way."""

import os
from decimal import Decimal, localcontext
from pathlib import Path
from random import Random
from typing import Any, Final

from llmtab.live.totals import Sum
from llmtab.pricing import Cost, PriceBook
from llmtab.record import decode, encode
from llmtab.usage import Usage
from pricing_helpers import NOW, load_book

DISTINCT: Final = 2_000
LINES: Final = int(os.environ.get("LLMTAB_SUM_LINES", "200000"))
"""10 million take half a minute: LLMTAB_SUM_LINES=10000000 scripts/test tests/test_sums.py"""
PICO: Final = 10**12
MODELS: Final = (
    ("openai", "gpt-4o"), ("openai", "gpt-5.6-sol"), ("openai", "whisper-1"), ("anthropic", "claude-haiku-5-5"),
    ("deepseek", "deepseek-flash"), ("google", "gemini-2.5-flash"),
)  # fmt: skip


def priced(book: PriceBook, random: Random) -> dict[str, Any]:
    """A line as the ledger gives it back: priced, encoded, decoded."""
    provider, model = random.choice(MODELS)
    usage: dict[str, int | Decimal] = {"audio_input_seconds": Decimal(random.randrange(10**6)) / 1000}
    if model != "whisper-1":
        usage = {"input_tokens": random.randrange(1, 400_000), "output_tokens": random.randrange(9_000)}
        usage["cache_read_input_tokens"] = random.randrange(int(usage["input_tokens"]))
    found = book.price(Usage(usage), provider, model, at=NOW)
    assert isinstance(found, Cost)
    assert sum((term["usd"] for term in found.lines), Decimal(0)) == found.usd
    line = {"provider": provider, "request_model": model, "usage": usage, "cost_usd": found.usd, "billing": "metered"}
    return decode(encode(line))


def test_priced_lines_sum_to_the_exact_total(tmp_path: Path) -> None:
    """The fold that tables and reports use gives the same total as whole pico-dollars, to the last of 12 places."""
    random = Random(20261120)
    book = load_book(tmp_path)
    lines = [priced(book, random) for _ in range(DISTINCT)]
    total, rounds = Sum(), LINES // DISTINCT
    for _ in range(rounds):
        for line in lines:
            total.add(line)
    with localcontext(prec=60):
        picos = [line["cost_usd"] * PICO for line in lines]
        assert all(pico == int(pico) for pico in picos)
        exact = sum(int(pico) for pico in picos) * rounds
        assert total.cost * PICO == exact
    assert total.calls == rounds * DISTINCT
