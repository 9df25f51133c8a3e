"""Limits: how they are written, which of them a call touches, and what a line takes from them."""

from decimal import Decimal
from typing import Any

import pytest

from llmtab.budgets.amounts import SCALES, USD, amount, show
from llmtab.budgets.charges import Need, charges, facts_of
from llmtab.budgets.limits import Limit, Limits, limit
from llmtab.budgets.needs import needs_of
from llmtab.budgets.policy import policy
from llmtab.budgets.worst import Worst
from llmtab.estimates.asking import Asked

PICO = SCALES[USD]
LINE: dict[str, Any] = {
    "time": "2026-11-21T10:00:00.000Z", "provider": "openai", "request_model": "gpt-4o", "host": "api.openai.com",
    "status": 200, "outcome": "ok",
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "images": 2},
    "cost_usd": Decimal("0.25"), "billing": "metered", "labels": {"project": "web", "consumer": "ann"},
    "client": {"address": "10.0.0.7", "key": "k_1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("100 USD", 100 * PICO, "USD"), ("$5", 5 * PICO, "USD"), ("0.05 usd", PICO // 20, "USD"),
        ("2M tokens", 2_000_000, "tokens"), ("500k input tokens", 500_000, "input tokens"),
        ("1.5k output tokens", 1500, "output tokens"), ("50 requests", 50, "requests"),
        ("1_000 calls", 1000, "requests"),
        ("30 units", 30_000_000, "weight"),
    ],
)  # fmt: skip
def test_amounts_are_written_as_people_say_them(text: str, value: int, unit: str) -> None:
    """Money, tokens, requests and units, with k and M."""
    assert (amount(text).value, amount(text).unit) == (value, unit)
    assert amount(show(value, unit)).value == value


@pytest.mark.parametrize("text", ["", "100", "USD", "5 EUR", "-5 USD", "0 USD", "5 USD USD", "1e99 USD", "$5 tokens"])
def test_other_amounts_are_errors(text: str) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="expected an amount"):
        amount(text)


def taken(spec: dict[str, Any] | str, line: dict[str, Any] | None = None, *more: dict[str, Any]) -> int | None:
    """What a limit of this form takes from the lines of a call; None where it does not touch it."""
    one = limit({"limit": spec} if isinstance(spec, str) else spec)
    lines = [line or LINE, *more]
    found = charges(Limits([one]), lines, 1_800_000_000.0)
    return found.amounts[0] if found else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 USD per day", PICO // 4), ("1M tokens per day", 120), ("1M input tokens per day", 100),
        ("1M output tokens per day", 20), ("10 requests per minute", 1), ("10 requests/minute", 1),
    ],
)  # fmt: skip
def test_a_line_takes_what_it_used(text: str, expected: int) -> None:
    """Each unit is read from its own place on the line."""
    assert taken(text) == expected


def test_a_weight_is_a_counter() -> None:
    """`weight: images` counts images."""
    assert taken({"limit": "10 units per day", "weight": "images"}) == 2_000_000


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"project": "web"}, True), ({"project": "api"}, False), ({"model": "gpt-4*"}, True), ({"team": "x"}, False),
        ({"project": ["api", "web"], "provider": "openai"}, True), ({"address": "10.0.*"}, True),
        ({"key": "k_1"}, True),
        ({"host": "*.openai.com", "model": "o3"}, False), ({}, True),
    ],
)  # fmt: skip
def test_match_chooses_calls(match: dict[str, Any], fits: bool) -> None:
    """All facts that `match` names must fit: a value, one of several, or a pattern; a fact that is absent fits none."""
    assert (taken({"limit": "10 requests per day", "match": match}) is not None) is fits


def test_exempt_calls_are_not_counted() -> None:
    """A call that `exempt` names is none of the limit's business."""
    assert taken({"limit": "10 requests per day", "exempt": [{"project": "api"}, {"consumer": "a*"}]}) is None


