"""`llmtab price` and `llmtab reprice`: what a person or a program gets for its question."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.cli import main
from llmtab.record import decode, encode
from llmtab.verbs_reprice import repriced

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
    assert [line["error"][:7] for line in lines[3:]] == ["line 4:", "line 5:", "line 6:", "line 7:", "line 9:"]


def test_list_diff_and_age(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table as a list, what another file would change, and how old it is."""
    assert run(home, "price", "--list", "--provider", "local") == 0
    assert capsys.readouterr().out == "local/test-free: free\n"
    (home / "new.yaml").write_text("providers: {openai: {models: {test-a: {input: 3, output: 8}}}}")
    assert run(home, "price", "--diff", str(home / "new.yaml")) == 0
    assert "changed openai/test-a: input 1 -> 3, cache_read 0.5 -> none, output 4 -> 8" in capsys.readouterr().out
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
    said = capsys.readouterr().out
    assert "openai/test-a: 3 calls, 2 changed, 4 -> 4 USD, unpriced 1 -> 0" in said
    assert "openai/gone: 1 calls, 1 changed, 5 -> 0 USD (-5), unpriced 0 -> 1" in said
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
    total = decode(capsys.readouterr().out)["total"]
    assert (total["old"], total["new"], total["changed"]) == (2, 1, 1)


def test_a_line_without_a_list_price_is_left_alone() -> None:
    """What we did not price is not ours to reprice."""
    for item in (LEDGER[3], LEDGER[4]):
        assert repriced(item, None, None) is item  # type: ignore[arg-type]
