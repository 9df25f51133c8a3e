"""The table: what it shows at which width, that it is safe to look at, and when it draws."""

import io
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from effort import examples
from llmtab.live import table as live
from llmtab.live.days import Day, Recap
from llmtab.live.grid import CALLS, NARROW, TOTALS, cells_of, fit
from llmtab.live.rows import Flight, Limit, percent
from llmtab.live.table import LiveTable, State, filled, render, summary, svg

NOW = datetime(2026, 7, 28, 14, 4, 0, tzinfo=UTC)


def call(number: int = 0, **facts: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "id": f"call-{number}",
        "time": "2026-07-28T14:03:12.123Z",
        "provider": "openai",
        "response_model": "gpt-4o-mini-2024-07-18",
        "outcome": "ok",
        "usage": {"input_tokens": 12_345, "cache_read_input_tokens": 512, "output_tokens": 345},
        "usage_source": "reported",
        "cost_usd": Decimal("0.0012345"),
        "cost_source": "list",
        "billing": "metered",
        "timing": {"first_token_ms": 200.0, "duration_ms": 1200.0},
        "labels": {"project": "web"},
        **facts,
    }


def state_of(*lines: dict[str, Any]) -> State:
    state = State(ledger="~/.llmtab/ledger.jsonl")
    for line in lines:
        state.add(line)
    return state


def shown(state: State, width: int = 140, height: int | None = None, **console: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **console).print(render(state, width, NOW, height), end="")
    return file.getvalue()


def test_a_call_shows_everything_that_matters() -> None:
    """Time, provider, model, tokens, cost, duration, speed, outcome and label of a call stand in one row."""
    row = next(line for line in shown(state_of(call())).splitlines() if line.startswith("14:03:12"))
    assert " ".join(row.split()) == ("14:03:12 openai gpt-4o-mini-2024-07-18 12,345 512 345 $0.001234 1.2s 345 ok web")


def test_totals_and_rates_are_on_top_and_by_model() -> None:
    """The session's cost, calls and rates per hour stand first; each model has its own sums."""
    other = call(1, response_model="claude", cost_usd=Decimal(2), saved_usd=Decimal("0.5"), billing="metered")
    text = shown(state_of(call(), other, call(2, billing="subscription")))
    head = text.splitlines()[0]
    assert "$2.00 3 calls · $120.07/h 1 min · $12.01/h 10 min · $2.00/h 1 h" in head
    assert "($0.001234) on subscription · $0.5000 saved by caching" in head
    totals = text[text.index("calls   ") :]
    assert re.search(r"^claude +1 +12,345 +512 +4% +345 +\$2.00 +\$0.5000 *$", totals, re.MULTILINE)
    assert re.search(r"^total +3 +37,035 +1,536 +4% +1,035 +\$2.00 +\(\$0.001234\) +\$0.5000 *$", totals, re.MULTILINE)


def test_unpriced_and_estimated_calls_are_named() -> None:
    """An unpriced call shows its reason and its model, and sums without it are marked; estimates are marked."""
    unpriced = call(1, cost_usd=None, cost_reason="unknown_model", response_model="foo-1")
    guessed = call(2, usage_source="estimated", cost_source="estimated")
    cut = call(3, usage_source="partial", outcome="aborted")
    text = shown(state_of(unpriced, guessed, cut))
    assert "ok, unknown_model" in text
    assert "1 unpriced (33%), not in the sums marked +: 1x foo-1 (unknown_model)" in text
    assert "~$0.001234" in text
    assert "1 estimated" in text
    assert "1 partial" in text
    assert "$0.002469+" in text.splitlines()[0]


def test_trouble_with_the_ledger_is_in_the_footer() -> None:
    """Lines that wait or were dropped are named with the reason, in place of the ledger's path."""
    state = state_of(call())
    assert shown(state).rstrip().endswith("ledger ~/.llmtab/ledger.jsonl")
    state.set_trouble(14, 2, "No space left on device")
    assert "ledger: 14 lines wait, 2 dropped (No space left on device)" in shown(state)
    state.set_notes(["3 connections to api.openai.com refused our CA"])
    assert "refused our CA" in shown(state)


