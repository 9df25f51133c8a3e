"""Figures as people read them."""

from datetime import UTC
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.cells import clock, cost, count, duration, label, outcome, plain, safe, size, speed, usd


@pytest.mark.parametrize(
    ("amount", "text", "short"),
    [
        ("0", "$0", "$0"),
        ("0.000000000001", "$1e-12", "$1e-12"),
        ("0.00000024", "$2.4e-7", "$2.4e-7"),
        ("0.000001", "$0.000001", "$1e-6"),
        ("0.0000042319", "$0.000004232", "$4.232e-6"),
        ("0.000075", "$0.000075", "$7.5e-5"),
        ("0.00123456", "$0.001235", "$0.001235"),
        ("0.009999999", "$0.01", "$0.01"),
        ("0.0123456", "$0.0123", "$0.0123"),
        ("0.5", "$0.5000", "$0.5000"),
        ("0.99996", "$1.00", "$1.00"),
        ("1234.567", "$1,234.57", "$1,234.57"),
        ("123456.789", "$123,456.79", "$123k"),
        ("12345678", "$12.3M", "$12.3M"),
        ("-0.00123456", "-$0.001235", "-$0.001235"),
    ],
)
def test_money_keeps_four_significant_digits_below_a_cent(amount: str, text: str, short: str) -> None:
    """Small costs are not rounded away: four significant digits below a cent, never a bare $0.00."""
    assert usd(Decimal(amount)) == text
    assert usd(Decimal(amount), short=True) == short


@given(st.decimals("0", "1e12", allow_nan=False, places=12))
def test_money_fits_its_column(amount: Decimal) -> None:
    """Any amount fits: thirteen characters, nine in the short form."""
    assert len(usd(amount)) <= 12
    assert len(usd(amount, short=True)) <= 9


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"cost_usd": Decimal("0.5")}, "$0.5000"),
        ({"cost_usd": Decimal("0.5"), "cost_source": "estimated"}, "~$0.5000"),
        ({"cost_usd": Decimal("0.5"), "billing": "subscription"}, "($0.5000)"),
        ({"cost_usd": Decimal("0.0"), "billing": "subscription"}, "$0"),
        ({"cost_usd": None}, "unpriced"),
        ({}, "-"),
    ],
)
def test_a_cost_says_how_sure_it_is(facts: dict[str, Any], text: str) -> None:
    """Estimates are marked, a subscription's notional cost is in brackets, an unknown price is never a number."""
    assert cost(facts) == text


@pytest.mark.parametrize(
    ("number", "text", "short"),
    [
        (None, "-", "-"),
        (0, "0", "0"),
        (12345, "12,345", "12.3k"),
        (99_949, "99,949", "99.9k"),
        (123_456, "123,456", "123k"),
        (999_499, "999,499", "999k"),
        (999_500, "999,500", "1.0M"),
        (12_345_678, "12.3M", "12.3M"),
        (10**12, "1000G", "1000G"),
    ],
)
def test_tokens_are_exact_where_there_is_room(number: int | None, text: str, short: str) -> None:
    """Tokens stand in full with separators, shortened only where the column is narrow; unknown is not 0."""
    assert count(number) == text
    assert count(number, short=True) == short


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (340.4, "340ms"),
        (999.6, "1.0s"),
        (59_940, "59.9s"),
        (59_960, "1m00s"),
        (125_000, "2m05s"),
        (3_720_000, "1h02m"),
    ],
)
def test_durations_are_short(milliseconds: float | None, text: str) -> None:
    """A duration fits six characters."""
    assert duration(milliseconds) == text


def test_speed_counts_from_the_first_token() -> None:
    """Tokens per second measure the writing, not the waiting; a text that came in one piece has no speed."""
    usage = {"output_tokens": 100}
    assert speed({"usage": usage, "timing": {"first_token_ms": 1000.0, "duration_ms": 3000.0}}) == "50.0"
    assert speed({"usage": usage, "timing": {"duration_ms": 500.0}}) == "200"
    assert speed({"usage": usage, "timing": {"first_token_ms": 1000.0, "duration_ms": 1001.0}}) == ""
    assert speed({"timing": {"duration_ms": 500.0}}) == ""


def test_the_outcome_names_what_is_unsure() -> None:
    """An error shows its class; a cut, an estimate or a missing price is said in words."""
    assert outcome({"outcome": "ok"}) == "ok"
    assert outcome({"outcome": "error", "error": "rate_limited"}) == "error rate_limited"
    assert outcome({"outcome": "error", "error": "rate_limited"}, short=True) == "rate_limited"
    assert outcome({"outcome": "aborted", "usage_source": "partial"}) == "aborted, partial"
    unpriced = {"outcome": "ok", "cost_usd": None, "cost_reason": "unknown_tier:fast"}
    assert outcome(unpriced) == "ok, unknown_tier:fast"


def test_the_label_that_tells_most_is_shown() -> None:
    """Project before consumer, two at most, never a bare session id."""
    assert label({"labels": {"session": "s", "consumer": "ci", "project": "web", "env": "prod"}}) == "web/ci"
    assert label({}) == ""


def test_the_clock_is_the_readers() -> None:
    """Times are shown in the reader's zone; a line without a readable time shows none."""
    assert clock({"time": "2026-07-28T14:03:12.123Z"}, UTC) == "14:03:12"
    assert clock({"time": "?"}, UTC) == "-"


@given(st.text())
def test_nothing_from_a_line_is_obeyed_by_a_terminal(text: str) -> None:
    """Escapes, control characters, newlines and direction marks never get through, whatever a name holds."""
    shown = safe(text)
    assert shown.isprintable()
    assert len(shown) <= 128
    logged = plain({"provider": text, "request_model": text, "labels": {text: text}, "error": text, "cost_usd": None})
    assert logged.isprintable()


def test_a_log_line_says_it_all() -> None:
    """Without a terminal each call is one plain line."""
    line = {
        "provider": "openai",
        "response_model": "gpt-4o-mini",
        "outcome": "ok",
        "usage": {"input_tokens": 1234, "cache_read_input_tokens": 512, "output_tokens": 345},
        "cost_usd": Decimal("0.0003921"),
        "timing": {"duration_ms": 1234.0},
        "labels": {"project": "web"},
    }
    expected = "openai  gpt-4o-mini  in 1,234 (512 cached) out 345  $0.0003921  1.2s  ok  project=web"
    assert plain(line) == expected


def test_money_that_needs_a_second_look_is_named() -> None:
    """A cost that the provider sees otherwise, and a call above the warning limit, say so in the line of a log."""
    line = {"outcome": "ok", "cost_usd": Decimal(1), "flags": ["cost_differs", "total_mismatch", "over_warn"]}
    assert outcome(line) == "ok, cost differs, over warn"
    assert "cost differs" in plain(line)
    assert outcome(line, short=True) == "ok"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (999_499, "999 kB"), (4_500_000, "4.5 MB")]
)
def test_bytes_are_short(number: int, text: str) -> None:
    """A size fits eight characters."""
    assert size(number) == text
