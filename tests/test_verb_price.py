"""`llmtab price` and `llmtab reprice`: what a person or a program gets for its question."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.cli import main
from llmtab.record import decode, encode
from llmtab.verbs.reprice import repriced

JUNE = "2026-06-01T00:00:00Z"
TABLE = """
providers:
  openai:
    models:
      test-a: {prices: [{input: 2, cache_read: 1, output: 8}, {from: 2026-07-01, input: 1, cache_read: 0.5, output: 4}]}
      test-long: {input: 1, output: 4, above: {100: {input: 2, output: 8}}, tiers: {flex: x0.5}}
  azure:
    models: {test-long: {input: 1}}
  local:
    models: {test-free: {free: true}}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    (tmp_path / "prices.yaml").write_text(TABLE)
    return tmp_path


def run(home: Path, *arguments: str) -> int:
    return main([*arguments, "--pricing", str(home / "prices.yaml")])


def test_the_bill_of_a_call(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line with quantity, rate and money, then the sum and what caching saved."""
    call = ("test-a", "--at", "2026-07-01", "--input", "1000", "--cache-read", "400", "--output", "100")
    assert run(home, "price", *call) == 0
    out = capsys.readouterr().out
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "input_tokens 600 x 1 / 1,000,000 = 0.0006 USD",
        "cache_read_input_tokens 400 x 0.5 / 1,000,000 = 0.0002 USD",
        "output_tokens 100 x 4 / 1,000,000 = 0.0004 USD",
        "openai/test-a: 0.0012 USD",
        "caching saved 0.0002 USD",
    ]
    assert run(home, "price", *call[:2], "2026-06-30T23:59", *call[3:]) == 0
    assert "openai/test-a: 0.0024 USD" in capsys.readouterr().out


def test_no_price_is_said_and_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, the reason, and what could be priced."""
    assert run(home, "price", "openai/test-a", "--input", "1000", "--output-audio", "5", "--output", "100") == 1
    assert "no price: unpriced:audio_output_tokens (what can be priced: 0.00138 USD)" in capsys.readouterr().out
    assert run(home, "price", "openai/test-z", "--input", "1") == 1
    assert "no price: unknown_model" in capsys.readouterr().out
    assert run(home, "price", "openai/test-z", "--input", "1", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"cost_usd": None, "cost_reason": "unknown_model", "cost_lines": []}


def test_an_entry_is_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without counts the rates in force are shown, long context and tier included."""
    assert run(home, "price", "openai/test-long", "--tier", "flex") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "openai/test-long (found by stated" in out
    assert "input 0.5 USD per 1,000,000 input_tokens with x 0.5 (tier:flex)" in out
    assert "above 100 prompt tokens, the whole request:" in out
    assert run(home, "price", "local/test-free") == 0
    assert "free, said by the table" in capsys.readouterr().out


def test_the_seller_is_not_guessed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that several sell needs --provider."""
    assert run(home, "price", "test-long", "--input", "5") == 1
    assert "test-long is sold by azure, openai: say --provider P" in capsys.readouterr().err
    assert run(home, "price", "test-long", "--provider", "azure", "--input", "5") == 0


def test_json_lines(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One answer a line, in order; a line that is wrong gets its error and does not stop the rest."""
    cases: list[Any] = [
        {"provider": "openai", "model": "test-a", "usage": {"input_tokens": 10, "output_tokens": None}, "time": JUNE},
        {"provider": "openai", "model": "test-long", "usage": {"input_tokens": 10}, "service_tier": "flex"},
        {"provider": "openai", "model": "test-long", "usage": {"input_tokens": 10}, "service_tier": "batch"},
        {"provider": "openai", "model": "test-long", "usage": {"input_tokens": 10}, "service_tier": "auto"},
        {"provider": "openai", "model": "test-a", "usage": {"tokens": 10}},
        {"provider": "openai", "model": "test-a", "usage": {"input_tokens": -1}},
        {"provider": "openai", "usage": {}},
        "nonsense",
    ]  # fmt: skip
    text = "\n".join(json.dumps(case) for case in cases) + "\n\n{\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run(home, "price", "-") == 1
    lines = [decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("cost_usd", "error") for line in lines[:3]] == [Decimal("0.00002"), Decimal("0.000005"), None]
    assert [*lines[0]][:2] == ["cost_usd", "cost_lines"]
    assert lines[2]["cost_reason"] == "unknown_tier:batch"
    assert lines[3]["cost_reason"] == "unknown_tier:auto", "a wish: which tier served the call is not known"
    assert [line["error"][:7] for line in lines[4:]] == ["line 5:", "line 6:", "line 7:", "line 8:", "line 10"]


def test_list_diff_and_age(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table as a list, what another file would change, and how old it is."""
    assert run(home, "price", "--list", "--provider", "local") == 0
    assert capsys.readouterr().out == "local/test-free: free\n"
    (home / "new.yaml").write_text("providers: {openai: {models: {test-a: {input: 3, output: 8}}}}")
    assert run(home, "price", "--diff", str(home / "new.yaml")) == 0
    assert "changed openai/test-a: input 1 -> 3, cache_read 0.5 -> none, output 4 -> 8" in capsys.readouterr().out
    (home / "llmtab.yaml").write_text("pricing: {providers: {local: {models: {test-mine: {input: 1}}}}}")
    assert run(home, "price", "--diff", str(home / "new.yaml")) == 0
    assert "test-mine" not in capsys.readouterr().out, "what llmtab.yaml says is no difference"
    (home / "llmtab.yaml").unlink()
    assert run(home, "price", "--list", "--provider", "azure", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["prices"][0]
    run(home, "price", "--stale")
    assert "prices of 20" in capsys.readouterr().out


def line(**more: Any) -> dict[str, Any]:
    return {
        "schema": 1, "id": "a", "time": "2026-06-30T23:59:59.000Z", "provider": "openai", "response_model": "test-a",
        "usage": {"input_tokens": 1_000_000, "output_tokens": 0}, "usage_source": "reported",
        "cost_usd": Decimal(2), "cost_source": "list", "timing": {"duration_ms": 100}, "labels": {"project": "web"},
        **more, "chain": "0" * 64,
    }  # fmt: skip


LEDGER = [
    line(),
    line(time="2026-06-30T23:59:59.950Z"),  # it ended in July
    line(
        cost_usd=None,
        cost_source="unpriced",
        cost_reason="unknown_model",
        price={"id": "x", "at": "2026-07-02T00:00:00Z"},
    ),
    line(cost_source="reported", cost_usd=Decimal("7.5")),
    line(cost_source="not_billed", cost_usd=Decimal(0), usage=None),
    line(response_model="gone", cost_usd=Decimal(5)),
]


def test_reprice_shows_what_changed_and_edits_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line at the time its call ended; reported and unbilled money stays; the ledger's bytes too."""
    path = home / "ledger.jsonl"
    path.write_bytes(b"".join(encode(item) + b"\n" for item in LEDGER))
    before = path.read_bytes()
    out = home / "new.jsonl"
    assert run(home, "reprice", "--write", str(out)) == 0
    assert out.stat().st_mode & 0o077 == 0
    said = capsys.readouterr().out
    assert "openai/test-a: 3 lines, 2 changed, 4 -> 4 USD, unpriced 1 -> 0" in said
    assert "openai/gone: 1 line, 1 changed, 5 -> 0 USD (-5), unpriced 0 -> 1" in said
    assert "total: 4 lines," in said
    assert "not priced again: 2 lines (1 reported, 1 not billed)" in said
    assert path.read_bytes() == before
    lines = [decode(item) for item in out.read_text().splitlines()]
    assert [item.get("cost_usd") for item in lines] == [2, 1, 1, Decimal("7.5"), 0, None]
    assert lines[2]["cost_source"] == "list"
    assert "cost_reason" not in lines[2]
    assert lines[5]["cost_reason"] == "unknown_model"
    assert all("chain" not in item and item["labels"] == {"project": "web"} for item in lines)
    assert run(home, "reprice", "--write", str(out)) == 1, "an existing file is never overwritten"


def test_reprice_at_another_day(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--prices-at` asks what the same calls would have cost then; --json for programs."""
    (home / "ledger.jsonl").write_bytes(encode(LEDGER[0]) + b"\n")
    assert run(home, "reprice", "--prices-at", "2026-08-01", "--json") == 0
    said = decode(capsys.readouterr().out)
    assert (said["total"]["old"], said["total"]["new"], said["total"]["changed"], said["left"]) == (2, 1, 1, {})


def test_a_line_without_a_list_price_is_left_alone() -> None:
    """What we did not price is not ours to reprice."""
    for item in (LEDGER[3], LEDGER[4]):
        assert repriced(item, None, None) is item  # type: ignore[arg-type]


def test_hostile_json_lines(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, times and types that nobody could mean are one error each, at once, and never a traceback."""
    use = '"provider":"openai","model":"test-a","usage":'
    texts = [
        f'{{{use}{{"input_tokens":1e999999}}}}', f'{{{use}{{"input_tokens":NaN}}}}', f"{{{use}null}}", f"{{{use}[1]}}",
        f'{{{use}{{"input_tokens":1}},"time":5}}', f'{{{use}{{"input_tokens":1}},"service_tier":5}}',
        f'{{{use}{{"input_tokens":1}},"region":[]}}', f'{{{use}{{"input_tokens":1}},"region":5}}',
        '{"provider":"openai","usage":{}}',
    ]  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    assert run(home, "price", "-") == 1
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [line["error"].partition(":")[0] for line in lines] == [f"line {n}" for n in range(1, 10)]
    assert [line["error"] for line in lines[-3:]] == [
        "line 7: region: [], expected a string", "line 8: region: 5, expected a string", "line 9: no 'model' in it",
    ]  # fmt: skip
    far = {"provider": "openai", "model": "test-a", "usage": {"input_tokens": 1}, "time": "9999-12-31T23:59:59Z"}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(far)))
    assert run(home, "price", "-") == 0


@pytest.mark.parametrize(
    ("provider", "word", "cost"),
    [("openai", "default", 1), ("openai", "FLEX", "0.5"), ("openai", "fast", None), ("openai", "platinum", None)],
)
def test_a_providers_own_word_for_a_tier(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], provider: str, word: str, cost: Any
) -> None:
    """`service_tier` is understood as the meter understands it; one that is not offered has no price."""
    asked = {"provider": provider, "model": "test-long", "usage": {"input_tokens": 50}, "service_tier": word}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    run(home, "price", "-")
    said = decode(capsys.readouterr().out)
    assert said["cost_usd"] == (None if cost is None else Decimal(cost) * 50 / 1_000_000)
    if word == "fast":
        assert said["cost_reason"] == "unknown_tier:priority", "OpenAI's fast is its priority"


def test_a_call_that_was_priced_as_asked_is_repriced_as_asked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bedrock's answers name the vendor's model, its prices the id that was asked for (with its region's prefix)."""
    (home / "prices.yaml").write_text(
        "providers: {bedrock: {models: {us.test-a-v1: {input: 3, output: 9}, test-a: {input: 1, output: 1}}}}"
    )
    asked = line(provider="bedrock", request_model="us.test-a-v1")
    router = line(provider="bedrock", request_model="arn:router", price={"id": "bedrock/us.test-a-v1", "at": JUNE})
    (home / "ledger.jsonl").write_bytes(b"".join(encode(item) + b"\n" for item in (asked, router)))
    out = home / "new.jsonl"
    assert run(home, "reprice", "--write", str(out)) == 0
    assert [decode(item)["cost_usd"] for item in out.read_text().splitlines()] == [3, 3]


def test_a_counter_from_the_future_is_not_left_out() -> None:
    """A line with a counter that this version does not know keeps its price: a full one cannot be made without it."""
    item = line(usage={"input_tokens": 5, "thought_units": 7})
    assert repriced(item, None, None) is item  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("half", "reason"),
    [
        ({"usage": {"output_tokens": 900}, "usage_source": "estimated"}, "no_usage"),
        ({"flags": ["dropped:input_tokens"], "usage_source": "partial"}, "inconsistent:input_tokens"),
    ],
)
def test_half_a_call_gets_no_full_price_later(
    home: Path, capsys: pytest.CaptureFixture[str], half: dict[str, Any], reason: str
) -> None:
    """What the meter left without a price because a figure was missing stays so: the sum is of what is known."""
    item = line(cost_usd=None, cost_source="unpriced", cost_reason=reason, **half)
    (home / "ledger.jsonl").write_bytes(encode(item) + b"\n")
    out = home / "new.jsonl"
    assert run(home, "reprice", "--write", str(out)) == 0
    said = decode(out.read_text())
    assert (said["cost_usd"], said["cost_source"], said["cost_reason"]) == (None, "unpriced", reason)
    assert said["cost_partial_usd"] > 0


def test_a_reprice_that_fails_leaves_no_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second try with the right ledger must not find a file in its way."""
    out = home / "new.jsonl"
    assert main(["reprice", str(home / "none.jsonl"), "--write", str(out)]) == 1
    assert not out.exists()


@pytest.mark.parametrize("use", ["pages", "pages=", "pages=many", "pages=1.x"])
def test_a_counter_without_its_number(home: Path, capsys: pytest.CaptureFixture[str], use: str) -> None:
    """The error says what to write."""
    assert run(home, "price", "openai/test-a", "--use", use) == 1
    assert f"--use {use}: expected COUNTER=N, as in --use pages=3" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00", "tomorrow"])
def test_a_time_outside_the_calendar(home: Path, capsys: pytest.CaptureFixture[str], at: str) -> None:
    """One line that says what is wrong, never a traceback."""
    with pytest.raises(SystemExit):
        run(home, "price", "openai/test-a", "--input", "1", "--at", at)
    said = capsys.readouterr().err
    assert f"argument --at: '{at}'" in said
    assert "like 2026-07-01 or 2026-07-01T14:00Z" in said or "outside the calendar" in said
    assert said.count("\n") == 1


def test_a_list_of_nobody(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt provider is no empty list."""
    assert run(home, "price", "--list", "--provider", "opneai") == 1
    assert "no table has models of opneai" in capsys.readouterr().err


def test_how_good_estimates_were(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Estimate beside actual, a line a model; as JSON for programs; a ledger without estimates says so."""
    path = home / "ledger.jsonl"
    path.write_bytes(encode(line()) + b"\n")
    assert main(["price", "--estimates"]) == 0
    assert "no call of this ledger was estimated" in capsys.readouterr().err
    said = {"input_tokens": 500_000, "cost_usd": Decimal(1), "cost_p90_usd": Decimal(3)}
    path.write_bytes(encode(line(estimate=said, flags=["over_warn"])) + b"\n")
    assert main(["price", "--estimates", str(path)]) == 0
    out = capsys.readouterr().out
    assert "openai/test-a: 1 call, 1 within their p90, 1 over warn" in out
    assert "estimated x0.5 of what came (median)" in out
    assert main(["price", "--estimates", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["openai/test-a"]["cost_usd"]["median"] == 0.5


def test_diff_names_what_changed_beside_prices(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tiers, steps, discounts, regions and aliases are prices too."""
    (home / "new.yaml").write_text(
        "providers:\n  openai:\n    discount: 10%\n    regions: {eu: 1.1}\n    models:\n"
        "      test-long: {input: 1, output: 4, above: {200: {input: 2, output: 8}}, tiers: {flex: x0.4}}\n"
    )
    assert run(home, "price", "--diff", str(home / "new.yaml")) == 0
    out = capsys.readouterr().out
    assert 'changed openai/test-long: above {"100"' in out
    assert 'tiers {"flex":0.5} -> {"flex":0.4}' in out
    assert "changed openai: discount none -> 10%" in out
    assert 'changed openai: regions none -> {"eu":1.1}' in out


def test_a_name_that_nobody_sells(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names like it are proposed; --provider would not help."""
    assert run(home, "price", "testlong") == 1
    assert capsys.readouterr().err == "llmtab price: no table has testlong: did you mean test-long?\n"
    assert run(home, "price", "zzzzzzzzzz") == 1
    assert capsys.readouterr().err == "llmtab price: no table has zzzzzzzzzz\n"


def test_a_region_without_a_price_of_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said that it changes nothing, and which do."""
    (home / "prices.yaml").write_text(
        "providers: {openai: {models: {test-a: {input: 2, regions: {us: 1.1}}, test-b: {input: 1}}}}"
    )
    assert run(home, "price", "openai/test-a", "--region", "moon", "--input", "5") == 0
    said = "region 'moon' has no price of its own for openai/test-a (those that have one: us)\n"
    assert capsys.readouterr().err == said
    assert run(home, "price", "openai/test-b", "--region", "moon") == 0
    assert "(no region has one)" in capsys.readouterr().err
    assert run(home, "price", "openai/test-a", "--region", "us") == 0
    assert not capsys.readouterr().err


def test_a_file_that_holds_no_prices(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of what it holds is said."""
    (home / "prices.yaml").write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert run(home, "price", "openai/gpt-4o") == 1
    said = capsys.readouterr().err
    assert said.endswith("prices.yaml:1: no price file, expected 'providers:' and their models\n")
