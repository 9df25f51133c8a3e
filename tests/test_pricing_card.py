"""When and where a price holds: long context, tiers, regions, dates and hours."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from llmtab.pricing import PriceBook
from pricing_helpers import Pricer, load_book, pricer, usd, why


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load_book(tmp_path_factory.mktemp("prices"))


@pytest.fixture(scope="module")
def price(book: PriceBook) -> Pricer:
    return pricer(book)


def test_long_context_is_a_cliff_on_the_whole_prompt(price: Pricer) -> None:
    """Above the threshold every token costs the upper rate, output too; cached tokens count towards it (genai#241)."""
    at = {"input_tokens": 272_000, "cache_read_input_tokens": 200_000, "output_tokens": 1_000}
    assert usd(price("openai/gpt-5.6", **at)) == Decimal("0.288") + Decimal("0.08") + Decimal("0.02")
    over = at | {"input_tokens": 272_001}
    assert usd(price("openai/gpt-5.6", **over)) == Decimal("0.576008") + Decimal("0.16") + Decimal("0.03")
    assert usd(price("anthropic/claude-haiku-5-5", input_tokens=100_001)) == Decimal("0.0500005")


def test_an_unknown_prompt_size_leaves_the_step_unknown(price: Pricer) -> None:
    """Output alone has no price where the price hangs on the prompt."""
    assert why(price("openai/gpt-5.6", output_tokens=5)) == "unpriced:input_tokens"
    assert usd(price("openai/gpt-4o", output_tokens=5)) == Decimal("0.00005")


def test_service_tiers(price: Pricer) -> None:
    """A tier has a factor or a row; standard, default and none are one; any other has no price (langfuse#13780)."""
    call = {"input_tokens": 1_000_000 // 4, "output_tokens": 0}
    assert usd(price("openai/gpt-5.6", **call)) == 1
    for name in (None, "standard", "default"):
        assert usd(price("openai/gpt-5.6", tier=name, **call)) == 1
    assert usd(price("openai/gpt-5.6", tier="priority", **call)) == 2
    assert usd(price("anthropic/claude-sonnet-4-5", tier="fast", **call)) == Decimal("1.5")
    for name in ("platinum", "priorityy", "auto"):
        assert why(price("openai/gpt-5.6", tier=name, **call)) == f"unknown_tier:{name}"
    assert why(price("openai/gpt-4o", tier="flex", **call)) == "unknown_tier:flex"


def test_a_tier_row_says_all_of_its_prices(price: Pricer) -> None:
    """What a tier's row lacks is unknown there; long prompts too where it has no steps; fees carry over."""
    assert why(price("openai/gpt-5.6", tier="batch", input_tokens=9, cache_read_input_tokens=3)) == (
        "unpriced:cache_read_input_tokens"
    )
    assert why(price("openai/gpt-5.6", tier="priority", input_tokens=272_001)) == "unknown_tier:priority"
    assert usd(price("openai/gpt-5.6", tier="flex", input_tokens=300_000)) == Decimal("1.2")
    assert usd(price("openai/gpt-5.6", tier="flex", input_tokens=0, web_search_requests=100)) == 1


def test_tier_prices_have_no_history_before_they_were_known(price: Pricer) -> None:
    """Before `tiers_from` a tier's price is unknown, the standard one is not."""
    at = datetime(2026, 10, 13, 23, 59, tzinfo=UTC)
    assert why(price("openai/gpt-5.6", at=at, tier="flex", input_tokens=1_000)) == "unknown_tier:flex"
    assert usd(price("openai/gpt-5.6", at=at, input_tokens=1_000)) == Decimal("0.004")
    assert usd(price("openai/gpt-5.6", at=at + timedelta(minutes=1), tier="flex", input_tokens=1_000)) == Decimal(
        "0.002"
    )


def test_regions(price: Pricer) -> None:
    """Where it ran multiplies token prices of the models that say so, never fees; geo prefixes stay in the id."""
    assert usd(price("openai/gpt-5.6", region="eu", input_tokens=1_000_000 // 4, web_search_requests=1)) == Decimal(
        "1.11"
    )
    assert usd(price("openai/gpt-5.6", region="global", input_tokens=1_000_000 // 4)) == 1
    assert usd(price("openai/gpt-4o", region="eu", input_tokens=1_000_000)) == Decimal("2.5")
    assert usd(price("anthropic/claude-sonnet-4-5", region="us", input_tokens=1_000_000)) == Decimal("3.3")
    assert usd(price("anthropic/claude-sonnet-4-5", region="eu", input_tokens=1_000_000)) == 3
    name = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert usd(price(f"bedrock/us.{name}", input_tokens=1_000_000)) == Decimal("3.3")
    assert usd(price(f"bedrock/global.{name}", input_tokens=1_000_000)) == 3
    assert why(price(f"bedrock/eu.{name}", input_tokens=1_000_000)) == "unknown_model"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-08-20T23:59:59.999999Z", 5),
        ("2026-08-21T00:00:00Z", 4),
        ("2026-08-21T01:59:59+02:00", 5),
        ("2026-12-31T23:59:59Z", 4),
        ("2027-01-01T00:00:00Z", 3),
    ],
)
def test_prices_of_the_calls_own_time(price: Pricer, at: str, expected: int) -> None:
    """Old calls keep old prices, announced ones come true on their day, in any zone (ccusage#1636)."""
    found = price("openai/gpt-5.6-sol", at=datetime.fromisoformat(at), input_tokens=100_000)
    assert usd(found) == Decimal(expected) / 10


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-20T00:59:59Z", "0.15"),  # Friday
        ("2026-11-20T01:00:00Z", "0.30"),
        ("2026-11-20T04:00:00Z", "0.15"),
        ("2026-11-20T09:59:59Z", "0.30"),
        ("2026-11-21T02:00:00Z", "0.15"),  # Saturday
        ("2026-10-01T02:00:00Z", "0.15"),  # a holiday
        ("2026-10-08T02:00:00Z", "0.30"),
        ("2026-11-20T10:00:00+08:00", "0.30"),
    ],
)
def test_prices_by_the_hour(price: Pricer, at: str, expected: str) -> None:
    """UTC windows with weekdays and excepted dates; asked in any order, however the last answer was kept."""
    for _ in range(2):
        found = price("deepseek/deepseek-flash", at=datetime.fromisoformat(at), input_tokens=1_000_000)
        assert usd(found) == Decimal(expected)
        price("deepseek/deepseek-flash", at=datetime(2026, 11, 20, 2, tzinfo=UTC), input_tokens=1)


def test_a_window_over_midnight_belongs_to_the_day_it_began(price: Pricer) -> None:
    """22:30-00:30 on Fridays ends on Saturday at half past midnight."""
    moments = {"20T22:30": "0.1", "21T00:29": "0.1", "21T00:30": "0.5", "20T00:10": "0.5", "21T22:40": "0.5"}
    for at, expected in moments.items():
        found = price("deepseek/deepseek-night", at=datetime.fromisoformat(f"2026-11-{at}Z"), input_tokens=1_000_000)
        assert usd(found) == Decimal(expected), at


def test_a_naive_time_is_refused(price: Pricer) -> None:
    """A time without a zone is an error of the caller, not a guess."""
    with pytest.raises(ValueError, match="time zone"):
        price("openai/gpt-4o", at=datetime(2026, 11, 20), input_tokens=1)


def test_time_zones_do_not_matter(price: Pricer) -> None:
    """The same instant in another zone is the same price."""
    zone = timezone(timedelta(hours=9))
    found = price("deepseek/deepseek-flash", at=datetime(2026, 11, 20, 11, tzinfo=zone), input_tokens=1_000_000)
    assert usd(found) == Decimal("0.3")
