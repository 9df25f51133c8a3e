"""Gravitee's token tracking policy, put into `llmtab.yaml` as it stands, does what it says, or says what is wrong."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.config import Config, ConfigError, load
from llmtab.gravitee import pointer_of
from llmtab.pricing import Cost, PriceBook, Unpriced
from llmtab.profiles import Profiles
from llmtab.usage import Usage

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOST = "gw.example.com"
PRICE = {"inputPriceValue": 0.4, "inputPriceUnit": 1000000, "outputPriceValue": 0.8, "outputPriceUnit": 1000000}
CUSTOM = {
    "type": "CUSTOM",
    "inputTokenPointer": "/usage/in",
    "outputTokenPointer": "/usage/out",
    "modelPointer": "/model",
}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """The configuration with this policy under one host, in Gravitee's own JSON."""

    def read(policy: Any, **beside: Any) -> Config:
        path = tmp_path / "llmtab.yaml"
        entry = json.dumps({"gravitee": policy, **beside}, indent=2).replace("\n", "\n    ")
        path.write_text(f"hosts:\n  {HOST}:\n    {entry}\n")
        return load(path)

    return read


def cost(config: Config, model: str = "any-model", tier: str | None = None, **counters: int) -> Cost | Unpriced:
    prices = PriceBook.load(overrides=config.pricing, overrides_path=config.path or "llmtab.yaml")
    return prices.price(Usage(counters), HOST, model, pricing_tier=tier, at=NOW)


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("/usage/custom_prompt_tokens", "/usage/custom_prompt_tokens"),
        ("my_usage.promptUsage", "/my_usage/promptUsage"),
        ("my_model", "/my_model"),
        (" my_model ", "/my_model"),
        ("a.b[0].c-d", "/a/b/0/c-d"),
        ("{#response.jsonContent.usage.prompt_tokens}", "/usage/prompt_tokens"),
        ("{#response.jsonContent?.usage?.prompt_tokens}", "/usage/prompt_tokens"),
        ("{#response.jsonContent['a/b']['c~d']}", "/a~1b/c~0d"),
        ('{ #response.jsonContent["a"].b }', "/a/b"),
    ],
)
def test_pointers(text: str, pointer: str) -> None:
    """A pointer may be written as RFC 6901 says, with dots, or as the expression that is nothing but a pointer."""
    assert pointer_of(text) == pointer


@pytest.mark.parametrize(
    "text",
    [
        "{#response.jsonContent.bad|custom_model}",
        "{#response.jsonContent.usage.a + #response.jsonContent.usage.b}",
        "{#jsonPath(#response.content, '$..tokens')}",
        "{#request.headers['x']}",
        "{#response.jsonContent}",
        "sum of {#response.jsonContent.a}",
    ],
)
def test_expressions_are_named(text: str) -> None:
    """An expression that is more than a pointer cannot be done: the error names it."""
    with pytest.raises(ValueError, match="more than a pointer") as error:
        pointer_of(text)
    assert text in str(error.value)


@pytest.mark.parametrize("text", ["a..b", ".a", "a.", "/a~2b", "usage tokens", "$", "a.[0]", "9.9.9"])
def test_what_is_no_pointer(text: str) -> None:
    """Any other text is refused when the file is read, not when the first call has no tokens."""
    with pytest.raises(ValueError, match=r"pointer"):
        pointer_of(text)


@pytest.mark.parametrize(
    ("kind", "path", "dialect"),
    [
        ("GPT", "/v1/chat/completions", "openai.chat"),
        ("GPT", "/team/api/chat/completions", "openai.chat"),
        ("GPT", "/gw/v1/responses", "openai.responses"),
        ("GEMINI", "/gw/v1beta/models/m:generateContent", "gemini.generateContent"),
        ("GEMINI", "/anything", "gemini.generateContent"),
        ("CLAUDE", "/v1/messages", "anthropic.messages"),
        ("CLAUDE", "/claude", "anthropic.messages"),
        ("MISTRAL", "/x/v1/chat/completions", "openai.chat"),
        ("MISTRAL", "/x/fim/completions", "openai.chat"),
        ("MISTRAL", "/", "openai.chat"),
    ],
)
def test_built_in_types(read: Any, kind: str, path: str, dialect: str) -> None:
    """A built-in type reads the answers of that provider, whatever path the gateway serves it under."""
    profiles = Profiles.load(extra=read({"extraction": {"type": kind}}).profile_specs)
    claim = profiles.match(HOST, 443, "POST", path)
    assert claim is not None
    assert claim.binding.profile == claim.binding.provider == HOST
    assert dialect in [found.name for found in claim.binding.dialects]


