"""google-genai: content whole, streamed, and left in mid-stream."""

from pathlib import Path
from typing import Any

from proxy import Proxy
from sdk import gate, needs, run
from upstream import Answer, Upstream, reply, stream

pytestmark = needs("google.genai")

HOST = "generativelanguage.googleapis.com"
CLIENT = """
from google import genai
client = genai.Client(api_key="x")
asked = {"model": "gemini-2.5-flash", "contents": "hi"}
"""
FIRST = {"promptTokenCount": 9, "totalTokenCount": 9}
LAST = {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 21}
COUNTED = {"input_tokens": 9, "output_tokens": 12, "reasoning_output_tokens": 7, "total_tokens": 21}


def answer(text: str, usage: dict[str, int], finish: str | None = None) -> dict[str, Any]:
    """One answer object, or one event of a stream."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "r1"}


def compose(upstream: Upstream, verb: str, said: Answer) -> None:
    """What the model answers, in each version of the API: the SDK's default has changed before."""
    for version in ("v1", "v1beta"):
        upstream.on(f"POST {HOST}/{version}/models/gemini-2.5-flash:{verb}", said)


def test_content(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """Whole and streamed give the same counters: thoughts are output, and the last event's figures are the call's."""
    compose(upstream, "generateContent", reply(answer("Hi", LAST, "STOP")))
    code = f"{CLIENT}print(client.models.generate_content(**asked).usage_metadata.prompt_token_count)"
    assert run(proxy, tmp_path, code) == "9"
    compose(upstream, "streamGenerateContent", stream(answer("Hi", FIRST), answer(" there", LAST, "STOP")))
    code = f"{CLIENT}print(''.join(part.text for part in client.models.generate_content_stream(**asked)))"
    assert run(proxy, tmp_path, code) == "Hi there"
    lines = proxy.settled(2)
    assert [line["usage"] for line in lines] == [COUNTED, COUNTED]
    assert [line["streamed"] for line in lines] == [False, True]
    for line in lines:
        assert (line["outcome"], line["usage_source"], line["cost_source"]) == ("ok", "reported", "list")
    assert lines[0]["cost_usd"] == lines[1]["cost_usd"] > 0


def test_a_client_that_leaves(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """A program that ends in mid-stream leaves one line: the figures so far as reported, the answer's estimated."""
    code = f"""{CLIENT}
import os
for part in client.models.generate_content_stream(**asked):
    print(part.text, flush=True)
    os._exit(0)
"""
    with gate() as held:
        steps = [answer("Hi", FIRST), held, answer(" there", LAST, "STOP")]
        compose(upstream, "streamGenerateContent", stream(*steps))
        assert run(proxy, tmp_path, code) == "Hi"
        [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_source"]) == ("aborted", "estimated")
    said = line["usage"]["output_tokens"]
    assert 0 < said < 20
    assert line["usage"] == {"input_tokens": 9, "output_tokens": said, "total_tokens": 9 + said}
    assert line["estimated"] == ["output_tokens", "total_tokens"]
    assert line["cost_source"] in ("estimated", "unpriced")
