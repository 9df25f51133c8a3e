"""Batch result files as providers write them, and answers that serve them whole or in ranges."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from upstream import Answer

JSONL = ("content-type", "application/octet-stream")


def chat(number: int, text: str = "Hello", **over: Any) -> dict[str, Any]:
    """One line of an OpenAI output file."""
    body = {
        "id": f"chatcmpl-B{number}", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100 + number, "completion_tokens": 10, "total_tokens": 110 + number},
    }  # fmt: skip
    response = {"status_code": 200, "request_id": f"req-{number}", "body": body}
    return {"id": f"batch_req_{number}", "custom_id": f"private-{number}", "response": response, "error": None, **over}


def jsonl(items: Iterable[Any]) -> bytes:
    """A file of one object a line."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def whole(data: bytes, step: int = 65536, headers: Sequence[tuple[str, str]] = (), **how: Any) -> Answer:
    """The whole file."""
    steps = [data[at : at + step] for at in range(0, len(data), step)]
    return Answer(steps, headers=[JSONL, *headers], framing="chunked", **how)


def part(data: bytes, start: int, end: int) -> Answer:
    """Bytes `start` up to `end` of the file."""
    headers = [JSONL, ("content-range", f"bytes {start}-{end - 1}/{len(data)}")]
    return Answer([data[start:end]], 206, headers)
