"""`llmtab check`: what a person or a program is told about a URL and about a saved answer."""

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from effort import sampled
from llmtab.cli import main
from test_eventstream import event

CHAT = {
    "id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "service_tier": "default",
    "choices": [{"message": {"content": "the secret answer"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1200, "completion_tokens": 60, "total_tokens": 1260,
              "prompt_tokens_details": {"cached_tokens": 1024}, "moon_tokens": 7},
}  # fmt: skip
OPENAI = "https://api.openai.com/v1/chat/completions"


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    """`check(...)` gives the exit status and what was printed; with `--json` the parsed answer."""

    def run(*arguments: str) -> tuple[int, Any]:
        status = main(["check", *arguments])
        out, err = capsys.readouterr()
        assert err.count("\n") <= 1
        return status, json.loads(out) if "--json" in arguments else out + err

    return run


@pytest.fixture
def chat(tmp_path: Path) -> str:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(CHAT))
    return str(path)


# -- URLs --------------------------------------------------------------------------------------------------------------


def test_a_claimed_url(check: Any) -> None:
    """Profile, wire shape, role, and the reference of every counter and fact; exit status 0."""
    status, out = check(OPENAI)
    assert status == 0
    for said in (
        "is metered",
        "openai.chat",
        "billed",
        "/prompt_tokens, else",
        "header:x-request-id",
        "models of openai",
    ):
        assert said in out
    status, found = check(OPENAI, "--model", "gpt-4o", "--json")
    assert (status, found["claim"]["profile"], found["price"]) == (0, "openai", "openai/gpt-4o")
    assert found["dialects"][0]["counters"]["output_tokens"] == "/completion_tokens, else /output_tokens"


def test_what_a_url_says_itself(check: Any) -> None:
    """Model and region in a URL are told, and the price of that model."""
    url = "https://bedrock-runtime.eu-central-1.amazonaws.com/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
    _, found = check(url, "--json")
    captured = {"region": "eu-central-1", "model": "anthropic.claude-3-haiku-20240307-v1:0"}
    assert found["claim"]["captured"] == captured
    assert "claude-3-haiku" in found["price"]
    assert check(url, "--model", "nobody-sells-this")[1].count("unknown_model") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["GET", "https://api.openai.com/v1/models"], 0, "not billed"),
        (["https://api.openai.com/v1/some/thing"], 1, "the path is not: there is a line only if"),
        (["GET", "https://api.openai.com/nothing/here"], 1, "the path is not: it passes without a line"),
        (["https://llm.corp.example/v1/chat/completions"], 1, "hosts: {llm.corp.example: {profile: openai}}"),
        (["https://llm.corp.example/"], 1, "its path has no known shape"),
        (["https://llm.corp.example:8443/v1/messages"], 1, "hosts: {'llm.corp.example:8443'" ),
        (["http://localhost:9999/v1/chat/completions"], 0, "metered as a guess"),
        (["http://localhost:9999/index.html"], 1, "passes without a line"),
    ],
)  # fmt: skip
def test_what_would_become_of_a_call(check: Any, arguments: list[str], status: int, said: str) -> None:
    """A call that would not be metered for certain: exit status 1, its fate, and the line that would name its host."""
    found, out = check(*arguments)
    assert (found, said.replace("'", "") in out.replace("'", "")) == (status, True), out


def test_the_line_of_config_works(check: Any, tmp_path: Path) -> None:
    """The line that is shown for an unnamed host, put into llmtab.yaml, claims it."""
    url = "https://llm.corp.example:8443/v1/chat/completions"
    _, found = check(url, "--json")
    config = tmp_path / "llmtab.yaml"
    config.write_text(found["config"])
    status, found = check(url, "--config", str(config), "--json")
    assert (status, found["claim"]["profile"]) == (0, "openai")


