"""boto3 and Bedrock: Converse and InvokeModel, whole, as true event streams, and left in mid-stream."""

import threading
from pathlib import Path

import pytest
from proxy import Proxy
from sdk import chunk, gate, message, needs, run
from test_streams import CLAUDE_END, CLAUDE_START, CLAUDE_TEXT
from upstream import Answer, Upstream, reply

pytestmark = needs("boto3")

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
TARGET = "POST bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-3-haiku-20240307-v1%3A0"
CLIENT = f"""
import boto3, json, os
client = boto3.client("bedrock-runtime", region_name="us-east-1")
said = {{"modelId": "{MODEL}", "messages": [{{"role": "user", "content": [{{"text": "hi"}}]}}]}}
asked = {{"modelId": "{MODEL}", "body": json.dumps({{"max_tokens": 10, "messages": []}})}}
"""
USAGE = {"inputTokens": 20, "cacheReadInputTokens": 1000, "cacheWriteInputTokens": 300, "outputTokens": 55,
         "totalTokens": 1375}  # fmt: skip
COUNTED = {
    "input_tokens": 1320, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300, "output_tokens": 55,
    "total_tokens": 1375,
}  # fmt: skip
EVENTS = [
    message("messageStart", {"role": "assistant"}),
    message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}),
    message("contentBlockStop", {"contentBlockIndex": 0}),
    message("messageStop", {"stopReason": "end_turn"}),
    message("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}}),
]
METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 20, "outputTokenCount": 55, "invocationLatency": 9,
           "firstByteLatency": 3, "cacheReadInputTokenCount": 1000, "cacheWriteInputTokenCount": 300}}  # fmt: skip
CHUNKS = [chunk(CLAUDE_START), chunk(CLAUDE_TEXT), chunk(CLAUDE_END[0]), chunk({**CLAUDE_END[1], **METRICS})]


def events(*steps: bytes | threading.Event) -> Answer:
    """An event stream as Bedrock sends it."""
    headers = [("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "req-1")]
    return Answer(steps, headers=headers, framing="chunked")


def test_converse(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """Converse and ConverseStream give the same line: boto3 accepts the stream, and the meter reads every message."""
    answer = {"output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn",
              "usage": USAGE, "metrics": {"latencyMs": 5}}  # fmt: skip
    upstream.on(f"{TARGET}/converse", reply(answer, headers=[("x-amzn-requestid", "req-1")]))
    upstream.on(f"{TARGET}/converse-stream", events(*EVENTS))
    code = f"""{CLIENT}
print(client.converse(**said)["usage"]["inputTokens"])
events = client.converse_stream(**said)["stream"]
print([event["metadata"]["usage"]["outputTokens"] for event in events if "metadata" in event])
"""
    assert run(proxy, tmp_path, code).split() == ["20", "[55]"]
    lines = proxy.settled(2)
    assert [line["usage"] for line in lines] == [COUNTED, COUNTED]
    assert [line["transport"] for line in lines] == ["http", "eventstream"]
    for line in lines:
        assert (line["outcome"], line["usage_source"], line["request_model"]) == ("ok", "reported", MODEL)
        assert (line["region"], line["request_id"]) == ("us-east-1", "req-1")
    assert lines[0]["cost_usd"] == lines[1]["cost_usd"]


def test_invoke_model(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """InvokeModel and its stream give the same line; the metrics of the last chunk are not added to the model's own."""
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 1000,
        "output_tokens": 55,
    }
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-3-haiku-20240307",
            "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "usage": usage}  # fmt: skip
    counts = [("x-amzn-bedrock-input-token-count", "20"), ("x-amzn-bedrock-output-token-count", "55")]
    upstream.on(f"{TARGET}/invoke", reply(body, headers=counts))
    upstream.on(f"{TARGET}/invoke-with-response-stream", events(*CHUNKS))
    code = f"""{CLIENT}
print(json.loads(client.invoke_model(**asked)["body"].read())["usage"]["input_tokens"])
parts = client.invoke_model_with_response_stream(**asked)["body"]
print([json.loads(part["chunk"]["bytes"])["type"] for part in parts][-1])
"""
    assert run(proxy, tmp_path, code).split() == ["20", "message_stop"]
    lines = proxy.settled(2)
    assert [line["usage"] for line in lines] == [COUNTED, COUNTED]
    assert [line["api"] for line in lines] == ["bedrock.invoke", "bedrock.invoke-with-response-stream"]
    assert {(line["outcome"], line["usage_source"]) for line in lines} == {("ok", "reported")}
    assert lines[0]["cost_usd"] == lines[1]["cost_usd"]


@pytest.mark.parametrize("api", ["converse_stream", "invoke_model_with_response_stream"])
def test_a_client_that_leaves(proxy: Proxy, upstream: Upstream, tmp_path: Path, api: str) -> None:
    """A program that ends in mid-stream leaves one line: with the prompt's figures if the model told them first,
    and with estimates, named as such, for the rest."""
    asked, member = ("said", "stream") if api == "converse_stream" else ("asked", "body")
    code = f"""{CLIENT}
events = iter(client.{api}(**{asked})["{member}"])
print(len([next(events), next(events)]), flush=True)
os._exit(0)
"""
    with gate() as held:
        upstream.on(f"{TARGET}/converse-stream", events(*EVENTS[:2], held, *EVENTS[2:]))
        upstream.on(f"{TARGET}/invoke-with-response-stream", events(*CHUNKS[:2], held, *CHUNKS[2:]))
        assert run(proxy, tmp_path, code) == "2"
        [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_reason"]) == ("aborted", "aborted")
    assert line["usage_source"] == "estimated"
    told = {name: value for name, value in line["usage"].items() if name not in line["estimated"]}
    if api == "converse_stream":
        assert told == {}
    else:
        assert told == {name: COUNTED[name] for name in told}
        assert set(told) == {"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
