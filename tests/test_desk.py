"""The desk: whatever way a call ends, and whenever the process does, its lines are written once and are right."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from golden import ENDED, Case, exchange, load
from llmtab.desk import Desk
from llmtab.events import BIG
from llmtab.tap import tapped


class Lines:
    """In a ledger's place."""

    path = Path("no/such/ledger.jsonl")

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, lines: list[dict[str, Any]]) -> None:
        self.lines += lines


def desk(case: Case) -> tuple[Any, Lines]:
    made: Any = Desk(lambda lines: None, SimpleNamespace(estimator=None))  # type: ignore[arg-type]
    ledger = Lines()
    made.setup = SimpleNamespace(prices=case.prices, ledger=ledger)
    return made, ledger


def test_a_body_in_the_thread_is_waited_for_at_a_shutdown() -> None:
    """Its call is over: it is none of the open ones that a shutdown ends."""
    case = load("openai/chat")

    async def ends() -> Lines:
        made, ledger = desk(case)
        made._pool = ThreadPoolExecutor(1)
        made._pool.submit(time.sleep, 0.3)  # the thread is busy
        found = exchange(case, made.memory)
        made.open(found)
        large = json.dumps({**json.loads(case.body), "padding": "x" * BIG}).encode()
        made.close(found, "complete", ENDED, large)
        assert not made.calls
        made.finish(calls=True)
        await asyncio.sleep(0.1)
        return ledger

    [line] = asyncio.run(ends()).lines
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")
    assert line["bytes"]["response"] > BIG


def test_an_answer_behind_another_is_an_open_call() -> None:
    """A relay glued two answers together and the process ends between the second one's figures and the flow's end: both
    have their line, and once."""
    case = load("openai/responses_two_in_one")
    made, ledger = desk(case)
    found = exchange(case, made.memory)
    made.open(found)
    tap = tapped(found, None, made.over)
    for start, end in pairwise([0, *case.ends]):
        tap(case.body[start:end])
    assert [*made.calls] == [found.following.call.id] if found.following else None
    made.finish(calls=True)
    made.close(found, "aborted", ENDED, None)
    assert [line["usage"]["input_tokens"] for line in ledger.lines] == [10, 30]
    assert not made.calls
    assert made.memory.used == 0


def after_the_first_answer() -> tuple[Any, Lines, Any, Any]:
    """A desk, its ledger, an exchange whose first answer has passed, and the tap for what may come behind it."""
    case = load("openai/responses_two_in_one")
    made, ledger = desk(case)
    found = exchange(case, made.memory)
    made.open(found)
    tap = tapped(found, None, made.over)
    for start, end in pairwise([0, *case.ends]):
        tap(case.body[start:end])
        if found.closed:
            break
    assert found.following is not None
    return made, ledger, found, tap


def test_what_may_follow_an_answer_is_no_call_until_it_comes() -> None:
    """Nothing came behind the first answer: one line, and no call is left open."""
    made, ledger, found, _ = after_the_first_answer()
    made.close(found, "complete", ENDED, None)
    assert len(ledger.lines) == 1
    assert not made.calls


def test_a_tap_that_fails_in_the_second_answer_marks_the_second() -> None:
    """The first one is booked by then, and was read well."""
    _, _, found, tap = after_the_first_answer()
    found.following.chunks.append(None)  # type: ignore[arg-type]
    tap(b"data: {}\n\n")
    assert (found.broken_tap, found.following.broken_tap) == (False, True)