def test_users_profiles_count(check: Any, tmp_path: Path) -> None:
    """`--profiles` are in force as `llmtab_profiles` are."""
    (tmp_path / "house.yaml").write_text(
        "provider: house\nhosts: [house.example]\nsource: https://house.example/doc\nserves: [{openai: /v1}]\n"
    )
    status, found = check("https://house.example/v1/embeddings", "--profiles", str(tmp_path / "house.yaml"), "--json")
    assert (status, found["claim"]["apis"]) == (0, ["openai.embeddings"])


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_saved_answer(check: Any, chat: str) -> None:
    """Every figure with its place, the price with its lines, what was not read; and nothing of what the answer says."""
    status, out = check(chat, "--url", OPENAI)
    assert status == 0
    cost = "cost: 0.00232 USD (list, openai/gpt-4o)"
    place = "/usage/prompt_tokens_details/cached_tokens"
    for said in ("read as openai.chat", place, cost, "not read: /usage/moon_tokens", "gpt-4o-2024-08-06"):
        assert said in out
    assert "secret" not in out
    _, found = check(chat, "--url", OPENAI, "--json")
    assert found["counters"]["cache_read_input_tokens"] == {
        "quantity": 1024, "from": [{"ref": "/usage/prompt_tokens_details/cached_tokens", "quantity": 1024}],
    }  # fmt: skip
    assert found["unread"] == ["/usage/moon_tokens"]
    assert found["lines"][0]["cost_usd"] == sum(part["usd"] for part in found["lines"][0]["cost_lines"])


def test_a_provider_instead_of_a_url(check: Any, chat: str) -> None:
    """Without a URL the shape is found, and --provider says whose prices hold."""
    assert "no price" in check(chat)[1]
    assert "openai/gpt-4o" in check(chat, "--provider", "openai")[1]
    status, found = check(chat, "--url", OPENAI, "--provider", "azure", "--json")
    assert (status, found["lines"][0]["provider"]) == (0, "azure")


def test_the_model_that_was_asked_for(check: Any, tmp_path: Path) -> None:
    """An answer that does not name its model is priced by the one that --model says was asked for."""
    path = tmp_path / "answer.json"
    path.write_text(json.dumps({key: value for key, value in CHAT.items() if key != "model"}))
    assert "no price" in check(str(path), "--url", OPENAI)[1]
    assert "openai/gpt-4o)" in check(str(path), "--url", OPENAI, "--model", "gpt-4o")[1]


def test_streams_of_every_framing(check: Any, tmp_path: Path) -> None:
    """Events, lines, arrays and AWS messages are read as the meter reads them, from a file or from standard input."""
    inner = {
        "type": "message_start",
        "message": {"model": "claude-3-haiku-20240307", "usage": {"input_tokens": 9, "output_tokens": 1}},
    }
    stop = {"type": "message_stop"}
    chunks = [
        event("chunk", json.dumps({"bytes": base64.b64encode(json.dumps(e).encode()).decode()}).encode())
        for e in (inner, stop)
    ]
    gemini = {
        "candidates": [],
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        "modelVersion": "gemini-2.5-flash",
    }
    bodies = {
        "https://api.anthropic.com/v1/messages": b"".join(
            b"data: " + json.dumps(e).encode() + b"\n\n" for e in (inner, stop)
        ),
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/invoke-with-response-stream": b"".join(chunks),
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent": json.dumps(
            [gemini, gemini]
        ).encode(),
        "http://localhost:11434/api/chat": b'{"done":false}\n{"done":true,"prompt_eval_count":9,"eval_count":1}\n',
    }
    for url, body in bodies.items():
        (tmp_path / "body").write_bytes(body)
        status, found = check(str(tmp_path / "body"), "--url", url, "--json")
        assert (status, found["counters"]["input_tokens"]["quantity"]) == (0, 9), url


