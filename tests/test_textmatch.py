"""Globs and regular expressions: what fits, and that nothing makes them slow."""

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.attribution.textmatch import LONGEST_TEXT, compile_globs, compile_pattern


@pytest.mark.parametrize(
    ("globs", "text", "fits"),
    [
        ("api.openai.com", "api.openai.com", True),
        ("API.OpenAI.com", "api.openai.COM", True),
        ("*.openai.azure.com", "eu.openai.azure.com", True),
        ("*.openai.azure.com", "openai.azure.com.evil", False),
        ("api.openai.com", "apixopenai.com", False),
        (["a*", "b?"], "b1", True),
        (["a*", "b?"], "b12", False),
        ("gpt-[45]*", "gpt-5-mini", True),
        ("x", "x\ny", False),
    ],
)
def test_globs(globs: str | list[str], text: str, fits: bool) -> None:
    """A glob fits a whole text, in any case; of a list one is enough."""
    assert compile_globs(globs)(text) is fits


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("(?i)customer support", "You are a Customer Support agent.", True),
        ("^browser$", "browser_click", False),
        ("(?m)^browser$", "search\nbrowser", True),
        ("stra.e", "Stra\u00dfe stra\u00dfe", True),
        ("a\ufffdb|a\\?b", "a\ud800b", True),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:
    """A regular expression is found anywhere in a text, whatever the text holds."""
    assert compile_pattern(pattern)(text) is fits


@pytest.mark.parametrize("pattern", ["(a", "a{2,1}", "(?=a)b", r"(a)\1", r"(\w{99}){99}", "[z-a]"])
def test_patterns_that_cannot_be(pattern: str) -> None:
    """What is no regular expression, or could grow without bound, is an error where it is configured."""
    with pytest.raises(ValueError, match="is no regular expression: "):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(.*a){20}b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_no_pattern_is_slow(pattern: str) -> None:
    """Patterns that take other engines longer than the universe lasts take milliseconds here."""
    fits, text = compile_pattern(pattern), "a" * 10 * LONGEST_TEXT + "!"
    began = perf_counter()
    fits(text)
    assert perf_counter() - began < 0.5


def test_no_glob_is_slow() -> None:
    """Neither does a glob of nothing but stars."""
    fits, began = compile_globs("*a" * 100 + "b"), perf_counter()
    assert not fits("a" * 100_000)
    assert perf_counter() - began < 0.5


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    """No text raises anything."""
    assert compile_pattern(".*")(text) in (True, False)
    assert compile_globs("*")(text)
