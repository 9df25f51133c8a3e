"""Usage to money: exact, proven line by line, or unknown with the reason."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.pricing import PriceBook, Unpriced
from llmtab.pricing.rates import BY_COUNTER, RATES
from llmtab.usage import COUNTERS, UNPRICED, Usage
from pricing_helpers import NOW, Pricer, load_book, pricer, usd, why


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load_book(tmp_path_factory.mktemp("prices"))


@pytest.fixture(scope="module")
def price(book: PriceBook) -> Pricer:
    return pricer(book)


def test_the_proof_of_a_cost(price: Pricer) -> None:
    """Every line says counter, disjoint quantity, rate after factors, unit and money; the entry is named."""
    found = price(
        "openai/gpt-5.6", tier="flex", region="us", input_tokens=10_000, cache_read_input_tokens=4_000,
        cache_creation_input_tokens=1_000, output_tokens=500, reasoning_output_tokens=100, total_tokens=10_500,
    )  # fmt: skip
    factors = {"tier:flex": Decimal("0.5"), "region:us": Decimal("1.1")}
    assert usd(found) == Decimal("0.02013")
    assert [tuple(line.values()) for line in found.lines] == [
        ("input_tokens", 5_000, Decimal("2.2"), 1_000_000, Decimal("0.011"), factors),
        ("cache_read_input_tokens", 4_000, Decimal("0.22"), 1_000_000, Decimal("0.00088"), factors),
        ("cache_creation_input_tokens", 1_000, Decimal("2.75"), 1_000_000, Decimal("0.00275"), factors),
        ("output_tokens", 500, Decimal("11"), 1_000_000, Decimal("0.0055"), factors),
    ]
    assert [*found.lines[0]] == ["counter", "quantity", "rate", "per", "usd", "factors"]
    assert found.price == {"id": "openai/gpt-5.6-sol", "from": "2026-08-21", "table": found.price["table"]}
    assert len(found.price["table"]) == 12
    assert found.saved_usd == 4 * Decimal("0.00198") + Decimal("-0.00055")


def test_cached_tokens_are_billed_once(price: Pricer) -> None:
    """The cached part leaves the input it is in, for overrides as for list prices (litellm#9812, #14849, #40006)."""
    assert usd(price("openai/gpt-4o", input_tokens=1_000, cache_read_input_tokens=600)) == Decimal("0.00175")


def test_cache_writes_by_lifetime(price: Pricer) -> None:
    """One-hour writes have their own rate; the rest of the writes, also of a partial split, the 5-minute one."""
    found = price(
        "anthropic/claude-sonnet-4-5-20250929", input_tokens=10_000, cache_creation_input_tokens=6_000,
        cache_creation_1h_input_tokens=2_000,
    )  # fmt: skip
    assert usd(found) == Decimal("0.012") + Decimal("0.015") + Decimal("0.012")
    found = price(
        "openai/gpt-5.6", input_tokens=100, cache_creation_input_tokens=100, cache_creation_12h_input_tokens=100
    )
    assert usd(found) == Decimal("0.001")


def test_a_cache_write_without_a_price_is_not_guessed(price: Pricer) -> None:
    """No multiplier is assumed: a one-hour write without its own rate makes the cost unknown, the rest is told."""
    found = price(
        "anthropic/claude-old", input_tokens=1_000, cache_creation_input_tokens=400, cache_creation_1h_input_tokens=400
    )
    assert why(found) == "unpriced:cache_creation_1h_input_tokens"
    assert isinstance(found, Unpriced)
    assert found.partial_usd == Decimal("0.0018")
    assert found.price is not None


def test_cache_reads_need_a_price(price: Pricer) -> None:
    """Cached tokens of a model without a cached price are unknown, unless the entry says they cost as input."""
    assert why(price("openai/gpt-4o-2024-05-13", input_tokens=9, cache_read_input_tokens=3)) == (
        "unpriced:cache_read_input_tokens"
    )
    found = price("deepseek/deepseek-flash", input_tokens=1_000_000, cache_creation_input_tokens=400_000)
    assert usd(found) == Decimal("0.15")


def test_what_caching_saved(price: Pricer) -> None:
    """Reads save against the input price, writes cost more than it: the sum may be negative."""
    assert price("openai/gpt-4o", input_tokens=1_000, cache_read_input_tokens=600).saved_usd == Decimal("0.00075")
    found = price("anthropic/claude-sonnet-4-5", input_tokens=1_000, cache_creation_input_tokens=1_000)
    assert found.saved_usd == Decimal("-0.00075")
    assert price("openai/gpt-4o", input_tokens=1_000).saved_usd is None


def test_parts_take_the_parents_rate_where_the_table_of_counters_says_so(price: Pricer) -> None:
    """Reasoning, tool results, image and video input cost as their parent; audio and cached tokens never do."""
    parts = ("tool_use_input_tokens", "image_input_tokens", "video_input_tokens")
    for part in parts:
        assert usd(price("openai/gpt-4o", input_tokens=1_000, **{part: 400})) == Decimal("0.0025"), part
        assert usd(price("openai/gpt-4o", **{part: 400})) == Decimal("0.001"), part
    assert usd(price("openai/gpt-4o", output_tokens=1_000, reasoning_output_tokens=900)) == Decimal("0.01")
    never = {
        "audio_input_tokens": "input_tokens",
        "cache_creation_input_tokens": "input_tokens",
        "audio_output_tokens": "output_tokens",
        "image_output_tokens": "output_tokens",
    }
    for part, whole in never.items():
        assert why(price("openai/gpt-4o", **{whole: 1_000, part: 4})) == f"unpriced:{part}"


def test_audio_has_its_own_rate(price: Pricer) -> None:
    """Audio tokens leave the text they are counted in, in and out (langwatch#7036)."""
    found = price(
        "openai/gpt-audio", input_tokens=1_000, audio_input_tokens=600, output_tokens=500, audio_output_tokens=400
    )
    assert usd(found) == Decimal("0.001") + Decimal("0.0192") + Decimal("0.001") + Decimal("0.0256")


def test_overlapping_parts(price: Pricer) -> None:
    """Cached tokens that may also be audio are not guessed: unknown, unless counted, all, none, or priced alike."""
    cached = {"input_tokens": 1_000, "cache_read_input_tokens": 400, "output_tokens": 100}
    found = price("google/gemini-2.5-flash", **cached, audio_input_tokens=300)
    assert why(found) == "ambiguous:cache_read_input_tokensxaudio_input_tokens"
    assert isinstance(found, Unpriced)
    assert found.partial_usd == Decimal("0.00025"), "the output is still known"
    found = price("google/gemini-2.5-flash", **cached, audio_input_tokens=300, cache_read_audio_input_tokens=100)
    by_hand = 400 * Decimal("0.3") + 300 * Decimal("0.03") + 200 * 1 + 100 * Decimal("0.1") + 100 * Decimal("2.5")
    assert usd(found) == by_hand / 1_000_000
    known_none = price("google/gemini-2.5-flash", **cached, audio_input_tokens=300, cache_read_audio_input_tokens=0)
    assert usd(known_none) == (300 * Decimal("0.3") + 400 * Decimal("0.03") + 300 + 250) / 1_000_000
    all_audio = price(
        "google/gemini-2.5-flash", input_tokens=1_000, cache_read_input_tokens=400, audio_input_tokens=1_000
    )
    assert usd(all_audio) == (600 + 400 * Decimal("0.1")) / 1_000_000
    alike = price("google/gemini-flat", input_tokens=1_000, cache_read_input_tokens=400, audio_input_tokens=900)
    assert usd(alike) == (600 * Decimal("0.3") + 400 * Decimal("0.03")) / 1_000_000
    video = price("google/gemini-flat", **cached, video_input_tokens=100)
    assert why(video) == "ambiguous:cache_read_input_tokensxvideo_input_tokens"


def test_both_cross_counters(price: Pricer) -> None:
    """Cached audio and cached images are each priced once and taken off both parts they lie in."""
    found = price(
        "openai/gpt-realtime", input_tokens=1_000, cache_read_input_tokens=500, audio_input_tokens=300,
        image_input_tokens=200, cache_read_audio_input_tokens=100, cache_read_image_input_tokens=50,
    )  # fmt: skip
    assert {line["counter"]: line["quantity"] for line in found.lines} == {
        "input_tokens": 150,
        "cache_read_input_tokens": 350,
        "audio_input_tokens": 200,
        "image_input_tokens": 150,
        "cache_read_audio_input_tokens": 100,
        "cache_read_image_input_tokens": 50,
    }
    assert sum(line["quantity"] for line in found.lines) == 1_000


def test_figures_that_contradict_each_other_have_no_price(price: Pricer) -> None:
    """A part above its parent, or parts that sum above it, is `inconsistent`, not a negative quantity."""
    assert why(price("openai/gpt-4o", input_tokens=10, cache_read_input_tokens=11)) == (
        "inconsistent:cache_read_input_tokens"
    )
    assert why(price("openai/gpt-4o", input_tokens=0, cache_read_input_tokens=11)) == (
        "inconsistent:cache_read_input_tokens"
    )
    assert (
        why(price("openai/gpt-4o", output_tokens=5, reasoning_output_tokens=9))
        == "inconsistent:reasoning_output_tokens"
    )
    found = price("anthropic/claude-old", input_tokens=10, cache_read_input_tokens=6, cache_creation_input_tokens=6)
    assert why(found) == "inconsistent:input_tokens"


def test_billed_units_are_priced_instead(price: Pricer) -> None:
    """Where the provider says what it bills (Cohere), that is priced, not what the model saw."""
    found = price(
        "cohere/command-a", input_tokens=507, output_tokens=12, cache_read_input_tokens=400, billed_input_tokens=13,
        billed_output_tokens=10,
    )  # fmt: skip
    assert usd(found) == (13 * Decimal("2.5") + 10 * 10) / 1_000_000
    assert [line["counter"] for line in found.lines] == ["billed_input_tokens", "billed_output_tokens"]


def test_other_units(price: Pricer) -> None:
    """Seconds, characters, search units, searches and calls are on the bill like tokens (litellm#16996)."""
    assert usd(price("openai/whisper-1", audio_input_seconds=Decimal("12.5"))) == Decimal("0.00125")
    assert usd(price("openai/whisper-1", audio_input_seconds=7)) == Decimal("0.0007")
    assert usd(price("openai/gpt-tts", input_characters=1_000)) == Decimal("0.015")
    assert usd(price("cohere/rerank-v3.5", search_units=3)) == Decimal("0.006")
    assert usd(price("openai/gpt-4o", input_tokens=0, web_search_requests=2)) == Decimal("0.02")
    assert why(price("openai/gpt-5.4-mini", input_tokens=5, web_search_requests=1)) == "unpriced:web_search_requests"
    assert usd(price("openai/gpt-5.4-mini", input_tokens=0, web_search_requests=0)) == 0


def test_a_fee_by_the_call_is_due_for_every_call(price: Pricer) -> None:
    """An entry with a request fee bills one call where nobody counted."""
    assert usd(price("openai/sonar", input_tokens=1_000)) == Decimal("0.013")
    assert usd(price("openai/sonar", input_tokens=1_000, requests=2)) == Decimal("0.025")


def test_free_and_unknown_are_different(price: Pricer) -> None:
    """`free: true` is a real 0; a model that is not listed is null; a listed 0 usage costs 0 (litellm PR#36561)."""
    assert usd(price("google/gemma-3", input_tokens=1_000, cache_read_input_tokens=4, audio_input_tokens=9)) == 0
    assert usd(price("openai/gpt-4o", input_tokens=0, output_tokens=0)) == 0
    assert why(price("google/gemma-4", input_tokens=1_000)) == "unknown_model"
    assert why(price("openai/gpt-4o")) == "no_usage"
    assert why(price("openai/gpt-4o", total_tokens=12)) == "no_usage"


def test_the_price_object_is_the_callers_own(price: Pricer) -> None:
    """The caller may add to what it got; the next call does not see it."""
    price("openai/gpt-4o", input_tokens=1).price["at"] = "now"
    assert "at" not in price("openai/gpt-4o", input_tokens=1).price


PRICEABLE = [name for name in COUNTERS if name not in UNPRICED and name in BY_COUNTER]


@given(
    st.dictionaries(st.sampled_from(PRICEABLE), st.integers(0, 400_000), max_size=8),
    st.sampled_from(["gpt-4o", "gpt-5.6-sol", "gpt-realtime", "gpt-audio", "sonar"]),
    st.sampled_from([None, "flex", "batch", "priority"]),
    st.sampled_from([None, "eu"]),
)
def test_a_cost_is_the_sum_of_its_lines_and_no_token_is_lost(
    book: PriceBook, counters: dict[str, int], model: str, tier: str | None, region: str | None
) -> None:
    """For any usage: lines recompute, sum exactly, are positive, and their token quantities sum to input and output."""
    found = book.price(Usage(counters), "openai", model, pricing_tier=tier, region=region, at=NOW)
    if isinstance(found, Unpriced):
        assert found.reason.split(":")[0] in {"unpriced", "unknown_tier", "ambiguous", "inconsistent", "no_usage"}
        return
    usd(found)
    for line in found.lines:
        assert line["quantity"] > 0
        exact = line["quantity"] * line["rate"] / line["per"]
        assert line["usd"] == exact.quantize(Decimal("1e-12"))
    for top in ("input_tokens", "output_tokens"):
        if top in counters:
            assert counters[top] == sum(line["quantity"] for line in found.lines if _top(line["counter"]) == top)


def _top(name: str) -> str:
    parent = COUNTERS[name].parent
    return _top(parent) if parent else name


def test_every_rate_key_prices_a_counter_of_its_own() -> None:
    """The words of a price file and the counters of the ledger are one to one; only billed units stand for others."""
    assert len({row.counter for row in RATES.values()}) == len(RATES)
    assert COUNTERS.keys() - {row.counter for row in RATES.values()} == UNPRICED | {
        "billed_input_tokens",
        "billed_output_tokens",
    }


def test_ten_million_lines_sum_to_the_exact_total(price: Pricer) -> None:
    """Costs are Decimals of at most 12 places, so totals of any length are exact."""
    one = usd(price("openai/gpt-4o", input_tokens=1, output_tokens=1))
    assert one == Decimal("0.0000125")
    assert one * 10_000_000 == 125
    assert sum((one for _ in range(100_000)), Decimal(0)) == Decimal("1.25")
    assert -one.as_tuple().exponent <= 12  # type: ignore[operator]
