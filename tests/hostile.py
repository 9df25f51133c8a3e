"""A call whose other side is hostile, and the one line it must give in bounded time."""

import json
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from golden import built_in
from llmtab.booking import book
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call, How
from llmtab.pricing import PriceBook
from llmtab.record import encode

BEGAN, CAME, ENDED = 1_790_000_000.0, 1_790_000_001.0, 1_790_000_002.0
CHAT = "api.openai.com/v1/chat/completions"
CLAUDE = "api.anthropic.com/v1/messages"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com/model/m/converse-stream"
JSON, SSE, AWS = "application/json", "text/event-stream", "application/vnd.amazon.eventstream"
MIB = 1024 * 1024
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COUNTED = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
SECONDS = 3.0
"""Of processor time, which one call may take with memory being traced; without, each takes a tenth."""


@cache
def prices() -> PriceBook:
    return PriceBook.load()


def exchange(
    url: str = CHAT, memory: TapMemory | None = None, asked: bytes = b'{"model":"m"}', **headers: str
) -> Exchange:
    host, _, path = url.partition("/")
    claim = built_in().match(host, 443, "POST", f"/{path}")
    assert claim is not None
    call = Call("id", host, "POST", f"/{path}", BEGAN, {}, lambda: asked, lambda name: None)
    found = Exchange(call, claim, memory or TapMemory())
    found.answer = Answer(200, {name.replace("_", "-"): value for name, value in headers.items()}, BEGAN)
    return found


def whole(body: bytes, url: str = CHAT, kind: str = JSON, **headers: str) -> dict[str, Any]:
    """The one line of a buffered body."""
    found, book_of_prices = exchange(url, content_type=kind, **headers), prices()
    started = time.process_time()
    seen = found.close("complete", ENDED, body)
    assert seen is not None
    return timely(book(seen, book_of_prices), started)


def streamed(
    chunks: Iterable[bytes], url: str = CHAT, kind: str = SSE, how: How = "complete", **headers: str
) -> dict[str, Any]:
    """The one line of a body that passes in these chunks."""
    found, book_of_prices = exchange(url, content_type=kind, **headers), prices()
    started = time.process_time()
    for chunk in chunks:
        found.feed(chunk, CAME)
    seen = found.close(how, ENDED)
    assert seen is not None
    return timely(book(seen, book_of_prices), started)


def timely(lines: list[dict[str, Any]], started: float) -> dict[str, Any]:
    assert time.process_time() - started < SECONDS
    [line] = lines
    assert len(encode(line)) < 4096
    return line


def in_pieces(body: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def answer(**members: Any) -> bytes:
    return json.dumps(
        {"id": "c", "model": "gpt-4o", "choices": [{"finish_reason": "stop"}], "usage": USAGE, **members}
    ).encode()


def is_honest(line: dict[str, Any]) -> bool:
    """Whether a line claims nothing: no usage, or usage that is marked, and never money for certain."""
    if line["usage_source"] == "none":
        return "usage" not in line and line["cost_usd"] is None
    return line["usage_source"] == "partial" and line["cost_source"] in ("estimated", "unpriced")
