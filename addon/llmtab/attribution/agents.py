"""Known agents: how they are recognised, and where they say which session, sub-agent or turn a call belongs to.

Knows header names and two places in bodies, as real clients send them. Must not know flows or the ledger. What does
not look like an id is nobody's id: a header may hold anything.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from llmtab.profiles.refs import walk

SESSION_SUFFIX: Final = "-session-id"
"""`x-<vendor>-session-id`: any vendor's, where its value looks like an id."""
_SESSIONS: Final = (
    "x-claude-code-session-id",
    "x-opencode-session",
    "x-qwen-code-session-id",
    "x-client-session-id",  # GitHub Copilot
    "x-litellm-session-id",
    "helicone-session-id",
    "x-grok-conv-id",
)
_CODEX_SESSIONS: Final = ("session-id", "session_id", "thread-id", "conversation_id")
"""Names too common to be believed from anybody but Codex."""
_LAST_SESSIONS: Final = ("x-session-id", "x-session-affinity", "x-litellm-trace-id")
_ANY_SESSION: Final = frozenset({*_SESSIONS, *_CODEX_SESSIONS, *_LAST_SESSIONS, "x-interaction-id"})
_MORE: Final = {
    "x-claude-code-agent-type": "subagent",
    "x-claude-code-agent-id": "subagent",
    "x-openai-subagent": "subagent",
    "x-codex-parent-thread-id": "parent_session",
    "x-parent-session-id": "parent_session",  # OpenCode
    "x-initiator": "initiator",  # GitHub Copilot: user (billed as a request of the plan) or agent
}
_OPENAI: Final = {"openai-project": "project", "openai-organization": "organization"}
HEADERS: Final = frozenset({*_ANY_SESSION, *_MORE, *_OPENAI, "user-agent", "originator", "copilot-integration-id"})
"""Lower-case names of all headers that are looked at here, besides any vendor's session header."""

_SESSION: Final = re.compile(r"[A-Za-z0-9_-]{8,64}").fullmatch
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch
_OPENAI_ID: Final = re.compile(r"(?:proj|org)[_-][A-Za-z0-9]{6,64}").fullmatch
_OLD_USER_ID: Final = re.compile(r"_session_([A-Za-z0-9_-]{8,64})$").search

_FORMS: Final = {"session": _SESSION, "project": _OPENAI_ID, "organization": _OPENAI_ID}

type Pairs = tuple[tuple[str, str], ...]
"""(header, label) in the order of belief."""


class Wanted(NamedTuple):
    """Which rungs of the ladder are switched on: the ids of agents, the headers of OpenAI."""

    agents: bool = True
    openai: bool = True


EVERYTHING: Final = Wanted()


class Agent(NamedTuple):
    """`body`: what gives the session that this agent writes into its requests."""

    name: str
    body: Callable[[Any], Any] | None = None


def _claude_session(request: Any) -> Any:
    """From Claude Code's `metadata.user_id`: JSON in a string, once `user_<hash>_account_<id>_session_<id>`."""
    user_id = walk(request, ("metadata", "user_id"))
    if not isinstance(user_id, str) or len(user_id) > 4096:
        return None
    if user_id.startswith("{"):
        try:
            return walk(json.loads(user_id), ("session_id",))
        except (ValueError, RecursionError):
            return None
    found = _OLD_USER_ID(user_id)
    return found[1] if found else None


_BY_USER_AGENT: Final = (
    ("claude-cli/", Agent("claude-code", _claude_session)),
    ("codex", Agent("codex")),
    ("GeminiCLI", Agent("gemini-cli", lambda request: walk(request, ("request", "session_id")))),
    ("QwenCode/", Agent("qwen-code", lambda request: walk(request, ("metadata", "sessionId")))),
    ("opencode/", Agent("opencode")),
    ("GitHubCopilot", Agent("copilot")),
    ("KimiCLI/", Agent("kimi-cli")),
)
_CODEX: Final = next(agent for _, agent in _BY_USER_AGENT if agent.name == "codex")
_COPILOT: Final = Agent("copilot")


def by_user_agent(user_agent: str) -> Agent | None:
    """The known agent of a User-Agent header, or None."""
    return next((agent for start, agent in _BY_USER_AGENT if user_agent.startswith(start)), None)


def is_session_name(name: bytes) -> bool:
    """Whether a header (lower-case name) is one in which a vendor may name its session."""
    return name.startswith(b"x-") and name.endswith(SESSION_SUFFIX.encode())


def header_ids(headers: Mapping[str, str], agent: Agent | None, wanted: Wanted = EVERYTHING) -> dict[str, str] | None:
    """The ids in the headers (lower-case names) of a call, by label; None where there is nothing.

    `agent` (the tool's name), session, subagent, parent_session, initiator; project and organization of OpenAI's
    headers. `agent`: who the User-Agent says it is. What does not look like an id is left out.
    """
    pairs, agent_named = _plan(tuple(headers), wanted)
    if not pairs and agent is None and not agent_named:
        return None
    agent = agent or _named(headers)
    found = {"agent": agent.name} if agent is not None and wanted.agents else {}
    for name, label in pairs:
        if label in found or (name in _CODEX_SESSIONS and agent is not _CODEX):
            continue
        value = headers[name]
        if _FORMS.get(label, _WORD)(value):
            found[label] = value
    return found


def _named(headers: Mapping[str, str]) -> Agent | None:
    """The agent that other headers than its User-Agent tell."""
    if headers.get("originator", "").startswith("codex"):
        return _CODEX
    return _COPILOT if "copilot-integration-id" in headers else None


@lru_cache(1024)  # clients send the same headers in every call
def _plan(names: tuple[str, ...], wanted: Wanted) -> tuple[Pairs, bool]:
    """(header, label) in the order of belief, and whether a header names the agent.

    Explicit session names first, then any `x-<vendor>-session-id`, then the bare names of Codex (where it is Codex that
    asks), then the generic ones.
    """
    openai = [(name, label) for name, label in _OPENAI.items() if name in names and wanted.openai]
    if not wanted.agents:
        return tuple(openai), False
    vendors = [name for name in names if name.startswith("x-") and name.endswith(SESSION_SUFFIX)]
    order = [*_SESSIONS, *(name for name in vendors if name != "x-session-id" and name not in _MORE), *_CODEX_SESSIONS]
    if "copilot-integration-id" in names:
        order.append("x-interaction-id")
    sessions = [(name, "session") for name in dict.fromkeys((*order, *_LAST_SESSIONS)) if name in names]
    others = [(name, label) for name, label in _MORE.items() if name in names]
    return (*sessions, *others, *openai), "originator" in names or "copilot-integration-id" in names


def body_session(agent: Agent, request: Any) -> str | None:
    """The session that this agent writes into its request (JSON, parsed), or None."""
    found = agent.body(request) if agent.body is not None else None
    return found if isinstance(found, str) and _SESSION(found) else None
