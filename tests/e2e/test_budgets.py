"""Budgets at a real mitmdump: what they refuse never leaves, and what they let through is counted."""

import json
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy, until
from test_start import failed, one
from upstream import Upstream, reply, stream

from redis_server import needs_redis, redis_server

HOST = "api.openai.com"
TARGET = f"POST {HOST}/v1/chat/completions"
URL = f"https://{HOST}/v1/chat/completions"
PRICES = "providers: {openai: {models: {our-model: {input: 1, output: 10, max_output: 1000}}}}\n"

type Start = Callable[..., Proxy]


def answer(prompt: int, output: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    said = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return {"id": f"chatcmpl-{time.time_ns()}", "object": "chat.completion", "model": "our-model", "choices": [said],
            "usage": usage}  # fmt: skip


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "our-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1000, **more}


def config(folder: Path, budgets: str) -> list[str]:
    """The options of a proxy whose llmtab.yaml says these budgets."""
    (folder / "llmtab.yaml").write_text(f"budgets:\n{budgets}")
    (folder / "prices.yaml").write_text(PRICES)
    return ["--set", f"llmtab_config={folder}/llmtab.yaml", "--set", f"llmtab_pricing={folder}/prices.yaml"]


def test_a_hard_limit_stops_before_it_is_passed(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """Calls pass while the worst case fits; then they get the provider's own error, and the upstream sees nothing."""
    proxy = start(*config(tmp_path, "  - {name: day, limit: 0.05 USD per day}\n"))
    upstream.on(TARGET, reply(answer(0, 1000)))
    before = len(upstream.seen)
    got = [proxy.call(URL, asked()) for _ in range(6)]
    assert [one.status for one in got] == [200] * 4 + [429] * 2
    assert len(upstream.seen) - before == 4
    error = json.loads(got[-1].body)["error"]
    assert error["code"] == "insufficient_quota"
    assert (
        "budget day: limit 0.05 USD per day, spent 0.04 USD, reserved 0 USD, this call up to 0.01" in error["message"]
    )
    assert got[-1].headers["x-should-retry"] == "false"
    *passed, refused, _ = proxy.settled(6)
    assert sum(line["cost_usd"] for line in passed) == Decimal("0.04")
    assert passed[0]["budget"] == {"limits": ["day"]}
    assert (refused["outcome"], refused["status"], refused["cost_usd"]) == ("refused", 429, 0)
    assert (refused["cost_source"], refused["usage_source"], refused["usage_reason"]) == (
        "not_billed", "none", "not_billed",
    )  # fmt: skip
    assert "usage" not in refused
    assert refused["budget"]["refused"]["spent"] == Decimal("0.04")
    assert refused["budget"]["refused"]["why"] == "exceeded"


def test_what_is_spent_survives_a_restart(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """A proxy that was killed goes on where the ledger ends; one that ended well goes on from its checkpoint."""
    options = config(tmp_path, "  - {name: day, limit: 0.035 USD per day}\n")
    upstream.on(TARGET, reply(answer(0, 1000)))
    proxy = start(*options)
    assert proxy.call(URL, asked()).status == 200
    proxy.settled(1)
    proxy.process.kill()
    proxy.process.wait()
    proxy = start(*options)
    assert proxy.call(URL, asked()).status == 200
    proxy.settled(2)
    proxy.stop()
    assert json.loads((tmp_path / "ledger.budgets.json").read_text())["buckets"][0][3] == 20_000_000_000
    proxy = start(*options)
    assert [proxy.call(URL, asked()).status for _ in range(2)] == [200, 429]


def test_a_budget_of_one_run(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """`llmtab_budget` stops this process, whatever was spent before it."""
    config(tmp_path, "  []\n")
    options = ["--set", "llmtab_budget=0.015 USD", "--set", f"llmtab_pricing={tmp_path}/prices.yaml"]
    upstream.on(TARGET, reply(answer(0, 1000)))
    for _ in range(2):
        proxy = start(*options)
        got = [proxy.call(URL, asked()) for _ in range(2)]
        assert [one.status for one in got] == [200, 429]
        assert "budget run: limit 0.015 USD per run" in got[1].body.decode()
        proxy.stop()


def test_callers_have_budgets_of_their_own(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """`per: [session]`: one session at its limit is no other session's business; a soft limit marks the line."""
    proxy = start(*config(tmp_path, "  - {name: s, limit: 2 requests, per: [session], soft: 50%}\n"))
    upstream.on(TARGET, reply(answer(10, 10)))

    def call(session: str) -> int:
        return proxy.call(URL, asked(), [("x-claude-code-session-id", session)]).status

    assert [call("session-aaaa"), call("session-aaaa"), call("session-aaaa"), call("session-bbbb")] == [
        200, 200, 429, 200,
    ]  # fmt: skip
    lines = proxy.settled(4)
    assert [line.get("flags") for line in lines] == [["soft_limit:s"], ["soft_limit:s"], None, ["soft_limit:s"]]


def test_parallel_calls_do_not_overshoot(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """Twenty streams at once against a limit of five: five pass, fifteen are told that it is busy, none is cut."""
    proxy = start(*config(tmp_path, "  - {name: day, limit: 0.05 USD per day}\n"))
    gate, status = threading.Event(), []
    events = [{"model": "our-model", "choices": [{"index": 0, "delta": {"content": "x"}}]}]
    last = {"model": "our-model", "choices": [], "usage": answer(0, 400)["usage"]}
    upstream.on(TARGET, stream(*events, gate, last, b"data: [DONE]\n\n"))

    def call() -> None:
        got = proxy.call(URL, asked(stream=True, max_tokens=990))
        status.append(got.status)
        if got.status == 429:
            assert got.headers["retry-after"] == "1" and got.headers["x-should-retry"] == "true"

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: len(status) == 15, "the refusals")
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(status) == [200] * 5 + [429] * 15
    lines = proxy.settled(20)
    assert sum(line["cost_usd"] for line in lines) == Decimal("0.02")


def test_a_throttled_call_waits_for_room(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """With `throttle` a call is held back until another gives room; calls that do not touch the limit pass."""
    limit = "  - {name: day, limit: 0.015 USD per day, match: {project: slow}, throttle: 20s}\n"
    proxy = start(*config(tmp_path, limit))
    gate, got = threading.Event(), []
    upstream.on(TARGET, stream(gate, {"model": "our-model", "choices": [], "usage": answer(0, 100)["usage"]}))

    def call(**more: Any) -> None:
        got.append(proxy.call(URL, asked(stream=True, **more), [("x-llmtab-project", "slow")]).status)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    upstream.on(f"POST {HOST}/v1/embeddings", reply({"model": "our-model", "data": [], "usage": {"prompt_tokens": 1}}))
    assert proxy.call(f"https://{HOST}/v1/embeddings", {"model": "our-model", "input": "x"}).status == 200
    assert got == []
    gate.set()
    for thread in threads:
        thread.join()
    assert got == [200, 200]
    assert ["at" in line.get("budget", {}) for line in proxy.settled(3)].count(True) == 1


def test_answers_may_say_what_is_left(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """`headers: true` puts what is left on each answer; without it answers are as the provider sent them."""
    proxy = start(*config(tmp_path, "  {headers: true, limits: [{name: Calls, limit: 5 requests per day}]}\n"))
    upstream.on(TARGET, reply(answer(1, 1)))
    assert proxy.call(URL, asked()).headers["x-llmtab-budget-remaining-calls"] == "4"
    assert proxy.call(URL, asked()).headers["x-llmtab-budget-remaining-calls"] == "3"


def test_an_edited_limit_holds_at_once(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """A limit that is raised while the proxy runs lets the next call through; what was spent stays spent."""
    proxy = start(*config(tmp_path, "  - {name: day, limit: 1 requests per day}\n"))
    upstream.on(TARGET, reply(answer(1, 1)))
    assert [proxy.call(URL, asked()).status for _ in range(2)] == [200, 429]
    (tmp_path / "llmtab.yaml").write_text("budgets: [{name: day, limit: 2 requests per day}]\n")
    until(lambda: proxy.call(URL, asked()).status == 200, "the edit")
    assert proxy.call(URL, asked()).status == 429


def test_a_call_that_is_held_back_goes_when_its_limit_is_raised(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    """While one call takes its time the file is edited: the call that waits for it goes before it is over."""
    gate = threading.Event()
    upstream.on(TARGET, stream(gate, {"model": "our-model", "choices": [], "usage": answer(0, 100)["usage"]}))
    proxy = start(*config(tmp_path, "  - {name: one, limit: 1 requests, throttle: 60s}\n"))
    got: list[int] = []
    calls = [threading.Thread(target=lambda: got.append(proxy.call(URL, asked(stream=True)).status)) for _ in range(2)]
    before = len(upstream.seen)
    for call in calls:
        call.start()
    until(lambda: len(upstream.seen) - before == 1, "the first call")
    time.sleep(0.5)
    assert len(upstream.seen) - before == 1
    config(tmp_path, "  - {name: one, limit: 2 requests, throttle: 60s}\n")
    try:
        until(lambda: len(upstream.seen) - before == 2, "the second call")
        assert got == []
    finally:
        gate.set()
        for call in calls:
            call.join()
    assert got == [200, 200]
    assert [proxy.call(URL, asked()).status for _ in range(2)] == [429, 429]


@pytest.mark.parametrize(
    ("budgets", "header"),
    [
        ("  - {name: m, limit: 1 requests, match: {model: 'our-*'}}\n", "x-llmtab-model"),
        ("  - {name: k, limit: 1 requests, per: [key]}\n", "x-llmtab-key"),
        ("  tiers: {by: header:x-plan, levels: {gold: 9 requests, bronze: 1 requests}}\n", "x-llmtab-tier"),
    ],
)
def test_a_header_of_ours_opens_no_limit(
    start: Start, upstream: Upstream, tmp_path: Path, budgets: str, header: str
) -> None:
    """Labels are a client's own words; none stands for what the call is."""
    upstream.on(TARGET, reply(answer(10, 10)))
    proxy = start(*config(tmp_path, budgets))
    said = [[("authorization", "Bearer sk-of-one"), ("x-plan", "bronze"), (header, value)] for value in ("gold", "z")]
    assert [proxy.call(URL, asked(), headers=headers).status for headers in said] == [200, 429]


def test_a_failed_call_gives_back_what_it_held(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """An error that costs nothing leaves the whole budget to others, and so does a client that leaves at once."""
    proxy = start(*config(tmp_path, "  - {name: day, limit: 0.0105 USD per day}\n"))
    upstream.on(TARGET, reply({"error": {"message": "no", "type": "server_error"}}, 500))
    assert [proxy.call(URL, asked()).status for _ in range(3)] == [500, 500, 500]
    upstream.on(TARGET, reply(answer(0, 1000)))
    assert proxy.call(URL, asked()).status == 200


def test_a_budget_that_makes_no_sense_stops_the_start(tmp_path: Path, conf: Path) -> None:
    """One line with the file, the line in it and what was expected."""
    said = one(failed(tmp_path, conf, *config(tmp_path, "  - {name: day, limit: 5 USD per fortnight}\n")))
    assert "llmtab.yaml:2" in said and "expected a time like minute" in said
    assert "llmtab_budget" in one(failed(tmp_path, conf, "--set", "llmtab_budget=5 EUR"))


@needs_redis()
def test_two_proxies_share_a_redis(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """What one proxy has spent the other cannot spend again; when the server is gone each refuses, as it was told."""
    with redis_server(tmp_path) as url:
        budgets = (
            f"  {{limits: [{{name: day, limit: 0.05 USD per day}}], store: {{redis: '{url}', on_loss: closed}}}}\n"
        )
        options = config(tmp_path, budgets)
        one, two = start(*options), start(*options)
        upstream.on(TARGET, reply(answer(0, 1000)))
        status = []
        for proxy in (one, two) * 3:
            status.append(proxy.call(URL, asked()).status)
            time.sleep(0.1)
        assert status == [200] * 4 + [429] * 2
        lines = one.settled(6)
        assert sum(line["cost_usd"] for line in lines) == Decimal("0.04")
        assert len({line["writer"] for line in lines}) == 2
    got = one.call(URL, asked())
    assert (got.status, got.headers["retry-after"]) == (429, "1")
    assert "store cannot be reached" in got.body.decode()


def test_a_weight_of_ones_own(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """A limit may count what an answer says in a header or in its usage; the line has it as `weight`."""
    proxy = start(*config(tmp_path, "  - {name: credits, limit: 10 units per day, weight: 'header:x-credits'}\n"))
    upstream.on(TARGET, reply(answer(1, 1), headers=[("x-credits", "5")]))
    assert [proxy.call(URL, asked()).status for _ in range(3)] == [200, 200, 429]
    lines = proxy.settled(3)
    assert [line.get("usage", {}).get("weight") for line in lines] == [5, 5, None]
    assert lines[0]["cost_source"] == "list"