def test_per_makes_a_bucket_a_value() -> None:
    """Each value of `per` has the whole limit for itself; calls without one share a bucket."""
    one = limit({"limit": "1 USD per day", "per": ["consumer", "model"]})
    assert one.key(facts_of(LINE)) == "ann|gpt-4o"
    assert one.key({}) == "-|-"


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a|b", "c"), ("a", "b|c")), (("-", "-"), ("", "")), (("a%7Cb", "c"), ("a|b", "c")), (("%2D", "c"), ("-", "c"))],
)
def test_no_two_callers_share_a_bucket_by_their_names(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Whatever signs a value has; an ordinary one is spelt as it is."""
    one = limit({"limit": "1 USD per day", "per": ["consumer", "project"]})
    keys = [one.key({"consumer": values[0], "project": values[1]}) for values in (first, second)]
    assert keys[0] != keys[1] and {key.count("|") for key in keys} == {1}
    assert one.key({"consumer": "ann@x.org", "project": "a-b/c:d e_f"}) == "ann@x.org|a-b/c:d e_f"


def test_labels_named_like_facts_are_left_out() -> None:
    """Of a finished call too: what its line knows holds, and what it does not know stays unknown."""
    line = {**LINE, "labels": {"model": "z", "key": "z", "tier": "z", "operation": "z", "project": "web"}}
    assert facts_of(line) == {
        "provider": "openai", "model": "gpt-4o", "host": "api.openai.com", "key": "k_1", "address": "10.0.0.7",
        "project": "web",
    }  # fmt: skip


@pytest.mark.parametrize(("billing", "counted"), [("metered", True), ("subscription_overage", True),
                                                  ("subscription", False), ("byok", False)])  # fmt: skip
def test_money_is_what_is_billed(billing: str, counted: bool) -> None:
    """What a subscription covers is no money spent, unless the limit says `billing: all`."""
    line = {**LINE, "billing": billing}
    assert bool(taken("1 USD per day", line)) is counted
    assert taken({"limit": "1 USD per day", "billing": "all"}, line) == PICO // 4


def test_a_call_without_a_price_takes_what_the_limit_says() -> None:
    """`unpriced: charge`: a call whose price nobody knows takes a sum; else what could be priced of it."""
    line = {**LINE, "cost_usd": None, "cost_partial_usd": Decimal("0.01")}
    assert taken("1 USD per day", line) == PICO // 100
    assert taken({"limit": "1 USD per day", "unpriced": "charge 0.05 USD"}, line) == PICO // 20


def test_refused_and_unsent_calls_take_nothing() -> None:
    """A call that never reached its provider is no request."""
    assert taken("10 requests per day", {**LINE, "outcome": "refused"}) is None
    unsent = {key: value for key, value in LINE.items() if key != "status"} | {
        "outcome": "broken",
        "error": "connection",
    }
    assert taken("10 requests per day", unsent) == 0


def test_a_sub_line_is_charged_with_its_call() -> None:
    """Another model's share of a call is money of the same call, and no request of its own."""
    part = {**LINE, "parent": "x", "cost_usd": Decimal("0.5"), "request_model": "other"}
    assert taken("1 USD per day", LINE, part) == 3 * PICO // 4
    assert taken({"limit": "10 requests per day", "match": {"model": "gpt-4o"}}, LINE, part) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"limit": "1 USD per day", "burst": "2 USD"},
        {"limit": "1 USD per day", "window": "sliding", "burst": "0.1 USD"},
        {"limit": "5 USD", "window": "sliding"}, {"limit": "5 units per day"},
        {"limit": "5 USD per day", "weight": "images"},
        {"limit": "5 USD per day", "soft": "3 tokens"}, {"limit": "5 USD per day", "throttle": "1h"},
        {"limit": "5 USD per day", "unpriced": "maybe"}, {"limit": "5 USD per fortnight"},
        {"limit": "5 USD per day", "soft": "0%"}, {"limit": "5 USD per day", "soft": "100.1%"},
        {"limit": "5 USD per day", "soft": "6 USD"}, {"limit": "1 requests per day", "soft": "50%"},
        {"limit": "5 USD per 9999 years", "burst": "10%"},
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_are_errors(spec: dict[str, Any]) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="expected"):
        limit(spec)


def test_soft_is_a_share_or_an_amount() -> None:
    """`80%` of the limit, or an amount; a limit that is not hard marks calls beyond it."""
    assert limit({"limit": "10 USD per day", "soft": "80%"}).soft == 8 * PICO
    assert limit({"limit": "10 USD per day", "soft": "2 USD"}).soft == 2 * PICO
    assert limit({"limit": "10 USD per 100 years", "soft": "100%"}).soft == 10 * PICO
    assert limit({"limit": "10 USD per day", "hard": False}).soft == 10 * PICO


# -- tiers -------------------------------------------------------------------------------------------------------------

TIERS = {
    "limits": [{"limit": "100 USD per month"}],
    "tiers": {
        "by": "label:plan",
        "levels": {"gold": [{"limit": "10 USD per day"}], "acme-*": [{"limit": "5 USD per day"}],
                   "*": [{"limit": "1 USD per day", "per": ["consumer"]}]},
    },
}  # fmt: skip


def touched(found: Any, facts: dict[str, str]) -> list[str]:
    tier = found.tiers.of(facts, facts, lambda name: None)
    facts = {**facts, "tier": tier} if tier else facts
    return list(found.limits.touched(facts).names)


