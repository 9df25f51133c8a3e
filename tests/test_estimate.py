"""Estimates before a call: what they say, what they learn, and what they never do."""

import gzip
import json
import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.estimates.asking import Asked, asked
from llmtab.estimates.before import BLOB_TOKENS, BYTES_PER_TOKEN, LONG_OUTPUT, OUTPUT, Estimate, Estimator, accuracy
from llmtab.estimates.habits import FEWEST, KEPT, KINDS, Habits, kinds
from llmtab.events import BIG
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
from llmtab.record import decode, encode
from pricing_helpers import NOW, load_book

AT = NOW.timestamp()
CHAT = ("api.openai.com", "/v1/chat/completions")
EMBEDDINGS = ("api.openai.com", "/v1/embeddings")
SPEECH = ("api.openai.com", "/v1/audio/speech")
STORED = ("api.openai.com", "/v1/responses/resp_1")


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.load()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load_book(tmp_path_factory.mktemp("prices"))


@pytest.fixture
def ask(profiles: Profiles, book: PriceBook) -> Any:
    """`ask(estimator, body)` -> the call's estimate, as the meter asks for it."""
    count = 0

    def run(
        estimator: Estimator, body: Any, place: tuple[str, str] = CHAT, *, method: str = "POST", length: str = "",
        labels: dict[str, str] | None = None, headers: dict[str, str] | None = None,
    ) -> Estimate | None:  # fmt: skip
        nonlocal count
        count += 1
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        host, path = place
        claim = profiles.match(host, 443, method, path)
        assert claim
        call = Call(
            f"id-{count}", host, method, path, AT, headers or {}, lambda: raw, lambda name: None, labels or {}
        )  # fmt: skip
        return estimator.before(call, claim, length, book, AT)

    return run