def test_an_empty_table_says_so() -> None:
    """Before the first call the table is there and says that there are none."""
    text = shown(State(), 80)
    assert "no calls yet" in text
    assert "$0 0 calls" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 119, 120, 140, 200])
@pytest.mark.parametrize("height", [None, 5, 24, 60])
def test_no_line_is_wider_than_the_terminal(width: int, height: int | None) -> None:
    """At any width nothing wraps: each row is one line, figures are whole, only names are cut."""
    tall = [
        call(number, response_model=f"model-{number % 9}-" + "x" * 60, labels={"team": "y" * 90})
        for number in range(50)
    ]
    dear = call(99, cost_usd=Decimal("123456.78"), usage={"input_tokens": 10**9, "output_tokens": 10**7})
    tiny = call(98, cost_usd=Decimal("0.0000012345"), cost_source="estimated", billing="subscription")
    lost = call(95, response_model="cache-writer", saved_usd=Decimal("-0.0013951"))
    unpriced = call(97, cost_usd=None, cost_reason="unpriced:" + "z" * 100)
    state = state_of(*tall, dear, tiny, lost, unpriced, call(96, parent="call-9", response_model="sub"))
    state.set_notes(["n" * 300])
    lines = shown(state, width, height).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    for line in lines:
        assert not re.search(r"[$~(][\d.,e-]*…", line), line
    if height and height >= 24 and width >= 80:
        assert len(lines) < height


@given(st.integers(20, 220))
def test_columns_fit_any_width(width: int) -> None:
    """Columns are dropped or shortened until they fit; model and cost always stay."""
    for columns, kept in ((CALLS, {"model", "cost"}), (TOTALS, {"group", "cost"})):
        gap = 1 if width < NARROW else 2
        found = fit(columns, width, gap)
        assert kept <= {column.name for column, _ in found}
        if width >= 35:
            assert sum(size for _, size in found) + gap * (len(found) - 1) <= width
    if width >= 80:
        assert {"time", "in", "cached", "out", "took", "outcome"} <= {
            column.name for column, _ in fit(CALLS, width, gap)
        }


@settings(max_examples=examples(50), deadline=None)
@given(st.text(max_size=40))
def test_names_from_the_wire_are_only_shown(text: str) -> None:
    """Terminal escapes, control characters and markup in any name are printed as text, never obeyed."""
    hostile = call(
        provider=text, response_model=text, error=text, outcome=text, labels={"project": text}, cost_usd=None
    )
    drawn = shown(state_of(hostile | {"cost_reason": text}), 100, color_system=None)
    assert drawn.replace("\n", "").isprintable()


def test_markup_and_escapes_are_text() -> None:
    """A model called `[red]x` is shown as that, and an escape sequence loses its escape character."""
    text = shown(
        state_of(call(response_model="[red]x\x1b[31m\x1b]0;title\x07")), force_terminal=True, color_system="truecolor"
    )
    assert "[red]x?[31m?]0;title?" in text


def test_no_colour_when_asked_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set there is no colour; without it a terminal gets colours."""
    colour = re.compile(r"\x1b\[[\d;]*3\d")
    state = state_of(call(), call(1, outcome="error"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour.search(shown(state, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(shown(state, force_terminal=True, color_system="standard"))


class Watch:
    """A table on a made-up terminal, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.file = io.StringIO()
        self.state = State(ledger=str(Path.home() / "ledger.jsonl"))
        self.table = LiveTable(Console(file=self.file, width=100, height=30, force_terminal=True), self.state)

    def drawn_after(self, seconds: float) -> bool:
        self.now += timedelta(seconds=seconds)
        return self.table.update(self.now)


def test_it_draws_only_when_something_changed_and_once_a_second() -> None:
    """A hundred calls in a second are one drawing; no call is none; a quiet minute costs nothing."""
    watch = Watch()
    assert not watch.drawn_after(5)
    watch.table.start(watch.now)
    drawn = []
    for tick in range(1, 31):
        for _ in range(100 if tick == 3 else 0):
            watch.state.add(call(cost_usd=Decimal("0.0")))
        drawn += [tick / 10] if watch.drawn_after(0.1) else []
    assert drawn == [0.9]
    assert not watch.drawn_after(60)
    for waiting, expected in ((3, True), (3, False), (0, True), (0, False)):
        watch.state.set_trouble(waiting, 0, "")
        assert watch.drawn_after(1) == expected
    watch.table.stop(watch.now)
    watch.table.stop(watch.now)
    watch.state.add(call())
    assert not watch.drawn_after(1)


