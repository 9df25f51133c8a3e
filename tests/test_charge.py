from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.pricing import Cost, PriceBook
from llmtab.pricing.card import Card, Terms, build
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


STEPS = st.sampled_from([100, 200_000, 200_001, 272_000, 272_001])  # often a part as great as its whole
QUANTITIES = st.one_of(st.just(0), STEPS, st.integers(1, 2000), st.integers(200_000, 10**9), st.just(Decimal("12.5")))


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


def test_what_caching_saved_is_known_where_all_of_it_was_audio() -> None:
    """A model that sells audio but no text: cached audio is compared with plain audio, on both ways."""
    period = {"input_audio": Decimal(30), "cache_read_audio": Decimal(2), "cache_read": Decimal(1)}
    card, _ = build(period, Terms({}, None, None), None, None, AT, {"id": "x/y"})
    counters = {"input_tokens": 10, "cache_read_input_tokens": 10, "cache_read_audio_input_tokens": 10}
    assert isinstance(card, Card)
    quick = charge(card, Usage(counters))
    assert quick == stepwise(card, counters)
    assert isinstance(quick, Cost)
    assert quick.saved_usd == Decimal("0.00028")
