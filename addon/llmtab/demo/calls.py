"""The calls of the demonstration: what is asked, and what the provider on this machine answers.

Data only: the wire formats of the providers' own documentation, with figures made up. Must not know prices.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OPENAI: Final = "http://api.openai.com/v1"
ANTHROPIC: Final = "http://api.anthropic.com/v1"
GEMINI: Final = "http://generativelanguage.googleapis.com/v1beta/models"
MISTRAL: Final = "http://api.mistral.ai/v1"
WORDS: Final = ("Every", " call", " is", " on", " the", " tab.")


@dataclass(frozen=True)
class Call:
    """`answer`: one piece is a body with its length, several are a stream. `leaves_after`: events the client takes."""

    url: str
    asked: Mapping[str, Any]
    answer: tuple[bytes, ...]
    media_type: str = "application/json"
    status: int = 200
    labels: Mapping[str, str] = field(default_factory=dict)
    agent: str = "llmtab-demo"
    leaves_after: int | None = None

    @property
    def request(self) -> bytes:
        """The request's body."""
        return json.dumps(self.asked).encode()


def whole(value: Mapping[str, Any]) -> tuple[bytes, ...]:
    """A buffered JSON body."""
    return (json.dumps(value).encode(),)


def events(*values: Mapping[str, Any], done: bool = False) -> tuple[bytes, ...]:
    """An event stream, an event a piece."""
    pieces = [f"{_head(value)}data: {json.dumps(value)}\n\n".encode() for value in values]
    return (*pieces, b"data: [DONE]\n\n") if done else tuple(pieces)


def _head(value: Mapping[str, Any]) -> str:
    return f"event: {value['type']}\n" if "type" in value else ""


def array(*values: Mapping[str, Any]) -> tuple[bytes, ...]:
    """One long JSON array, as Gemini streams it without `alt=sse`."""
    pieces = [(b",\r\n" if number else b"[") + json.dumps(value).encode() for number, value in enumerate(values)]
    return (*pieces, b"]")


def chat(model: str, prompt: int, cached: int, completion: int, reasoning: int = 0) -> dict[str, Any]:
    """An OpenAI-shaped chat completion."""
    return {
        "id": "chatcmpl-demo1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    }


def chat_stream(model: str, prompt: int, cached: int, completion: int) -> tuple[bytes, ...]:
    """The same as a stream; the usage comes in the last event, without choices."""
    full = chat(model, prompt, cached, completion)
    base = {"id": full["id"], "object": "chat.completion.chunk", "model": model}
    pieces = [{**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
    end = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return events(*pieces, end, {**base, "choices": [], "usage": full["usage"]}, done=True)


def response_stream(model: str, prompt: int, cached: int, output: int, reasoning: int) -> tuple[bytes, ...]:
    """An OpenAI response as a stream; the usage is in its last event."""
    base = {"id": "resp_demo1", "object": "response", "model": model, "service_tier": "default"}
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output,
    }
    return events(
        {"type": "response.created", "response": {**base, "status": "in_progress", "usage": None}},
        *({"type": "response.output_text.delta", "delta": word} for word in WORDS),
        {"type": "response.completed", "response": {**base, "status": "completed", "usage": usage}},
    )


def claude(model: str, fresh: int, read: int, wrote_5m: int, wrote_1h: int, output: int) -> dict[str, Any]:
    """An Anthropic message; its `input_tokens` leave out what was read from and written to the cache."""
    return {
        "id": "msg_demo1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": wrote_5m + wrote_1h,
            "cache_creation": {"ephemeral_5m_input_tokens": wrote_5m, "ephemeral_1h_input_tokens": wrote_1h},
            "output_tokens": output,
        },
    }


def claude_stream(model: str, fresh: int, read: int, wrote_5m: int, output: int) -> tuple[bytes, ...]:
    """The same as a stream: the input is known at the start, the output at the end."""
    message = claude(model, fresh, read, wrote_5m, 0, 1) | {"content": [], "stop_reason": None}
    texts = ({"type": "text_delta", "text": word} for word in WORDS)
    return events(
        {"type": "message_start", "message": message},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in texts),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}},
        {"type": "message_stop"},
    )


