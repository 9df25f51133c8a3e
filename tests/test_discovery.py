"""Discovery: every figure has its place, what nobody reads is named, and what nobody claims gets a proposal."""

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import ENDED, built_in, load, names, natural
from llmtab.config import load as load_config
from llmtab.discovery import Finding, Sample, best, claim_of, events, place, read
from llmtab.pricing import PriceBook
from llmtab.probe import numbers, row_words, words
from llmtab.profiles import Profiles
from llmtab.proposal import HOST, counter_of, looks_like_usage, proposed, served

OURS = {"total_tokens", "reported_total_tokens"}


@cache
def found(name: str) -> Finding:
    """A golden case as a saved answer with its URL and the body of its request."""
    case = load(name)
    at = place(case.url, case.method)
    claim = claim_of(case.profiles, at)
    assert claim is not None
    return read(case.profiles, case.prices, claim, at, Sample(case.body, case.headers, request=case.request), ENDED)


@pytest.fixture(params=[name for name in names() if load(name).status == 200])
def finding(request: pytest.FixtureRequest) -> Finding:
    return found(request.param)


def test_every_figure_has_its_references(finding: Finding) -> None:
    """What the references gave adds up to the counter, whichever rows, folds and alternatives led to it."""
    if not finding.lines or any(flag.startswith("part_exceeds") for flag in finding.lines[0].get("flags", ())):
        return
    for counter, value in (finding.lines[0].get("usage") or {}).items():
        if counter not in OURS:
            assert sum(quantity for _, quantity in finding.sources[counter]) == value, counter


def test_a_read_member_is_not_called_unread(finding: Finding) -> None:
    """No place is both the source of a figure and named as unread."""
    sources = {ref for its in finding.sources.values() for ref, _ in its}
    assert sources & set(finding.unread) == set()


@pytest.mark.parametrize("name", [name for name in names() if load(name).status == 200])
def test_the_line_is_the_meters_own(name: str) -> None:
    """Figures and price are those that the meter books for the same answer."""
    booked, checked = natural(load(name)), found(name).lines
    for key in ("usage", "usage_source", "cost_usd", "cost_source", "response_model", "pricing_tier"):
        assert [line.get(key) for line in checked] == [line.get(key) for line in booked]


def sample(body: Any) -> Sample:
    return Sample(json.dumps(body).encode())


@cache
def prices() -> PriceBook:
    return PriceBook.load()


def shape(body: Any, provider: str | None = None) -> Finding | None:
    """What a saved answer is taken for whose URL nobody knows."""
    return best(built_in(), prices(), provider, sample(body), ENDED)


