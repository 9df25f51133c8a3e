"""Batch results through a real mitmdump: every item one line at batch rates, however the file is fetched."""

import gzip
import itertools
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from batch_files import chat, jsonl, part, whole
from proxy import Proxy
from upstream import CUT, Answer, Upstream, reply

HOST = "api.openai.com"
ITEMS = 300


def fetch(proxy: Proxy, name: str, **how: object) -> bytes:
    """Download a file of OpenAI's."""
    return proxy.call(f"https://{HOST}/v1/files/{name}/content", method="GET", **how).body


def serve(upstream: Upstream, name: str, answer: Answer) -> None:
    upstream.on(f"GET {HOST}/v1/files/{name}/content", answer)


@pytest.fixture
def file() -> bytes:
    return jsonl(chat(number, "word " * (number % 40)) for number in range(ITEMS))


def test_each_item_is_one_line_at_batch_rates(proxy: Proxy, upstream: Upstream) -> None:
    """An item's line says its batch, its place, its own model and figures, and half of the list price; the client's
    name for it is there as a fingerprint only."""
    data = jsonl([chat(0), chat(1)])
    serve(upstream, "file-one", whole(data))
    assert fetch(proxy, "file-one", headers=[("x-llmtab-project", "night")]) == data
    first, second = proxy.settled(2)
    assert [line["batch"] for line in (first, second)] == [{"id": "file-one", "item": n} for n in (0, 1)]
    assert {
        "outcome": "ok",
        "usage_source": "reported",
        "pricing_tier": "batch",
        "status": 200,
    }.items() <= first.items()
    assert (first["api"], first["response_id"], first["request_id"]) == ("openai.chat", "chatcmpl-B0", "req-0")
    assert second["usage"]["input_tokens"] == 101
    assert first["cost_usd"] == (Decimal("0.15") * 100 + Decimal("0.60") * 10) / 2 / 1_000_000
    assert first["labels"]["project"] == "night"
    assert first["labels"]["custom_id"].startswith("c_") and first["labels"] != second["labels"]
    assert "private" not in proxy.ledger.read_text()


def test_a_second_download_books_nothing(proxy: Proxy, upstream: Upstream, file: bytes) -> None:
    """The same file again, whole, compressed or as a range, adds no line."""
    serve(upstream, "file-twice", whole(file))
    assert fetch(proxy, "file-twice") == file
    assert fetch(proxy, "file-twice") == file
    serve(upstream, "file-twice", whole(gzip.compress(file), headers=[("content-encoding", "gzip")]))
    fetch(proxy, "file-twice")
    serve(upstream, "file-twice", part(file, 1000, 9000))
    assert fetch(proxy, "file-twice") == file[1000:9000]
    lines = proxy.settled(ITEMS)
    assert [line["batch"]["item"] for line in lines] == list(range(ITEMS))


@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed"])
def test_ranges_in_any_order_are_one_file(proxy: Proxy, upstream: Upstream, file: bytes, order: str) -> None:
    """A file fetched in ranges, overlapping and out of order, gives every item once and with its number."""
    cuts = [0, 1, 7000, 7001, 20000, 33333, len(file) - 1, len(file)]
    ranges = [(max(0, a - 500), b) for a, b in itertools.pairwise(cuts)]
    if order == "backwards":
        ranges.reverse()
    elif order == "mixed":
        random.Random(7).shuffle(ranges)
    for start, end in ranges:
        serve(upstream, f"file-{order}", part(file, start, end))
        assert fetch(proxy, f"file-{order}") == file[start:end]
    lines = proxy.settled(ITEMS)
    assert sorted(line["batch"]["item"] for line in lines) == list(range(ITEMS))
    assert {(line["batch"]["item"], line["usage"]["input_tokens"]) for line in lines} == {
        (n, 100 + n) for n in range(ITEMS)
    }


