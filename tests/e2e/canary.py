"""Secrets, each its own, in every place of a call where one can be, and the search for them in what was written.

A canary occurs nowhere else. `sent` makes the calls that carry them, `Nest` says which are in some files.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy import Proxy
from upstream import CUT, Answer, Upstream, event

WORD = re.compile(rb"kanari[0-9a-f]{13}")


@dataclass
class Nest:
    """Canaries by the place they were put in."""

    names: dict[str, str] = field(default_factory=dict)

    def put(self, place: str) -> str:
        """A new canary for this place, such as `header authorization`."""
        word = f"kanari{os.urandom(5).hex()}{len(self.names):03x}"
        self.names[word] = place
        return word

    def found(self, data: bytes) -> list[str]:
        """The places whose canary is in these bytes."""
        return sorted({self.names.get(word.decode(), "another run") for word in WORD.findall(data)})

    def in_files(self, *folders: Path) -> dict[str, list[str]]:
        """File -> places, for every file under the folders that holds a canary, or has one in its name."""
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        hits = {path.name: self.found(path.name.encode() + b"\n" + path.read_bytes()) for path in files}
        return {name: places for name, places in hits.items() if places}


USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
REQUEST_HEADERS = (
    "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization", "x-custom-secret",
    "openai-organization", "openai-project", "referer", "from", "idempotency-key", "baggage", "x-session-token",
    "x-forwarded-for", "x-amz-security-token",
)  # fmt: skip


def request_headers(nest: Nest, what: str) -> list[tuple[str, str]]:
    """Every header that could hold a secret, and a user agent as some companies make them."""
    where = nest.put
    found = [(name, f"Bearer {where(f'{what}: request header {name}')}") for name in REQUEST_HEADERS]
    mail, machine = where(f"{what}: mail in the user agent"), where(f"{what}: comment in the user agent")
    page = where(f"{what}: page in the user agent")
    agent = f"Robot/2.0 (+https://example.com/{page}; host {machine}) {mail}@example.com"
    return [
        *found,
        ("user-agent", agent),
        ("x-llmtab-project", "allowed"),
        ("x-llmtab-bad", "\u00e9" + where("bad label")),
    ]


def response_headers(nest: Nest, what: str) -> list[tuple[str, str]]:
    names = ("set-cookie", "x-custom-answer", "openai-organization", "server", "location", "www-authenticate", "etag")
    return [(name, nest.put(f"{what}: response header {name}")) for name in names]


def request_body(nest: Nest, what: str, **more: Any) -> dict[str, Any]:
    """A chat request with a canary in every key and value that is the caller's own."""
    where = lambda place: nest.put(f"{what}: request {place}")  # noqa: E731
    return {
        "messages": [
            {"role": "system", "content": where("system")},
            {"role": "user", "content": [{"type": "text", "text": where("prompt")}], "name": where("name")},
            {"role": "assistant", "tool_calls": [{"id": where("call"), "function": {"arguments": where("arguments")}}]},
        ],
        "tools": [{"type": "function", "function": {"name": where("tool"), "description": where("tool text")}}],
        "user": where("user"),
        "metadata": {where("metadata key"): where("metadata value"), "user_id": where("user id")},
        "safety_identifier": where("safety identifier"), "prompt_cache_key": where("cache key"),
        "stop": [where("stop")], where("unknown key"): where("unknown value"),
        "previous_response_id": where("earlier response"), "max_tokens": 9, **more,
    }  # fmt: skip


def answer_body(nest: Nest, what: str, **more: Any) -> dict[str, Any]:
    """A chat answer likewise. Its model, id and usage are facts of the ledger."""
    where = lambda place: nest.put(f"{what}: answer {place}")  # noqa: E731
    call = {"id": where("call id"), "function": {"name": where("tool"), "arguments": where("arguments")}}
    message = {"content": where("completion"), "reasoning_content": where("thoughts"), "tool_calls": [call]}
    return {
        "id": "chatcmpl-1", "model": "gpt-4o-mini", where("unknown key"): where("unknown value"),
        "choices": [{"message": message, "delta": message, "finish_reason": f"stop {where('finish reason')}"}],
        "user": where("user"), "metadata": {where("metadata key"): where("metadata value")},
        "usage": {**USAGE, where("usage key"): where("usage value"), "prompt_tokens_details": {where("detail"): 1}},
        **more,
    }  # fmt: skip


