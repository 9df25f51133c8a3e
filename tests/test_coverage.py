"""What is not seen, and what is said of it."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.clients import ca_hint
from llmtab.coverage import EVERY, MOST, Coverage, Gap, exempted, noted, program
from llmtab.ledger.reader import notes_path
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_a_refused_ca_names_client_and_variable() -> None:
    """Who refused our CA for which host, how often, and the one variable that mends it; said at once, once."""
    coverage = Coverage()
    first = coverage.refused_ca("api.openai.com", "10.0.0.5", "curl/8.5.0")
    assert first and "CURL_CA_BUNDLE" in first
    assert coverage.refused_ca("api.openai.com", "10.0.0.6", "curl/8.6.0") is None
    coverage.refused_ca("api.anthropic.com", "10.0.0.5", "claude-cli/2.1.329 (external)")
    said = coverage.sentences()
    assert said[0].startswith("2 connections to api.openai.com refused our CA (curl at 10.0.0.6): set CURL_CA_BUNDLE")
    assert "NODE_EXTRA_CA_CERTS" in said[1]
    assert "llmtab env" in said[1]


def test_a_client_without_a_name_gets_both_variables() -> None:
    """Most clients do not say who they are when they ask for a tunnel: then the two variables that serve most."""
    coverage = Coverage()
    said = coverage.refused_ca("api.openai.com", "10.0.0.5", "")
    assert said and "SSL_CERT_FILE" in said and "NODE_EXTRA_CA_CERTS" in said
    assert "(10.0.0.5)" in said


@pytest.mark.parametrize(
    ("agent", "variable"),
    [
        ("curl/7.88.1", "CURL_CA_BUNDLE"),
        ("codex_exec/0.169.0 (Linux)", "CODEX_CA_CERTIFICATE"),
        ("claude-cli/2.1.329 (external, sdk-cli)", "NODE_EXTRA_CA_CERTS"),
        ("GeminiCLI-tui/0.61.0/gemini-3 (linux; x64)", "NODE_EXTRA_CA_CERTS"),
        ("Boto3/1.44.5 md/Botocore", "AWS_CA_BUNDLE"),
        ("OpenAI/JS 6.49.0", "NODE_EXTRA_CA_CERTS"),
        ("OpenAI/Python 3.52.0", "SSL_CERT_FILE"),
        ("python-requests/2.32", "REQUESTS_CA_BUNDLE"),
        ("Go-http-client/1.1", "SSL_CERT_FILE"),
    ],
)
def test_the_variable_is_that_of_the_client(agent: str, variable: str) -> None:
    """The variable named is one that was measured to be enough for that client."""
    assert ca_hint(agent) == variable


SILENT = {"host": "api.openai.com", "usage_source": "none", "outcome": "ok"}


def test_an_estimate_does_not_hide_that_no_usage_came() -> None:
    """Where we estimate what a call used, the provider still told nothing."""
    coverage = Coverage()
    coverage.line(SILENT | {"usage_source": "estimated", "usage_reason": "no_usage_in_stream"})
    assert "1 call told no usage" in coverage.sentences()[0]


def test_calls_without_usage_are_counted_by_reason() -> None:
    """A call on an LLM host that told no usage is named with its host and reason; errors and refusals miss nothing."""
    coverage = Coverage()
    for reason, outcome in [("no_usage_in_stream", "ok")] * 2 + [("aborted", "aborted"), ("error_response", "error")]:
        coverage.line(SILENT | {"usage_reason": reason, "outcome": outcome})
    coverage.line(SILENT | {"usage_reason": "refused", "outcome": "refused"})
    coverage.line(SILENT | {"usage_source": "partial", "usage_reason": "broken"})
    coverage.line(SILENT | {"usage_source": "estimated", "usage_reason": "aborted"})
    [said] = coverage.sentences()
    assert said.startswith("3 calls told no usage: 2x api.openai.com (no_usage_in_stream), 1x api.openai.com (aborted)")
    assert "include_usage" in said


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("llm.corp.example", "unknown_host"),
        ("api.newmodel.ai", "unknown_host"),
        ("my-vllm.internal", "unknown_host"),
        ("eu.litellm.example.com", "unknown_host"),
        ("api2.cursor.sh", "opaque_host"),
        ("github.com", None),
        ("www.openai.com", None),
        ("statsig.anthropic.com", None),
        ("pypi.org", None),
        ("mail.ai", None),
        ("10.1.2.3", None),
    ],
)
def test_opaque_connections_are_named_where_they_look_like_llm_traffic(host: str, kind: str | None) -> None:
    """A host that looks like a provider, or is known to be sealed, is counted; all others are nobody's business."""
    coverage = Coverage()
    coverage.passed(host)
    assert {gap.kind for gap in coverage.gaps} == ({kind} if kind else set())
    assert all(host in said for said in coverage.sentences())