def test_a_broken_download_is_taken_up_again(proxy: Proxy, upstream: Upstream, file: bytes) -> None:
    """What came before a cut is booked at once; the next download adds the rest."""
    serve(
        upstream, "file-cut", Answer([file[:20000], CUT], framing="chunked", headers=[("content-type", "text/plain")])
    )
    with pytest.raises(Exception):  # noqa: B017
        fetch(proxy, "file-cut")
    before = len(proxy.settled(file[:20000].count(b"\n")))
    assert 0 < before < ITEMS
    serve(upstream, "file-cut", part(file, 15000, len(file)))
    fetch(proxy, "file-cut")
    assert [line["batch"]["item"] for line in proxy.settled(ITEMS)] == list(range(ITEMS))


def test_a_restart_books_nothing_twice(start: Callable[..., Proxy], upstream: Upstream, file: bytes) -> None:
    """Another process finds in the ledger which items are booked: of a whole download, and of a range from the
    middle."""
    half = file[: file.index(b'"batch_req_200"')]
    serve(upstream, "file-restart", part(file, 0, len(half)))
    first = start()
    fetch(first, "file-restart")
    first.settled(200)
    first.stop()
    second = start()
    serve(upstream, "file-restart", part(file, 9000, 30000))
    fetch(second, "file-restart")
    serve(upstream, "file-restart", whole(file))
    fetch(second, "file-restart")
    assert sorted(line["batch"]["item"] for line in second.settled(ITEMS)) == list(range(ITEMS))


def test_items_of_a_lone_range_are_booked_when_the_proxy_ends(own: Proxy, upstream: Upstream, file: bytes) -> None:
    """A range from the middle of a file nobody fetched whole: its items are booked without a number, and say so."""
    start, end = 10000, 20000
    serve(upstream, "file-lone", part(file, start, end))
    fetch(own, "file-lone")
    assert own.lines() == []
    own.stop()
    lines = own.settled(file[start:end].count(b"\n") - 1)
    assert all(line["batch"] == {"id": "file-lone"} and line["flags"] == ["item_unknown"] for line in lines)


def test_failed_items_cost_nothing(proxy: Proxy, upstream: Upstream) -> None:
    """A request of the batch that failed, expired or was cancelled is a line of its own: an error, not billed."""
    refused = chat(1)["response"] | {"status_code": 429, "body": {"error": {"code": "rate_limit_exceeded"}}}
    expired = chat(2, response=None, error={"code": "batch_expired", "message": "private"})
    serve(upstream, "file-failed", whole(jsonl([chat(0), chat(1, response=refused), expired])))
    fetch(proxy, "file-failed")
    good, *bad = proxy.settled(3)
    assert good["cost_usd"] > 0
    assert [(line["outcome"], line["error"], line["status"]) for line in bad] == [
        ("error", "rate_limited", 429), ("error", "expired", 200),
    ]  # fmt: skip
    assert all((line["cost_usd"], line["cost_source"]) == (0, "not_billed") for line in bad)


@pytest.mark.parametrize(
    "data",
    [
        jsonl({"custom_id": str(n), "method": "POST", "url": "/v1/x", "body": {"usage": 1}} for n in range(50)),
        jsonl({"messages": [], "usage": {"prompt_tokens": 4}} for n in range(50)),
        b"\x89PNG\r\n" + bytes(range(256)) * 400,
        b"step,loss\n1,0.5\n",
        b"",
        b'{"object": "file"}',
    ],
    ids=["input", "training", "image", "csv", "empty", "json"],
)
def test_other_files_give_no_line(proxy: Proxy, upstream: Upstream, data: bytes) -> None:
    """Downloads that are no batch result pass unchanged and leave nothing on the ledger."""
    serve(upstream, "file-other", whole(data))
    assert fetch(proxy, "file-other") == data
    assert proxy.settled(0) == []


