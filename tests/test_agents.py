"""Known agents: who they are, which session, and which of their sub-agents asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.attribution.agents import HEADERS, Wanted, body_session, by_user_agent, header_ids

UUID = "0b1c7f3e-8d52-4c1c-9a45-3c7a1f0e9d11"


def ids(headers: dict[str, str], wanted: Wanted | None = None) -> dict[str, str]:
    """What the ladder gets for these headers."""
    agent = by_user_agent(headers.get("user-agent", ""))
    return header_ids(headers, agent, wanted or Wanted()) or {}


@pytest.mark.parametrize(
    ("headers", "session"),
    [
        ({"x-claude-code-session-id": UUID}, UUID),
        ({"x-opencode-session": "ses_abc12345"}, "ses_abc12345"),
        ({"x-acme-session-id": UUID}, UUID),
        ({"x-session-id": UUID}, UUID),
        ({"x-session-id": UUID, "x-claude-code-session-id": "explicit-1"}, "explicit-1"),
        ({"x-session-id": UUID, "x-acme-session-id": "vendor-01"}, "vendor-01"),
        ({"session-id": UUID, "user-agent": "codex_exec/0.169.0 (Debian 12)"}, UUID),
        ({"session_id": UUID, "originator": "codex_cli_rs", "user-agent": "x"}, UUID),
        ({"session_id": UUID, "user-agent": "OpenAI/JS 1.0"}, None),
        ({"x-interaction-id": UUID, "copilot-integration-id": "vscode-chat"}, UUID),
        ({"x-interaction-id": UUID}, None),
        ({"x-client-session-id": UUID, "copilot-integration-id": "c", "x-interaction-id": "other-id-1"}, UUID),
        ({"x-session-id": "short"}, None),
        ({"x-session-id": "a" * 65}, None),
        ({"x-session-id": "who are you"}, None),
        ({"x-claude-code-session-id": "no id!", "x-session-id": UUID}, UUID),
        ({}, None),
    ],
)
def test_session_of_headers(headers: dict[str, str], session: str | None) -> None:
    """A session is an id that a known agent or any vendor names as such; what does not look like an id is none."""
    assert ids(headers).get("session") == session


CLAUDE = {"user-agent": "claude-cli/2.1.329 (external, cli)"}
OLD = f"user_{'a' * 64}_account_{UUID}_session_{UUID}"


@pytest.mark.parametrize(
    ("headers", "request_body", "session"),
    [
        (
            CLAUDE,
            {"metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "a", "session_id": UUID})}},
            UUID,
        ),
        (CLAUDE, {"metadata": {"user_id": OLD}}, UUID),
        (CLAUDE, {"metadata": {"user_id": "somebody@example.com"}}, None),
        (CLAUDE, {"metadata": {"user_id": '{"session_id": ["x"]}'}}, None),
        (CLAUDE, {"metadata": {"user_id": '{"session_id": '}}, None),
        (CLAUDE, {"metadata": {"user_id": "{" * 4000}}, None),
        (CLAUDE, {"metadata": None}, None),
        (CLAUDE, [1], None),
        (CLAUDE, None, None),
        ({"user-agent": "GeminiCLI-tui/0.61.0/m (linux)"}, {"request": {"session_id": UUID}}, UUID),
        ({"user-agent": "GeminiCLI/0.61.0"}, {"session_id": UUID}, None),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, {"metadata": {"sessionId": UUID}}, UUID),
    ],
)
def test_session_of_a_body(headers: dict[str, str], request_body: Any, session: str | None) -> None:
    """Known agents write their session into the request; nothing else is taken from there, and only if it is an id."""
    agent = by_user_agent(headers["user-agent"])
    assert agent is not None
    assert body_session(agent, request_body) == session


@pytest.mark.parametrize("agent", ["OpenAI/Python 3.52.0", "curl/8", ""])
def test_others_are_no_agents(agent: str) -> None:
    """The body of anybody but a known agent is never read for a session."""
    assert by_user_agent(agent) is None


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"user-agent": "claude-cli/2.1.329 (external, sdk-cli)", "x-claude-code-session-id": UUID,
          "x-claude-code-agent-type": "Explore", "x-claude-code-agent-id": "a1"},
         {"agent": "claude-code", "session": UUID, "subagent": "Explore"}),
        ({"user-agent": "claude-cli/2", "x-claude-code-agent-id": "a1"}, {"agent": "claude-code", "subagent": "a1"}),
        ({"user-agent": "codex_exec/0.169.0", "session-id": UUID, "x-openai-subagent": "review",
          "x-codex-parent-thread-id": "thread-1"},
         {"agent": "codex", "session": UUID, "subagent": "review", "parent_session": "thread-1"}),
        ({"user-agent": "node", "originator": "codex_cli_rs"}, {"agent": "codex"}),
        ({"user-agent": "GeminiCLI-tui/0.61.0/m"}, {"agent": "gemini-cli"}),
        ({"user-agent": "opencode/1.18", "x-opencode-session": "ses_1234567", "x-parent-session-id": "ses_7654321"},
         {"agent": "opencode", "session": "ses_1234567", "parent_session": "ses_7654321"}),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, {"agent": "qwen-code"}),
        ({"user-agent": "x", "copilot-integration-id": "copilot-cli", "x-initiator": "agent",
          "x-client-session-id": UUID}, {"agent": "copilot", "session": UUID, "initiator": "agent"}),
        ({"user-agent": "OpenAI/Python 3.52.0", "authorization": "Bearer sk-x"}, {}),
        ({"user-agent": "claude-cli/2", "x-claude-code-agent-type": "tell me a story"}, {"agent": "claude-code"}),
    ],
)  # fmt: skip
def test_agents_say_who_asks(headers: dict[str, str], found: dict[str, str]) -> None:
    """The tool, its session and its sub-agent are labels; what does not look like a word or an id is not kept."""
    assert ids(headers) == found


@pytest.mark.parametrize(
    ("value", "label"),
    [("proj_AbCdEf123", "proj_AbCdEf123"), ("org-AbCdEf123", "org-AbCdEf123"), ("Bearer proj_AbCdEf123", None),
     ("proj_", None), ("my project", None)],
)  # fmt: skip
def test_openai_says_which_project(value: str, label: str | None) -> None:
    """OpenAI's project and organisation headers are labels where they hold OpenAI's ids."""
    assert ids({"openai-project": value}).get("project") == label
    assert ids({"openai-organization": value}).get("organization") == label


def test_rungs_are_switched_apart() -> None:
    """Agents' ids and OpenAI's headers can each be left out."""
    headers = {"user-agent": "claude-cli/2", "x-claude-code-session-id": UUID, "openai-project": "proj_abcdef"}
    assert ids(headers, Wanted(agents=False)) == {"project": "proj_abcdef"}
    assert ids(headers, Wanted(openai=False)) == {"agent": "claude-code", "session": UUID}
    assert ids(headers, Wanted(agents=False, openai=False)) == {}


@given(st.dictionaries(st.sampled_from(sorted({*HEADERS, "x-acme-session-id"})), st.text(max_size=80)))
def test_any_header_is_survived(headers: dict[str, str]) -> None:
    """Whatever stands in the headers: no exception, and only words and ids come out."""
    assert all(value.isascii() and " " not in value and len(value) <= 64 + 5 for value in ids(headers).values())