def test_rates_fall_without_calls() -> None:
    """While money was spent within the hour the table looks at the rates every ten seconds."""
    watch = Watch()
    watch.state.add(call())
    watch.table.start(watch.now)
    assert sum(watch.drawn_after(1) for _ in range(60)) == 6
    watch.table.stop(watch.now)


def test_the_last_picture_stays() -> None:
    """When the proxy ends, the table of the whole session is still on the screen, with the ledger's place."""
    watch = Watch()
    watch.table.start(watch.now)
    watch.state.add(call(response_model="last-model"))
    watch.table.stop(watch.now)
    assert "last-model" in watch.file.getvalue()
    assert "ledger ~/ledger.jsonl" in watch.file.getvalue()


def test_old_calls_make_room() -> None:
    """A long session keeps the newest calls; the totals keep all."""
    state = state_of(*(call(number) for number in range(live.RECENT * 3)))
    assert (len(state.recent), state.totals.total.calls) == (live.RECENT, live.RECENT * 3)
    assert state.recent[-1]["id"] == f"call-{live.RECENT * 3 - 1}"


def test_the_picture_for_the_readme_is_reproducible(tmp_path: Path) -> None:
    """The same lines give the same SVG, byte for byte, without a path of this machine in it."""
    for name in ("a.svg", "b.svg"):
        svg(filled([call()], "~/.llmtab/ledger.jsonl"), tmp_path / name, 100, NOW)
    first = (tmp_path / "a.svg").read_text()
    assert first == (tmp_path / "b.svg").read_text()
    assert "gpt-4o-mini" in first
    assert str(tmp_path) not in first


def test_wide_characters_take_two_cells() -> None:
    """Names in any script keep the columns straight."""
    for text in ("abc", "模型", "é", "…└"):
        assert cells_of(text) == cell_len(text)