def test_anthropic_results(proxy: Proxy, upstream: Upstream) -> None:
    """Message batches: succeeded items with cache and tier, the others free."""
    usage = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1000, "output_tokens": 5,
             "service_tier": "batch"}  # fmt: skip
    message = {"id": "msg_1", "type": "message", "model": "claude-haiku-4-5-20251001", "stop_reason": "end_turn",
               "content": [], "usage": usage}  # fmt: skip
    failed = {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error"}}}
    items = [{"type": "succeeded", "message": message}, failed, {"type": "expired"}, {"type": "canceled"}]
    data = jsonl({"custom_id": f"private-{n}", "result": result} for n, result in enumerate(items))
    upstream.on("GET api.anthropic.com/v1/messages/batches/msgbatch_1/results", whole(data))
    proxy.call("https://api.anthropic.com/v1/messages/batches/msgbatch_1/results", method="GET")
    good, *bad = proxy.settled(4)
    assert (good["api"], good["service_tier"], good["batch"]) == (
        "anthropic.messages", "batch", {"id": "msgbatch_1", "item": 0},
    )  # fmt: skip
    assert good["usage"]["input_tokens"] == 1020
    assert good["cost_usd"] > 0
    assert [line["error"] for line in bad] == ["invalid_request", "expired", "cancelled"]
    assert all(line["cost_source"] == "not_billed" for line in bad)


def test_answers_beside_a_batchs_state(proxy: Proxy, upstream: Upstream) -> None:
    """Gemini and Mistral put a small batch's answers into its state: each poll repeats them, each is booked once."""
    answer = {"candidates": [], "modelVersion": "gemini-2.5-flash", "responseId": "r1",
              "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}}  # fmt: skip
    answers = [{"response": answer, "metadata": {"key": "private"}}, {"error": {"code": 3}, "metadata": {"key": "b"}}]
    inside = {"inlinedResponses": {"inlinedResponses": answers}}
    state = {"name": "batches/b1", "metadata": {"output": inside}, "done": True, "response": inside}
    upstream.on("GET generativelanguage.googleapis.com/v1beta/batches/b1", reply(state))
    upstream.on("GET api.mistral.ai/v1/batch/jobs/j1", reply({"id": "j1", "status": "RUNNING", "outputs": None}))
    for _ in range(2):
        proxy.call("https://generativelanguage.googleapis.com/v1beta/batches/b1", method="GET")
        proxy.call("https://api.mistral.ai/v1/batch/jobs/j1?inline=true", method="GET")
    good, bad = proxy.settled(2)
    assert (good["batch"], good["usage"]["total_tokens"]) == ({"id": "b1", "item": 0}, 10)
    assert (bad["batch"], bad["outcome"]) == ({"id": "b1", "item": 1}, "error")
    outputs = [{"custom_id": str(n), "response": {"status_code": 200, "body": {
        "id": f"m{n}", "model": "mistral-small-latest", "usage": {"prompt_tokens": 5, "completion_tokens": n}}}}
        for n in (1, 2)]  # fmt: skip
    upstream.on("GET api.mistral.ai/v1/batch/jobs/j1", reply({"id": "j1", "output_file": "f1", "outputs": outputs}))
    proxy.call("https://api.mistral.ai/v1/batch/jobs/j1?inline=true", method="GET")
    upstream.on("GET api.mistral.ai/v1/files/f1/content", whole(jsonl(outputs)))
    proxy.call("https://api.mistral.ai/v1/files/f1/content", method="GET")
    assert [line["batch"] for line in proxy.settled(4)[2:]] == [{"id": "f1", "item": 0}, {"id": "f1", "item": 1}]


def test_with_fsync_always_the_end_waits_for_the_items(
    start: Callable[..., Proxy], upstream: Upstream, file: bytes, tmp_path: Path
) -> None:
    """`llmtab_fsync=always`: when a download is over, all its items are on the disk."""
    proxy = start("--set", "llmtab_fsync=always")
    serve(upstream, "file-synced", whole(file))
    fetch(proxy, "file-synced")
    assert len(proxy.lines()) == ITEMS


def test_nothing_of_an_item_is_written_but_its_facts(own: Proxy, upstream: Upstream) -> None:
    """No text, no name of the client's, no error message: not on the ledger, nor in notes or logs, whole or held."""
    failed = chat(2, response=None, error={"code": "private code", "message": "private"})
    data = jsonl([chat(0, "private text"), chat(1, "private"), failed, chat(3, "private")])
    serve(upstream, "file-secret", whole(data))
    fetch(own, "file-secret")
    serve(upstream, "file-secret-2", part(data, 100, len(data)))
    fetch(own, "file-secret-2")
    own.settled(4)
    own.stop()
    assert len(own.lines()) == 7
    written = {path.name: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()}
    assert [name for name, text in written.items() if b"private" in text] == []
