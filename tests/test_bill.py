"""The bill: sums, and what deserves a word."""

from decimal import Decimal
from typing import Any

from llmtab.run.bill import Bill


def line(**said: Any) -> dict[str, Any]:
    """A line of the ledger."""
    usual = {
        "provider": "openai", "response_model": "gpt-4o", "outcome": "ok", "cost_usd": Decimal("0.5"),
        "usage": {"input_tokens": 1000, "cache_read_input_tokens": 400, "output_tokens": 10},
        "usage_source": "reported", "timing": {"duration_ms": 100.0}, "path": "/v1/chat/completions",
    }  # fmt: skip
    return {**usual, **said}


def bill(*lines: dict[str, Any]) -> Bill:
    """The bill of some lines."""
    found = Bill()
    for one in lines:
        found.add(one)
    return found


def test_one_model() -> None:
    """One model: calls, tokens with what came from the cache, cost; then its name."""
    said = bill(line(), line(timing={"duration_ms": 2500.0})).text()
    assert said[0] == "2 calls, 2,000 tokens in (800 cached), 20 out, $1.00"
    assert said[1] == "  gpt-4o (openai)"
    assert said[-1] == "slowest: 2.5s  gpt-4o  /v1/chat/completions  $0.5000"


def test_models_by_cost() -> None:
    """Several models: a row each, what cost most first, and they sum to the head."""
    found = bill(line(), line(response_model="gpt-4o-mini", cost_usd=Decimal("0.01")), line(provider="azure"))
    rows = found.text()[1:4]
    assert [row.split()[0] for row in rows] == ["gpt-4o", "gpt-4o", "gpt-4o-mini"]
    assert sum(model["cost_usd"] for model in found.data()["models"]) == found.data()["cost_usd"] == Decimal("1.01")


def test_many_models() -> None:
    """More models than fit share a last row; the JSON form has all."""
    found = bill(*(line(response_model=f"m{number:02}", cost_usd=Decimal(number)) for number in range(20)))
    assert "8 more models" in found.text()[13]
    assert len(found.data()["models"]) == 20
    found = bill(*(line(response_model=f"m{number:02}", cost_usd=Decimal(number)) for number in range(13)))
    assert found.text()[13].startswith("  1 more model ")


def test_what_is_not_known_is_said() -> None:
    """A price that nobody knows is no 0: it is named, with its reason; so is what is estimated."""
    found = bill(
        line(cost_usd=None, cost_reason="unknown_model", response_model="house"),
        line(usage_source="estimated", saved_usd=Decimal("0.25")),
    )
    said = "\n".join(found.text())
    assert said.splitlines()[0].endswith("$0.5000 + unpriced")
    assert "unpriced: 1 house (unknown_model)" in said
    assert "not exact: 1 estimated" in said
    assert "prompt caching saved $0.2500" in said
    assert bill(line(cost_usd=None)).text()[0].endswith("unpriced")
    assert found.data()["unpriced"] == [{"model": "house", "reason": "unknown_model", "lines": 1}]


def test_tokens_that_nobody_told() -> None:
    """They are no 0: none told is unknown, some told is a lower bound; a failed call used none."""
    mute = line(usage=None, usage_source="none", cost_usd=None, cost_reason="no_usage", response_model="mute")
    assert bill(mute).text()[0] == "1 call, tokens unknown, unpriced"
    assert bill(mute, line()).text()[0] == "2 calls, 1,000+ tokens in (400 cached), 10+ out, $0.5000 + unpriced"
    assert [row["input_tokens"] for row in bill(mute, line()).data()["models"]] == [1000, None]
    failed = line(usage=None, usage_source="none", outcome="error", cost_usd=Decimal(0))
    assert bill(failed).text()[0] == "1 call, no tokens, $0"


def test_an_estimate_is_marked() -> None:
    """As it is in a call's own row."""
    assert bill(line(cost_source="estimated"), line()).text()[0].endswith(", ~$1.00")
    covered = line(cost_source="estimated", billing="subscription")
    assert bill(covered).text()[0].endswith("(~$0.5000 on subscription)")


def test_a_subscription_is_not_money() -> None:
    """What a subscription covers stands in brackets and is in no sum of what is billed."""
    found = bill(line(billing="subscription"))
    assert found.text()[0].endswith("($0.5000 on subscription)")
    assert (found.data()["cost_usd"], found.data()["notional_usd"]) == (Decimal(0), Decimal("0.5"))


def test_failures() -> None:
    """What failed is counted by its class; a sub-line is a share of a call and none of its own."""
    found = bill(
        line(outcome="error", error="rate_limited", cost_usd=Decimal(0), usage={}),
        line(outcome="aborted", cost_usd=Decimal(0), usage={}),
        line(parent="x", response_model="haiku"),
    )
    assert "not ok: 1 aborted, 1 rate_limited" in found.text()
    assert (found.data()["calls"], found.data()["errors"]) == (2, 2)


def test_names_from_the_wire_are_safe() -> None:
    """A model's name cannot move the cursor of the terminal that shows the bill."""
    assert "\x1b" not in "\n".join(bill(line(response_model="a\x1b[2J"), line()).text())