def test_the_ledger_does_not_load_the_table() -> None:
    """Programs that only write or read a ledger do not pay for a terminal library."""
    rooms = ("ledger.writer", "ledger.follow", "ledger.verify", "live.totals", "live.rows", "live.daybook")
    modules = ", ".join(f"llmtab.{room}" for room in rooms)
    program = f"import sys, {modules}; print('rich' in sys.modules)"
    source = str(Path(live.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_subscriptions_stand_apart_from_money_spent() -> None:
    """In the head, in the rows and in every total: what a subscription covers is in brackets, in no sum of dollars."""
    lines = [call(1, cost_usd=Decimal(3)), call(2, cost_usd=Decimal(5), billing="subscription")]
    text = shown(state_of(*lines, call(3, cost_usd=Decimal(1), billing="subscription_overage")))
    head, total = text.splitlines()[0], text.splitlines()[-3:]
    assert "$4.00 3 calls" in head
    assert "($5.00) on subscription" in text
    assert any("$4.00" in row and "($5.00)" in row for row in total), text
    assert "$9.00" not in text


def test_a_cost_that_differs_is_named() -> None:
    """A provider whose own account is not our list price shows in the row and, counted, at the foot."""
    text = shown(state_of(call(1, flags=["cost_differs"], cost_source="reported"), call(2)))
    assert "ok, cost differs" in text
    assert "1 cost otherwise than the list price" in text


def flight(number: int = 0, **facts: Any) -> Flight:
    known = {"model": f"model-{number}", "bytes": 12_345, "chunks": 67, "first_ms": 210.0, "first_is_token": True}
    return Flight(NOW - timedelta(seconds=3 + number), "anthropic", **known | facts)


def test_a_call_in_flight_has_a_live_row() -> None:
    """Bytes and chunks so far, how long it runs and when the first token came; below the finished calls."""
    state = state_of(call())
    state.set_flights([flight(), flight(1, bytes=0, chunks=0, first_ms=None)])
    rows = shown(state).splitlines()
    live_rows = [" ".join(row.split()) for row in rows if "anthropic" in row]
    assert live_rows == [
        "14:03:57 anthropic model-0 12.3 kB 3.0s 1st 210ms, 67 chunks",
        "14:03:56 anthropic model-1 4.0s waiting",
    ]
    assert rows.index(next(row for row in rows if "gpt-4o" in row)) < rows.index(
        next(row for row in rows if "model-0" in row)
    )
    narrow = next(row for row in shown(state, 80).splitlines() if "model-0" in row)
    assert "67 chunks" in narrow


def test_many_calls_in_flight_leave_room_for_finished_ones() -> None:
    """A thousand open calls take half of the screen at most, and are counted."""
    state = state_of(*(call(number) for number in range(50)))
    state.set_flights([flight(number) for number in range(1000)])
    text = shown(state, 100, 30)
    assert "… 992 more in flight" in text
    assert text.count("gpt-4o-mini") >= 3
    assert len(text.splitlines()) < 30


def test_calls_in_flight_are_drawn_each_second() -> None:
    """While a call runs its row goes on; when none runs any more nothing is drawn."""
    watch = Watch()
    watch.table.start(watch.now)
    for _ in range(3):
        watch.state.set_flights([flight()])
        assert watch.drawn_after(1)
    watch.state.set_flights([])
    assert watch.drawn_after(1)
    watch.state.set_flights([])
    assert not watch.drawn_after(1)
    watch.table.stop(watch.now)


def test_today_stands_against_yesterday() -> None:
    """Today so far, all of yesterday, and yesterday until this time of the day; what is a lower bound says so."""
    state = state_of(call())
    state.set_recap(Recap(Day(Decimal("4.12")), Day(Decimal("3.2"), unpriced=1), Day(Decimal("9.8"), unpriced=1)))
    assert "today $4.12, yesterday $9.80+ ($3.20+ by now)" in shown(state)
    state.set_recap(Recap(Day(Decimal(0), Decimal(7)), Day(), Day()))
    assert "today ($7.00)" in shown(state)
    assert "yesterday" not in shown(state)


def test_errors_retries_and_the_cache_have_their_share() -> None:
    """How many calls failed, how many were tried again, and how much of the input came from a cache."""
    lines = [call(number) for number in range(8)]
    failed = call(8, outcome="error", error="overloaded", usage={}, retry_of="call-1")
    head = shown(state_of(*lines, failed)).splitlines()[:2]
    assert "4% of input cached · 1 error (11%) · 1 retry" in " ".join(head)


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 0, "0%"), (1, 3, "33%"), (1, 200, "0.5%"), (1, 10**6, "<0.1%"), (3, 2, "100%")]
)
def test_a_share_is_nothing_only_where_there_is_none(part: int, whole: int, text: str) -> None:
    """A small share is not rounded to nothing."""
    assert percent(part, whole) == text


def test_limits_have_bars() -> None:
    """A budget shows how much of it is spent; one that is overdrawn has a full bar and figures that say so."""
    state = state_of(call())
    state.set_limits(
        [
            Limit("team web, day", Decimal(5), Decimal(10)),
            Limit("all", Decimal(12), Decimal(10)),
            Limit("x", Decimal(0), Decimal(0)),
            Limit("calls", Decimal(30), Decimal(50), "requests"),
            Limit("tokens", Decimal(1_200_000), Decimal(2_000_000), "tokens"),
        ]
    )
    rows = [row.rstrip() for row in shown(state).splitlines()]
    assert "team web, day " + "█" * 10 + "░" * 10 + " $5.00 of $10.00 (50%)" in rows
    assert "all " + "█" * 20 + " $12.00 of $10.00 (120%)" in rows
    assert "calls " + "█" * 12 + "░" * 8 + " 30 of 50 requests (60%)" in rows
    assert "tokens " + "█" * 12 + "░" * 8 + " 1.2M of 2.0M tokens (60%)" in rows


def test_a_long_foot_is_cut_by_sentences() -> None:
    """However much there is to know, the calls keep the screen; the rest is told by `llmtab doctor`."""
    state = state_of(call())
    state.set_notes([f"note {number}" for number in range(20)])
    text = shown(state)
    assert "note 4" in text
    assert "note 5" not in text
    assert "… 15 more to know: llmtab doctor" in text


