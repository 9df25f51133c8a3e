"""The vendors' own SDKs, told of the proxy by environment variables only; skipped where one is not installed."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy
from test_lines import CHAT
from test_streams import CHAT_EVENTS, CLAUDE_END, CLAUDE_START, CLAUDE_TEXT, DONE
from upstream import Upstream, reply, stream

GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 21},
    "modelVersion": "gemini-2.5-flash",
}


def needs(module: str) -> pytest.MarkDecorator:
    """Skips a test where an SDK is not installed."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    return pytest.mark.skipif(found is None, reason=f"{module} is not installed (extra: clients)")


@pytest.fixture
def run(proxy: Proxy, tmp_path: Path) -> Callable[[str], str]:
    """Runs a program with the proxy's variables set, as README says; returns what it prints."""

    def program(code: str) -> str:
        import certifi

        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(Path(certifi.where()).read_bytes() + (proxy.conf / "mitmproxy-ca-cert.pem").read_bytes())
        address = f"http://127.0.0.1:{proxy.port}"
        told: dict[str, Any] = {"HTTPS_PROXY": address, "https_proxy": address, "SSL_CERT_FILE": str(bundle)}
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "_api_key"))}
        done = subprocess.run(
            [sys.executable, "-c", code], env=kept | told, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return program


@needs("openai")
def test_the_openai_sdk(run: Callable[[str], str], proxy: Proxy, upstream: Upstream) -> None:
    """openai-python, buffered and streamed: the answers are what was sent, and each call is on the tab."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    client = "import openai; client = openai.OpenAI(api_key='x')\n"
    ask = "client.chat.completions.create(model='gpt-4o-mini', messages=[{'role': 'user', 'content': 'hi'}]"
    assert run(f"{client}print({ask}).usage.prompt_tokens)") == "1200"
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS, DONE))
    streamed = f"{ask}, stream=True, stream_options={{'include_usage': True}})"
    assert run(f"{client}print([c.usage.completion_tokens for c in {streamed} if c.usage])") == "[12]"
    first, second = proxy.settled(2)
    assert (first["usage"]["input_tokens"], second["usage"]["output_tokens"]) == (1200, 12)
    assert {first["outcome"], second["outcome"]} == {"ok"}
    assert "OpenAI/Python" in first["client"]["agent"]
    assert first["client"]["key"].startswith("k_")


@needs("anthropic")
def test_the_anthropic_sdk(run: Callable[[str], str], proxy: Proxy, upstream: Upstream) -> None:
    """anthropic-python streams a message, and its cache reads and writes are on the tab."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop = {"type": "content_block_stop", "index": 0}
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, start, CLAUDE_TEXT, stop, *CLAUDE_END))
    code = """
import anthropic
client = anthropic.Anthropic(api_key="x")
asked = [{"role": "user", "content": "hi"}]
with client.messages.stream(model="claude-sonnet-4-5", max_tokens=10, messages=asked) as stream:
    print(stream.get_final_message().usage.output_tokens)
"""
    assert run(code) == "55"
    [line] = proxy.settled(1)
    assert line["usage"]["cache_read_input_tokens"] == 1000
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")


@needs("google.genai")
def test_the_google_sdk(run: Callable[[str], str], proxy: Proxy, upstream: Upstream) -> None:
    """google-genai asks Gemini, whose thoughts are counted as output."""
    for version in ("v1", "v1beta"):
        path = f"/{version}/models/gemini-2.5-flash:generateContent"
        upstream.on(f"POST generativelanguage.googleapis.com{path}", reply(GEMINI))
    code = """
from google import genai
client = genai.Client(api_key="x")
print(client.models.generate_content(model="gemini-2.5-flash", contents="hi").usage_metadata.prompt_token_count)
"""
    assert run(code) == "9"
    [line] = proxy.settled(1)
    assert {"input_tokens": 9, "output_tokens": 12}.items() <= line["usage"].items()
