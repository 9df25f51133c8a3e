"""What lines add up to."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from llmtab.live.totals import GROUPS, OTHER, Totals, end

NOW = datetime(2026, 7, 28, 14, 0, 0, tzinfo=UTC)


def call(cost: str | None = "0.5", ago: float = 0, **facts: Any) -> dict[str, Any]:
    began = (NOW - timedelta(seconds=ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    money = None if cost is None else Decimal(cost)
    return {"schema": 1, "time": began, "request_model": "m", "outcome": "ok", "cost_usd": money, **facts}


def test_calls_tokens_and_money_add_up_exactly() -> None:
    """Sums are exact to the last place: money is Decimal all the way."""
    totals = Totals()
    usage = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 3}
    totals.add_all(call("0.000000000001", usage=usage, saved_usd=Decimal("0.1")) for _ in range(3))
    total = totals.total
    assert (total.calls, total.input_tokens, total.cached_tokens, total.output_tokens) == (3, 30, 12, 9)
    assert (total.cost, total.saved) == (Decimal("0.000000000003"), Decimal("0.3"))


def test_what_a_subscription_covers_is_not_money_spent() -> None:
    """A subscription's notional cost stands apart; its overage is real money."""
    totals = Totals()
    totals.add(call("1", billing="subscription"))
    totals.add(call("2", billing="subscription_overage"))
    totals.add(call("4", billing="metered"))
    assert (totals.total.cost, totals.total.notional) == (Decimal(6), Decimal(1))


def test_sub_lines_add_money_but_are_no_calls() -> None:
    """Another model's share of a call counts under that model, but the call counts once."""
    totals = Totals()
    totals.add(call("1", response_model="big"))
    totals.add(call("2", response_model="small", parent="x", usage={"output_tokens": 5}))
    assert (totals.total.calls, totals.total.cost, totals.total.output_tokens) == (1, Decimal(3), 5)
    assert (totals.groups["small"].calls, totals.groups["small"].cost) == (0, Decimal(2))


def test_unpriced_calls_are_counted_by_reason_and_model() -> None:
    """A call without a price is never counted as free: it is named with its reason, and what is known of it counts."""
    totals = Totals()
    totals.add(call(None, cost_reason="unknown_model", cost_partial_usd=Decimal("0.25")))
    totals.add(call("0.0", cost_source="not_billed"))
    assert (totals.total.unpriced, totals.total.cost) == (1, Decimal("0.25"))
    assert dict(totals.unpriced) == {("unknown_model", "m"): 1}


def test_uncertain_and_failed_calls_are_counted() -> None:
    """Estimated, partial and failed calls each have a count of their own."""
    totals = Totals()
    totals.add(call(usage_source="estimated"))
    totals.add(call(usage_source="partial", outcome="aborted"))
    totals.add(call(outcome="error", usage={}))
    total = totals.total
    assert (total.calls, total.estimated, total.partial, total.errors) == (3, 1, 1, 2)


def test_groups_follow_the_chosen_word() -> None:
    """Totals can be by model, by a key such as provider, or by any label."""
    lines = [call(response_model="a", provider="p", labels={"project": "web"}), call()]
    for by, expected in {"model": {"a", "m"}, "provider": {"p", "-"}, "project": {"web", "-"}}.items():
        totals = Totals(by)
        totals.add_all(lines)
        assert set(totals.groups) == expected


def test_any_number_of_names_takes_bounded_room() -> None:
    """A client that invents model names cannot fill the memory: past a bound they share one group."""
    totals = Totals()
    totals.add_all(call(None, request_model=f"m{number}") for number in range(GROUPS * 2))
    assert len(totals.groups) == GROUPS + 1
    assert totals.groups[OTHER].calls == GROUPS
    assert sum(totals.unpriced.values()) == GROUPS * 2
    assert len(totals.unpriced) <= GROUPS


def test_the_rate_per_hour_looks_at_a_window() -> None:
    """What was spent in the last minute, ten minutes or hour, per hour; when calls end in any order."""
    totals = Totals()
    for ago in (1800, 30, 300, 7200, 31):
        totals.add(call("1", ago))
    totals.add(call("10", 20, billing="subscription"))
    rates = [totals.rates.per_hour(NOW, timedelta(minutes=minutes)) for minutes in (1, 10, 60)]
    assert rates == [(120, 600), (18, 60), (4, 10)]
    assert totals.rates.per_hour(NOW + timedelta(hours=3), timedelta(hours=1)) == (0, 0)


def test_a_call_spends_when_it_ends() -> None:
    """A long call counts in the minute it ended in, not the one it began in."""
    totals = Totals()
    totals.add(call("1", 600, timing={"duration_ms": 599_000.0}))
    assert totals.rates.per_hour(NOW, timedelta(minutes=1)) == (60, 0)


def test_the_rate_takes_bounded_room() -> None:
    """A session of days keeps one figure a second for about an hour."""
    totals = Totals()
    totals.add_all(call("1", -second) for second in range(10_000))
    later = NOW + timedelta(seconds=9_999)
    assert totals.rates.per_hour(later, timedelta(hours=1)) == (3600, 0)
    assert len(totals.rates._spent) <= 7200


def test_folds_of_different_lines_add_up() -> None:
    """Two folds put together are the fold of all their lines; only the rates per hour are not."""
    lines = [call("1", request_model="a"), call(None, cost_reason="x"), call("2", outcome="error", retry_of="i")]
    apart, whole = Totals(), Totals()
    whole.add_all(lines)
    for line in lines:
        one = Totals()
        one.add(line)
        apart.include(one)
    assert (apart.total, apart.groups, apart.unpriced) == (whole.total, whole.groups, whole.unpriced)
    assert apart.total.retries == 1


def test_a_line_without_a_readable_time_still_counts() -> None:
    """A line whose time cannot be read is in the sums, if not in the rates."""
    totals = Totals()
    totals.add({"cost_usd": Decimal(1), "time": "yesterday"})
    assert (totals.total.cost, totals.rates.per_hour(NOW, timedelta(hours=1))) == (Decimal(1), (0, 0))
    assert end({}) is None
    assert end({"time": "2026-07-28T14:00:00"}) is None
