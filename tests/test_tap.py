"""The tap: chunks go through untouched whatever happens, and a stream's last event is noticed however it is cut."""

from itertools import pairwise

import pytest

from golden import ENDED, exchange, load, natural, streams
from llmtab.booking import book
from llmtab.profiles.endings import end_needles
from llmtab.tap import FALSE_ALARMS, tapped, watch


def test_a_needle_is_found_at_the_end_of_its_line_wherever_it_is_cut() -> None:
    """Whatever the chunks, the alarm comes with the chunk that ends the needle's line."""
    body = b"data: {}\n\ndata: [DONE]\n\n"
    for first in range(1, len(body)):
        for second in range(first, len(body)):
            looks_over = watch([b"[DONE]"])
            cuts = sorted({0, first, second, len(body)})
            assert any(looks_over(body[a:b]) for a, b in pairwise(cuts))


def test_a_tap_that_fails_inside_passes_the_chunk_on() -> None:
    """Whatever breaks in the meter, the client has its bytes, and the call is marked."""
    found = exchange(load("openai/chat_stream"))

    def broken(_: object) -> bool:
        raise RuntimeError

    tap = tapped(found, None, broken)
    chunk = b"data: [DONE]\n\n"
    assert tap(chunk) is chunk
    assert found.broken_tap


def test_false_alarms_are_bounded() -> None:
    """A stream that talks about the ends of streams costs a few looks, not one a chunk."""
    asked = []
    tap = tapped(exchange(load("openai/chat_stream")), None, lambda seen: bool(asked.append(seen)))
    for _ in range(50):
        tap(b'data: {"text": "[DONE]"}\n')
    assert len(asked) == FALSE_ALARMS


def test_alarms_that_fail_are_bounded_too() -> None:
    """An error at each look is no reason to look for ever."""
    asked = []

    def broken(seen: object) -> bool:
        asked.append(seen)
        raise RuntimeError

    tap = tapped(exchange(load("openai/chat_stream")), None, broken)
    for _ in range(50):
        tap(b'data: {"text": "[DONE]"}\n')
    assert len(asked) == FALSE_ALARMS


GLUED = "openai/responses_two_in_one"


def test_a_second_answer_glued_behind_the_first_is_kept() -> None:
    """Where a relay glues two answers together, what comes behind the first one's end is an account of its own."""
    case = load(GLUED)
    found = exchange(case)
    closed = []

    def over(seen: object) -> bool:
        closed.append(found.close_early(ENDED))
        return found.closed

    tap = tapped(found, None, over)
    for start, end in pairwise([0, *case.ends]):
        tap(case.body[start:end])
    assert found.following is not None
    second = found.following.close("complete", ENDED)
    assert second is not None
    assert [seen.reading.counters["input_tokens"] for seen in (closed[0], second)] == [10, 30]
    assert second.call.id != found.call.id


@pytest.mark.parametrize("name", [name for name in streams() if name != GLUED])
def test_closing_at_the_last_event_loses_nothing(name: str) -> None:
    """Wherever a stream may be closed early, its line has the figures and the cost of the whole stream."""
    case = load(name)
    found = exchange(case)
    early = []

    def over(seen: object) -> bool:
        early.append(found.close_early(ENDED))
        return found.closed

    tap = tapped(found, None, over)
    for start, end in pairwise([0, *case.ends]):
        tap(case.body[start:end])
    seen = next((one for one in early if one), None) or found.close("complete", ENDED)
    assert seen is not None
    for line, whole in zip(book(seen, case.prices), natural(case), strict=True):
        for key in ("usage", "cost_usd", "outcome", "usage_source", "response_model"):
            assert line.get(key) == whole.get(key)


def test_needles_come_from_plain_tests_only() -> None:
    """Exact values and `[DONE]` are looked for; patterns, presence and added-up streams are left to their end."""
    assert end_needles({"end": [{"/type": ["a.done", "b.done"]}, {"": "[[]DONE]"}]}) == (b'"a.done"', b'"b.done"')
    assert end_needles({"end": [{"": "[[]DONE]"}]}) == (b"[DONE]",)
    assert end_needles({"end": [{"/done": True}]}) == (b'"done":true',)
    assert end_needles({"end": [{"/x": "present"}, {"/y": "fin*"}, {"/a": "bbbb", "/c": "dddd"}]}) == ()
    assert end_needles({"end": [{"/type": "finish"}], "usage": {"n": {"terms": ["/n"], "fold": "sum"}}}) == ()
