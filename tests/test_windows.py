"""Sums of a window of time, by any word."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmtab.live.days import Day, Days
from llmtab.live.windows import GROUPINGS, WINDOWS, Windows

NOW = datetime(2026, 7, 28, 14, 7, 30, tzinfo=UTC)


def call(ago: timedelta, cost: str = "1", **facts: Any) -> dict[str, Any]:
    time = (NOW - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "request_model": "m", "provider": "p", "cost_usd": Decimal(cost), **facts}


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


@pytest.fixture
def windows() -> Windows:
    found = Windows((*GROUPINGS, "team"))
    for ago in (
        minutes(1),
        minutes(30),
        timedelta(hours=5),
        timedelta(hours=20),
        timedelta(days=3),
        timedelta(days=30),
    ):
        found.add(call(ago, labels={"team": "a" if ago < minutes(45) else "b"}), NOW)
    return found


def test_each_window_has_its_lines(windows: Windows) -> None:
    """Ten minutes, an hour, today, yesterday and a week each sum what ended in them; what is older is in none."""
    found = {window: windows.totals(window, "model", NOW).total.calls for window in WINDOWS}
    assert found == {"10 min": 1, "1 h": 2, "today": 3, "yesterday": 1, "7 days": 5}


def test_a_window_moves_on(windows: Windows) -> None:
    """Lines leave a window as time goes by, and rates fall with them."""
    later = NOW + minutes(20)
    assert windows.totals("10 min", "model", later).total.calls == 0
    assert windows.totals("1 h", "model", later).total.calls == 2
    assert windows.totals("10 min", "model", NOW).rates.per_hour(NOW, minutes(10)) == (6, 0)
    tomorrow = NOW + timedelta(days=1)
    assert windows.totals("yesterday", "model", tomorrow).total.calls == 3
    assert windows.totals("today", "model", tomorrow).total.calls == 0


def test_every_grouping_is_there_without_reading_again(windows: Windows) -> None:
    """The same lines by model, by provider, or by a label that was named at the start."""
    week = {by: windows.totals("7 days", by, NOW).groups for by in ("model", "provider", "team")}
    assert {by: {name: one.calls for name, one in groups.items()} for by, groups in week.items()} == {
        "model": {"m": 5},
        "provider": {"p": 5},
        "team": {"a": 2, "b": 3},
    }


def test_the_sums_are_exact_and_name_what_has_no_price(windows: Windows) -> None:
    """Money adds up to the last place over all buckets; lines without a price are named with their reason."""
    windows.add(call(minutes(2), "0.000000000001"), NOW)
    windows.add(call(minutes(3)) | {"cost_usd": None, "cost_reason": "unknown_model"}, NOW)
    totals = windows.totals("1 h", "model", NOW)
    assert totals.total.cost == Decimal("2.000000000001")
    assert dict(totals.unpriced) == {("unknown_model", "m"): 1}


def test_old_buckets_are_forgotten(windows: Windows) -> None:
    """A week of calls takes a bounded number of buckets however long one watches."""
    for hour in range(24 * 30):
        windows.add(call(timedelta(hours=-hour)), NOW + timedelta(hours=hour))
        windows.totals("10 min", "model", NOW + timedelta(hours=hour))
    assert len(windows._coarse) <= 7 * 24 + 2
    assert len(windows._fine) <= 2


def test_midnight_is_that_of_the_zone() -> None:
    """Today begins at midnight of the zone that is asked for, on days of any length."""
    windows = Windows(zone=ZoneInfo("Asia/Kolkata"))  # midnight there is 18:30 UTC
    windows.add(call(NOW - datetime(2026, 7, 27, 18, 25, tzinfo=UTC)), NOW)
    windows.add(call(NOW - datetime(2026, 7, 27, 18, 35, tzinfo=UTC)), NOW)
    assert windows.totals("today", "model", NOW).total.calls == 1
    assert windows.totals("yesterday", "model", NOW).total.calls == 1


def test_today_is_compared_with_yesterday_at_the_same_time() -> None:
    """Today so far, yesterday until this minute, and all of yesterday; a subscription stands apart."""
    days = Days()
    for ago, cost in (
        (minutes(5), "1"),
        (timedelta(days=1), "2"),
        (timedelta(hours=20), "4"),
        (timedelta(days=2), "8"),
    ):
        days.add(call(ago, cost))
    days.add(call(minutes(1), "16", billing="subscription"))
    days.add(call(minutes(1)) | {"cost_usd": None})
    recap = days.recap(NOW)
    assert recap.today == Day(Decimal(1), Decimal(16), 1)
    assert (recap.by_now.billed, recap.yesterday.billed) == (2, 6)
    tomorrow = days.recap(NOW + timedelta(days=1))
    assert (tomorrow.today, tomorrow.yesterday.billed) == (Day(), 1)


def test_days_have_the_length_they_have() -> None:
    """On the day the clocks go forward, yesterday at this time is counted from that day's own midnight."""
    zone = ZoneInfo("Europe/Berlin")
    days, noon = Days(zone), datetime(2026, 3, 29, 12, 0, tzinfo=zone)  # that morning had 11 hours
    for at, cost in ((datetime(2026, 3, 29, 0, 30, tzinfo=zone), 1), (datetime(2026, 3, 28, 23, 30, tzinfo=zone), 2)):
        days.add({"time": at.isoformat(), "cost_usd": Decimal(cost)})
    assert (days.recap(noon).today.billed, days.recap(noon).yesterday.billed) == (1, 2)


def test_days_take_bounded_room() -> None:
    """Of a month of calls two days are kept."""
    days = Days()
    for hour in range(24 * 30):
        days.add(call(timedelta(hours=-hour)))
        days.recap(NOW + timedelta(hours=hour))
    assert len(days._minutes) <= 48
