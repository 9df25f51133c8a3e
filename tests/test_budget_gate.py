"""The gate: what is reserved for a call, who is let through, who waits, and what is said to those who are not."""

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import pytest

from budget_desk import CHAT, PICO, asked, book, desk, profiles, usd
from llmtab.budgets.policy import policy
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call

__all__ = ["book", "desk", "profiles"]

PLACES = {
    "openai": CHAT, "anthropic": ("api.anthropic.com", "/v1/messages"),
    "google": ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:generateContent"),
    "bedrock": ("bedrock-runtime.us-east-1.amazonaws.com", "/model/claude/invoke"),
    "mistral": ("api.mistral.ai", "/v1/chat/completions"), "cohere": ("api.cohere.com", "/v2/chat"),
    "ollama": ("localhost:11434", "/api/chat"), "xai grpc": ("api.x.ai", "/xai_api.Chat/GetCompletion"),
}  # fmt: skip


async def test_the_worst_case_is_reserved_and_the_true_cost_settled(desk: Any) -> None:
    """Input by the bytes of the request, output by its bound, at the model's price; then what it really cost."""
    here = desk(usd())
    call = await here.let()
    tokens = round(len(json.dumps(asked())) / 2.1)
    assert here.state() == (0, tokens * PICO * 5 // 2_000_000 + 1000 * PICO // 100_000)
    here.end(call, "0.0123")
    assert here.state() == (123 * PICO // 10_000, 0)
    assert here.gate.under_way == 0


async def test_every_answer_of_n_is_reserved(desk: Any) -> None:
    """`n: 4` may bring four times the bound."""
    here = desk({"limit": "1M output tokens per day"})
    await here.let(asked(n=4))
    assert here.state() == (0, 4000)


async def test_a_cached_prompt_may_be_dearer(desk: Any) -> None:
    """A request that asks for its prompt to be cached is reckoned with the price of writing it."""
    here = desk(usd())
    body = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": ["x" * 2100]}
    plain = (await here.let(body, PLACES["anthropic"]), here.state()[1])[1]
    await here.let({**body, "system": [{"cache_control": {"type": "ephemeral"}}]}, PLACES["anthropic"])
    assert here.state()[1] - plain > plain * 1.2


@pytest.mark.parametrize(("unpriced", "passes", "reserved"), [("allow", True, 0), ("refuse", False, 0),
                                                              ("charge 0.05 USD", True, PICO // 20)])  # fmt: skip
async def test_a_model_without_a_price(desk: Any, unpriced: str, passes: bool, reserved: int) -> None:
    """What becomes of a call that nobody can price is the limit's word."""
    here = desk(usd(unpriced=unpriced))
    call, claim = here.call(asked(model="nobody-knows"))
    found = await here.ask(call, claim)
    assert (found is None, here.state()[1]) == (passes, reserved)
    if found is None:
        here.end(call, None)
        assert here.state() == (reserved, 0)
    else:
        assert "price of this call is not known" in found.message


async def test_a_throttled_call_waits_and_others_do_not(desk: Any) -> None:
    """A call that is held back goes when another gives room; the event loop is free meanwhile."""
    here = desk({"limit": "1 requests per day", "name": "one", "per": ["consumer"], "throttle": "5s"})
    first = await here.let(consumer="ann")
    waiting = asyncio.ensure_future(here.ask(*here.call(consumer="ann")))
    await asyncio.sleep(0.01)
    await here.let(consumer="bob")
    assert not waiting.done()
    here.gate.store.release(first.id)
    here.end(first, "0", status=None, outcome="refused")
    assert await asyncio.wait_for(waiting, 1) is None


async def test_a_throttled_call_is_refused_at_its_bound(desk: Any) -> None:
    """It waits no longer than it was told, and not at all where waiting cannot help."""
    here = desk({"limit": "1 requests per day", "throttle": "0.2s"})
    first, began = await here.let(), time.perf_counter()
    await here.refuse()
    assert 0.15 < time.perf_counter() - began < 1
    here.end(first)
    began = time.perf_counter()
    await here.refuse()
    assert time.perf_counter() - began < 0.1


async def test_throttling_to_a_rate(desk: Any) -> None:
    """Ten calls against four in a second take two seconds and a bit, and none is refused."""
    here = desk({"limit": "4 requests per second", "throttle": "10s"})

    async def one() -> None:
        here.end(await here.let())

    began = time.time()
    await asyncio.gather(*(one() for _ in range(10)))
    assert 1 <= time.time() - began < 4


async def test_a_client_that_left_waits_no_longer(desk: Any) -> None:
    """Nobody is held back who is not there any more."""
    here = desk({"limit": "1 requests per day", "throttle": "60s"})
    await here.let()
    call, claim = here.call()
    began = time.perf_counter()
    assert await here.gate.decide(call, claim, "", here.book, header=lambda name: None, gone=lambda: True)
    assert time.perf_counter() - began < 0.5


async def test_a_stream_that_outgrows_its_reservation_is_followed(desk: Any) -> None:
    """Where no bound was known, a long answer takes more while it runs; it is never cut."""
    here = desk({"limit": "20k output tokens per day"})
    call, claim = here.call({"model": "no-such-model", "messages": []})
    assert await here.ask(call, claim) is None
    before = here.state()[1]
    exchange = Exchange(call, claim, TapMemory())
    exchange.answer = Answer(200, {"content-type": "text/event-stream"})
    for _ in range(12):
        exchange.feed(b"x" * 100_000, 0.0)
    here.gate.tick({call.id: exchange}, time.time())
    assert here.state()[1] == 1_200_000 // 40 > before
    await here.refuse(asked(max_tokens=1))


async def test_a_call_that_left_no_line_gives_back_what_it_held(desk: Any) -> None:
    """A stored answer that is read again, a connection that vanished: nothing stays reserved."""
    here = desk(usd())
    await here.let()
    now = time.time()
    here.gate.tick({}, now)
    assert here.state()[1] > 0
    here.gate.tick({}, now + 11)
    assert here.state() == (0, 0)


async def test_soft_limits_mark_lines_and_tell_once(desk: Any) -> None:
    """From the soft limit on each line is marked; one message goes out, and one when it is over."""
    here = desk(usd(soft="50%", per=["consumer"]))
    flags = [here.end(await here.let(consumer="ann"), "0.2").get("flags") for _ in range(4)]
    assert flags == [None, None, ["soft_limit:day"], ["soft_limit:day"]]
    [message] = here.sent
    assert (message["event"], message["bucket"], message["spent"]) == (
        "soft_limit",
        {"consumer": "ann"},
        Decimal("0.6"),
    )
    here.gate.tick({}, time.time())
    assert len(here.sent) == 1
    here.gate.tick({}, time.time() + 86400)
    assert [one["event"] for one in here.sent] == ["soft_limit", "recovered"]


async def test_a_refusal_is_told_once_a_window(desk: Any) -> None:
    """However many calls are refused, one message goes out."""
    here = desk(usd("0.001 USD per day"))
    for _ in range(3):
        await here.refuse()
    assert [one["event"] for one in here.sent] == ["hard_limit"]


async def test_tiers_by_a_header(desk: Any) -> None:
    """The header's tier has its own limits; who has no tier is refused where the file says so."""
    levels = {"gold": [{"limit": "2 requests per day"}], "bronze": [{"limit": "1 requests per day"}]}
    here = desk({"tiers": {"by": "header:x-plan", "levels": levels, "on_unmatched": "refuse"}})
    header = {"x-plan": "bronze"}
    call, claim = here.call()
    assert await here.ask(call, claim, **header) is None
    assert call.budget == {"limits": ["bronze-1-requests-per-day"], "tier": "bronze"}
    assert await here.ask(*here.call(), **header)
    assert await here.ask(*here.call(), **{"x-plan": "gold"}) is None
    found = await here.ask(*here.call())
    assert found is not None and "no tier" in found.message


async def test_a_call_that_touches_no_limit_is_nobodys_business(desk: Any) -> None:
    """Its line says nothing of budgets."""
    here = desk(usd(match={"project": "web"}))
    assert (await here.let()).budget is None


@pytest.mark.parametrize("name", PLACES)
async def test_a_refusal_is_the_providers_own(desk: Any, name: str) -> None:
    """Each wire shape has its own error; the message and its arithmetic stand in it, and headers say what to do."""
    here = desk({"limit": "1 requests per month", "name": "month"})
    await here.let(asked(), PLACES[name])
    busy = await here.refuse(asked(), PLACES[name])
    assert (busy.headers["retry-after"], busy.headers["x-should-retry"], busy.final) == ("1", "true", False)
    here.gate.store.release("id-1")
    call, _ = here.call()
    here.end(call)
    final = await here.refuse(asked(), PLACES[name])
    assert final.headers["x-should-retry"] == "false" and int(final.headers["retry-after"]) >= 1
    text = final.body.decode() or final.headers["grpc-message"]
    assert "budget month: limit 1 requests per month, spent 1 requests, reserved 0 requests" in text
    assert "this call up to 1 requests, resets at " in text
    if name != "xai grpc":
        assert json.loads(final.body)
        assert 400 <= final.status < 500


async def test_the_arithmetic_stands_on_the_line(desk: Any) -> None:
    """What was refused, why, and with what figures."""
    here = desk(usd("0.001 USD per day"))
    call, claim = here.call()
    await here.ask(call, claim)
    assert call.refused and call.budget is not None
    said = call.budget["refused"]
    assert (said["limit"], said["why"], said["unit"], said["amount"]) == ("day", "too_large", "USD", Decimal("0.001"))
    assert said["call"] > said["amount"] and said["resets_at"].endswith("Z")


async def test_little_money_is_not_told_as_none(desk: Any) -> None:
    """Amounts are rounded, and one that nothing would be left of is told in full."""
    here = desk(usd("0.00001 USD per day", unpriced="charge 0.000001 USD"))
    found = await here.refuse()
    assert "limit 0.00001 USD per day, spent 0 USD, reserved 0 USD, this call up to 0.0108 USD" in found.message
    here.end(await here.let(asked(model="nobody-knows")), "0.000009999999")
    assert (
        "spent 0.000009999999 USD, reserved 0 USD, this call up to 0.000001 USD"
        in (await here.refuse(asked(model="nobody-knows"))).message
    )


async def test_new_budgets_take_over_the_calls_under_way(desk: Any) -> None:
    """What a running call may still need is reserved under edited limits as well, and settled there."""
    old, new = desk(usd()), desk(usd("2 USD per day"))
    call = await old.let()
    new.gate.take_over(old.gate)
    new.gate.adopt()
    assert new.state()[1] == old.state()[1] > 0
    new.end(call)
    assert new.state() == (PICO // 100, 0)


LONG = {"model": "claude-sonnet-4-5", "max_tokens": 200_000, "messages": ["x" * 21_000]}


async def test_a_small_budget_lets_a_large_model_work(desk: Any) -> None:
    """`--budget 2` does not refuse a call that may answer with 200,000 tokens of 15 USD a million: few answers are
    longer than 8,000. The same limit that reserves the worst case refuses it, and says what helps."""
    here = desk(usd("2 USD"))
    refused = await here.refuse(LONG, PLACES["anthropic"])
    assert "more than the whole limit: a lower max_tokens, `reserve: usual` or a higher limit" in refused.message
    for there in (desk(usd("2 USD", reserve="usual")), desk()):
        there.gate.policy = there.gate.policy if there.gate.policy else policy(None, run="2 USD")
        await there.let(LONG, PLACES["anthropic"])
        tokens = round(len(json.dumps(LONG)) / 2.1)
        assert there.state()[1] == tokens * 3 * PICO // 10**6 + 8000 * 15 * PICO // 10**6


async def test_what_is_usual_is_learnt_and_bounded(desk: Any) -> None:
    """The p90 of such calls' answers, no more than the request's own bound; a short `max_tokens` is reserved as it
    is."""
    here = desk({"limit": "100k output tokens", "reserve": "usual"})
    for length in (100, 200, 300, 400, 500, 600, 700, 800, 900, 9000):
        call = await here.let(asked(max_tokens=20_000))
        here.end(call, usage={"input_tokens": 300, "output_tokens": length, "total_tokens": 300 + length})
    before = here.state()[1]
    assert before == 0
    await here.let(asked(max_tokens=20_000))
    assert here.state()[1] == 9000
    await here.let(asked(max_tokens=50))
    assert here.state()[1] == 9050


async def test_what_comes_beyond_the_usual_is_reserved_as_it_comes(desk: Any) -> None:
    """A long answer takes more while it runs, up to its worst case and no further."""
    here = desk(usd("5 USD", reserve="usual"))
    call, claim = here.call(LONG, PLACES["anthropic"])
    assert await here.ask(call, claim) is None
    exchange = Exchange(call, claim, TapMemory())
    exchange.answer = Answer(200, {"content-type": "text/event-stream"})
    usual, held = here.state()[1], []
    for size in (8000 * 40, 12_000 * 40, 500_000 * 40):
        exchange.feed(b"x" * size, 0.0)
        here.gate.tick({call.id: exchange}, time.time())
        held.append(here.state()[1])
    worst = usual + 192_000 * 15 * PICO // 10**6
    assert held == [usual, usual + 12_000 * 15 * PICO // 10**6, worst]


async def test_a_caller_on_a_plan_takes_nothing_from_metered_money(desk: Any) -> None:
    """Once a call of a key was covered by its subscription, the next one reserves no money, except where `billing: all`
    counts it; an overage is money again."""
    here = desk(usd(), usd(name="all", billing="all"))

    async def ask() -> Call:
        call, claim = here.call()
        call.client["key"] = "k_1"
        assert await here.ask(call, claim) is None
        return call

    def held() -> list[bool]:
        states = (here.gate.store.state(one, "", time.time()) for one in here.gate.policy.limits.all)
        return [state.reserved > 0 for state in states]

    call = await ask()
    assert held() == [True, True]
    here.end(call, billing="subscription", client={"key": "k_1"})
    call = await ask()
    assert held() == [False, True]
    here.end(call, billing="subscription_overage", client={"key": "k_1"})
    await ask()
    assert held() == [True, True]
