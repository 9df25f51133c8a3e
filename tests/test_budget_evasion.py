"""What a client cannot choose: which limits hold for its call, what is reserved for it, and for how long."""

import asyncio
import gzip
import json
import time
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budget_desk import CHAT, PICO, Desk, book, desk, profiles, usd
from llmtab.budgets.guard import Guard, guard_for
from llmtab.budgets.refusal import Refusal
from llmtab.events import BIG
from llmtab.ledger.writer import Ledger
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Claim, Profiles

__all__ = ["book", "desk", "profiles"]


# -- what a client says of itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "label"),
    [
        ({"match": {"model": "gpt-4*"}}, {"model": "z"}), ({"match": {"provider": "openai"}}, {"provider": "z"}),
        ({"match": {"operation": "chat"}}, {"operation": "z"}), ({"match": {"host": CHAT[0]}}, {"host": "z"}),
        ({"per": ["key"]}, {"key": "z"}), ({"per": ["address"]}, {"address": "z"}), ({"per": ["tier"]}, {"tier": "z"}),
        ({"exempt": [{"key": "z"}]}, {"key": "z"}), ({"exempt": [{"tier": "z"}]}, {"tier": "z"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
async def test_a_label_is_no_fact(desk: Any, budget: dict[str, Any], label: dict[str, str], known: bool) -> None:
    """Labels come from clients: one that is called like a fact stands for it neither where the fact is known nor where
    it is not, neither before the call nor after it."""
    here = desk({"limit": "1 requests per day", **budget})

    async def ask(**labels: str) -> tuple[Call, Refusal | None]:
        call, claim = here.call(**labels)
        if known:
            call.client |= {"key": "k_1", "address": "10.0.0.7"}
        return call, await here.ask(call, claim)

    first, refused = await ask(**label)
    assert refused is None
    here.end(first, operation="chat", client=first.client)
    _, refused = await ask()
    assert refused is not None and "spent 1 requests" in refused.message
    _, refused = await ask(**label)
    assert refused is not None


@pytest.mark.parametrize(("by", "labels", "limit"), [
    ("header:x-plan", {"tier": "gold"}, "bronze"), ("key", {"key": "gold"}, "rest"),
    ("label:tier", {"tier": "gold"}, "gold"), ("label:model", {"model": "bronze"}, "bronze"),
])  # fmt: skip
async def test_a_tier_is_told_by_what_the_file_says(desk: Any, by: str, labels: dict[str, str], limit: str) -> None:
    """Nobody is of a tier by a label, unless `by` says that a label tells it; then it may be called anything."""
    levels = {name: [{"limit": "1 requests per day", "name": name}] for name in ("gold", "bronze")}
    here = desk({"tiers": {"by": by, "levels": {**levels, "*": [{"limit": "1 requests per day", "name": "rest"}]}}})
    call, claim = here.call(**labels)
    assert await here.ask(call, claim, **{"x-plan": "bronze"}) is None
    assert call.budget is not None and call.budget["limits"] == [limit]


# -- answers on sockets ------------------------------------------------------------------------------------------------


async def test_a_sockets_answer_keeps_its_reservation(desk: Any) -> None:
    """It is no exchange of its own: while its socket says that it is under way, nothing of it is given back, and what
    it takes beyond its reservation is reserved as it comes."""
    here = desk({"limit": "1M output tokens per day"})
    call, claim = here.call({"model": "no-such-model", "input": []})
    came: list[int | None] = [None]
    decided = here.gate.decide(call, claim, "", here.book, header=lambda name: None, came=lambda: came[0])
    assert await decided is None
    now, held = time.time(), here.state()[1]
    for seconds, size in ((0, 0), (60, 1000), (61, 40_000 * 40)):
        came[0] = size
        here.gate.tick({}, now + seconds)
    assert here.state()[1] == 40_000 > held > 0
    came[0] = None
    here.gate.tick({}, now + 62)
    here.gate.tick({}, now + 73)
    assert here.state() == (0, 0)


# -- what is not billed by text ----------------------------------------------------------------------------------------

SPEECH, IMAGES, HEARD = "/v1/audio/speech", "/v1/images/generations", "/v1/audio/transcriptions"
FORM = '--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n{}\r\n--B--\r\n'


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    """The shipped ones, and a model that is billed by the image."""
    each = {"providers": {"openai": {"models": {"by-the-image": {"image": "0.04"}}}}}
    return PriceBook.load(overrides=each)


@pytest.mark.parametrize("path", [SPEECH, IMAGES, HEARD, "/v1/videos", "/v1/chat/completions"])
async def test_a_model_without_a_price_is_none_anywhere(desk: Any, path: str) -> None:
    """`unpriced:` holds for pictures and sound as it does for text."""
    body = {"model": "nobody-knows", "messages": [], "prompt": "x", "input": "x"}
    found = await desk(usd(unpriced="refuse")).refuse(body, (CHAT[0], path))
    assert "price of this call is not known" in found.message
    here = desk(usd(unpriced="charge 0.05 USD"))
    await here.let(body, (CHAT[0], path))
    assert here.state()[1] == PICO // 20


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ({"model": "tts-1", "input": "x" * 1000}, SPEECH, 15 * PICO // 1000),
        ({"model": "by-the-image", "n": 3}, IMAGES, 12 * PICO // 100), ({"model": "by-the-image"}, IMAGES, PICO // 25),
        ({"model": "by-the-image", "n": "many"}, IMAGES, PICO // 25),
        ({"model": "gpt-image-1", "prompt": "x"}, IMAGES, 0),
        ({"model": "omni-moderation-latest", "input": "x"}, "/v1/moderations", 0),
    ],
)  # fmt: skip
async def test_what_a_request_tells_of_it_is_reserved(
    profiles: Profiles, prices: PriceBook, body: dict[str, Any], path: str, expected: int
) -> None:
    """Characters to speak and images to make have a price before they are made; what has none until then is let in, and
    what is free is free."""
    here = Desk(profiles, prices, [usd(unpriced="refuse")])
    await here.let(body, (CHAT[0], path))
    assert here.state()[1] == expected


@pytest.mark.parametrize(("model", "passes"), [("whisper-1", True), ("nobody-knows", False)])
async def test_an_uploads_model_stands_in_its_form(
    profiles: Profiles, prices: PriceBook, model: str, passes: bool
) -> None:
    """A recording to be transcribed is no JSON; its model is the one that its line will say."""
    here = Desk(profiles, prices, [usd(unpriced="refuse", match={"model": model})])
    call, claim = here.call({}, (CHAT[0], HEARD))
    call.headers, call.body = {"content-type": "multipart/form-data; boundary=B"}, FORM.format(model).encode
    assert (await here.ask(call, claim) is None) is passes
    assert call.budget is not None and call.budget["limits"] == ["day"]


async def test_a_dialects_own_word_for_the_model_counts(desk: Any) -> None:
    """Where requests call it `model_id`, a member called `model` is not even read by the provider."""
    place = "api.elevenlabs.io", "/v1/text-to-speech/voice"
    here = desk({"limit": "1 requests per day", "match": {"model": "dear"}})
    for body in ({"model_id": "dear", "model": "cheap"}, {"model_id": "cheap", "model": "dear"}):
        call, claim = here.call({**body, "text": "x"}, place)
        assert await here.ask(call, claim) is None
        assert (call.budget is not None) is (body["model_id"] == "dear")


# -- what a client may choose ------------------------------------------------------------------------------------------

LONG_TEXT = [{"role": "user", "content": "x" * (BIG + 1)}]
DECOY = {"model": "cheap", "max_tokens": 1, "service_tier": "flex", "n": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": DECOY, "messages": LONG_TEXT, "model": "gpt-4o", "max_tokens": 64_000},
        {"metadata": DECOY, "messages": LONG_TEXT, "model": "gpt-4o", "max_tokens": 32_000, "n": 2},
        {"messages": LONG_TEXT, "model": "gpt-4o", "max_tokens": 64_000, "more": LONG_TEXT, "metadata": DECOY},
        {"max_tokens": 64_000, "model": "gpt-4o", "messages": [DECOY, *LONG_TEXT]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
async def test_no_decoy_stands_for_the_model_of_a_large_request(desk: Any, body: dict[str, Any], packed: bool) -> None:
    """Wherever it stands: what a provider would read decides which limits hold, and what is reserved."""
    here = desk(
        {"limit": "1M output tokens per day", "match": {"model": "gpt-4o"}},
        {"limit": "9 USD per day", "match": {"model": "cheap"}},
    )
    call, claim = here.call(body)
    raw = json.dumps({**body, "padding": [one * 0x9E3779B97F4A7C15 % 2**64 for one in range(10_000)]}).encode()
    if packed:
        raw, call.headers = gzip.compress(raw), {"content-encoding": "gzip"}
    call.body = lambda: raw
    assert await here.ask(call, claim) is None
    assert call.budget == {"limits": ["1M-output-tokens-per-day"]}
    assert here.state() == (0, 64_000)


@pytest.mark.parametrize(
    ("bounds", "reserved"),
    [
        ({"max_completion_tokens": 1, "max_tokens": 64_000}, 64_000), ({"max_tokens": 1}, 1),
        ({"max_output_tokens": 1, "max_completion_tokens": 64_000}, 64_000),
        ({"max_tokens": 1, "options": {"num_predict": 64_000}}, 64_000),
        ({"max_completion_tokens": 1, "max_tokens": None}, 1),
        ({"max_completion_tokens": 1, "max_tokens": 10**12}, 16_384),
        ({"max_completion_tokens": 1, "max_tokens": "64000"}, 16_384), ({"max_tokens": 1, "n": 3}, 3),
        ({"max_tokens": 1, "options": {"num_predict": -1}}, 16_384),
    ],
)  # fmt: skip
async def test_of_several_bounds_the_highest_counts(
    profiles: Profiles, prices: PriceBook, bounds: dict[str, Any], reserved: int
) -> None:
    """Which of them a provider heeds is not known here; one that is no number of tokens may mean the model's most."""
    here = Desk(profiles, prices, [{"limit": "1M output tokens per day"}])
    await here.let({"model": "gpt-4o", "messages": [], **bounds})
    assert here.state() == (0, reserved)


# -- other budgets meanwhile -------------------------------------------------------------------------------------------


def guarded(folder: Path, prices: PriceBook, budgets: Any, old: Guard | None = None) -> Guard | None:
    """The guard of a proxy whose llmtab.yaml says this from now on."""
    setup: Any = SimpleNamespace(
        config=SimpleNamespace(sections={"budgets": budgets}, timezone=UTC), budget="", prices=prices,
        ledger=old.setup.ledger if old is not None else Ledger(folder / "ledger.jsonl", writer="w"),
    )  # fmt: skip
    return guard_for(setup, old)


ONE = {"limit": "1 requests per day", "name": "one", "throttle": "30s"}


@pytest.mark.parametrize(
    ("then", "passes"),
    [([{**ONE, "limit": "5 requests per day"}], True), ([], True), (None, True),
     ([{**ONE, "limit": "5 requests per day", "match": {"model": "other"}}], True),
     ([{"limit": "1 requests per day", "name": "one"}], False)],
)  # fmt: skip
async def test_a_call_that_is_held_back_is_decided_by_edited_limits(
    desk: Any, book: PriceBook, tmp_path: Path, then: Any, passes: bool
) -> None:
    """It goes at once where they let it, and what it may need is reserved under them; it stops where they do not
    wait."""
    here, old = desk(ONE), guarded(tmp_path, book, [ONE])
    assert old is not None

    def decide(call: Call, claim: Claim) -> Any:
        return asyncio.ensure_future(old.decide(call, claim, lambda name: None))

    assert await decide(*here.call()) is None
    second, claim = here.call()
    waiting = decide(second, claim)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    new = guarded(tmp_path, book, then, old)
    assert (await asyncio.wait_for(waiting, 2) is None) is passes
    if new is not None:
        [one] = new.gate.policy.limits.all
        both = passes and not one.by
        assert new.gate.store.state(one, "", time.time()).reserved == (2 if both else 1 if not one.by else 0)
        assert new.gate.under_way == 1 + passes - bool(one.by)
    third, claim = here.call()
    assert (await decide(third, claim) is None) is passes
    (new or old).close()
    old.setup.ledger.close()