def error_body(nest: Nest, what: str) -> dict[str, Any]:
    places = ("message", "param", "code", "type", "request_id")
    return {"error": {place: f"invalid {nest.put(f'{what}: error {place}')}" for place in places}}


def form(nest: Nest) -> tuple[bytes, list[tuple[str, str]]]:
    """An upload of sound, and its content type."""
    where = nest.put
    boundary = where("upload: boundary")
    parts = [("model", "", "whisper-1"), ("prompt", "", where("upload: field")), (where("upload: field name"), "", "x"),
             ("file", f'; filename="{where("upload: file name")}.wav"', f"RIFF{where('upload: file')}")]  # fmt: skip
    text = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n{value}\r\n'
        for name, rest, value in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return f"{text}--{boundary}--\r\n".encode(), [("content-type", kind)]


def sse(nest: Nest, what: str, *steps: Any) -> list[Any]:
    """An event stream with canaries in comments, names and fields of its events."""
    where = lambda place: nest.put(f"{what}: stream {place}")  # noqa: E731
    noise = f": {where('comment')}\nevent: {where('event name')}\nid: {where('event id')}\nretry: {where('retry')}\n"
    bare = f"{where('unknown field')}: {where('field value')}\n\ndata: {where('no JSON')}\n\n"
    return [noise.encode() + event(answer_body(nest, what, usage=None)), bare.encode(), *steps]