def test_custom(read: Any) -> None:
    """CUSTOM reads input, output and model by its pointers, on every path of the host."""
    profiles = Profiles.load(extra=read({"extraction": CUSTOM}).profile_specs)
    for path in ("/", "/any/path"):
        claim = profiles.match(HOST, 443, "POST", path)
        assert claim is not None
        assert {row.name for row in claim.binding.dialects[0].rows} == {"input_tokens", "output_tokens"}


def test_paths_may_be_named(read: Any) -> None:
    """Beside the policy a host entry may say which paths it is for."""
    profiles = Profiles.load(extra=read({"extraction": CUSTOM}, path="/ask").profile_specs)
    claim = profiles.match(HOST, 443, "POST", "/ask")
    assert claim is not None
    assert claim.binding.role == "billed"
    other = profiles.match(HOST, 443, "POST", "/login")
    assert other is not None
    assert other.binding.role == "by_shape"


def test_prices(read: Any) -> None:
    """Each token in and out costs what the policy says, whatever the model, the tier and the kind of token."""
    config = read({"extraction": {"type": "GPT"}, "pricing": PRICE})
    plain = cost(config, input_tokens=1000, output_tokens=100)
    assert isinstance(plain, Cost)
    assert plain.usd == Decimal("0.00048")
    kinds = cost(
        config, "", "priority", input_tokens=1000, cache_read_input_tokens=900, cache_creation_input_tokens=50,
        cache_creation_1h_input_tokens=20, audio_input_tokens=10, image_input_tokens=5, output_tokens=100,
        reasoning_output_tokens=60, audio_output_tokens=5, image_output_tokens=5,
    )  # fmt: skip
    assert isinstance(kinds, Cost), kinds
    assert kinds.usd == plain.usd


@pytest.mark.parametrize("pricing", [None, {"type": "none"}])
def test_none_is_usage_without_cost(read: Any, pricing: Any) -> None:
    """Without a price in the policy there is no cost, not even for a model that our own table knows."""
    config = read({"extraction": {"type": "GPT"}, **({"pricing": pricing} if pricing else {})})
    found = cost(config, "gpt-4o", input_tokens=10, output_tokens=1)
    assert isinstance(found, Unpriced)
    assert (found.reason, found.partial_usd) == ("unknown_model", None)


@pytest.mark.parametrize(
    "pricing", [{"type": "pricing", **PRICE}, PRICE, {key: str(value) for key, value in PRICE.items()}]
)
def test_spellings_of_a_price(read: Any, pricing: dict[str, Any]) -> None:
    """`type: pricing` may be left out and numbers may be text, as in Gravitee's own examples."""
    found = cost(read({"extraction": CUSTOM, "pricing": pricing}), input_tokens=10, output_tokens=10)
    assert isinstance(found, Cost)
    assert found.usd == Decimal("0.000012")


def test_units_of_any_size(read: Any) -> None:
    """A unit is any number above 0: the cost is tokens x value / unit, exactly."""
    pricing = {"inputPriceValue": 0.003, "inputPriceUnit": 1500.5, "outputPriceValue": 1, "outputPriceUnit": 1000}
    found = cost(read({"extraction": CUSTOM, "pricing": pricing}), input_tokens=3001, output_tokens=1)
    assert isinstance(found, Cost)
    assert found.usd == Decimal("0.007")


