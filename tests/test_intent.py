"""The head of a system prompt and the names of tools, in every shape of request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.attribution.intent import system_text, tool_names


@pytest.mark.parametrize(
    "request_body",
    [
        {"system": "You support."},
        {"system": [{"type": "text", "text": "You support."}]},
        {"messages": [{"role": "system", "content": "You support."}, {"role": "user", "content": "no"}]},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "You support."}]}]},
        {"instructions": "You support.", "input": "no"},
        {"input": [{"role": "developer", "content": "You support."}]},
        {"systemInstruction": {"parts": [{"text": "You support."}]}, "contents": [{"parts": [{"text": "no"}]}]},
        {"request": {"systemInstruction": {"parts": [{"text": "You support."}]}}, "model": "m"},
        {"preamble": "You support.", "message": "no"},
    ],
)
def test_system_prompts(request_body: Any) -> None:
    """The system prompt is found wherever a provider puts it, and no word of a user is."""
    assert system_text(request_body) == "You support."


@pytest.mark.parametrize(
    "request_body",
    [
        {"tools": [{"name": "search"}, {"name": "browser"}]},
        {"tools": [{"type": "function", "function": {"name": name}} for name in ("search", "browser")]},
        {"tools": [{"functionDeclarations": [{"name": "search"}, {"name": "browser"}]}]},
        {"request": {"tools": [{"functionDeclarations": [{"name": "search"}, {"name": "browser"}]}]}},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "search"}}, {"toolSpec": {"name": "browser"}}]}},
    ],
)
def test_tools(request_body: Any) -> None:
    """The names of tools are found in every shape, one a line."""
    assert tool_names(request_body) == "search\nbrowser"


def test_only_the_head_is_looked_at() -> None:
    """At most 4 KiB of a system prompt and of the names of tools are looked at, however long they are."""
    assert len(system_text({"system": "x" * 100_000})) == 4096
    assert len(system_text({"system": [{"text": "x" * 1000}] * 1000})) == 4096
    assert len(tool_names({"tools": [{"name": "x" * 1000}] * 1000})) == 4096


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: (
        st.lists(inside)
        | st.dictionaries(
            st.sampled_from(["system", "messages", "role", "content", "text", "tools", "name", "function", "request"])
            | st.just("systemInstruction"),
            inside,
        )
    ),
)


@given(JSON)
def test_any_request_is_survived(request_body: Any) -> None:
    """Whatever a request holds, there is a text of at most 4 KiB and no exception."""
    assert len(system_text(request_body)) <= 4096
    assert len(tool_names(request_body)) <= 4096