def test_tiers_give_each_caller_the_limits_of_one_level() -> None:
    """By name, by pattern, or the level of everybody else; limits without a tier hold for all."""
    found = policy(TIERS)
    assert touched(found, {"plan": "gold"}) == ["100-USD-per-month", "gold-10-USD-per-day"]
    assert touched(found, {"plan": "acme-7"}) == ["100-USD-per-month", "acme-5-USD-per-day"]
    assert touched(found, {"plan": "x"}) == touched(found, {}) == ["100-USD-per-month", "1-USD-per-day"]


def test_a_tier_may_be_told_by_a_header() -> None:
    """`by: header:x-plan` reads the request's header."""
    found = policy({"tiers": {**TIERS["tiers"], "by": "header:x-plan"}})  # type: ignore[dict-item]
    assert found.tiers is not None
    assert found.tiers.of({}, {}, {"x-plan": "gold"}.get) == "gold"


def test_names_are_told_apart() -> None:
    """Two limits of the same words have names of their own."""
    found = policy({"limits": [{"limit": "1 USD per day"}, {"limit": "1 USD per day", "match": {"project": "x"}}]})
    assert [one.name for one in found.limits.all] == ["1-USD-per-day", "1-USD-per-day-2"]


def test_a_name_that_was_given_is_kept() -> None:
    """Spending is kept by names: what a limit is called never depends on those before it, or on the budget of a run."""
    found = policy([{"limit": "1 USD per day"}, {"limit": "2 USD", "name": "1-USD-per-day"},
                    {"limit": "3 USD", "name": "run"}], run="5 USD")  # fmt: skip
    assert [one.name for one in found.limits.all] == ["1-USD-per-day-2", "1-USD-per-day", "run", "run-2"]


ASSORTED = {
    "limits": [
        {"limit": "1 USD per day"}, {"limit": "2 USD per month", "unpriced": "charge 0.05 USD"},
        {"limit": "3 USD", "billing": "all"}, {"limit": "4 USD", "reserve": "usual"}, {"limit": "1k requests per hour"},
        {"limit": "1M tokens"}, {"limit": "2M input tokens", "per": ["consumer"]}, {"limit": "3M output tokens"},
        {"limit": "3M output tokens per day", "reserve": "usual"}, {"limit": "9 units", "weight": "images"},
        {"limit": "9 USD per week"}, {"limit": "8 units", "weight": "output_tokens"}, {"limit": "1 USD per year"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("usd", [None, 3 * PICO])
@pytest.mark.parametrize("unbilled", [False, True])
def test_a_limit_takes_beside_others_what_it_takes_alone(usd: int | None, unbilled: bool) -> None:
    """What is reckoned once for all limits of a kind is what each of them takes by itself, before a call and after."""
    found = policy(ASSORTED, run="5 USD", now=1_800_000_000.0).limits
    case = Worst(1000, 500, usd, "", True, Asked(2000))
    usual = case._replace(output=100, usd=usd and usd // 2)
    line = {**LINE, "cost_usd": usd and Decimal("0.123456789012"), "billing": "subscription" if unbilled else "metered"}
    weights = {one.name: place for place, one in enumerate(found.all)}

    def before(limits: Limits) -> list[Need]:
        return [*needs_of(limits.touched(facts_of(LINE)), case, usual, weights, unbilled=unbilled)]

    def after(limits: Limits) -> list[Need]:
        return [*charges(limits, [line], 1_800_000_001.0)]

    for taken_by in (before, after):
        assert taken_by(found) == [need for one in found.all for need in taken_by(Limits([one]))]
    assert len({need.amount for need in before(found)}) > 4 and len(before(found)) == len(found.all)


def test_callers_alike_touch_the_same() -> None:
    """Facts that no limit looks at make no difference, so that what a call touches is found again; a tier does."""
    limits = policy(TIERS).limits
    gold = limits.touched({"tier": "gold", "consumer": "ann", "address": "10.0.0.1"})
    assert limits.touched({"consumer": "ann", "tier": "gold", "address": "10.0.0.2"}) is gold
    assert limits.touched({"consumer": "ann", "tier": "*"}).names != gold.names


def test_the_budget_of_a_run_begins_with_it() -> None:
    """What was spent before the process began is none of its budget's business."""
    found = policy(None, run="5 USD", now=1_800_000_000.0)
    [one] = found.limits.all
    assert isinstance(one, Limit) and one.name == "run"
    assert not charges(found.limits, [LINE], 1_799_999_999.0)
    assert [*charges(found.limits, [LINE], 1_800_000_001.0)] == [(one, "", PICO // 4)]
    assert not charges(found.limits, [LINE], 1_800_000_001.0, own=False)
