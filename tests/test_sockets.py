"""Sockets: every response of a WebSocket is one line, whatever the frames, the cuts and the ends."""

import json
from typing import Any

import pytest

from llmtab.booking import book
from llmtab.estimates.guess import Guesser
from llmtab.pricing import PriceBook
from llmtab.record import FIELDS, decode, encode
from llmtab.sockets import socket as sockets
from llmtab.sockets.account import HEAD
from socket_cases import Case, Frame, differences, lines, load, names, play, socket

JUNK = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b'"response.done"',
    b"\xff\x00response.done",
    b'{"type":"response.done"}',
    b'{"type":"response.done","response":7}',
    b'{"type":"response.create","response":[]}',
    b'{"type":["response.done"],"response":{"id":{"a":1},"usage":3}}',
    b'{"serverContent":{"modelTurn":3},"usageMetadata":{"totalTokenCount":[]}}',
]


@pytest.fixture(params=names())
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def test_each_response_gives_its_line(case: Case) -> None:
    """One line a response, in the order in which they end, with the figures of the case and the time of the frame that
    asked."""
    found = lines(case, play(case))
    assert [differences(line, expect) for line, expect in zip(found, case.expect, strict=True)] == [{}] * len(found)


def test_each_line_is_a_record(case: Case) -> None:
    """Keys come in the ledger's order, ids differ, and what is written can be read back as it was."""
    found = lines(case, play(case))
    assert len({line["id"] for line in found}) == len(found)
    for line in found:
        assert list(line) == [key for key in FIELDS if key in line]
        assert encode(decode(encode(line))) == encode(line)
        assert line["transport"] == "ws"


def test_a_socket_cut_at_each_message(case: Case) -> None:
    """Wherever it breaks: what was over by then is on the ledger as ever, what was under way is there once, and says
    that it did not end."""
    for count in range(len(case.frames) + 1):
        frames = case.frames[:count]
        over = lines(case, play(case, frames, close=False))
        found = lines(case, play(case, frames))
        assert [differences(line, expect) for line, expect in zip(over, case.expect, strict=False)] == [{}] * len(over)
        assert len(over) <= len(found) <= len(case.expect) + 1
        for line in found[len(over) :]:
            assert line["outcome"] in (("aborted", "ok") if case.by_client else ("broken", "ok")), (count, line)
            assert line["usage_source"] in ("none", "partial"), (count, line)
            assert line["cost_source"] in ("unpriced", "estimated")
        ids = [line["response_id"] for line in found if "response_id" in line]
        assert len(ids) == len(set(ids))


def test_nothing_comes_twice(case: Case) -> None:
    """A socket that was closed has nothing more to say."""
    found = socket(case)
    for frame in case.frames:
        found.feed(frame.data, frame.at, from_client=frame.from_client)
    found.close("aborted", 1.0)
    assert found.close("aborted", 2.0) == []
    assert [seen for f in case.frames for seen in found.feed(f.data, f.at, from_client=f.from_client)] == []


