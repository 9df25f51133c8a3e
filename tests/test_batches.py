"""Batch results at the desk: items of files, documents and pages, each booked once, without holding up the loop."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmtab.attribution.fingerprints import Fingerprints
from llmtab.batches import desk as batches
from llmtab.batches import download as batch_download
from llmtab.batches import held as batch_held
from llmtab.batches.booked import Booked
from llmtab.batches.desk import Batches, Fetch
from llmtab.coverage import Coverage
from llmtab.events import BIG
from llmtab.ledger.reader import read
from llmtab.ledger.writer import Ledger
from llmtab.observation import Answer, Call
from llmtab.profiles import Profiles
from llmtab.sources import Sources

FILE = ("api.openai.com", "/v1/files/file-1/content")
LINE = {"schema": 1, "id": "x", "writer": "", "seq": 0, "host": FILE[0]}


@pytest.fixture(scope="module")
def found() -> Any:
    return Sources(None, (), ()).read()


@pytest.fixture
def desk(found: Any, tmp_path: Path) -> Iterator[Any]:
    ledger = Ledger(tmp_path / "ledger.jsonl", fsync="off")
    ledger.open()
    key = Fingerprints(tmp_path / "key")
    setup = SimpleNamespace(ledger=ledger, prices=found.prices, profiles=found.profiles, fingerprints=key)
    yield SimpleNamespace(setup=setup, coverage=Coverage(), write=ledger.append)
    ledger.close()


def item(number: int, text: str = "", **over: Any) -> dict[str, Any]:
    body = {"id": f"c{number}", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [{"text": text}],
            "usage": {"prompt_tokens": number, "completion_tokens": 1, "total_tokens": number + 1}}  # fmt: skip
    return {"custom_id": f"r{number}", "response": {"status_code": 200, "body": body}, "error": None, **over}


def jsonl(items: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in items)


def fetch(desk: Any, where: Batches, host: str = FILE[0], path: str = FILE[1]) -> Fetch:
    claim = desk.setup.profiles.match(host, 443, "GET", path)
    call = Call("id", host, "GET", claim.path, time.time(), {}, lambda: None, lambda _: None)
    return where.open(call, claim)


def get(
    desk: Any, where: Batches, data: bytes, start: int = 0, size: int | None = None, brake: Any = None, **headers: str
) -> Callable[[bytes], Any]:
    """Fetch a file (or from `start` a range of it) in one go; its tap."""
    one = fetch(desk, where)
    status, said = (200, "") if size is None else (206, f"bytes {start}-{start + len(data) - 1}/{size}")
    answer = Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, time.time())
    tap = one.answered(answer, said, False, brake or (lambda stop: True))
    for at in range(0, len(data), 1000):
        assert tap(data[at : at + 1000]) == data[at : at + 1000]
    one.close(complete=True, body=None)
    return tap


def get_document(desk: Any, where: Batches, document: Any, host: str, path: str) -> None:
    one = fetch(desk, where, host, path)
    assert one.answered(Answer(200, {}, time.time()), "", False, lambda stop: True) is False
    one.close(complete=True, body=json.dumps(document).encode())


def booked(desk: Any) -> list[dict[str, Any]]:
    return list(read(desk.setup.ledger.path))


def places(desk: Any) -> list[int]:
    return [line["batch"]["item"] for line in booked(desk)]


def test_the_loop_goes_on_while_items_are_booked(desk: Any) -> None:
    """A thousand items are booked in slices: nobody else on the event loop waits for more than a few of them."""

    async def run() -> float:
        where, worst = Batches(desk), 0.0
        get(desk, where, jsonl([item(n) for n in range(1000)]))
        done = asyncio.ensure_future(where.written())
        while not done.done():
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)
        return worst

    assert asyncio.run(run()) < 0.1
    assert places(desk) == list(range(1000))


def test_two_downloads_at_a_time_are_one(desk: Any) -> None:
    """Two clients that fetch the same file at the same time share its items."""
    data = jsonl([item(n) for n in range(100)])

    async def run() -> None:
        where = Batches(desk)
        one, two = fetch(desk, where), fetch(desk, where)
        taps = [each.answered(Answer(200, {}, 0.0), "", False, lambda stop: True) for each in (one, two)]
        for at in range(0, len(data), 777):
            for tap in taps:
                tap(data[at : at + 777])
            await asyncio.sleep(0)
        one.close(complete=True, body=None)
        two.close(complete=False, body=None)
        await where.written()

    asyncio.run(run())
    assert sorted(places(desk)) == list(range(100))


def test_long_lines_are_read_in_a_thread(desk: Any) -> None:
    """An item of half a megabyte is read elsewhere, and is there like any other."""

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(0), item(1, "x" * 2 * BIG), item(2)]))
        await where.written()

    asyncio.run(run())
    assert [(line["batch"]["item"], line["usage"]["input_tokens"]) for line in booked(desk)] == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("broken", [b"{ torn\n", b"\xff\xfe\n", b"[" * 5000 + b"\n"])
def test_a_line_that_cannot_be_read_is_an_item_all_the_same(desk: Any, broken: bytes) -> None:
    """An item nobody can read says so; it is never silently gone, never free, and the others keep their places."""

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(0)]) + broken + jsonl([item(2)]))
        await where.written()

    asyncio.run(run())
    one, bad, three = booked(desk)
    assert (one["batch"]["item"], three["batch"]["item"]) == (0, 2)
    assert (bad["outcome"], bad["usage_reason"], bad["cost_usd"]) == ("broken", "undecodable:json", None)


def test_what_is_held_is_bounded(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file whose beginning never comes only so much is kept; then items are booked without their number, once."""
    monkeypatch.setattr("llmtab.batches.store.MOST_HELD", 2000)
    data = jsonl([item(n) for n in range(500)])
    start = data.index(b"\n") // 2

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, data[start:], start, len(data))
        await where.written()
        assert where._stores[(FILE[0], "file-1")].held.size <= 2000
        get(desk, where, data)
        await where.written()

    asyncio.run(run())
    lines = booked(desk)
    assert sorted(line["usage"]["input_tokens"] for line in lines) == list(range(500))
    assert any("item" not in line["batch"] for line in lines)
    assert all(line.get("flags") == ["item_unknown"] for line in lines if "item" not in line["batch"])