def test_compressed_and_from_standard_input(check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compressed body is decoded, by --encoding, or as gzip if it is that."""
    body = gzip.compress(json.dumps(CHAT).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))
    assert check("-", "--url", OPENAI)[0] == 0
    (tmp_path / "answer").write_bytes(body)
    assert check(str(tmp_path / "answer"), "--url", OPENAI, "--encoding", "gzip")[0] == 0
    assert check(str(tmp_path / "answer"), "--url", OPENAI, "--encoding", "br")[0] == 1


def test_headers_of_the_answer(check: Any, tmp_path: Path) -> None:
    """Figures that only headers tell are read from --header."""
    (tmp_path / "answer").write_text('{"outputs":[{"text":"Hi","stop_reason":"stop"}]}')
    url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/mistral.mistral-7b-instruct-v0:2/invoke"
    counts = ["--header", "X-Amzn-Bedrock-Input-Token-Count: 9", "--header", "X-Amzn-Bedrock-Output-Token-Count: 3"]
    _, found = check(str(tmp_path / "answer"), "--url", url, *counts, "--json")
    assert found["counters"]["input_tokens"]["from"] == [
        {"ref": "header:x-amzn-bedrock-input-token-count", "quantity": 9}
    ]


def test_an_unclaimed_answer_gets_a_profile(check: Any, tmp_path: Path) -> None:
    """For an answer in nobody's shape lines of llmtab.yaml are proposed, which read it when they are pasted."""
    path, url = tmp_path / "answer.json", "https://ask.example.com/api/ask"
    path.write_text('{"text": "the secret answer", "model": "m1", "stats": {"prompt": 5, "completion": 7}}')
    status, found = check(str(path), "--url", url, "--json")
    assert status == 1
    assert "secret" not in json.dumps(found)
    config = tmp_path / "llmtab.yaml"
    config.write_text(found["config"])
    status, found = check(str(path), "--url", url, "--config", str(config), "--json")
    assert (status, found["counters"]["output_tokens"]["from"]) == (0, [{"ref": "/stats/completion", "quantity": 7}])
    assert "/stats/completion" in check(str(path))[1]


def test_an_unclaimed_host_with_a_known_shape(check: Any, chat: str) -> None:
    """A known shape on a host that nobody names is said by the name of its dialect."""
    status, out = check(chat, "--url", "https://llm.corp.example/talk")
    assert status == 1
    assert "routes: {POST /talk: openai.chat}" in out


def test_a_failed_call_is_understood(check: Any, tmp_path: Path) -> None:
    """The saved answer to a call that failed has nothing to count, and costs nothing."""
    (tmp_path / "answer").write_text('{"error": {"type": "invalid_request_error", "message": "the secret reason"}}')
    status, out = check(str(tmp_path / "answer"), "--url", OPENAI)
    assert status == 0
    assert "not_billed" in out
    assert "secret" not in out


@pytest.mark.parametrize("body", sampled([b"", b"\x00\x01\x02", b"[]", b'{"a":'], b'{"a":'))
def test_a_file_that_nobody_understands(check: Any, tmp_path: Path, body: bytes) -> None:
    """Exit status 1, and no traceback."""
    (tmp_path / "answer").write_bytes(body)
    for where in ([], ["--url", OPENAI]):
        status, out = check(str(tmp_path / "answer"), *where)
        assert status == 1
        assert out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-file"], "no-such-file: No such file"),
        (["ftp://x/y"], "is no URL"),
        (["get", OPENAI], "expected [METHOD] URL"),
        (["GET", "file"], "expected [METHOD] URL"),
        ([OPENAI, "--config", "no-such.yaml"], "no-such.yaml: no such file"),
        ([OPENAI, "--profiles", "no-such"], "no-such: no such file or folder"),
        (["-", "--header", "nonsense"], "expected 'name: value'"),
        (["-", "--encoding", "foo"], "--encoding 'foo', expected gzip, deflate, br or zstd"),
        (["-", "--provider", "nonesuch"], "nonesuch is no provider"),
    ],
)
def test_errors_are_one_line(check: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    """What is wrong with a question is said in one line, exit status 1."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    status, out = check(*arguments)
    assert (status, said in out, out.count("\n")) == (1, True, 1), out
