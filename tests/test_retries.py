"""Retries: which call repeats which, and which does not."""

from typing import Any

import pytest

from llmtab import retries
from llmtab.observation import Call
from llmtab.retries import Retries


def call(name: str, began: float, body: bytes = b"{}", key: str = "k_1", **headers: str) -> Call:
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return Call(
        name, "api.openai.com", "POST", "/v1/x", began, named, lambda: body, lambda _: None, client={"key": key}
    )  # fmt: skip


def line(outcome: str, status: int | None = None, **facts: Any) -> dict[str, Any]:
    return {"id": "x", "status": status, "outcome": outcome, "cost_usd": None, **facts}


FAILURE = line("error", 429)
SUCCESS = line("ok", 200, flags=["a"])


def test_a_repeated_request_names_the_attempt_before_it() -> None:
    """Each attempt is a line of its own; the second names the first, the third the second; then all is forgotten."""
    memory = Retries()
    assert "retry_of" not in memory.mark(FAILURE, call("one", 0), 1)
    assert memory.mark(line("broken"), call("two", 2), 3)["retry_of"] == "one"
    last = memory.mark(SUCCESS, call("three", 4, x_stainless_retry_count="2"), 5)
    assert last["retry_of"] == "two"
    assert list(last) == ["id", "status", "outcome", "cost_usd", "retry_of", "flags"]
    assert "retry_of" not in memory.mark(SUCCESS, call("four", 6), 7)


@pytest.mark.parametrize(
    "second",
    [
        call("two", 2, body=b"{ }"),
        call("two", 2, key="k_2"),
        call("two", 0.5),
        call("two", 2 + retries.SECONDS),
        call("two", 2, x_stainless_retry_count="0"),
        call("two", 2, amz_sdk_request="attempt=1; max=3"),
    ],
    ids=["another body", "another key", "begun before it failed", "much later", "said to be the first", "AWS's first"],
)
def test_another_request_is_no_retry(second: Call) -> None:
    """Another body or key, a call that ran beside the failed one, a late one, or one that is said to be the first."""
    memory = Retries()
    memory.mark(FAILURE, call("one", 0), 1)
    assert "retry_of" not in memory.mark(SUCCESS, second, 3)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_was_refused_for_good_is_not_retried(status: int) -> None:
    """After a mistake of the client's own, the same request is a new call."""
    memory = Retries()
    memory.mark(line("error", status), call("one", 0), 1)
    assert "retry_of" not in memory.mark(SUCCESS, call("two", 2), 3)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls fail, only the last ones are remembered."""
    monkeypatch.setattr(retries, "REMEMBERED", 10)
    memory = Retries()
    for number in range(30):
        memory.mark(FAILURE, call(f"c{number}", 0, body=b"%d" % number), 1)
    assert "retry_of" not in memory.mark(SUCCESS, call("again", 2, body=b"19"), 3)
    assert memory.mark(SUCCESS, call("again", 2, body=b"20"), 3)["retry_of"] == "c20"
