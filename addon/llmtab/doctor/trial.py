"""One call through a real proxy: TLS on both sides, to a provider that this process plays, and its line on a ledger.

Knows how to play a provider behind a company's proxy (CONNECT, then TLS). Everything happens on this machine and in a
temporary folder; the CA and the code are the user's, llmtab.yaml is not read: what it exports or alerts stays out.
"""

import http.client
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from llmtab import clients
from llmtab.doctor import Finding
from llmtab.ledger.reader import read
from llmtab.run.authority import server
from llmtab.run.private import PrivateProxy, arguments, own_environment

HOST: Final = "api.openai.com"
SECONDS: Final = 10.0
ASKED: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Are you there?"}]}
ANSWER: Final = {
    "id": "chatcmpl-doctor", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}  # fmt: skip
_MEND: Final = "llmtab run -- curl -v https://api.openai.com/v1/models shows more"


def trial(script: Path) -> Iterator[Finding]:
    """Makes the call. `script`: the addon's file."""
    with tempfile.TemporaryDirectory(prefix="llmtab-doctor-") as name:
        folder = Path(name)
        began = time.monotonic()
        try:
            line = _call(script, folder)
        except (OSError, ValueError, http.client.HTTPException) as error:
            text = " ".join(str(error).split())
            yield Finding("call", "error", f"a test call through the proxy failed: {text}", _MEND)
            return
    took = time.monotonic() - began
    if line is None or (line.get("usage") or {}).get("total_tokens") != 14 or not line.get("cost_usd"):
        yield Finding("call", "error", "a test call passed, but its line on the ledger is not right", _MEND)
        return
    text = f"a test call went through a proxy and is on its ledger, with tokens and cost ({took:.1f} s with the start)"
    yield Finding("call", "ok", text)


def _call(script: Path, folder: Path) -> dict[str, Any] | None:
    """The line of one call."""
    nothing = folder / "llmtab.yaml"
    nothing.touch()
    with _Provider(folder) as provider:
        options = {
            "llmtab_ledger": folder / "ledger.jsonl",
            "llmtab_config": nothing,
            "ssl_verify_upstream_trusted_ca": provider.ca,
        }
        words = arguments(script, options, mode=f"upstream:http://127.0.0.1:{provider.port}")
        proxy = PrivateProxy(words, own_environment())
        try:
            ready = proxy.ready()
            bundle = clients.certificates("replaces", None, ready.ca, folder)
            status = _ask(ready.port, bundle)
        finally:
            proxy.stop()
        if status != 200:
            raise OSError(f"status {status}; {'; '.join(proxy.said()[:1])}")
    return next(read(folder / "ledger.jsonl"), None)


def _ask(port: int, bundle: Path) -> int:
    context = ssl.create_default_context(cafile=str(bundle))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=SECONDS)
    connection.set_tunnel(HOST, 443)
    try:
        body = json.dumps(ASKED).encode()
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class _Provider:
    """Answers one CONNECT after the other on a free port of loopback, with a certificate of a CA of its own."""

    def __init__(self, folder: Path) -> None:
        self.ca, certificate = server(folder, HOST)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="doctor-provider", daemon=True)

    def __enter__(self) -> "_Provider":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with suppress(OSError, ValueError):
                    self._answer(connection)
                connection.close()

    def _answer(self, plain: socket.socket) -> None:
        plain.settimeout(SECONDS)
        _head(plain)
        plain.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with self._context.wrap_socket(plain, server_side=True) as secure:
            rest = _head(secure)
            while len(rest) < len(json.dumps(ASKED)):
                rest += secure.recv(65536)
            body = json.dumps(ANSWER).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            secure.sendall(head.encode() + body)
            with suppress(TimeoutError):
                secure.recv(1)  # the proxy closes


def _head(connection: socket.socket) -> bytes:
    """Reads a request's head; what came behind it. Raises ValueError where the connection ends before."""
    said = b""
    while b"\r\n\r\n" not in said:
        if not (data := connection.recv(65536)):
            raise ValueError("no request")
        said += data
    return said.partition(b"\r\n\r\n")[2]
