"""Coding agents from npm under `llmtab run`, headless, on a machine that a company's proxy cuts off from everything."""

import node
import pytest
from answers import CHAT_USAGE, CLAUDE_USAGE, CODEX_USAGE, GEMINI_USAGE, compose
from machine import Machine
from node import needs
from upstream import Upstream

KEYS = {"ANTHROPIC_API_KEY": "sk-ant-x", "CODEX_API_KEY": "sk-x", "GEMINI_API_KEY": "x"}
PLACE = {
    "GEMINI_CLI_TRUST_WORKSPACE": "true", "OPENAI_API_KEY": "x", "OPENAI_MODEL": "gpt-4o-mini",
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
}  # fmt: skip
"""What agents want to be told; a base URL is the provider's own."""


@pytest.mark.parametrize(
    ("command", "agent", "model", "usage", "session"),
    [
        pytest.param(
            ["claude", "-p", "hi"], "claude-code", "claude-sonnet-4-5-20250929", CLAUDE_USAGE, True,
            marks=needs("claude"),
        ),
        pytest.param(
            ["codex", "exec", "--skip-git-repo-check", "hi"], "codex", "gpt-5-codex", CODEX_USAGE, True,
            marks=needs("codex"),
        ),
        pytest.param(
            ["gemini", "-m", "gemini-2.5-pro", "-p", "hi"], "gemini-cli", "gemini-2.5-pro", GEMINI_USAGE, False,
            marks=needs("gemini"),  # with an API key it sends no session
        ),
        pytest.param(
            ["opencode", "run", "-m", "anthropic/claude-sonnet-4-5", "hi"], "opencode", "claude-sonnet-4-5-20250929",
            CLAUDE_USAGE, True, marks=needs("opencode"),
        ),
        pytest.param(
            ["qwen", "-y", "-p", "hi", "--auth-type", "openai"], "qwen-code", "gpt-4o-mini-2024-07-18", CHAT_USAGE,
            False, marks=needs("qwen"),
        ),
        pytest.param(
            ["pi", "-p", "hi", "--provider", "anthropic", "--model", "claude-sonnet-4-5"], None,
            "claude-sonnet-4-5-20250929", CLAUDE_USAGE, False, marks=needs("pi"),
        ),
        pytest.param(
            ["cline", "-P", "anthropic", "-m", "claude-sonnet-4-5", "say hi"], None, "claude-sonnet-4-5-20250929",
            CLAUDE_USAGE, False, marks=needs("cline"),
        ),
        pytest.param(
            ["cn", "-p", "hi", "--auto"], None, "claude-sonnet-4-5-20250929", CLAUDE_USAGE, False, marks=needs("cn"),
        ),
    ],
    ids=["claude", "codex", "gemini", "opencode", "qwen", "pi", "cline", "continue"],
)  # fmt: skip
def test_an_agent(
    command: list[str], agent: str | None, model: str, usage: dict[str, int], session: bool, machine: Machine,
    upstream: Upstream,
) -> None:  # fmt: skip
    """Nothing but `llmtab run --` before it: the agent answers, and every call that used tokens is on the ledger with
    exact usage, and with the agent's name and session where it sends them; the bill is their sum."""
    compose(upstream)
    try:
        done = machine.run(*command, env=KEYS | PLACE | {"PATH": node.path()})
    finally:
        if "cline" in command:
            node.end_leftovers(machine.work)
    assert (done.status, "Hello" in done.out) == (0, True), done.err
    lines = machine.lines()
    assert {line.get("labels", {}).get("agent") for line in lines} == {agent}
    answered = [line for line in lines if "usage" in line]
    assert answered, lines
    for line in answered:
        assert (line["response_model"], line["usage_source"], line["outcome"]) == (model, "reported", "ok")
        assert usage.items() <= line["usage"].items()
        assert ("session" in line.get("labels", {})) == session
        assert line["cost_usd"] is not None
    assert len({line.get("labels", {}).get("session") for line in answered}) == 1
    assert done.bill["input_tokens"] == len(answered) * usage["input_tokens"]
    assert done.bill["cost_usd"] == sum(line["cost_usd"] for line in answered)
