"""Today and yesterday, read from the ledger beside the work."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmtab.live import daybook
from llmtab.live.daybook import Daybook

NOW = datetime.now(UTC)


def line(ago: timedelta, cost: float) -> str:
    at = (NOW - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"schema": 1, "id": "i", "time": at, "cost_usd": cost}, separators=(",", ":")) + "\n"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daybook, "EVERY", 0.01)


def test_it_knows_the_past_and_follows_every_writer(tmp_path: Path) -> None:
    """What was on the ledger at the start counts, and what any process adds later; days before yesterday do not."""
    path = tmp_path / "ledger.jsonl"
    path.write_text(line(timedelta(days=40), 100) + line(timedelta(days=1), 2) + line(timedelta(0), 1))
    book = Daybook(path)
    until(lambda: book.recap(NOW) is not None)
    recap = book.recap(NOW)
    assert recap and (recap.today.billed, recap.yesterday.billed) == (1, 2)
    with path.open("a") as file:
        file.write(line(timedelta(0), 4))
    until(lambda: (found := book.recap(NOW)) is not None and found.today.billed == 5)
    book.stop()
    until(lambda: not book._thread.is_alive())


def test_no_ledger_is_no_money(tmp_path: Path) -> None:
    """Before the first call both days are empty, and that is known at once."""
    book = Daybook(tmp_path / "ledger.jsonl")
    until(lambda: book.recap(NOW) is not None)
    recap = book.recap(NOW)
    assert recap and recap.today.billed == recap.yesterday.billed == 0
    book.stop()


def test_a_ledger_that_makes_no_sense_shows_no_days(tmp_path: Path) -> None:
    """Lines of another kind end the sums of days, not the table: no figure stands where one could be wrong."""
    path = tmp_path / "ledger.jsonl"
    path.write_text(line(timedelta(0), 1).replace('"cost_usd":1', '"cost_usd":"dear"'))
    book = Daybook(path)
    until(lambda: not book._thread.is_alive())
    assert book.recap(NOW) is None
