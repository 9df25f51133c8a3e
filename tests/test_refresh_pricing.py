"""Refreshing the price table: what is written, what is kept, what is refused; and the table that ships."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from effort import exhaustive
from llmtab.documents import load
from llmtab.pricing import PriceBook, Unpriced
from llmtab.usage import Usage

ROOT = Path(__file__).resolve().parent.parent
PER_TOKEN = Decimal("1e-6")


@pytest.fixture
def refresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    pytest.importorskip("genai_prices", reason="genai-prices is not installed (extra `refresh`)")
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import refresh_pricing

    return refresh_pricing


class Desk:
    """A table of one provider that only litellm knows, refreshed from made-up litellm tables."""

    def __init__(self, refresh: ModuleType, folder: Path) -> None:
        self.refresh, self.path, self.source = refresh, folder / "pricing.yaml", folder / "litellm.json"

    def run(self, models: dict[str, dict[str, float]], *options: str, as_of: str = "2026-11-20") -> int:
        rows = {
            f"crusoe/{name}": {
                "litellm_provider": "crusoe",
                "mode": "chat",
                **{f"{key}_cost_per_token": price * 1e-6 for key, price in prices.items()},
            }
            for name, prices in models.items()
        }
        self.source.write_text(json.dumps(rows))
        arguments = ["--file", str(self.path), "--litellm", str(self.source), "--only", "crusoe", "--as-of", as_of]
        status: int = self.refresh.main([*arguments, "--write", *options])
        return status

    @property
    def models(self) -> dict[str, Any]:
        found: dict[str, Any] = load(self.path, cache=False)["providers"]["crusoe"]["models"]
        return found


@pytest.fixture
def desk(refresh: ModuleType, tmp_path: Path) -> Desk:
    return Desk(refresh, tmp_path)


def test_a_table_is_written_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Prices come without float noise; the same sources give the same bytes, whatever the day."""
    assert desk.run({"m": {"input": 0.7, "output": 2.1}}) == 0
    assert "new      crusoe/m: input 0.7 output 2.1" in capsys.readouterr().out
    assert desk.models["m"] == {"source": "litellm", "input": Decimal("0.7"), "output": Decimal("2.1")}
    written = desk.path.read_bytes()
    assert desk.run({"m": {"input": 0.7, "output": 2.1}}) == 0
    assert desk.path.read_bytes() == written
    assert "wrote" not in capsys.readouterr().out