def test_only_frames_that_matter_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of sound costs a search for a few words, not a parser."""
    case, parsed = load("openai/sockets/realtime"), []
    real = sockets.parse
    monkeypatch.setattr(sockets, "parse", lambda data: parsed.append(data) or real(data))
    sound = [Frame(_json({"type": "input_audio_buffer.append", "audio": "AAAA"}), True, 9.5)] * 1000
    deltas = [
        Frame(_json({"type": "response.output_audio.delta", "response_id": "resp_1", "delta": "AAAA"}), False, 9.6)
    ] * 1000
    at = next(n for n, frame in enumerate(case.frames) if b"output_audio.done" in frame.data)
    found = lines(case, play(case, [*case.frames[:at], *sound, *deltas, *case.frames[at:]]))
    assert [line.get("usage") for line in found] == [line.get("usage") for line in lines(case, play(case))]
    assert len(parsed) < 2 * len(case.frames) + HEAD
    assert found[0]["bytes"]["response"] > 1000 * len(deltas[0].data)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_passed_over(case: Case, junk: bytes) -> None:
    """Whatever else comes by, the responses that were reported still are."""
    noise = [Frame(junk, False, case.frames[0].at), Frame(junk, True, case.frames[0].at)]
    mixed = [frame for each in case.frames for frame in (*noise, each)]
    usages = [line.get("usage") for line in lines(case, play(case)) if line.get("usage")]
    assert [line["usage"] for line in lines(case, play(case, mixed)) if line.get("usage")] == usages


@pytest.mark.parametrize("name", names())
def test_every_dialect_says_what_to_look_for(name: str) -> None:
    """No dialect asks for every frame to be parsed: each names words that stand in the frames that matter."""
    rules = [tabs.rules for tabs in socket(load(name))._tabs]
    assert not any(watch.hit([]) for each in rules for watch in (each.asking, each.answering))


def test_no_text_of_a_request_is_kept() -> None:
    """Of what a client asks a socket keeps names and numbers, while the answer is under way."""
    case = load("openai/sockets/responses")
    found = socket(case)
    secret = "s3cr3t " * 100
    asked = {
        "type": "response.create",
        "model": "o4-mini",
        "instructions": secret,
        "input": [{"content": [{"text": secret}]}],
    }
    found.feed(_json(asked), 1.0, from_client=True)
    [seen] = found.close("aborted", 2.0)
    assert "s3cr3t" not in repr(seen)
    assert seen.reading.request_model == "o4-mini"
    assert seen.call.request_bytes == len(_json(asked))


def test_a_flood_of_questions_stays_bounded() -> None:
    """Of more responses than any client has under way the oldest are given up, each with its line."""
    case = load("openai/sockets/responses")
    ask = Frame(_json({"type": "response.create", "model": "o4-mini"}), True, 1.0)
    found = socket(case)
    over = [seen for _ in range(3 * sockets.MOST) for seen in found.feed(ask.data, 1.0, from_client=True)]
    assert len(over) == 2 * sockets.MOST
    assert len(over) + len(found.close("aborted", 2.0)) == 3 * sockets.MOST


def test_a_budget_can_say_no() -> None:
    """A frame that asks is known before it leaves, with a call of its own; refused, it is over, and the answer to the
    next one is the next one's."""
    found = socket(load("openai/sockets/responses"))
    assert found.feed(_json({"type": "response.create", "model": "a"}), 1.0, from_client=True) == []
    first = found.asked
    assert first is not None
    assert found.feed(_json({"type": "response.create", "model": "b"}), 2.0, from_client=True) == []
    second = found.asked
    assert second is not None
    assert first.id != second.id
    found.feed(_json({"type": "response.cancel"}), 3.0, from_client=True)
    assert found.asked is None
    [refused] = found.refuse(first, 3.0)
    assert (refused.call, refused.reading.request_model) == (first, "a")
    done = {
        "type": "response.completed",
        "response": {"id": "resp_1", "usage": {"input_tokens": 1, "output_tokens": 1}},
    }
    [seen] = found.feed(_json(done), 4.0, from_client=False)
    assert (seen.call, seen.reading.request_model) == (second, "b")


def test_what_waits_is_answered_in_its_order() -> None:
    """Of two questions in one lane the first answer is the first one's."""
    found = socket(load("openai/sockets/responses"))
    for number, model in enumerate(("a", "b"), 1):
        found.feed(_json({"type": "response.create", "model": model}), number, from_client=True)
    for number in (1, 2):
        done = {"type": "response.completed", "response": {"id": f"r{number}", "usage": {"input_tokens": number}}}
        [seen] = found.feed(_json(done), 3.0, from_client=False)
        assert (seen.call.began, seen.reading.request_model) == (number, "ab"[number - 1])


def test_bytes_are_those_of_their_response() -> None:
    """While several responses pass at once, each message counts for its own."""
    found = socket(load("openai/sockets/responses"))
    sizes, over = {"a": 0, "b": 0}, []
    kinds = ["response.created", *["response.output_text.delta"] * 30, "response.completed"]
    for kind in kinds:
        for lane in sizes:
            event = {"type": kind, "stream_id": lane, "delta": lane * (5 if lane == "a" else 50)}
            data = _json(event if kind.endswith("delta") else {**event, "response": {"id": lane}})
            sizes[lane] += len(data)
            over += found.feed(data, 1.0, from_client=False)
    assert {seen.reading.response_id: seen.response_bytes for seen in over} == sizes