def test_a_sentence_of_the_foot_is_whole() -> None:
    """What helps stands at its end, and is not cut off where there is room for another line."""
    state = state_of(call())
    state.set_notes(
        ["3 connections to unknown hosts: " + "llm.example.com, " * 8 + "name it under hosts: in llmtab.yaml"]
    )
    for width in (80, 120):
        assert "under hosts: in llmtab.yaml" in " ".join(shown(state, width, 40).split())
    state.set_notes([f"note {number} " + "x " * 150 for number in range(6)])
    assert sum("x x" in line for line in shown(state, 80, 24).splitlines()) <= 8
    state.set_trouble(1, 0, "No space left on device")
    assert "ledger: 1 line waits, 0 dropped (No space left on device)" in shown(state, 140)


def test_what_nobody_knows_is_no_nought() -> None:
    """Groups without a single token told show none, mixed ones say that there are more; costs likewise."""
    silent = call(1, response_model="mute", usage=None, usage_source="none", cost_usd=None, cost_reason="no_usage")
    guessed = call(2, cost_source="estimated")
    text = shown(state_of(call(), silent, guessed))
    groups = text[text.index("calls   ") :]
    assert re.search(r"^mute +1 +- +- +unpriced *$", groups, re.MULTILINE)
    assert re.search(r"^total +3 +24,690\+ +1,024 +4% +690\+ +~\$0.002469\+ *$", groups, re.MULTILINE)
    failed = call(3, response_model="failed", usage=None, usage_source="none", outcome="error", cost_usd=Decimal(0))
    text = shown(state_of(call(), failed))
    assert re.search(r"^total +2 +12,345 +512 +4% +345 +\$0.001234 +1 *$", text, re.MULTILINE)


def test_a_log_line_stands_whole_above_the_table() -> None:
    """However wide it is, and with nothing in it that the terminal would obey; the table is drawn once more below."""
    watch = Watch()
    watch.table.start(watch.now)
    watch.table.say("12:00:00 an edit is not in force: " + "word " * 40 + "the end\n  second \x1b[2J line", "bad")
    assert watch.drawn_after(1)
    assert not watch.drawn_after(1)
    drawn = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", watch.file.getvalue())
    above, _, below = drawn.rpartition("second ?[2J line")
    assert "12:00:00 an edit" in above and above.rstrip().endswith("the end")
    assert "no calls yet" in below
    assert max(map(cell_len, drawn.splitlines())) <= 100
    watch.table.stop(watch.now)


def test_a_new_size_is_a_new_screen() -> None:
    """How the terminal folded the old rows is not known, so they are taken away."""
    watch = Watch()
    watch.table.start(watch.now)
    watch.state.add(call())
    assert watch.drawn_after(1)
    assert "\x1b[2J" not in watch.file.getvalue()
    watch.table.console.size = (60, 20)
    assert watch.drawn_after(1)
    assert "\x1b[2J\x1b[H" in watch.file.getvalue()
    watch.table.stop(watch.now)


def test_the_summary_is_plain_text() -> None:
    """What mitmproxy's command answers: the head, the groups and the foot, without colours."""
    state = state_of(call(), call(1, response_model="x\x1b[31m"))
    said = summary(state, 100, NOW)
    assert all(line.isprintable() for line in said)
    assert any("gpt-4o-mini" in line for line in said)
    assert "2 calls" in said[0]


def test_a_picture_of_a_long_session_takes_a_few_milliseconds() -> None:
    """With 10,000 calls in the sums, calls in flight and a tall screen a picture takes less than 10 ms."""
    state = state_of(*(call(number, response_model=f"model-{number % 40}") for number in range(10_000)))
    state.set_flights([flight(number) for number in range(8)])
    console = Console(file=io.StringIO(), width=160, height=50, force_terminal=True, color_system="truecolor")
    took = []
    for _ in range(7):
        began = perf_counter()
        console.print(render(state, 160, NOW, 50), end="")
        took.append(perf_counter() - began)
    assert min(took) < 0.01