def sent(nest: Nest, upstream: Upstream, proxy: Proxy) -> Iterator[int]:
    """Makes the calls one after the other; yields each one's status."""
    openai, chat = "api.openai.com", "/v1/chat/completions"

    def call(what: str, answer: Answer, target: str = openai + chat, body: Any = None, method: str = "POST",
             scheme: str = "https", more: Iterable[tuple[str, str]] = ()) -> int:  # fmt: skip
        host, _, path = target.partition("/")
        upstream.on(f"{method} {host}/{path}", answer)
        query = (
            f"?key={nest.put(f'{what}: query key')}&{nest.put(f'{what}: query name')}=1#{nest.put(f'{what}: fragment')}"
        )
        headers = [*more, *request_headers(nest, what)]
        got = proxy.call(f"{scheme}://{target}{query}", body, headers, method)
        return got.status

    def said(what: str, status: int = 200, **more: Any) -> Answer:
        kind = [("content-type", f"application/json; charset=utf-8; x={nest.put(f'{what}: media type')}")]
        body = answer_body(nest, what, **more) if status < 400 else error_body(nest, what)
        return Answer([json.dumps(body).encode()], status, [*kind, *response_headers(nest, what)])

    def streamed(what: str, *last: Any) -> Answer:
        headers = [("content-type", "text/event-stream"), *response_headers(nest, what)]
        return Answer(sse(nest, what, *last), 200, headers, "chunked")

    yield call("chat", said("chat"), body=request_body(nest, "chat", model="gpt-4o-mini"))
    spaced = f"my model {nest.put('model with spaces')}"
    long = "x" * 200 + nest.put("model too long")
    yield call(
        "odd model",
        said("odd model", model=long, id=f"a b {nest.put('id')}"),
        body=request_body(nest, "odd model", model=spaced),
    )
    yield call(
        "odd tier",
        said("odd tier", service_tier=f"{nest.put('tier')}\n"),
        body=request_body(nest, "odd tier", model=long),
    )
    for status in (400, 401, 429, 500):
        yield call(
            f"error {status}",
            said(f"error {status}", status),
            body=request_body(nest, f"error {status}", model="gpt-4o-mini"),
        )
    page = f"<html>{nest.put('html error')}</html>".encode()
    yield call(
        "html",
        Answer([page], 502, [("content-type", "text/html")]),
        body=request_body(nest, "html", model="gpt-4o-mini"),
    )
    broken = f'{{"choices": "{nest.put("broken JSON")}'.encode()
    yield call("broken", Answer([broken]), body=f'{{"model": {nest.put("broken request")}'.encode())
    done = event({"id": "c", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}), b"data: [DONE]\n\n"
    yield call("stream", streamed("stream", *done), body=request_body(nest, "stream", model="gpt-4o-mini", stream=True))
    failed = event({"error": {"message": nest.put("error in a stream"), "type": nest.put("error type in a stream")}})
    yield call(
        "failing", streamed("failing", failed), body=request_body(nest, "failing", model="gpt-4o-mini", stream=True)
    )
    claude = {
        "type": "message",
        "id": "msg_1",
        "model": "claude-sonnet-4-5",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    yield call(
        "claude",
        said("claude", **claude),
        "api.anthropic.com/v1/messages",
        request_body(nest, "claude", model="claude-sonnet-4-5"),
    )
    meta = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    yield call("gemini", said("gemini", usageMetadata=meta, modelVersion="gemini-2.5-flash"),
               "generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
               request_body(nest, "gemini"))  # fmt: skip
    body, kind = form(nest)
    yield call(
        "upload", said("upload", text=nest.put("transcript")), f"{openai}/v1/audio/transcriptions", body, more=kind
    )
    for path in ("responses/resp_{}", "files/file-{}/content", "threads/thread_{}/runs", "conversations/conv_{}/items",
                 "unheard/{}of", "vector_stores/vs_{}/search", "fine_tuning/jobs/ftjob-{}"):  # fmt: skip
        target = f"{openai}/v1/{path.format(nest.put(f'path {path}'))}"
        yield call(path, said(path), target, request_body(nest, path, model="gpt-4o-mini"))
        yield call(f"GET {path}", said(f"GET {path}"), target, method="GET")
    shape = request_body(nest, "guess", model="local-model")
    yield call("guess", said("guess"), f"llm.example.com{chat}", shape, scheme="http")
    if "llmtab_intercept=all" in proxy.command:  # else nobody reads it
        yield call("guess in TLS", said("guess in TLS"), f"llm.example.com{chat}", shape)
    yield call("stranger", said("stranger"), f"www.example.com/{nest.put('path of a stranger')}", shape, scheme="http")


def torn(nest: Nest, upstream: Upstream, proxy: Proxy) -> None:
    """A stream that the upstream cuts."""
    upstream.on(
        "POST api.openai.com/v1/chat/completions",
        Answer(sse(nest, "cut", CUT), 200, [("content-type", "text/event-stream")], "chunked"),
    )
    with (
        proxy.open(
            "https://api.openai.com/v1/chat/completions", request_body(nest, "cut", model="gpt-4o", stream=True)
        ) as response,
        contextlib.suppress(OSError, http.client.HTTPException),
    ):
        while response.read1():
            pass


def socketed(nest: Nest, upstream: Upstream, proxy: Proxy) -> bytes:
    """A WebSocket through the proxy, one message each way; what the client got."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
    usage = {"input_tokens": 3, "output_tokens": 2}
    answer = json.dumps({"type": "response.done", "response": {"id": "r1", "usage": usage,
                         "output": [nest.put("socket: answer")]}, nest.put("socket: key"): 1}).encode()  # fmt: skip
    frame = b"\x81\x7e" + struct.pack(">H", len(answer)) + answer
    headers = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept),
        *response_headers(nest, "socket"),
    ]
    upstream.on("GET api.openai.com/v1/realtime", Answer([frame, 0.3, b"\x88\x00"], 101, headers, "close"))
    text = json.dumps({"type": "session.update", "session": {"instructions": nest.put("socket: message")}}).encode()
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as client:
        url = f"http://api.openai.com/v1/realtime?model=gpt-realtime&key={nest.put('socket: query')}"
        wanted = "".join(f"{name}: {value}\r\n" for name, value in request_headers(nest, "socket") if value.isascii())
        head = f"GET {url} HTTP/1.1\r\nHost: api.openai.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += "Sec-WebSocket-Version: 13\r\n"
        client.sendall(f"{head}Sec-WebSocket-Key: {key}\r\n{wanted}\r\n".encode())
        got = client.recv(4096)
        masked = bytes(byte ^ b"mask"[at % 4] for at, byte in enumerate(text))
        client.sendall(b"\x81" + bytes([0x80 | 126]) + struct.pack(">H", len(text)) + b"mask" + masked)
        while data := client.recv(4096):
            got += data
    return got
