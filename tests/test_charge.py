from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.pricing import Cost, PriceBook
from llmtab.pricing.card import Card
from llmtab.pricing.charge import charge, stepwise
from llmtab.usage import COUNTERS, Usage

AT = datetime(2026, 5, 1, tzinfo=UTC)
MODELS = [
    ("openai", "gpt-4o", None),
    ("openai", "gpt-4o-audio-preview", None),
    ("openai", "gpt-5.4", None),
    ("anthropic", "claude-sonnet-4-5", None),
    ("anthropic", "claude-sonnet-4-5", "us"),
    ("google", "gemini-2.5-pro", None),
    ("cohere", "command-a-03-2025", None),
    ("voyage", "voyage-3", None),
]


@pytest.fixture(scope="module")
def cards() -> list[Card]:
    book = PriceBook.load()
    found = [book.card(provider, model, None, region, AT) for provider, model, region in MODELS]
    return [card for card in found if not isinstance(card, str)]


QUANTITIES = st.one_of(st.just(0), st.integers(1, 2000), st.integers(200_000, 10**9), st.just(Decimal("12.5")))


@given(
    number=st.integers(0, len(MODELS) - 1),
    calls=st.lists(st.dictionaries(st.sampled_from(sorted(COUNTERS)), QUANTITIES, max_size=7), min_size=1, max_size=3),
)
def test_a_remembered_plan_prices_like_every_single_step(cards: list[Card], number: int, calls: list[dict]) -> None:
    """However a call's counters look, and whatever was priced before, the quick way and the long way agree."""
    card = cards[number % len(cards)]
    for counters in calls:
        quick, long = charge(card, Usage(counters)), stepwise(card, counters)
        assert quick == long
        if isinstance(quick, Cost):
            assert sum(line["usd"] for line in quick.lines) == quick.usd


def test_the_models_of_this_test_have_prices(cards: list[Card]) -> None:
    """A model that lost its price would quietly take its cases along."""
    assert len(cards) == len(MODELS)