def gemini(model: str, prompt: int, cached: int, output: int, thoughts: int, text: str = "") -> dict[str, Any]:
    """A Gemini answer; its candidates leave out the thoughts."""
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": prompt,
            "cachedContentTokenCount": cached,
            "candidatesTokenCount": output,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": prompt + output + thoughts,
        },
        "modelVersion": model,
        "responseId": "demo1",
    }


def gemini_pieces(model: str, prompt: int, cached: int, output: int, thoughts: int) -> list[dict[str, Any]]:
    """The pieces of a Gemini stream: each repeats the usage so far."""
    steps = len(WORDS)
    return [gemini(model, prompt, cached, output * n // steps, thoughts, WORDS[n - 1]) for n in range(1, steps + 1)]


STREAM: Final = {"stream": True, "stream_options": {"include_usage": True}}
SSE: Final = "text/event-stream"
LIMITED: Final = {"error": {"message": "slow down", "type": "tokens", "code": "rate_limit_exceeded"}}
EMBEDDED: Final = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}],
    "usage": {"prompt_tokens": 1812, "total_tokens": 1812},
}

CALLS: Final = (
    Call(f"{OPENAI}/chat/completions", {"model": "gpt-4.1"}, whole(chat("gpt-4.1-2025-04-14", 1840, 1536, 212)),
         labels={"project": "web"}),
    Call(f"{OPENAI}/chat/completions", {"model": "gpt-4o-mini", **STREAM},
         chat_stream("gpt-4o-mini-2024-07-18", 5210, 4096, 388), SSE, labels={"project": "web"}),
    Call(f"{ANTHROPIC}/messages", {"model": "claude-sonnet-4-5"},
         whole(claude("claude-sonnet-4-5-20250929", 45, 0, 2_300, 18_400, 604)), labels={"project": "agent"}),
    Call(f"{ANTHROPIC}/messages", {"model": "claude-sonnet-4-5", "stream": True},
         claude_stream("claude-sonnet-4-5-20250929", 112, 20_700, 480, 951), SSE, labels={"project": "agent"}),
    Call(f"{OPENAI}/responses", {"model": "gpt-5", "stream": True},
         response_stream("gpt-5-2025-08-07", 9_120, 7_680, 2_410, 1_856), SSE, labels={"project": "agent"}),
    Call(f"{OPENAI}/embeddings", {"model": "text-embedding-3-small"}, whole(EMBEDDED), labels={"project": "search"}),
    Call(f"{GEMINI}/gemini-2.5-flash:generateContent", {},
         whole(gemini("gemini-2.5-flash", 3_300, 2_048, 240, 611, "".join(WORDS)))),
    Call(f"{GEMINI}/gemini-2.5-pro:streamGenerateContent?alt=sse", {},
         events(*gemini_pieces("gemini-2.5-pro", 12_040, 0, 830, 1_204)), SSE),
    Call(f"{GEMINI}/gemini-2.5-flash:streamGenerateContent", {},
         array(*gemini_pieces("gemini-2.5-flash", 740, 0, 312, 0))),
    Call(f"{MISTRAL}/chat/completions", {"model": "mistral-large-latest"},
         whole(chat("mistral-large-latest", 930, 0, 175))),
    Call(f"{OPENAI}/chat/completions", {"model": "gpt-4.1"}, whole(LIMITED), status=429, labels={"project": "web"}),
    Call(f"{ANTHROPIC}/messages", {"model": "claude-sonnet-4-5", "stream": True},
         claude_stream("claude-sonnet-4-5-20250929", 96, 21_180, 0, 702), SSE, labels={"project": "agent"},
         leaves_after=3),
    Call(f"{OPENAI}/chat/completions", {"model": "gpt-from-tomorrow"}, whole(chat("gpt-from-tomorrow", 1_000, 0, 100))),
)  # fmt: skip
"""Every family, buffered and streamed, cached, refused by the provider, left by the client, without a price."""