def test_a_provider_is_slowed_down_when_too_much_waits(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: past it the provider is told to wait, and to go on when there is room."""
    monkeypatch.setattr(batch_download, "HIGH", 3000)
    monkeypatch.setattr(batch_download, "LOW", 1000)
    said: list[bool] = []

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(n) for n in range(100)]), brake=lambda stop: said.append(stop) or True)
        assert said
        assert all(said)
        await where.written()

    asyncio.run(run())
    assert said[-1] is False
    assert places(desk) == list(range(100))


def test_without_a_brake_the_tap_makes_room(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider cannot be slowed down, the work is done as the bytes come."""
    monkeypatch.setattr(batch_download, "HIGH", 3000)
    monkeypatch.setattr(batches, "HIGH", 3000)

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(0)]))
        await where.written()
        get(desk, where, jsonl([item(n) for n in range(100)]), brake=lambda stop: False)
        assert len(booked(desk)) > 50
        await where.written()

    asyncio.run(run())
    assert places(desk) == list(range(100))


def test_what_waits_is_packed_and_read_as_it_came(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that wait long are kept small; nothing of them is lost."""
    monkeypatch.setattr(batch_download, "PLAIN", 2000)

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(n, "word " * 100) for n in range(200)]))
        await where.written()

    asyncio.run(run())
    assert places(desk) == list(range(200))


def test_pages_of_results_are_known_by_their_names(desk: Any) -> None:
    """Pages come again and in any order (xAI): each item once, numbered as it was first seen."""
    host, path = "api.x.ai", "/v1/batches/b1/results"
    answer = {"model": "grok-4", "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}

    def page(*names: str) -> dict[str, Any]:
        inside = [{"batch_request_id": n, "batch_result": {"response": {"chat_get_completion": answer | {"id": n}}}}
                  for n in names]  # fmt: skip
        return {"results": inside, "pagination_token": "t"}

    async def run() -> None:
        where = Batches(desk)
        for names in (["a", "b"], ["c"], ["b", "a"], ["c", "d"]):
            get_document(desk, where, page(*names), host, path)
            await where.written()
        again = Batches(desk)
        get_document(desk, again, page("d", "c"), host, path)
        await again.written()

    asyncio.run(run())
    assert [(line["response_id"], line["batch"]) for line in booked(desk)] == [
        (name, {"id": "b1", "item": number}) for number, name in enumerate("abcd")
    ]


def test_a_shutdown_books_what_has_come(desk: Any) -> None:
    """The end of the process loses no item that has passed."""

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl([item(n) for n in range(200)]))
        where.finish()
        assert places(desk) == list(range(200))

    asyncio.run(run())


def test_parts_that_cannot_be_placed_are_named(desk: Any) -> None:
    """Several ranges in one answer, or the middle of a compressed file: not read, and coverage says so."""

    async def run() -> None:
        where = Batches(desk)
        one = fetch(desk, where)
        assert one.answered(Answer(206, {}, 0.0), "", False, lambda stop: True) is True
        coded = Answer(206, {"content-encoding": "gzip"}, 0.0)
        assert fetch(desk, where).answered(coded, "bytes 5-9/20", False, lambda stop: True) is True
        strange = Answer(200, {"content-encoding": "lzma"}, 0.0)
        assert fetch(desk, where).answered(strange, "", False, lambda stop: True) is True

    asyncio.run(run())
    assert sum(desk.coverage.gaps.values()) == 3


def test_old_files_are_forgotten_and_found_again(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some files are remembered; of an older one the ledger tells what is booked."""
    monkeypatch.setattr(batches, "REMEMBERED", 1)

    async def run() -> None:
        where = Batches(desk)
        for path in ("a", "b", "a"):
            one = fetch(desk, where, FILE[0], f"/v1/files/file-{path}/content")
            one.answered(Answer(200, {}, 0.0), "", False, lambda stop: True)(jsonl([item(0)]))
            one.close(complete=True, body=None)
            await where.written()
        assert len(where._stores) == 1

    asyncio.run(run())
    assert [line["batch"]["id"] for line in booked(desk)] == ["file-a", "file-b"]


def test_what_answers_speak(desk: Any) -> None:
    """One batch may hold several endpoints: each answer is read by its own dialect, and moderation is free."""
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
    bodies = [
        {"object": "response", "id": "resp_1", "model": "gpt-4.1", "status": "completed", "usage": usage},
        {"object": "list", "data": [], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 7}},
        {"object": "text_completion", "id": "cmpl-1", "model": "davinci-002", "usage": {"prompt_tokens": 7}},
        {"id": "modr-1", "model": "omni-moderation-latest", "results": []},
    ]
    lines = [item(n, response={"status_code": 200, "body": body}) for n, body in enumerate(bodies)]

    async def run() -> None:
        where = Batches(desk)
        get(desk, where, jsonl(lines))
        await where.written()

    asyncio.run(run())
    *read_by, free = booked(desk)
    assert [line["api"] for line in read_by] == ["openai.responses", "openai.embeddings", "openai.completions"]
    assert all(line["usage"]["input_tokens"] == 7 for line in read_by)
    assert (free["outcome"], free["cost_usd"], free["cost_source"]) == ("ok", 0, "not_billed")


