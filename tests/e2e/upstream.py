"""A provider on this machine, in the test's own process: a TLS and a plain port, and answers that a test composes.

An answer's body is a list of steps: bytes to send, a number of seconds to wait, an `Event` to wait for, or `CUT`.
"""

import asyncio
import contextlib
import gzip
import json
import ssl
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mitmproxy.certs import CertStore

CUT: Final = object()
"""The connection is reset here."""

HOSTS = [
    "*.example.com", "*.googleapis.com", "*.openai.azure.com", "*.us-east-1.amazonaws.com", "api.anthropic.com",
    "api.mistral.ai", "api.openai.com", "api.x.ai", "chatgpt.com", "dashscope-intl.aliyuncs.com",
]  # fmt: skip

type Step = bytes | float | threading.Event | object


@dataclass(frozen=True)
class Answer:
    """What the upstream says. `framing`: `length` (one body with its length), `chunked` or `close` (until the end)."""

    steps: Sequence[Step]
    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)
    framing: str = "length"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes


def reply(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """A whole JSON body."""
    return Answer([json.dumps(value).encode()], status, [("content-type", "application/json"), *headers])


def gzipped(value: Any) -> Answer:
    """A whole JSON body, compressed."""
    headers = [("content-type", "application/json"), ("content-encoding", "gzip")]
    return Answer([gzip.compress(json.dumps(value).encode())], headers=headers)


def stream(*steps: Step | dict[str, Any], media_type: str = "text/event-stream", status: int = 200) -> Answer:
    """An event stream; a dict is one event, with its `event:` line where it has a `type`."""
    return Answer(
        [event(s) if isinstance(s, dict) else s for s in steps], status, [("content-type", media_type)], "chunked"
    )


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    head = f"event: {data['type']}\n" if isinstance(data.get("type"), str) else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def certificates(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for all HOSTS, and the file of the CA that a client has to trust."""
    store = CertStore.from_store(folder, "upstream", 2048)
    entry = store.get_cert("upstream", [_dns(host) for host in HOSTS])
    key = entry.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = folder / "upstream.pem"
    pem.write_bytes(key + entry.cert.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["http/1.1"])
    return context, folder / "upstream-ca-cert.pem"


@dataclass
class Upstream:
    """Answers by `METHOD host/path`; a host or path nobody composed an answer for gets a 404."""

    folder: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    clients_gone: int = 0
    tls_port: int = 0
    plain_port: int = 0

    def __enter__(self) -> "Upstream":
        self._context, self.ca = certificates(self.folder)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=[ready], name="upstream")
        self._thread.start()
        assert ready.wait(10), "the upstream did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def on(self, target: str, answer: Answer) -> None:
        """From now on `target` (`POST api.openai.com/v1/embeddings`, no query) is answered so."""
        self.answers[target] = answer

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main(ready))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def _main(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        tls = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._context)
        plain = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.tls_port = tls.sockets[0].getsockname()[1]
        self.plain_port = plain.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        for server in (tls, plain):
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while seen := await _request(reader):
                self.seen.append(seen)
                target = f"{seen.method} {seen.host}{seen.path.partition('?')[0]}"
                answer = self.answers.get(target) or reply({"error": "nobody composed an answer"}, 404)
                if not await self._answer(answer, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.clients_gone += 1
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        """Plays the steps. Returns whether the connection may serve another request."""
        whole = b"".join(step for step in answer.steps if isinstance(step, bytes))
        framing = {
            "length": ("content-length", str(len(whole))),
            "chunked": ("transfer-encoding", "chunked"),
            "close": ("connection", "close"),
        }[answer.framing]
        head = "".join(f"{name}: {value}\r\n" for name, value in [*answer.headers, framing])
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode())
        for step in answer.steps:
            if step is CUT:
                await asyncio.sleep(0.05)
                writer.transport.abort()
                return False
            await self._step(step, answer.framing == "chunked", writer)
        if answer.framing == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return answer.framing != "close"

    async def _step(self, step: Step, chunked: bool, writer: asyncio.StreamWriter) -> None:
        if isinstance(step, bytes):
            writer.write(b"%x\r\n%b\r\n" % (len(step), step) if chunked else step)
            await writer.drain()
        elif isinstance(step, threading.Event):
            while not step.is_set():
                if writer.is_closing():
                    raise ConnectionResetError
                await asyncio.sleep(0.005)
        elif isinstance(step, int | float):
            await asyncio.sleep(step)


async def _request(reader: asyncio.StreamReader) -> Seen | None:
    """The next request with its whole body, or None where the connection ended."""
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, headers.get("host", "").removesuffix(":80").removesuffix(":443"), path, headers, body)


def _dns(name: str) -> Any:
    from cryptography.x509 import DNSName

    return DNSName(name)