def request(text: str = "x" * 3500, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def line(ident: str = "", **more: Any) -> dict[str, Any]:
    return {
        "id": ident, "provider": "openai", "request_model": "gpt-4o", "response_model": "gpt-4o-2024-08-06",
        "usage": {"input_tokens": 1000, "output_tokens": 200}, "usage_source": "reported",
        "cost_usd": Decimal("0.0045"), "bytes": {"request": 4000}, **more,
    }  # fmt: skip


def test_a_first_call_is_estimated_from_its_bytes(ask: Any) -> None:
    """Without history: bytes at the documented ratio, an ordinary answer, list prices; the p90 is above the median."""
    body = json.dumps(request()).encode()
    found = ask(Estimator(), body)
    tokens = round(len(body) / BYTES_PER_TOKEN)
    assert (found.figures["input_tokens"], found.figures["output_tokens"]) == (tokens, OUTPUT)
    assert found.figures["cost_usd"] == (tokens * Decimal("2.5") + OUTPUT * 10) / 1_000_000
    assert found.figures["cost_p90_usd"] > found.figures["cost_usd"] + (LONG_OUTPUT - OUTPUT) * 10 / Decimal(1_000_000)
    assert not found.over


@pytest.mark.parametrize(
    ("place", "limit"),
    [
        (CHAT, {"max_tokens": 50}),
        (CHAT, {"max_completion_tokens": 50}),
        (("api.openai.com", "/v1/responses"), {"max_output_tokens": 50}),
        (("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:generateContent"),
         {"generationConfig": {"maxOutputTokens": 50}}),
        (("bedrock-runtime.us-east-1.amazonaws.com", "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"),
         {"inferenceConfig": {"maxTokens": 50}}),
    ],
)  # fmt: skip
def test_the_request_bounds_the_answer(ask: Any, place: tuple[str, str], limit: dict[str, Any]) -> None:
    """However the provider calls it: no answer is expected to be longer than the request allows."""
    found = ask(Estimator(), {**request(), **limit}, place)
    assert found.figures["output_tokens"] == 50
    spread = found.figures["cost_p90_usd"] - found.figures["cost_usd"]
    assert 0 < spread < Decimal("0.003"), "only the input is uncertain"


def test_several_answers_are_bounded_together(ask: Any) -> None:
    """`n` answers of 50 tokens may be 50 n tokens."""
    one, four = (ask(Estimator(), request("x", max_tokens=50, n=n)).figures["cost_p90_usd"] for n in (1, 4))
    assert four - one == 150 * Decimal(10) / 1_000_000


def test_the_table_bounds_the_answer(tmp_path: Path, profiles: Profiles) -> None:
    """Where the request sets no limit the model's own, `max_output` in the price table, is the p90's."""
    prices = tmp_path / "p.yaml"
    prices.write_text("providers: {openai: {models: {gpt-4o: {max_output: 1000, input: 0, output: 10}}}}")
    book = PriceBook.load(prices)
    claim = profiles.match(CHAT[0], 443, "POST", CHAT[1])
    assert claim
    call = Call("a", CHAT[0], "POST", CHAT[1], AT, {}, lambda: json.dumps(request()).encode(), lambda name: None)
    found = Estimator().before(call, claim, "", book, AT)
    assert found
    assert found.figures["cost_p90_usd"] == Decimal("0.01")


def test_it_learns_from_what_calls_used(ask: Any) -> None:
    """After a few calls of a model: tokens a byte and answers are as this model's calls had them, cached input too."""
    estimator = Estimator()
    usage = {"input_tokens": 2000, "cache_read_input_tokens": 1500, "output_tokens": 77}
    for number in range(FEWEST):
        estimator.learn(line(f"old-{number}", usage=usage, bytes={"request": 4000}))
    body = json.dumps(request()).encode()
    figures = ask(estimator, body).figures
    assert figures["input_tokens"] == round(len(body) / 2)
    assert figures["output_tokens"] == 77
    read = int(figures["input_tokens"] * 0.75)
    plain = figures["input_tokens"] - read
    assert figures["cost_usd"] == (plain * Decimal("2.5") + read * Decimal("1.25") + 770) / 1_000_000


def test_a_label_has_a_history_of_its_own(ask: Any) -> None:
    """The summariser's answers say nothing about the classifier's, where a label tells them apart."""
    estimator = Estimator()
    for feature, size in (("classify", 5), ("summarise", 900)):
        for _ in range(FEWEST):
            usage = {"input_tokens": 1000, "output_tokens": size}
            estimator.learn(line(usage=usage, labels={"feature": feature, "session": "abcdefgh"}))
    said = [ask(estimator, request(), labels={"feature": name}).figures for name in ("classify", "summarise")]
    assert [figures["output_tokens"] for figures in said] == [5, 900]


def test_a_call_teaches_what_it_was_estimated_from(ask: Any) -> None:
    """A call with a picture does not spoil the ratio: its bytes are not its tokens."""
    estimator = Estimator()
    picture = {"url": "data:image/png;base64," + "A" * 50_000}
    for number in range(1, FEWEST + 1):
        ask(estimator, request(images=[picture]))
        estimator.learn(line(f"id-{number}", bytes={"request": 54_000}))
    body = json.dumps(request()).encode()
    assert ask(estimator, body).figures["input_tokens"] == round(len(body) / BYTES_PER_TOKEN)


def test_what_is_not_the_providers_own_figure_teaches_nothing(ask: Any) -> None:
    """Partial and estimated lines, sub-lines, prompts kept at the provider: the ratio stays as it was."""
    estimator = Estimator()
    odd: list[dict[str, Any]] = [
        {"usage_source": "partial"}, {"usage_source": "estimated"}, {"usage_source": "none", "usage": None},
        {"parent": "x"}, {"bytes": {"request": 10}}, {"bytes": {}}, {"usage": {}},
    ]  # fmt: skip
    for facts in odd * FEWEST:
        estimator.learn(line(**facts))
    body = json.dumps(request()).encode()
    assert ask(estimator, body).figures["input_tokens"] == round(len(body) / BYTES_PER_TOKEN)


def test_an_estimate_is_priced_like_the_call_will_be(ask: Any) -> None:
    """At the tier the request asks for; where the tier has no price there is no cost, never the standard one."""
    cheap, dear = (ask(Estimator(), request(model="gpt-5.6-sol", service_tier=t)) for t in ("flex", "auto"))
    assert cheap.figures["cost_usd"] * 2 == dear.figures["cost_usd"]
    for body in (request(service_tier="platinum"), request(model="gpt-99")):
        assert set(ask(Estimator(), body).figures) == {"input_tokens", "output_tokens"}


def test_a_router_is_priced_by_the_model_that_serves(ask: Any) -> None:
    """A name without a price of its own takes the price of the model that answered such calls."""
    estimator = Estimator()
    for _ in range(FEWEST):
        estimator.learn(line(request_model="auto", response_model="gpt-4o"))
    assert ask(estimator, request(model="auto")).figures["cost_usd"] > 0


def test_only_calls_billed_by_text_are_estimated(ask: Any) -> None:
    """Sound is not foreseen, a stored answer is not billed, embeddings answer nothing."""
    assert ask(Estimator(), {"model": "gpt-tts", "input": "hello"}, SPEECH) is None
    assert ask(Estimator(), b"", STORED, method="GET") is None
    assert ask(Estimator(), b"") is None
    assert ask(Estimator(), {"model": "gpt-4o", "input": "hello"}, EMBEDDINGS).figures["output_tokens"] == 0


def test_a_body_that_streams_is_known_by_its_length(ask: Any) -> None:
    """`content-length` is all there is then; a silly one is nothing."""
    assert ask(Estimator(), b"", length="7000").figures["input_tokens"] == 2000
    assert ask(Estimator(), b"", length="9" * 30) is None
    assert ask(Estimator(), b"", length="-5") is None


def test_a_warning_for_each_call_above_the_limit(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The p90 decides; the warning says what was expected and whose call it is, the line is marked by `over`."""
    with caplog.at_level(logging.WARNING, "llmtab"):
        assert not ask(Estimator(Decimal("0.5")), request(max_tokens=100)).over
        assert not caplog.records
        assert ask(Estimator(Decimal("0.5")), request(max_tokens=100_000), labels={"project": "web"}).over
        assert not ask(Estimator(Decimal(0)), request(model="gpt-99")).over, "no price is no sum to compare"
    [said] = caplog.messages
    assert "openai/gpt-4o may cost $1.0" in said
    assert "llmtab_warn_usd 0.5" in said
    assert "project web" in said


def test_old_lines_are_learnt_aside(ask: Any) -> None:
    """The ledger's own calls count from the start; what came while they were read stays on top."""
    estimator = Estimator()
    estimator.learn(line(usage={"input_tokens": 4000, "output_tokens": 1}))
    estimator.seed(lambda: (line(usage={"input_tokens": 2000, "output_tokens": 9}) for _ in range(FEWEST))).join()
    assert ask(estimator, request()).figures["output_tokens"] == 9

    def torn() -> Any:
        yield line()
        raise OSError("gone")

    estimator.seed(torn).join()
    assert ask(estimator, request()) is not None


def test_memory_is_bounded() -> None:
    """A client that invents models and labels fills nothing: the last kinds, the last calls of each."""
    habits = Habits()
    for number in range(KINDS * 2):
        facts = line(request_model=f"m{number}")
        habits.learn(facts, kinds(facts), None)
    for _ in range(KEPT * 2):
        habits.learn(line(), kinds(line()), None)
    assert len(habits._kinds) == KINDS
    assert len(habits.of(kinds(line())).outputs) == KEPT


# -- what a request tells ----------------------------------------------------------------------------------------------


def test_a_large_body_is_not_parsed() -> None:
    """Above 256 KiB model and limit come from its two ends, wherever the messages stand; quoted text is no key."""
    text = 'he said "max_tokens": 7, "model": "liar" ' * 8000
    body = {"model": "gpt-4o", "messages": [{"content": text}], "service_tier": "flex", "max_tokens": 321}
    raw = json.dumps(body).encode()
    assert len(raw) > BIG
    assert asked(raw) == Asked(len(raw), 0, "gpt-4o", 321, "flex")


def test_inline_files_are_counted_not_measured() -> None:
    """Each way of sending a picture is one picture; text that happens to be called data stays text."""
    blob = "A" * 5000
    bodies: list[Any] = [
        {"image_url": {"url": f"data:image/png;base64,{blob}"}},
        {"source": {"type": "base64", "media_type": "image/png", "data": blob}},
        {"inlineData": {"mimeType": "image/png", "data": blob}},
    ]
    for body in bodies:
        for raw in (json.dumps(body).encode(), json.dumps(body, separators=(",", ":")).encode()):
            assert asked(raw)[:2] == (len(raw) - 5000, 1)
    both = json.dumps(bodies).encode()
    assert asked(both)[:2] == (len(both) - 15000, 3)
    plain = json.dumps({"data": "some words and spaces " * 100}).encode()
    assert asked(plain)[:2] == (len(plain), 0)
    assert BLOB_TOKENS > 0


def test_a_compressed_body_is_unpacked_where_that_is_little() -> None:
    """A small one tells all; a large one, a bomb or a broken one is taken for a multiple of its size."""
    raw = json.dumps(request(max_tokens=5)).encode()
    assert asked(gzip.compress(raw), "gzip") == Asked(len(raw), 0, "gpt-4o", 5, None)
    bomb = gzip.compress(b" " * 10_000_000)
    assert asked(bomb, "gzip").text >= BIG
    assert asked(b"\x1f\x8bnonsense", "gzip").model is None


@pytest.mark.parametrize("limit", [0, -5, True, 1.5, "100", None, 10**12, {"a": 1}])
def test_an_odd_limit_is_none(limit: Any) -> None:
    """What is no number of tokens bounds nothing."""
    assert asked(json.dumps({"model": "m", "max_tokens": limit}).encode()).bound is None


@pytest.mark.parametrize("body", [b"[", b"nul", b"{}", b"[1,2]", b'"text"', b"\xff\xfe", b'{"model": 5, "n": []}'])
def test_a_body_that_is_no_request_never_raises(body: bytes) -> None:
    """Our failure costs an estimate, never a call."""
    assert asked(body) == Asked(len(body))


# -- how good they were ------------------------------------------------------------------------------------------------


def test_the_fold_says_how_good_estimates_were() -> None:
    """By model: estimate / actual at the median, the factor nine of ten stay within, and how often the p90 held."""
    lines = [
        line(estimate={"input_tokens": 500 * k, "output_tokens": 200, "cost_usd": Decimal("0.009"),
                       "cost_p90_usd": Decimal("0.001") * k}, flags=["over_warn"] if k == 1 else [])
        for k in (1, 2, 4, 8, 16)
    ]  # fmt: skip
    lines += [line(), line(estimate=lines[0]["estimate"], usage_source="partial")]
    found = accuracy(decode(encode(one)) for one in lines)
    said = found["openai/gpt-4o-2024-08-06"].summary()
    assert (said["calls"], said["over_warn"], said["within_p90"]) == (5, 1, 2)
    assert said["input_tokens"] == {"calls": 5, "median": 2.0, "p90_factor": 8.0}
    assert said["output_tokens"]["median"] == 1.0
    assert said["cost_usd"]["median"] == 2.0


def test_an_estimate_takes_well_under_a_millisecond(ask: Any) -> None:
    """On the event loop: an ordinary request is estimated in a fraction of what its own network round trip takes."""
    estimator, body = Estimator(), json.dumps(request("word " * 4000)).encode()
    ask(estimator, body)
    began = datetime.now(UTC)
    for _ in range(50):
        ask(estimator, body)
    assert (datetime.now(UTC) - began).total_seconds() / 50 < 0.002


def test_off_costs_nothing() -> None:
    """Without the option mitmproxy finds no hook to call before a request leaves."""
    from llmtab.meter import Meter

    assert not hasattr(Meter(), "request")
