"""Answers that real clients take for a provider's: complete enough for the coding agents, with known usage."""

from typing import Any, Final

from test_streams import CHAT_EVENTS, DONE
from upstream import Answer, Upstream, reply, stream

CLAUDE_USAGE: Final = {
    "input_tokens": 1320, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300, "output_tokens": 42,
    "total_tokens": 1362,
}  # fmt: skip
CODEX_USAGE: Final = {
    "input_tokens": 2000, "cache_read_input_tokens": 1024, "output_tokens": 300, "reasoning_output_tokens": 256,
    "total_tokens": 2300,
}  # fmt: skip
GEMINI_USAGE: Final = {
    "input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 25, "reasoning_output_tokens": 5,
    "total_tokens": 125,
}  # fmt: skip
CHAT_USAGE: Final = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
"""What each answer means, in the ledger's words."""


def messages() -> Answer:
    """Anthropic's stream: one word."""
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 1000,
        "output_tokens": 1,
    }
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
    return stream(
        {"type": "message_start", "message": said},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 42}},
        {"type": "message_stop"},
    )  # fmt: skip


def responses() -> Answer:
    """OpenAI's Responses API, streamed: one word."""
    part = {"type": "output_text", "text": "Hello", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 2000, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 300,
             "output_tokens_details": {"reasoning_tokens": 256}, "total_tokens": 2300}  # fmt: skip
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": "Hello"},
        {"type": "response.output_text.done", **place, "text": "Hello"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": _response("completed") | {"output": [item], "usage": usage}},
    ]
    return stream(*({**event, "sequence_number": number} for number, event in enumerate(events)))


def _response(status: str) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5-codex", "status": status,
            "output": [], "usage": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip


GEMINI: Final = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 5,
                      "cachedContentTokenCount": 60, "totalTokenCount": 125},
    "modelVersion": "gemini-2.5-pro", "responseId": "r1",
}  # fmt: skip


def compose(upstream: Upstream) -> None:
    """From now on the upstream is Anthropic, OpenAI and Google."""
    upstream.on("POST api.anthropic.com/v1/messages", messages())
    upstream.on("POST api.openai.com/v1/responses", responses())
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS, DONE))
    for version in ("v1", "v1beta"):
        models = f"POST generativelanguage.googleapis.com/{version}/models/gemini-2.5-pro"
        upstream.on(f"{models}:streamGenerateContent", stream(GEMINI))
        upstream.on(f"{models}:generateContent", reply(GEMINI))
