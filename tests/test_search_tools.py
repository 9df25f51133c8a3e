"""Tests of whole lists and counters with kinds, and what they are for: two search tools, one figure, two prices."""

from typing import Any

import pytest

from llmtab.profiles import Profiles
from test_extract import dialect, read


@pytest.mark.parametrize(
    ("expected", "values", "holds"),
    [
        ({"some": "a*"}, ["b", "ab"], True),
        ({"some": "a*"}, ["b"], False),
        ({"some": ["x", "b"]}, ["b"], True),
        ({"some": "b", "none": "a*"}, ["b", "c"], True),
        ({"some": "b", "none": "a*"}, ["b", "ab"], False),
        ({"none": "b"}, [], True),
        ({"some": "b"}, [], False),
        ({"none": "b"}, None, True),
    ],
)
def test_tests_of_a_whole_list(expected: Any, values: Any, holds: bool) -> None:
    """`some`: at least one element fits; `none`: none does, also where there is no list."""
    where = {"event:/tools/*/type": expected}
    found = dialect(usage={"input_tokens": [{"ref": "/n", "where": where}]})
    event = {"usage": {"n": 5}, **({} if values is None else {"tools": [{"type": value} for value in values]})}
    assert read(found, event).counters.get("input_tokens") == (5 if holds else None)
    whole = dialect(usage={"input_tokens": [{"ref": "/n", "where": {"/type": expected}}]})
    if values and len(values) == 1:
        counted = read(whole, {"usage": {"n": 5, "type": values[0]}}).counters
        assert counted.get("input_tokens") == (5 if holds else None)


SEARCHES = {
    "terms": ["/n"],
    "kinds": [
        {"is": "web_search_requests", "where": {"/tool": "new"}},
        {"is": "web_search_preview_requests", "where": {"/tool": "old"}},
        {"is": "web_search_unnamed_requests"},
    ],
}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"n": 3, "tool": "new"}, {"web_search_requests": 3}),
        ({"n": 3, "tool": "old"}, {"web_search_requests": 3, "web_search_preview_requests": 3}),
        ({"n": 3}, {"web_search_requests": 3, "web_search_unnamed_requests": 3}),
        ({"n": 0}, {"web_search_requests": 0}),
        ({"tool": "old"}, {}),
    ],
)
def test_kinds_of_a_counter(usage: dict[str, Any], counted: dict[str, int]) -> None:
    """The first kind that holds has the whole figure as well; of nothing there are no kinds."""
    assert read(dialect(usage={"web_search_requests": SEARCHES}), {"usage": usage}).counters == counted


def test_a_kind_must_be_a_part() -> None:
    """A figure cannot be a part of something else at the same time."""
    wrong = {"terms": ["/n"], "kinds": [{"is": "output_tokens"}]}
    with pytest.raises(ValueError, match="output_tokens is neither web_search_requests nor a part of it"):
        dialect(usage={"web_search_requests": wrong})


OLD, NEW = {"type": "web_search_preview"}, {"type": "web_search"}


@pytest.mark.parametrize(
    ("answer", "request_tools", "kind"),
    [
        ({"tools": [OLD]}, [NEW], "web_search_preview_requests"),
        ({"tools": [{"type": "web_search_2025_08_26"}]}, [OLD], None),
        ({"tools": [OLD, NEW]}, [OLD], "web_search_unnamed_requests"),
        ({"tools": []}, [OLD], "web_search_unnamed_requests"),
        ({}, [OLD], "web_search_preview_requests"),
        ({}, [NEW, {"type": "function", "name": "web_search_preview"}], None),
        ({}, [OLD, NEW], "web_search_unnamed_requests"),
        ({}, None, "web_search_unnamed_requests"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_which_search_tool_it_was(answer: Any, request_tools: Any, kind: str | None, wrapped: bool) -> None:
    """OpenAI's two search tools have two prices: the answer's list of tools decides, else the request's."""
    claim = Profiles.load().match("api.openai.com", 443, "POST", "/v1/responses")
    assert claim is not None
    event: Any = {**answer, "usage": {"input_tokens": 1}, "tool_usage": {"web_search": {"num_requests": 2}}}
    event = {"type": "response.completed", "response": event} if wrapped else event
    found = read(claim.binding.dialects[0], event, request={"tools": request_tools}).counters
    parts = {name: value for name, value in found.items() if name.startswith("web_search_") and "_requests" in name}
    assert parts == {"web_search_requests": 2} | ({kind: 2} if kind else {})
