"""Which entry a model's name finds, and which names find none."""

import pytest

from llmtab.pricing import PriceBook
from pricing_helpers import Pricer, load_book, pricer, why


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load_book(tmp_path_factory.mktemp("prices"))


@pytest.fixture(scope="module")
def price(book: PriceBook) -> Pricer:
    return pricer(book)


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini", "gpt-4oo", "gpt-4o-", "gpt-4o-2024", "gpt-4o-2024-08-07", "gpt-4o-2024-08-06-x", "gpt-5",
        "gpt-5.6-solar", "gpt-5.6-sol-2099-01-01", "gpt-5.6-sol-20261121", "gpt-5.6-sol-2026-13-01", "gpt-5.6-sol-1105",
        "gpt-7", "", "gpt-5.6-sol-mini", "my-gpt-4o", "gpt-4o*", "openai/gpt-4o", "ft:gpt-4o:org::abc",
        "gpt-5.6-sol-1999-01-01", "gpt-5.6-sol-00010101",
    ],
)  # fmt: skip
def test_unknown_misspelt_and_future_names_have_no_price(price: Pricer, name: str) -> None:
    """No prefix, no neighbour, no snapshot from the future (ccusage#934: $20,000 in a week)."""
    assert why(price(f"openai/{name}", input_tokens=1_000)) == "unknown_model"


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        ("openai/gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("openai/gpt-4o-20241120", "openai/gpt-4o"),
        ("openai/gpt-4o-2024-05-13", "openai/gpt-4o-2024-05-13"),
        ("openai/gpt-5.6-2026-07-09", "openai/gpt-5.6-sol"),
        ("openai/GPT-4o ", "openai/gpt-4o"),
        ("google/models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("google/publishers/google/models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("anthropic/claude-sonnet-4-5@20250929", "anthropic/claude-sonnet-4-5"),
        ("fireworks/accounts/fireworks/models/glm-5", "fireworks/glm-5"),
        (
            "bedrock/arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("azure/gpt-4o-2024-11-20", "openai/gpt-4o"),
        ("azure/my-prod", "openai/gpt-4o"),
    ],
)
def test_names_that_find_their_entry(price: Pricer, place: str, entry: str) -> None:
    """Exact ids first, then aliases, then snapshot dates; cloud and SDK paths around a name are taken off."""
    assert price(place, input_tokens=1_000).price["id"] == entry


def test_opaque_profiles_and_providers_are_not_guessed(price: Pricer) -> None:
    """An application profile, a provider without prices and another provider's model have no price."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
    assert why(price(f"bedrock/{arn}", input_tokens=1)) == "unknown_model"
    assert why(price("nobody/gpt-4o", input_tokens=1)) == "unknown_model"
    assert why(price("google/gpt-4o", input_tokens=1)) == "unknown_model"
