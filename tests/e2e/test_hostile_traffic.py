"""Hostile servers and clients through a real mitmdump: the bytes stay what they are, one honest line, no traceback."""

import contextlib
import gzip
import hashlib
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxy import PATIENCE, Proxy, until
from upstream import CUT, Answer, Upstream, event, stream

CHAT = "https://api.openai.com/v1/chat/completions"
TARGET = "POST api.openai.com/v1/chat/completions"
ASKED = {"model": "gpt-4o-mini", "messages": []}
STREAM = {**ASKED, "stream": True}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COUNTED = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
MIB = 1024 * 1024
JSON, SSE, AWS = "application/json", "text/event-stream", "application/vnd.amazon.eventstream"
HOSTILE_NAME = "\x1b]0;owned\x07\x1b[2Jgpt"


def answer(**members: Any) -> bytes:
    return json.dumps({"id": "c", "model": "gpt-4o-mini", "choices": [], "usage": USAGE, **members}).encode()


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(b" " * MIB) for _ in range(size // MIB)) + packer.flush()


def prelude(total: int, headers: int = 0) -> bytes:
    head = struct.pack(">II", total, headers)
    return head + struct.pack(">I", zlib.crc32(head))


DEEP = b'{"usage":' * 100_000 + b"1" + b"}" * 100_000
SPOILT = b'{"x":"\xff","usage":{"prompt_tokens":1,"completion_tokens":1,"deep":' + b'{"a":' * 3000 + b"1" + b"}" * 3002
BODIES: dict[str, tuple[str, str, list[Any]]] = {
    "gzip bomb": (SSE, "gzip", [bomb(300 * MIB)]),
    "gzip bomb as JSON": (JSON, "gzip", [bomb(300 * MIB)]),
    "stacked bomb": (JSON, "gzip, gzip", [gzip.compress(bomb(300 * MIB))]),
    "coding that lies": (JSON, "br", [answer(usage=None)]),
    "unknown coding": (SSE, "nonsense", [answer()]),
    "deep": (JSON, "", [DEEP]),
    "deep and spoilt": (SSE, "", [b"data: " + SPOILT + b"\n\n", b"data: " + SPOILT + b"\n\n", b"data: [DONE]\n\n"]),
    "huge number": (JSON, "", [b'{"usage":{"prompt_tokens":1' + b"0" * 5000 + b',"completion_tokens":3}}']),
    "negative": (JSON, "", [answer(usage={"prompt_tokens": -1, "completion_tokens": True})]),
    "floats": (JSON, "", [b'{"usage":{"prompt_tokens":1e308,"completion_tokens":NaN,"total_tokens":Infinity}}']),
    "list": (JSON, "", [answer(usage=[USAGE])]),
    "media type that lies": (AWS, "", [answer(usage=None)]),
    "invalid UTF-8": (JSON, "", [b'{"model":"\xff\xfe","usage":"\xed\xa0\x80"}']),
    "no JSON": (JSON, "", [b"\x00" * 1000]),
    "gigantic prelude": (AWS, "", [prelude(2**32 - 1), b"x" * MIB]),
    "false sum": (AWS, "", [prelude(200)[:-1] + b"\0", b"x" * 300]),
    "one endless line": (SSE, "", [b"data: ", *[b"x" * MIB] * 24]),
    "many reasons": (JSON, "", [answer(usage=None, choices=[{"finish_reason": f"r{n}"} for n in range(9000)])]),
    "half a length": (JSON, "", [b'{"usage":{"prompt_tokens":7,', CUT]),
    "trickle": (SSE, "", [bytes([byte]) for byte in b"data: {}\n\n" * 20]),
}


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_whatever_comes(framing: str, start: Callable[..., Proxy], upstream: Upstream) -> None:
    """Bombs, endless lines, deep nesting, false lengths and sums: each arrives unchanged, no figure is believed."""
    proxy = start()
    for number, (name, (kind, coding, steps)) in enumerate(BODIES.items(), 1):
        headers = [("content-type", kind), *([("content-encoding", coding)] if coding else [])]
        upstream.on(TARGET, Answer(steps, 200, headers, framing if CUT not in steps else "chunked"))
        whole = b"".join(step for step in steps if isinstance(step, bytes))
        started = time.monotonic()
        if CUT in steps:
            with pytest.raises(Exception), proxy.open(CHAT, STREAM) as response:  # noqa: B017
                response.read()
                assert response.status == 200, "the proxy tells of a broken upstream, if nothing was passed on yet"
        else:
            got = proxy.call(CHAT, STREAM)
            assert hashlib.sha256(got.body).digest() == hashlib.sha256(whole).digest(), name
        assert time.monotonic() - started < PATIENCE, name
        until(lambda number=number: len(proxy.lines()) >= number, f"the line of {name}", proxy.output)
        line = proxy.lines()[-1]
        if name == "trickle":  # events that say nothing, in good order: their prompt was read, and its tokens are ours
            assert (line["usage_source"], "output_tokens" in line["usage"]) == ("estimated", False)
            assert set(line["usage"]) == set(line["estimated"])
            continue
        assert line["usage_source"] == "none", name
        assert line["cost_usd"] is None, name
    proxy.settled(len(BODIES))
    assert "Traceback" not in proxy.output()
    assert "Addon error" not in proxy.output()


def test_a_stream_of_many_megabytes(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """128 MiB pass in the memory of a few, to the last byte, and their figures are read."""
    proxy = start()
    unit = event({"choices": [{"delta": {"content": "x" * 64_000}}]}) * 16
    steps = [*[unit] * 128, event({"choices": [], "model": "gpt-4o-mini", "usage": USAGE}), b"data: [DONE]\n\n"]
    upstream.on(TARGET, stream(*steps))
    proxy.call(CHAT, STREAM)
    before, size = resident(proxy), 0
    with proxy.open(CHAT, STREAM) as response:
        while data := response.read1(1 << 20):
            size += len(data)
    assert size == sum(map(len, steps))
    assert resident(proxy) - before < 64 * MIB
    assert [line["usage"] for line in proxy.settled(2)] == [COUNTED, COUNTED]


def resident(proxy: Proxy) -> int:
    """The proxy's greatest memory so far, in bytes."""
    status = Path(f"/proc/{proxy.process.pid}/status")
    if not status.exists():
        pytest.skip("the memory of a process is read from /proc")
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def test_floods_of_headers(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """A thousand headers each way, of ours too: passed on, sixteen labels kept, one line."""
    proxy = start()
    many = [(f"x-flood-{n}", "v" * 20) for n in range(1000)]
    upstream.on(TARGET, Answer([answer()], headers=[("content-type", JSON), *many[:90]]))
    ours = [(f"x-llmtab-l{n}", f"v{n}") for n in range(200)]
    assert proxy.call(CHAT, ASKED, [*many, *ours]).status == 200
    [line] = proxy.settled(1)
    assert len(line["labels"]) == 16
    assert line["usage"] == COUNTED
    assert len([name for name in upstream.seen[-1].headers if name.startswith("x-flood-")]) == 1000
    assert not any(name.startswith("x-llmtab") for name in upstream.seen[-1].headers)


def test_requests_that_lie(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """Lengths that are none, hosts with escapes and passwords, deep and broken bodies: no exception out of a hook."""
    proxy = start()
    upstream.on(TARGET, Answer([answer()]))
    head = "POST http://api.openai.com/v1/chat/completions HTTP/1.1\r\n"
    for lines in (
        f"Host: api.openai.com\r\nContent-Length: {'9' * 5000}\r\n", "Host: api.openai.com\r\nContent-Length: -1\r\n",
        "Host: user:secret@api.openai.com\r\nContent-Length: 0\r\n",
        "Host: \x1b[2J.example.com\r\nContent-Length: 0\r\n",
        "Host: api.openai.com\r\nContent-Type: \xff\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n",
        "Host: [\r\nContent-Length: 0\r\n",
        f"Host: {'x' * 5000}\r\nContent-Length: 0\r\nX-LLMTab-\xff: \xff\r\n",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", proxy.port), 5) as client:
            client.sendall(f"{head}{lines}Connection: close\r\n\r\n".encode("latin-1") + b"{}")
            client.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while client.recv(65536):
                    pass
    upstream.on("POST llm.example.com/v1/chat/completions", Answer([answer()]))
    for body in (
        DEEP,
        SPOILT,
        b"\xff",
        b'{"model":1' + b"0" * 5000 + b"}",
        json.dumps({"model": HOSTILE_NAME}).encode(),
    ):
        assert proxy.call(CHAT, body).status == 200
        proxy.call("http://llm.example.com/v1/chat/completions", body, [("user-agent", "\x1b[2Jx/1 (a@b.c)")])
    assert "Traceback" not in proxy.output()
    assert "Addon error" not in proxy.output()
    assert "\x1b[2J" not in proxy.output()
    assert b"secret" not in proxy.ledger.read_bytes()
    lines = proxy.lines()
    assert all(line["usage"] == COUNTED if line.get("status") == 200 else "usage" not in line for line in lines), lines
    assert len([line for line in lines if line.get("status") == 200]) >= 10


def test_the_table_obeys_nobody(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Escapes in models, ids, labels and errors never reach the terminal."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    proxy.terminal = True
    upstream.on(TARGET, Answer([answer(model=HOSTILE_NAME, id=HOSTILE_NAME)]))
    with proxy:
        label = ("x-llmtab-project", "\x9b2J\xadowned")
        proxy.call(CHAT, {"model": HOSTILE_NAME}, [label, ("x-llmtab-team", "good")])
        upstream.on(TARGET, Answer([json.dumps({"error": {"type": HOSTILE_NAME}}).encode()], 400))
        proxy.call(CHAT, {"model": HOSTILE_NAME * 1000}, [label])
        proxy.settled(2)
        until(lambda: "good" in proxy.output(), "the call in the table")
    assert "owned" not in proxy.output()


def test_many_streams_at_once(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """Sixty streams that stand still in mid-line, then all end: each has its line with its figures."""
    proxy, gate = start(), threading.Event()
    last = event({"choices": [], "model": "gpt-4o-mini", "usage": USAGE})
    upstream.on(TARGET, stream(b"data: {", gate, b"}\n\n", last, b"data: [DONE]\n\n"))
    open_calls = [proxy.open(CHAT, STREAM) for _ in range(60)]
    gate.set()
    for response in open_calls:
        with response:
            assert response.read().endswith(b"data: [DONE]\n\n")
    assert all(line["usage"] == COUNTED for line in proxy.settled(60))