@pytest.mark.parametrize(
    ("policy", "key", "message"),
    [
        ({}, "extraction", "is missing"),
        ({"extraction": {}}, "extraction.type", "is missing"),
        ({"extraction": {"type": "GTP"}}, "extraction.type", "expected 'GPT', 'GEMINI'"),
        ({"extraction": {"type": "GPT"}, "price": {}}, "price", "unknown key, expected 'pricing'"),
        ({"extraction": {"type": "GPT", "modelPointer": "/m"}}, "extraction", "modelPointer beside type GPT"),
        ({"extraction": {**CUSTOM, "outputTokenPointer": ""}}, "extraction", "outputTokenPointer is missing"),
        ({"extraction": {**CUSTOM, "inputTokenPointer": "usage in"}}, "extraction.inputTokenPointer", "expected a"),
        ({"extraction": {**CUSTOM, "modelPointer": "{#a}"}}, "extraction.modelPointer", "the expression {#a}"),
        ({"extraction": CUSTOM, "pricing": {}}, "pricing", "inputPriceValue is missing"),
        ({"extraction": CUSTOM, "pricing": {"type": "none", **PRICE}}, "pricing", "beside type none"),
        ({"extraction": CUSTOM, "pricing": {"type": "free"}}, "pricing.type", "expected 'none' or 'pricing'"),
        ({"extraction": CUSTOM, "pricing": {**PRICE, "inputPriceUnit": 0}}, "pricing.inputPriceUnit", "above 0"),
        ({"extraction": CUSTOM, "pricing": {**PRICE, "outputPriceValue": -1}}, "pricing.outputPriceValue", "above 0"),
        ({"extraction": CUSTOM, "pricing": {**PRICE, "outputPriceValue": "x"}}, "pricing.outputPriceValue", "above 0"),
        ({"extraction": CUSTOM, "pricing": {**PRICE, "inputPriceUnit": 1}}, "pricing", "inputPriceValue: 0.4 is above"),
    ],
)  # fmt: skip
def test_errors(read: Any, policy: Any, key: str, message: str) -> None:
    """What is wrong in a policy is one line with the file, the line, the key and what was expected."""
    with pytest.raises(ConfigError) as error:
        read(policy)
    assert error.value.key == f"hosts.{HOST}.gravitee.{key}"
    assert error.value.line is not None
    assert error.value.line > 1
    assert message in str(error.value)


def test_empty_fields_of_the_form(read: Any) -> None:
    """Fields that Gravitee's form left empty are not there: a built-in type may carry them, a model may be missing."""
    empty = {"inputTokenPointer": "", "outputTokenPointer": "", "modelPointer": ""}
    assert read({"extraction": {"type": "CLAUDE", **empty}}).profile_specs
    assert "model" not in read({"extraction": {**CUSTOM, "modelPointer": ""}}).profile_specs[0]["routes"]["POST /**"]


def test_prices_stay_with_their_host(read: Any) -> None:
    """The price of one host says nothing about another, not even for the same provider's models."""
    config = read({"extraction": {"type": "GPT"}, "pricing": PRICE})
    assert list(config.pricing["providers"]) == [HOST]
    prices = PriceBook.load(overrides=config.pricing)
    usage = Usage({"input_tokens": 1, "output_tokens": 1})
    assert isinstance(prices.price(usage, "openai", "no-such-model", at=NOW), Unpriced)


def test_two_prices_for_one_host(tmp_path: Path) -> None:
    """A host whose policy has prices cannot have others under `pricing:`; the error says where."""
    policy = json.dumps({"extraction": {"type": "GPT"}, "pricing": PRICE})
    prices = f"pricing: {{providers: {{{HOST}: {{models: {{m: {{input: 1}}}}}}}}}}"
    path = tmp_path / "llmtab.yaml"
    path.write_text(f"hosts:\n  {HOST}: {{gravitee: {policy}}}\n{prices}\n")
    with pytest.raises(ConfigError, match="has prices as well") as error:
        load(path)
    assert (error.value.line, error.value.key) == (3, f"pricing.providers.{HOST}")