@pytest.mark.parametrize(
    ("body", "api"),
    [
        ({"choices": [{"finish_reason": "stop"}], "id": "1", "model": "m",
          "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}, "openai.chat"),
        ({"object": "response", "id": "r", "status": "completed", "model": "m",
          "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 4}},
         "openai.responses"),
        ({"type": "message", "id": "m", "model": "m", "stop_reason": "end_turn",
          "usage": {"input_tokens": 3, "cache_read_input_tokens": 1, "output_tokens": 4}}, "anthropic.messages"),
        ({"candidates": [{"finishReason": "STOP"}], "modelVersion": "m",
          "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}},
         "gemini.generateContent"),
        ({"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4}, "ollama.chat"),
        ({"output": {}, "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}},
         "bedrock.converse"),
    ],
)  # fmt: skip
def test_a_shape_is_known_without_its_url(body: Any, api: str) -> None:
    """An answer whose origin nobody says is read by the shape that explains most of it."""
    found = shape(body)
    assert found is not None
    assert found.seen.reading.dialect.api == api
    assert found.seen.reading.counters["output_tokens"] == 4


def test_of_one_provider_only_its_shapes() -> None:
    """With a provider only its own ways to answer are tried, and its prices hold; one that nobody knows is an error."""
    body = {"type": "message", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 3, "output_tokens": 4}}
    found = shape(body, "anthropic")
    assert found is not None
    assert found.claim.binding.provider == "anthropic"
    with pytest.raises(ValueError, match="nonesuch"):
        shape(body, "nonesuch")


def test_what_no_row_reads_is_named() -> None:
    """Members of the usage object that nobody looks at are named with their place, apart from those that were 0."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "magic_tokens": 5, "deep": {"moon_units": 0}, "note": "hush"}
    found = shape({"choices": [{"finish_reason": "stop"}], "usage": usage})
    assert found is not None
    assert found.unread == {"/usage/magic_tokens": True, "/usage/deep/moon_units": False}


def test_names_that_may_be_content_are_not_shown() -> None:
    """A member's name that is no identifier could be a text: its place is shown without it."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "what he said": {"tokens": 5}}
    found = shape({"choices": [{"finish_reason": "stop"}], "usage": usage})
    assert found is not None
    assert [*found.unread] == ["/usage/?/tokens"]


def test_an_answer_without_figures_has_no_shape() -> None:
    """Nothing is claimed for an answer in which nothing is counted."""
    assert shape({"text": "Hi", "created": 1700000000}) is None


@pytest.mark.parametrize(
    ("pointer", "counter"),
    [
        ("usage/input_tokens", "input_tokens"), ("usage/promptTokens", "input_tokens"), ("tokens/in", "input_tokens"),
        ("usage/completion", "output_tokens"), ("stats/generated_tokens", "output_tokens"),
        ("eval_count", "output_tokens"),
        ("prompt_eval_count", "input_tokens"), ("usage/cachedContentTokenCount", "cache_read_input_tokens"),
        ("usage/cacheWriteInputTokens", "cache_creation_input_tokens"),
        ("usage/cache/created", "cache_creation_input_tokens"),
        ("usage/thinking_tokens", "reasoning_output_tokens"), ("usage/audio/input", "audio_input_tokens"),
        ("usage/total_tokens", None), ("usage/units", None),
    ],
)  # fmt: skip
def test_words_tell_the_counter(pointer: str, counter: str | None) -> None:
    """Names in any spelling are recognised; what they do not say is not guessed."""
    assert counter_of(pointer.split("/")) == counter


@pytest.mark.parametrize(
    "pointer", ["created", "choices/*/index", "usage/latency_ms", "user/id", "max_output_tokens", "n"]
)
def test_what_is_no_usage(pointer: str) -> None:
    """Times, positions, ids and limits are no usage, whatever stands around them."""
    assert not looks_like_usage(pointer.split("/"))


ASKED = {
    "answer": "the secret answer", "model": "house-1", "id": "r-1", "created": 1700000000,
    "meta": {"tokens": {"in": 15, "out": 7, "cachedIn": 4, "all": 22},
             "parts": [{"audioTokensIn": 3}, {"audioTokensIn": 2}]},
}  # fmt: skip


def test_a_proposal_can_be_pasted(tmp_path: Path) -> None:
    """What is proposed for an answer that nobody claims is an llmtab.yaml that reads it; it holds no value."""
    text = proposed([ASKED], "ask.example.com", "/api/ask")
    assert text is not None
    for value in ("secret", "house-1", "r-1", "15", "1700000000"):
        assert value not in text
    assert "# not used: /meta/tokens/all" in text
    config = tmp_path / "llmtab.yaml"
    config.write_text(text)
    profiles = Profiles.load(extra=load_config(config).profile_specs)
    at = place("https://ask.example.com/api/ask")
    claim = claim_of(profiles, at)
    assert claim is not None
    line = read(profiles, prices(), claim, at, sample(ASKED), ENDED).lines[0]
    expected = {
        "input_tokens": 15,
        "output_tokens": 7,
        "cache_read_input_tokens": 4,
        "audio_input_tokens": 5,
        "total_tokens": 22,
    }
    assert line["usage"] == expected
    assert (line["response_model"], line["response_id"]) == ("house-1", "r-1")


def test_a_known_shape_is_proposed_by_its_name(tmp_path: Path) -> None:
    """A host that speaks a known dialect on a path of its own needs one line."""
    config = tmp_path / "llmtab.yaml"
    config.write_text(served("ask.example.com:8443", "/talk", "cohere.v2.chat"))
    profiles = Profiles.load(extra=load_config(config).profile_specs)
    claim = claim_of(profiles, place("https://ask.example.com:8443/talk"))
    assert claim is not None
    assert claim.binding.dialects[0].name == "cohere.v2.chat"
    assert HOST in served(None, None, "openai.chat")


def test_nothing_is_proposed_without_a_count() -> None:
    """Numbers that do not look like input or output make no profile."""
    assert proposed([{"created": 5, "usage": {"total": 6}}, [1, 2], "text", None]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=12), inside, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=3), st.sampled_from(["tokens_in", "prompt", "usage output"]), st.text(min_size=9))
def test_any_answer_gives_a_sound_proposal_or_none(body: list[Any], name: str, said: str) -> None:
    """Whatever an answer holds, a proposal is one that can be loaded, without a text of the answer in it."""
    from llmtab import config_schema, documents

    text = proposed([*body, {"reply": said, name: 3, "output_tokens": 4, "nested": body}])
    if text is not None:
        documents.check(config_schema.File, documents.loads(text, "llmtab.yaml"), "llmtab.yaml")
        assert (
            said not in text
            or said in "hosts: input_tokens output_tokens nested # not used: stream: true all of the prompt"
        )


def test_events_of_any_framing() -> None:
    """A saved stream is looked through event by event."""
    assert [*events(Sample(b'{"a":1}\n{"a":2}\n'))] == [{"a": 1}, {"a": 2}]
    assert [*events(Sample(b'data: {"a":1}\n\ndata: [DONE]\n\n'))] == [{"a": 1}, "[DONE]"]
    assert [*events(Sample(b"not json"))] == []


def test_rows_in_words() -> None:
    """A row is said so that a person understands what is added, chosen and asked."""
    any_of = {"any": ["/a", {"sum": "/b/*/n", "where": {"/type": ["x", "y"]}}]}
    assert row_words([any_of, "/c"]) == "(/a, else sum of /b/*/n where /type is x or y) + /c"
    assert row_words({"terms": ["/a"], "fold": "max"}) == "/a (max over the events)"
    assert words({"outside": "/t", "of": "/total"}) == "/t if /total is not reached without it"
    assert words({"ref": "subscription", "where": {"/paid": False}}) == "subscription where /paid is false"


def test_numbers_of_a_document() -> None:
    """Every number with its place; the elements of a list share one."""
    assert [*numbers({"a": [1, {"b": 2.5}], "c": True, "d": "3"})] == [(("a", "*"), 1), (("a", "*", "b"), 2.5)]


@pytest.mark.parametrize("url", ["api.openai.com/v1", "ftp://x/y", "https:///v1", ""])
def test_what_is_no_url(url: str) -> None:
    """A URL has a scheme and a host; anything else is an error that shows one."""
    with pytest.raises(ValueError, match="expected something like https"):
        place(url)


def test_the_price_is_a_decimal() -> None:
    """Money stays exact on its way to the reader."""
    body = {"type": "message", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 10, "output_tokens": 1}}
    found = best(built_in(), prices(), "anthropic", sample(body), ENDED)
    assert found is not None
    assert found.lines[0]["cost_usd"] == Decimal("0.000045")