def test_a_changed_price_leaves_its_past(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A source without dates overwrites its past; ours gets a price from the new day on."""
    desk.run({"m": {"input": 1, "output": 2}})
    assert desk.run({"m": {"input": 0.5, "output": 2}}, as_of="2026-12-24") == 0
    assert "changed  crusoe/m: input 1 -> 0.5" in capsys.readouterr().out
    assert [row.get("from") for row in desk.models["m"]["prices"]] == [None, "2026-12-24"]
    book = PriceBook.load(desk.path)
    for day, usd in ((23, 1), (24, Decimal("0.5"))):
        found = book.price(Usage({"input_tokens": 1_000_000}), "crusoe", "m", at=datetime(2026, 12, day, tzinfo=UTC))
        assert found.usd == usd  # type: ignore[union-attr]
    assert desk.run({"m": {"input": 0.5, "output": 2}}, as_of="2026-12-24") == 0
    assert len(desk.models["m"]["prices"]) == 2, "a refresh without news adds nothing"


def test_a_price_that_moves_more_than_threefold_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A slipped point in a source does not reach the table unseen."""
    desk.run({"m": {"input": 1, "output": 2}})
    before = desk.path.read_bytes()
    assert desk.run({"m": {"input": 10, "output": 2}}, as_of="2026-12-24") == 1
    assert desk.path.read_bytes() == before
    assert "crusoe/m: input 1 -> 10 is more than 3x" in capsys.readouterr().out
    assert desk.run({"m": {"input": 10, "output": 2}}, "--force", as_of="2026-12-24") == 0
    assert desk.models["m"]["prices"][-1]["input"] == 10


def test_a_model_that_a_source_dropped_stays(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Retired models are history that repricing needs."""
    desk.run({"m": {"input": 1, "output": 2}, "old": {"input": 3, "output": 4}})
    assert desk.run({"m": {"input": 1, "output": 2}}, as_of="2026-12-24") == 0
    assert "gone     crusoe/old (kept, for history)" in capsys.readouterr().out
    assert desk.models["old"]["input"] == 3


def test_what_a_hand_wrote_stays_byte_for_byte(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """An entry marked `by: hand` keeps its text and the comments above it; a difference to the sources is told."""
    desk.run({"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 1}})
    text = desk.path.read_text()
    hand = "      # from our contract\n      m: {by: hand,   input: 0.9, output: 1.8}  # until 2027\n"
    line = next(line for line in text.splitlines(keepends=True) if line.startswith("      m:"))
    desk.path.write_text(text.replace(line, hand))
    assert desk.run({"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 1}}) == 0
    assert hand in desk.path.read_text()
    assert "crusoe/m: sources say input 1 output 2, the hand says input 0.9 output 1.8" in capsys.readouterr().out


def test_an_unmarked_edit_is_not_overwritten(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Who edits an entry and forgets the mark loses nothing: the refresh stops and says which."""
    desk.run({"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 1}})
    edited = desk.path.read_text().replace("input: 1, output: 2", "input: 1, output: 1.5")
    desk.path.write_text(edited)
    assert desk.run({"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 1}}) == 1
    assert desk.path.read_text() == edited
    assert "crusoe/m: edited without `by: hand`, or changed" in capsys.readouterr().out
    assert desk.run({"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 1}}, "--force") == 0


def test_zeros_of_a_source_are_not_free(desk: Desk) -> None:
    """A model with nothing but zeros in one source is left out: 0 often stands for "unknown" there."""
    desk.run({"m": {"input": 1, "output": 2}, "z": {"input": 0, "output": 0}})
    assert "z" not in desk.models


def test_without_litellm_it_says_so(
    refresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """genai-prices alone is enough; what is missing without the second source is named."""
    monkeypatch.setattr(refresh, "Litellm", lambda path: (_ for _ in ()).throw(StopIteration))
    path = tmp_path / "pricing.yaml"
    assert refresh.main(["--file", str(path), "--only", "voyage", "--only", "deepseek", "--write"]) == 0
    assert "nothing is cross-checked" in capsys.readouterr().err
    providers = load(path, cache=False)["providers"]
    assert providers["voyage"]["models"]["voyage-3.5"] == {"input": Decimal("0.06")}
    assert "windows" in providers["deepseek"]["models"]["deepseek-flash"]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    found: dict[str, Any] = load(ROOT / "pricing.yaml", cache=False)
    return found


@exhaustive
def test_the_shipped_table_names_its_sources(shipped: dict[str, Any]) -> None:
    """Twenty providers or more, each with the page its prices come from and the day they were looked up."""
    assert len(shipped["providers"]) >= 20
    wanted = (
        "openai anthropic google vertex azure bedrock mistral xai deepseek groq cohere openrouter together fireworks "
        "perplexity moonshotai zai cerebras minimax voyage"
    )
    assert set(wanted.split()) <= shipped["providers"].keys()
    for name, provider in shipped["providers"].items():
        assert provider["source"].startswith("https://"), name
        assert provider["checked"] <= shipped["as_of"], name


@exhaustive
def test_the_shipped_table_is_as_generated(shipped: dict[str, Any], refresh: ModuleType) -> None:
    """No generated entry was edited without its mark."""
    for name, provider in shipped["providers"].items():
        models = {key: entry for key, entry in provider["models"].items() if entry.get("by") != "hand"}
        assert refresh.digest(models) == provider["digest"], name


@pytest.mark.parametrize(
    ("place", "at", "tokens", "expected"),
    [
        ("openai/gpt-4o-2024-08-06", "2026-11-20", 1_000_000, "2.5"),
        ("openai/gpt-5.6-sol-2026-07-09", "2026-08-20", 1_000, "0.005"),
        ("openai/gpt-5.6-sol", "2026-08-21", 1_000, "0.004"),
        ("openai/gpt-5.6-sol flex", "2026-11-20", 1_000, "0.002"),
        ("openai/gpt-5.6-sol flex", "2026-10-01", 1_000, "unknown_tier:flex"),
        ("openai/gpt-5.6-sol standard eu", "2026-11-20", 1_000, "0.0044"),
        ("openai/gpt-4o standard eu", "2026-11-20", 1_000, "0.0025"),
        ("openai/gpt-5.4 priority", "2026-11-20", 272_001, "unknown_tier:priority"),
        ("openai/o3", "2025-06-09", 1_000, "0.01"),
        ("anthropic/claude-haiku-4-5-20251001", "2026-11-20", 1_000, "0.001"),
        ("anthropic/claude-sonnet-4-20250514", "2026-11-20", 1_000, "0.003"),
        ("anthropic/claude-haiku-5-5", "2026-11-20", 100_001, "0.0500005"),
        ("anthropic/claude-opus-5-5 fast us", "2026-11-20", 1_000, "0.0088"),
        ("google/gemini-3.8-flash", "2026-12-31", 1_000_000, "0.75"),
        ("google/gemini-3.8-flash", "2027-01-01", 1_000_000, "1.5"),
        ("vertex/gemini-3.8-flash standard europe-west1", "2026-11-20", 1_000_000, "0.825"),
        ("vertex/gemini-3.8-flash standard global", "2026-11-20", 1_000_000, "0.75"),
        ("vertex/claude-haiku-4-5@20251001 standard us-east5", "2026-11-20", 1_000_000, "1.1"),
        ("xai/grok-4.5", "2026-11-20", 200_000, "0.8"),
        ("xai/grok-4.5", "2026-11-20", 199_999, "0.399998"),
        ("mistral/mistral-large-latest standard eu", "2026-11-20", 1_000_000, "0.55"),
        ("bedrock/us.anthropic.claude-opus-5-5", "2026-11-20", 1_000_000, "4.4"),
        ("bedrock/anthropic.claude-opus-5-5", "2026-11-20", 1_000_000, "4.4"),
        ("bedrock/global.anthropic.claude-opus-5-5", "2026-11-20", 1_000_000, "4"),
        ("deepseek/deepseek-flash", "2026-11-20T02:00", 1_000_000, "0.3"),
        ("deepseek/deepseek-flash", "2026-11-21T02:00", 1_000_000, "0.15"),
        ("azure/gpt-4o-2024-11-20", "2026-11-20", 1_000_000, "2.5"),
        ("zai/glm-4.7-flash", "2026-11-20", 1_000_000, "0"),
    ],
)
def test_prices_as_the_vendors_print_them(place: str, at: str, tokens: int, expected: str) -> None:
    """A handful of prices read on the vendors' pages, with their dates, tiers, geographies and hours."""
    name, tier, region = [*place.split(), None, None][:3]
    provider, _, model = str(name).partition("/")
    when = datetime.fromisoformat(at).replace(tzinfo=UTC)
    usage = Usage({"input_tokens": tokens})
    found = PriceBook.load().price(usage, provider, model, pricing_tier=tier, region=region, at=when)
    assert (str(found.reason) if isinstance(found, Unpriced) else found.usd) == (
        expected if ":" in expected else Decimal(expected)
    )


@pytest.mark.parametrize(
    ("place", "counter", "expected"),
    [
        ("openai/gpt-4.1-mini", "web_search_requests", "0.01"),
        ("openai/gpt-4.1-mini", "web_search_preview_requests", "0.025"),
        ("openai/gpt-4o-2024-11-20", "web_search_preview_requests", "0.025"),
        ("openai/gpt-4o", "web_search_unnamed_requests", "unpriced:web_search_unnamed_requests"),
        ("openai/gpt-5.2", "web_search_preview_requests", "0.01"),
        ("openai/gpt-5-mini", "web_search_unnamed_requests", "0.01"),
        ("openai/o3", "web_search_preview_requests", "0.01"),
        ("openai/gpt-5-chat", "web_search_preview_requests", "unpriced:web_search_preview_requests"),
        ("azure/gpt-4.1", "web_search_preview_requests", "0.014"),
        ("anthropic/claude-sonnet-5", "web_search_preview_requests", "unpriced:web_search_preview_requests"),
    ],
)
def test_the_older_search_tool_has_its_own_price(place: str, counter: str, expected: str) -> None:
    """OpenAI bills `web_search_preview` at 25 per 1,000 with models that do not reason, at 10 with others; a search by
    nobody knows which tool has a price only where both cost the same."""
    provider, _, model = place.partition("/")
    usage = Usage({"web_search_requests": 1, counter: 1})
    found = PriceBook.load().price(usage, provider, model, at=datetime(2026, 11, 20, tzinfo=UTC))
    assert (found.reason if isinstance(found, Unpriced) else str(found.usd.normalize())) == expected


def test_models_that_always_search_cost_a_search() -> None:
    """No answer of the chat search models counts its search: the fee is due once a call."""
    prices, at = PriceBook.load(), datetime(2026, 11, 20, tzinfo=UTC)
    for model, fee in (("gpt-4o-mini-search-preview", "0.025"), ("gpt-5-search-api", "0.01")):
        found = prices.price(Usage({"input_tokens": 0, "output_tokens": 0}), "openai", model, at=at)
        assert not isinstance(found, Unpriced)
        assert found.usd == Decimal(fee)


def test_every_entry_of_the_shipped_table_prices_a_call() -> None:
    """Each id finds its own entry and has a price for something today or from a day on."""
    book = PriceBook.load()
    at = datetime(2027, 6, 1, 12, tzinfo=UTC)
    for entry in book.finder.entries():
        found = book.find(entry.provider, entry.model, at)
        assert found is not None, entry.model
        assert (found.provider, found.model) == (entry.provider, entry.model)
        assert not isinstance(book.card(entry.provider, entry.model, None, None, at), str), entry.model
