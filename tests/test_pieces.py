"""Tokens without a vocabulary: how close the rule of pieces is, and that no text is beyond it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.estimates.pieces import FAMILIES, SAMPLE, family, pieces, tokens

# Counts of GPT's o200k_base.
KNOWN = [
    ("Hello, world!", 4),
    ("The capital of France is Paris.", 7),
    ("I'm sorry, but I can't assist with that request.", 11),
    ("1, 2, 3, 4, 5", 14),
    ('{"location":"Florence, Italy","unit":"celsius"}', 13),
    ("def add(a: int, b: int) -> int:\n    return a + b\n", 19),
    ("Die Hauptstadt von Frankreich ist Paris.", 7),
    ("東京は日本の首都です。", 7),
    ("Столица Франции — Париж.", 8),
]


@pytest.mark.parametrize(("text", "count"), KNOWN)
def test_pieces_are_close_to_tokens(text: str, count: int) -> None:
    """Short texts of several kinds and scripts are counted within three tokens or a quarter."""
    assert abs(pieces(text) - count) <= max(3, count / 4)


@given(st.text(max_size=2000))
def test_every_text_has_a_count(text: str) -> None:
    """Whatever a text holds, its count is above 0 where there is a sign in it, and no more than its bytes and then
    some."""
    found = pieces(text)
    assert 0 <= found <= 2 * len(text.encode("utf-8", "replace"))
    if any(sign.isascii() and sign.isalnum() for sign in text):
        assert found > 0


def test_a_long_text_is_sampled() -> None:
    """A text of megabytes costs what one of 16 KiB costs, and is counted as if all of it had been looked at."""
    text = "The quick brown fox jumps over the lazy dog, 123 times.\n" * 60_000
    began = time.perf_counter()
    found = tokens(text)
    assert time.perf_counter() - began < 0.2
    assert len(text) > 100 * SAMPLE
    assert abs(found / (pieces(text[:56]) * 60_000) - 1) < 0.03


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-4o-2024-08-06", "o200k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4.1-mini", "o200k_base"),
        ("openai/o4-mini", "o200k_base"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-3"),
        ("claude-opus-4-7", "claude-4.7"),
        ("claude-opus-4-8", "claude-4.8"),
        ("claude-sonnet-5", "claude-4.8"),
        ("mistral-small-latest", "mistral_v3"),
        ("meta.llama3-2-1b-instruct-v1:0", "llama3"),
        ("Qwen/Qwen3.5-9B", "qwen3"),
        ("something-new", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_families_are_told_by_name(model: str, vocabulary: str) -> None:
    """A model belongs to the family that its name says, however the provider spells it."""
    assert family(model).vocabulary == vocabulary


def test_newer_claudes_cut_finer() -> None:
    """The same text is half as many tokens again for Claude's vocabulary of Opus 4.7 on."""
    assert family("claude-opus-4-7").density > 1.3 * family("claude-opus-4-6").density
    assert all(0.9 <= one.density <= 1.6 for one in FAMILIES)