def test_a_new_provider_is_a_yaml_file() -> None:
    """A socket that nobody knew is told in a profile alone: what asks, what ends, which response, which figures."""
    case = load("custom/sockets/house")
    assert case.profiles is not load("openai/sockets/responses").profiles
    assert [line["usage"]["output_tokens"] for line in lines(case, play(case)) if "usage" in line] == [5, 6]


@pytest.mark.parametrize("name", ["openai/sockets/responses", "openai/sockets/realtime", "google/sockets/live"])
def test_an_unknown_path_of_a_known_host(name: str) -> None:
    """Where nobody described a path, responses that tell figures are read by their shape; nothing else is a line."""
    case = load(name)
    moved = Case(**{**vars(case), "url": "wss://api.openai.com/v9/brand/new?model=gpt-realtime"})
    found, wanted = lines(moved, play(moved)), [line for line in lines(case, play(case)) if "usage" in line]
    assert [line["usage"] for line in found] == [line["usage"] for line in wanted]
    assert {line["profile"] for line in found} == {"openai_compatible"}


def test_a_session_is_one_line() -> None:
    """What is billed by the session is one line, from the upgrade to its end."""
    case = load("openai/sockets/translation")
    whole, cut = lines(case, play(case)), lines(case, play(case, case.frames[:2]))
    assert [line["outcome"] for line in (*whole, *cut)] == ["ok", "aborted"]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _answer(words: int, close: str = "broken", **more: Any) -> dict[str, Any]:
    """The line of a response of so many words whose socket breaks before its end; `more`: of its request."""
    case = load("openai/sockets/responses")
    found = socket(case)
    prompt = "what is to be done about it " * 100
    asked = {"type": "response.create", "model": "gpt-4o", "input": prompt, **more}
    begun = {"type": "response.created", "response": {"id": "r", "model": "gpt-4o", "instructions": "be kind " * 9000}}
    found.feed(_json(asked), 1.0, from_client=True)
    found.feed(_json(begun), 1.1, from_client=False)
    for number in range(words):
        event = {"type": "response.output_text.delta", "item_id": "m", "delta": f" word{number % 1000}"}
        assert not found.feed(_json(event), 1.2, from_client=False)
    [seen] = found.close(close, 2.0)  # type: ignore[arg-type]
    [line] = book(seen, PriceBook.load(), Guesser(list).guess)
    assert encode(decode(encode(line))) == encode(line)
    return line


def test_the_text_of_a_broken_socket_is_estimated() -> None:
    """What passed of a response before its socket broke was paid: it is counted, marked as ours, and priced."""
    line = _answer(400)
    assert (line["outcome"], line["usage_source"], line["usage_reason"]) == ("broken", "estimated", "broken")
    assert line["estimated"] == ["input_tokens", "output_tokens", "total_tokens"]
    assert line["estimate_method"] == "input:bytes,output:pieces"
    assert 700 <= line["usage"]["output_tokens"] <= 900  # o200k: 800
    assert 600 <= line["usage"]["input_tokens"] <= 1000  # o200k: 600, and its JSON
    assert line["cost_source"] == "estimated"
    assert "flags" not in line
    assert _answer(9, "aborted")["outcome"] == "aborted"


def test_a_long_answer_is_sampled() -> None:
    """Of a megabyte of text frames little is kept, and the estimate is as good."""
    line = _answer(12000)
    assert line["usage"]["output_tokens"] == pytest.approx(24000, rel=0.1)


def test_what_the_provider_stores_is_not_in_the_estimate() -> None:
    """An agent's next turn sends only what is new: its line says that the rest was not seen."""
    assert _answer(9, previous_response_id="resp_1")["flags"] == ["context_unseen"]


def test_a_socket_without_text_is_not_estimated() -> None:
    """Nothing came but the beginning: nothing is made up."""
    line = _answer(0)
    assert (line["usage_source"], line["cost_usd"]) == ("none", None)


def test_final_figures_of_a_socket_stand() -> None:
    """A response whose figures came has no estimate, whatever text passed; nor has an error."""
    case = load("openai/sockets/responses")
    for seen in play(case):
        assert seen.passed is None or seen.reading.failed
        [line] = book(seen, case.prices, Guesser(list).guess)
        assert "estimated" not in line