def test_what_mitmproxy_was_told_to_leave_alone() -> None:
    """`ignore_hosts` and `allow_hosts` are expressions on host:port, whatever the case, as mitmproxy reads them."""
    assert exempted([], []) is None
    assert exempted(["("], []) is None
    ignoring, allowing = exempted([r"OpenAI\.com:443"], []), exempted([], ["anthropic"])
    assert ignoring and ignoring("api.openai.com:443") and not ignoring("api.anthropic.com:443")
    assert allowing and allowing("api.openai.com:443") and not allowing("api.anthropic.com:443")


def test_other_processes_read_it_beside_the_ledger(path: Path) -> None:
    """Notes say what is new, about once a minute and at the end; together they are what the proxy saw, and verify."""
    ledger, coverage = Ledger(path), Coverage()
    ledger.open()
    coverage.refused_ca("api.openai.com", "10.0.0.5", "curl/8")
    coverage.note(ledger.note, 0.0)
    coverage.tunnelled("api.anthropic.com")
    coverage.refused_ca("api.openai.com", "10.0.0.5", "curl/8")
    coverage.note(ledger.note, EVERY / 2)
    coverage.note(ledger.note, EVERY / 2, last=True)
    coverage.note(ledger.note, EVERY * 9)
    ledger.close()
    assert noted(path).gaps == coverage.gaps
    text = notes_path(path).read_text()
    assert text.count('"note":"coverage"') == 2
    assert "10.0.0.5" not in text
    assert noted(path, datetime.now(UTC) + timedelta(minutes=1)).gaps == {}
    assert noted(path.with_name("none.jsonl")).facts() == []
    assert verify(path).ok


def test_facts_are_for_programs() -> None:
    """Kind, host, detail and count, most frequent first."""
    coverage = Coverage()
    coverage.tunnelled("a.example")
    for _ in range(2):
        coverage.unknown_path("api.openai.com")
    assert coverage.facts() == [
        {"kind": "unknown_path", "host": "api.openai.com", "count": 2},
        {"kind": "tunnelled", "host": "a.example", "count": 1},
    ]
    assert len(coverage.sentences()) == 1
    assert "2x api.openai.com" in coverage.sentences(all_kinds=True)[1]


def test_any_number_of_hosts_takes_bounded_room() -> None:
    """A client that invents hosts cannot fill memory or notes: past a bound they share one entry a kind."""
    coverage = Coverage()
    for number in range(MOST * 3):
        coverage.refused_ca(f"h{number}.example", "a", "x")
    assert len(coverage.gaps) == MOST + 1
    assert sum(coverage.gaps.values()) == MOST * 3


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=8), lambda inside: st.lists(inside, max_size=4), max_leaves=10
)


@given(json_values)
def test_a_note_of_any_form_is_read_or_passed_over(seen: Any) -> None:
    """Whatever stands in a notes file, reading it counts what is understood and never fails."""
    coverage = Coverage()
    coverage.include({"note": "coverage", "seen": seen})
    coverage.include({"note": "coverage", "seen": [["no_usage", "h", "r", 2], seen, ["no_usage", "h\x1b", "r", 1]]})
    assert coverage.gaps[Gap("no_usage", "h", "r")] == 2
    assert all(said.isprintable() for said in coverage.sentences(all_kinds=True))


@given(st.text())
def test_a_program_is_a_word(agent: str) -> None:
    """Of a user agent the program's name is kept: letters, digits and little else."""
    assert len(program(agent)) <= 32
    assert program(agent).isascii()
    assert program("curl/8.5.0 (x86)") == "curl"


def test_counting_costs_next_to_nothing() -> None:
    """A connection to a host that is none of our business is judged in a few microseconds."""
    coverage, began = Coverage(), time.perf_counter()
    for _ in range(1000):
        coverage.passed("packages.example.org")
    assert time.perf_counter() - began < 0.05
