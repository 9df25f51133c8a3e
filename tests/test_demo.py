"""The demonstration: its calls are what the providers really send, and they all land on the tab."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from llmtab.demo.calls import CALLS, Call
from llmtab.ledger.reader import read

ADDON = Path(__file__).parents[1] / "addon"


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.url.partition("//")[2])
def test_the_answers_are_well_formed(call: Call) -> None:
    """A body is JSON, a stream is events or one JSON array: nothing is left to the meter's leniency."""
    body = b"".join(call.answer)
    if call.media_type == "text/event-stream":
        assert body.endswith(b"\n\n")
        data = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
        assert all(json.loads(event) for event in data if event != "[DONE]")
    else:
        assert json.loads(body)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, object]]]:
    """What `llmtab demo` printed, and its ledger."""
    command = [sys.executable, "-m", "llmtab.cli", "demo", "--pace", "0.02"]
    environment = os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("demo"))}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ADDON, env=environment, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [ledger] = {word for word in done.stdout.split() if word.endswith("ledger.jsonl")}
    return done.stdout, list(read(Path(ledger)))


def test_every_call_is_on_the_tab(played: tuple[str, list[dict[str, object]]]) -> None:
    """One line a call, in their order, under the providers' real names."""
    _, lines = played
    assert [line["host"] for line in lines] == [call.url.split("/")[2] for call in CALLS]
    assert {line["provider"] for line in lines} == {"openai", "anthropic", "google", "mistral"}


def test_each_way_to_end_is_shown(played: tuple[str, list[dict[str, object]]]) -> None:
    """Finished, refused by the provider, left by the client; priced, not billed, without a price."""
    _, lines = played
    assert {line["outcome"] for line in lines} == {"ok", "error", "aborted"}
    assert (
        {"list", "not_billed", "unpriced", "estimated"}
        >= {line["cost_source"] for line in lines}
        >= {"list", "unpriced"}
    )
    [unknown] = [line for line in lines if line["request_model"] == "gpt-from-tomorrow"]
    assert (unknown["cost_usd"], unknown["cost_reason"]) == (None, "unknown_model")


def test_the_priced_calls_have_their_price(played: tuple[str, list[dict[str, object]]]) -> None:
    """Every finished call of a known model costs something, and the parts of its cost add up to it."""
    _, lines = played
    known = [line for line in lines if line["outcome"] == "ok" and line["request_model"] != "gpt-from-tomorrow"]
    for line in known:
        assert isinstance(line["cost_usd"], Decimal), line
        assert line["cost_usd"] == sum(part["usd"] for part in line["cost_lines"]) > 0  # type: ignore[attr-defined]


def test_it_shows_the_calls_and_the_ledger(played: tuple[str, list[dict[str, object]]]) -> None:
    """Without a terminal each call is one plain line; at the end stands where the ledger is."""
    text, lines = played
    assert all(
        str(line["response_model"] or line["request_model"]) in text for line in lines if line["outcome"] == "ok"
    )
    assert f"{len(CALLS)} lines" in text
