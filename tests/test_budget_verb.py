"""`llmtab budget`: what is spent of each budget, and what an old ledger would have been under new ones."""

import json
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.bars import bars, forecast
from llmtab.budgets.buckets import State
from llmtab.budgets.limits import limit
from llmtab.budgets.onlooker import Onlooker
from llmtab.budgets.policy import policy
from llmtab.budgets.simulate import Simulation
from llmtab.budgets.store import Embedded
from llmtab.cli import main
from llmtab.ledger.writer import Ledger
from test_budget_keeper import line

NOON = 1_800_014_400.0


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    made = Ledger(tmp_path / "ledger.jsonl")
    for consumer, cost in (("ann", "0.3"), ("bob", "0.2"), ("ann", "0.5")):
        made.append([line(time.time(), cost, labels={"consumer": consumer})])
    made.close()
    return tmp_path / "ledger.jsonl"


def config(folder: Path, text: str) -> str:
    (folder / "llmtab.yaml").write_text(f"budgets:\n{text}")
    return str(folder / "llmtab.yaml")


def test_each_bucket_is_shown(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each caller that has spent anything; as JSON for programs."""
    file = config(tmp_path, "  - {name: each, limit: 1 USD per year, per: [consumer], soft: 50%}\n  - 100 USD\n")
    assert main(["budget", "--config", file, str(ledger)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["limit", "bucket", "spent"]
    assert "ann" in shown[1] and "0.8 USD" in shown[1] and "80 %" in shown[1]
    assert main(["budget", "--config", file, "--json", str(ledger)]) == 0
    found = json.loads(capsys.readouterr().out)["budgets"]
    assert [one["spent"] for one in found] == [0.8, 0.2, 1.0]
    assert found[0]["bucket"] == {"consumer": "ann"} and found[0]["soft"] == 0.5 and "resets_at" in found[0]


def test_a_reached_limit_is_an_exit_status(ledger: Path, tmp_path: Path) -> None:
    """A script can ask whether a hard limit is reached."""
    assert main(["budget", "--config", config(tmp_path, "  - 1 USD per year\n"), str(ledger)]) == 1


def test_what_the_window_before_overdrew_counts_as_reached(tmp_path: Path) -> None:
    """A burst is paid back: a limit that has nothing left because of it is reached."""
    day = time.time() // 86_400 * 86_400
    made = Ledger(tmp_path / "ledger.jsonl")
    made.append([line(day - 40_000, "1.5"), line(day + 40_000, "1")])
    made.close()
    file = config(tmp_path, "  - {limit: 1 USD per day, burst: 50%}\n")
    assert main(["budget", "--config", file, str(tmp_path / "ledger.jsonl")]) == 1
    assert (
        main(["budget", "--config", config(tmp_path, "  - {limit: 2 USD per day}\n"), str(tmp_path / "ledger.jsonl")])
        == 0
    )


def test_top_has_their_bars(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of another terminal shows how full each budget is, whatever its unit."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    config(tmp_path, "  - {name: money, limit: 2 USD per year}\n  - {name: calls, limit: 4 requests per year}\n")
    assert main(["top", "--once", str(ledger)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"money +█{10}░{10} \$1.00 of \$2.00 \(50%\)", shown)
    assert re.search(r"calls +█{15}░{5} 3 of 4 requests \(75%\)", shown)


def test_an_onlooker_reads_on(ledger: Path) -> None:
    """A second look sees what was written since, and counts nothing twice."""
    looks = Onlooker(policy([{"limit": "10 USD per year"}]), ledger)
    assert [bar.spent for bar in looks.bars()] == [1]
    more = Ledger(ledger)
    more.append([line(time.time(), "0.25")])
    more.close()
    assert [bar.spent for bar in looks.bars()] == [Decimal("1.25")]


def test_an_onlooker_forgets_windows_that_are_over(ledger: Path) -> None:
    """One that looks for months does not keep every minute of them."""
    now = [time.time()]
    looks = Onlooker(policy([{"limit": "10 USD per minute", "per": ["consumer"]}]), ledger, lambda: now[0])
    looks.bars()
    assert len([*looks._store.buckets()]) == 2
    now[0] += 90_000
    assert looks.bars() == [] and [*looks._store.buckets()] == []


def test_without_budgets_it_says_how_to_have_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the file."""
    assert main(["budget", "--config", config(tmp_path, "  []\n")]) == 1
    assert "expected e.g. budgets:" in capsys.readouterr().err


def test_simulate_tells_what_new_budgets_would_have_done(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warned, refused and saved, by limit and in all."""
    file = config(tmp_path, "  - {name: each, limit: 0.7 USD per year, per: [consumer], soft: 40%}\n")
    assert main(["budget", "simulate", "--config", file, str(ledger)]) == 0
    assert "1 of 3 calls would have been refused, 0.5 USD of 1 USD saved" in capsys.readouterr().out
    assert main(["budget", "simulate", "--config", file, "--json", str(ledger)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limits"] == [
        {"limit": "each", "calls": 3, "warned": 1, "throttled": 0, "refused": 1, "saved_usd": 0.5}
    ]


def simulated(budgets: list[dict[str, Any]] | dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    simulation = Simulation(policy(budgets))
    simulation.add(lines)
    simulation.run()
    return simulation.report()


def test_calls_happen_side_by_side_again() -> None:
    """Ten calls at once reserve at once: a limit that they would pass one after another refuses some of them."""
    calls = [line(NOON + n / 100, "0.1", timing={"duration_ms": 5000.0}, estimate={"cost_p90_usd": Decimal("0.3")})
             for n in range(10)]  # fmt: skip
    assert simulated([{"limit": "1.2 USD per day"}], calls)["refused"] == 6
    held = simulated([{"limit": "1.2 USD per day", "throttle": "10s"}], calls)
    assert (held["refused"], held["limits"][0]["throttled"]) == (0, 6)


def test_a_refused_call_of_the_old_ledger_stays_one() -> None:
    """What was refused then spent nothing, and is counted by itself."""
    found = simulated([{"limit": "1 USD per day"}], [line(NOON, "0", outcome="refused"), line(NOON)])
    assert (found["refused_then"], found["calls"]) == (1, 1)


def tiers(by: str, **levels: str) -> dict[str, Any]:
    return {
        "tiers": {
            "by": by,
            "on_unmatched": "refuse",
            "levels": {name: [{"limit": text}] for name, text in levels.items()},
        }
    }


@pytest.mark.parametrize(
    ("by", "facts"),
    [
        ("key", {"client": {"key": "gold"}}),
        ("address", {"client": {"address": "gold"}}),
        ("label:plan", {"labels": {"plan": "gold"}}),
        ("key", {"client": {"key": "gold"}, "budget": {"tier": "bronze"}}),
    ],
)
def test_a_call_has_the_tier_of_the_new_file(by: str, facts: dict[str, Any]) -> None:
    """Found by what the line says of its caller, whatever it was then; callers of no tier are refused."""
    calls = [line(NOON + n, "5", **facts) for n in range(5)]
    found = simulated(tiers(by, gold="6 USD per day", bronze="1 USD per day"), calls)
    assert [(one["limit"], one["calls"], one["refused"]) for one in found["limits"]] == [
        ("gold-6-USD-per-day", 5, 4), ("bronze-1-USD-per-day", 0, 0),
    ]  # fmt: skip
    found = simulated(tiers(by, silver="6 USD per day"), calls)
    assert (found["refused"], found["saved_usd"], found["unknown_tiers"]) == (5, 25, 0)
    assert found["limits"][-1] == {
        "limit": "tiers", "calls": 5, "warned": 0, "throttled": 0, "refused": 5, "saved_usd": 25
    }  # fmt: skip


def test_what_a_header_told_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tier of the line holds where there still is such a tier; else none does, and it is said."""
    calls = [line(NOON, "5", budget={"tier": tier}) for tier in ("gold", "gone")] + [line(NOON, "5")]
    found = simulated(tiers("header:x-plan", gold="1 USD per day"), calls)
    assert (found["calls"], found["refused"], found["unknown_tiers"]) == (3, 1, 2)
    made = Ledger(tmp_path / "ledger.jsonl")
    made.append([line(NOON, "5")])
    made.close()
    file = config(tmp_path, "  tiers: {by: 'header:x-plan', levels: {gold: 1 USD per day}}\n")
    assert main(["budget", "simulate", "--config", file, str(tmp_path / "ledger.jsonl")]) == 0
    assert "Of 1 calls the tier is not known: a header tells it" in capsys.readouterr().out


def test_calls_without_a_price_are_refused_where_a_limit_says_so() -> None:
    """Those of which no price was known before they left; a call that only had no usage is none."""
    unknown: dict[str, Any] = {"cost_usd": None, "cost_source": "unpriced", "cost_reason": "unknown_model"}
    calls = [
        line(NOON) | unknown,
        line(NOON) | unknown | {"billing": "subscription"},
        line(NOON) | unknown | {"cost_reason": "unpriced:images"},
        line(NOON) | unknown | {"cost_reason": "no_usage"},
        line(NOON, estimate={"cost_p90_usd": Decimal("0.3")}) | unknown,
        line(NOON),
    ]
    refuses = [{"limit": "10 USD per day", "unpriced": "refuse"}]
    assert simulated(refuses, calls)["refused"] == 2
    assert simulated([{**refuses[0], "billing": "all"}], calls)["refused"] == 3
    assert simulated([{**refuses[0], "unpriced": "allow"}], calls)["refused"] == 0


def test_a_forecast_goes_on_as_it_began() -> None:
    """Half the day gone, half the money: the rest as much again; right after midnight nobody knows."""
    one = limit({"limit": "10 tokens per day"})
    day = State(5, 0, 0, NOON - 43_200, NOON + 43_200)
    assert forecast(one, day, NOON) == 10
    assert forecast(one, day, NOON - 43_000) is None
    assert forecast(limit({"limit": "10 tokens"}), State(5, 0, 0, 0.0, float("inf")), NOON) is None


def test_bars_show_the_fullest_first() -> None:
    """Rows of (label, spent, limit) for a table."""
    found = policy({"limits": [{"limit": "10 tokens", "name": "a"}, {"limit": "10 tokens", "name": "b", "per": ["x"]}]})
    store = Embedded()
    store.charge(need(5, found.limits.all[1], key="ann"), NOON)
    rows = bars(found.limits, store, NOON)
    assert [(row.label, row.spent, row.limit) for row in rows] == [("b ann", 5, 10), ("a", 0, 10)]
