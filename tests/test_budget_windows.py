"""Windows: calendar ones in a zone, sliding ones, and those without an end."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmtab.budgets.windows import EVER, window

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = st.floats(946_684_800, 4_102_444_800, allow_nan=False)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe",
                         "America/Havana", "Pacific/Apia"])  # fmt: skip


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "moment", "start", "end"),
    [
        ("day", "2026-03-28T12:00", "2026-03-28T00:00", "2026-03-29T00:00"),
        ("month", "2026-02-28T23:59:59", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("month", "2026-03-29T12:00", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("quarter", "2026-05-05T00:00", "2026-04-01T00:00", "2026-07-01T00:00"),
        ("year", "2026-12-31T23:59", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("week", "2026-11-22T23:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("hour", "2026-11-22T23:10", "2026-11-22T23:00", "2026-11-23T00:00"),
        ("5 minutes", "2026-11-22T23:13", "2026-11-22T23:10", "2026-11-22T23:15"),
        ("minute", "2026-11-22T23:13:59", "2026-11-22T23:13", "2026-11-22T23:14"),
        ("daily", "2026-11-22T23:13", "2026-11-22T00:00", "2026-11-23T00:00"),
    ],
)
def test_a_calendar_window_is_the_calendars(text: str, moment: str, start: str, end: str) -> None:
    """A day, a month or an hour begins when the clock on the wall of its zone says so."""
    assert window(text, BERLIN).at(at(moment)) == (at(start), at(end))


@pytest.mark.parametrize(("moment", "hours"), [("2026-03-29T12:00", 23), ("2026-10-25T12:00", 25)])
def test_a_day_is_as_long_as_daylight_saving_makes_it(moment: str, hours: int) -> None:
    """The day on which clocks change has 23 or 25 hours, and no moment is in two windows or in none."""
    start, end = window("day", BERLIN).at(at(moment))
    assert end - start == hours * 3600


def test_where_midnight_is_skipped_the_day_begins_at_the_change() -> None:
    """In Havana clocks go from 00:00 to 01:00: that day begins then, and the one before ends then."""
    zone = ZoneInfo("America/Havana")
    before, after = (window("day", zone).at(at(day, zone)) for day in ("2026-03-07T12:00", "2026-03-08T12:00"))
    assert before[1] == after[0] == datetime(2026, 3, 8, 5, tzinfo=UTC).timestamp()


@given(MOMENTS, ZONES, st.sampled_from(["second", "minute", "7 minutes", "hour", "5 hours", "day", "3 days", "week",
                                        "month", "5 months", "quarter", "year"]))  # fmt: skip
@example(2051222399.9999995, "UTC", "day")
@example(2051222399.9999995, "UTC", "7 minutes")
def test_windows_meet_without_a_gap(moment: float, zone: str, text: str) -> None:
    """Every moment is in exactly one window, and the next one begins where it ends."""
    over = window(text, ZoneInfo(zone))
    start, end = over.at(moment)
    assert start <= moment < end
    assert over.at(start) == (start, end)
    assert over.at(end)[0] == end
    assert over.at(start - 0.001)[1] == start


@given(MOMENTS, st.sampled_from(["minute", "hour", "day", "month"]))
def test_a_sliding_window_never_forgets_too_early(moment: float, text: str) -> None:
    """What was counted stays for the whole span, and for a sixtieth of it more at most."""
    over = window(text, sliding=True)
    _, end = over.at(moment)
    assert over.seconds <= end - moment <= over.seconds + over.bin + 1e-6


def test_without_a_time_it_is_for_ever() -> None:
    """A limit that names no time never starts anew."""
    assert window("").at(at("2026-01-01T00:00")) == (0.0, EVER)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"])
@pytest.mark.parametrize("text", ["hour", "day", "week", "month", "1000 years"])
@pytest.mark.parametrize("moment", [-1e13, -62_135_596_800.0, 0.0, 253_402_300_799.0, 1e13])
def test_the_ends_of_the_calendar_are_no_error(text: str, zone: str, moment: float) -> None:
    """A moment that no calendar has is in a window at its end."""
    start, end = window(text, ZoneInfo(zone)).at(moment)
    assert start < end or abs(moment) > 6e10


@pytest.mark.parametrize("text", ["9999 years", "1001 years"])
@pytest.mark.parametrize("sliding", [True, False])
def test_a_window_longer_than_calendars_is_an_error(text: str, sliding: bool) -> None:
    """Nobody can say when it ends."""
    with pytest.raises(ValueError, match="expected at most 1000 years"):
        window(text, sliding=sliding)


@pytest.mark.parametrize("text", ["fortnight", "0 days", "-1 day", "day day", "36 hours", "per"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="expected"):
        window(text)