def test_the_ledger_tells_what_is_booked(desk: Any, tmp_path: Path) -> None:
    """By number and by name, of this file at this host alone, in rotated files as well, and whatever else is there."""
    import gzip

    ledger = tmp_path / "other.jsonl"
    name = {"labels": {"custom_id": "c_00000000000000ff"}}
    lines = [
        LINE | {"batch": {"id": "f", "item": 0}} | name,
        LINE | {"response_id": "r", "batch": {"id": "f"}, "flags": ["item_unknown"]},
        LINE | {"host": "other.example.com", "batch": {"id": "f", "item": 1}},
        LINE | {"batch": {"id": "ff", "item": 2}},
        LINE | {"labels": {"x": '"batch":{"id":"f","item":3}'}},
    ]
    old = tmp_path / "other-20260101T000000000Z.jsonl.gz"
    old.write_bytes(gzip.compress(b'{"no":"line"}\n' + jsonl_compact(lines[:2])))
    ledger.write_bytes(jsonl_compact(lines[2:]) + b'{"torn')
    found = Booked().read(ledger, FILE[0], "f")
    assert [number in found for number in range(4)] == [True, False, False, False]
    assert found.knows(0xFF)
    assert len(found) == 2
    assert found.next_item() == 1


def jsonl_compact(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def test_a_wrong_batch_block_is_an_error() -> None:
    """A shape that names no dialect of the route is found when profiles are checked, not when a batch comes."""
    route = {"role": "batch", "dialect": "openai.chat", "batch": {"results": [{"/a": "present"}], "shapes": {"x": {}}}}
    spec = {
        "provider": "mine",
        "source": "https://example.com",
        "hosts": ["a.example.com"],
        "routes": {"GET /b": route},
    }
    profiles = Profiles([*_dialects(), spec])
    with pytest.raises(ValueError, match="not among the dialects"):
        profiles.check(["mine"])


def _dialects() -> list[dict[str, Any]]:
    return [{"dialect": "openai.chat", "roots": ["/usage"], "usage": {}, "source": "https://example.com"}]


def test_held_lines_come_back_as_they_were() -> None:
    """Money, numbers and order survive the wait."""
    from decimal import Decimal

    from llmtab.batches.file import Span

    line = {"schema": 1, "usage": {"input_tokens": 5, "seconds": Decimal("1.5")}, "cost_usd": Decimal("0.000075")}
    held, span = batch_held.Held(), Span(9)
    for number in range(batch_held.BLOCK + 1):
        held.add(span, number, [line, {"schema": 1}])
    assert held.take() == []
    found = [each for block in held.take(all_of_them=True) for each in batch_held.unpacked(block)]
    assert [number for _, number, _ in found] == list(range(batch_held.BLOCK + 1))
    assert batch_held.lines_of(found[0][2]) == [line, {"schema": 1}]
    assert (held.size, bool(held)) == (0, False)
