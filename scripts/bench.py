"""CPU a call of mitmdump with the meter, against mitmdump without it: two processes in turns, an upstream on loopback.

Small JSON is compared with bare mitmdump, streams with an addon that only says `stream = True` (bare mitmdump would
hold a stream back until its end). CPU is the scheduler's own account (/proc/PID/task/*/schedstat), because
requests a second say little on a shared machine. TLS on both sides, keep-alive, nothing leaves 127.0.0.1.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mitmproxy import certs

ROOT: Final = Path(__file__).resolve().parent.parent
CHUNKS: Final = 1000
PASS_ON: Final = "def responseheaders(flow):\n    flow.response.stream = True\n"
USAGE: Final = {"prompt_tokens": 1234, "completion_tokens": 567, "total_tokens": 1801}
HEAD: Final = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "gpt-4o-mini", "service_tier": "default"}


def packed(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def json_answer(size: int = 2000) -> bytes:
    """A chat completion of about `size` bytes with its head."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * (size - 300)}, "finish_reason": "stop"}
    body = packed({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def stream_answer() -> list[bytes]:
    """A streamed completion: its head, then one transfer chunk an event, then the end."""
    words = [{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None} for n in range(CHUNKS - 3)]
    events = [{**HEAD, "object": "chat.completion.chunk", "choices": [word], "usage": None} for word in words]
    events += [{**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    events += [{**HEAD, "choices": [], "usage": USAGE}]
    texts = [b"data: %b\n\n" % packed(event) for event in events] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(text), text) for text in texts), b"0\r\n\r\n"]


async def upstream(folder: Path) -> tuple[asyncio.Server, int]:
    """A TLS server on a free port that answers every POST, streamed where the request asks for it."""
    entry = certs.CertStore.from_store(folder / "ca", "upstream", 2048).get_cert("127.0.0.1", [])
    pem = folder / "upstream.pem"
    pem.write_bytes(entry.privatekey.private_bytes(*_pem_form()) + entry.cert.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    whole, pieces = json_answer(), stream_answer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                for piece in pieces if b'"stream":true' in body else [whole]:
                    writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


def _pem_form() -> tuple[Any, Any, Any]:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(cpus: set[int]) -> Callable[[], None] | None:
    """The proxy has a CPU of its own where there are two, so that client and upstream take nothing from it."""
    return (lambda: os.sched_setaffinity(0, cpus)) if (os.cpu_count() or 1) > 1 else None


@contextlib.contextmanager
def mitmdump(folder: Path, target: int, *arguments: str) -> Iterator[tuple[int, int]]:
    """A mitmdump in reverse mode; gives its pid and port."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("mitmdump")), "-q", "--mode", f"reverse:https://127.0.0.1:{target}", "-p",
        str(port), "--listen-host", "127.0.0.1", "--set", f"confdir={folder / 'conf'}", "--set", "ssl_insecure=true",
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "LLMTAB_HOME": str(folder)}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, preexec_fn=pinned({0}))
    try:
        for _ in range(200):
            if process.poll() is not None:
                raise SystemExit(f"mitmdump ended with status {process.returncode}: {' '.join(command)}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(10)


def cpu_ns(pid: int) -> int:
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[0])
    return total


def request(streamed: bool) -> bytes:
    asked = {"model": "gpt-4o-mini", "stream": streamed, "messages": [{"role": "user", "content": "x" * 1000}]}
    body = packed(asked)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nAuthorization: Bearer sk-bench\r\n"
        b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.0.0\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )


type Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int) -> Connection:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1", limit=1 << 24)


async def call(connection: Connection, raw: bytes, until: float, firsts: list[float]) -> int:
    """Calls one after the other until the time is over, at least one; how many."""
    reader, writer = connection
    calls = 0
    while not calls or time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(raw)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"chunked" in head:
            await reader.readuntil(b"\n\n")
            firsts.append(time.perf_counter() - began)
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        calls += 1
    return calls


class Side:
    """One proxy under test and its kept connections: a handshake costs as much as six calls and is not measured."""

    def __init__(self, proxy: tuple[int, int], connections: Sequence[Connection]) -> None:
        self.pid = proxy[0]
        self.connections = connections

    async def turn(self, raw: bytes, seconds: float) -> tuple[float, float]:
        """(CPU milliseconds a call, median milliseconds to the first event) under load."""
        firsts: list[float] = []
        before, until = cpu_ns(self.pid), time.perf_counter() + seconds
        calls = sum(await asyncio.gather(*(call(one, raw, until, firsts) for one in self.connections)))
        return (cpu_ns(self.pid) - before) / calls / 1e6, statistics.median(firsts) * 1e3 if firsts else 0.0


async def compare(
    plain: tuple[int, int], metered: tuple[int, int], raw: bytes, conns: int, options: argparse.Namespace
) -> dict[str, float]:
    """Both proxies in turns (AB, BA, ...); medians over the pairs."""
    sides = [Side(proxy, [await connect(proxy[1]) for _ in range(conns)]) for proxy in (plain, metered)]
    for side in sides:
        await side.turn(raw, options.seconds)  # warm up
    pairs = []
    for number in range(options.rounds):
        found = {side: await side.turn(raw, options.seconds) for side in (sides if number % 2 else sides[::-1])}
        pairs.append((found[sides[0]], found[sides[1]]))
    for _, writer in [connection for side in sides for connection in side.connections]:
        writer.close()
    return {
        "cpu_ratio": round(statistics.median(a[0] / b[0] for a, b in pairs), 4),
        "cpu_ms_without": round(statistics.median(a[0] for a, _ in pairs), 3),
        "cpu_ms_with": round(statistics.median(b[0] for _, b in pairs), 3),
        "first_event_later_ms": round(statistics.median(b[1] - a[1] for a, b in pairs), 3),
    }


async def bench(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llmtab-bench-") as name:
        folder = Path(name)
        server, target = await upstream(folder)
        (folder / "llmtab.yaml").write_text(f'hosts: {{"127.0.0.1:{target}": {{profile: openai}}}}\n')
        (folder / "pass_on.py").write_text(PASS_ON)
        meter = ("-s", str(ROOT / "addon" / "main.py"), "--set", "llmtab_table=off")
        found = {}
        with mitmdump(folder, target) as bare, mitmdump(folder, target, *meter) as metered:
            found["json"] = await compare(bare, metered, request(streamed=False), 16, options)
        with (
            mitmdump(folder, target, "-s", str(folder / "pass_on.py")) as plain,
            mitmdump(folder, target, *meter) as metered,
        ):
            found["sse"] = await compare(plain, metered, request(streamed=True), 8, options)
            # Under load the first event waits for everybody else's; its own delay shows with one call at a time.
            alone = await compare(plain, metered, request(streamed=True), 1, options)
            found["sse"]["first_event_later_ms"] = alone["first_event_later_ms"]
        found["lines"] = len((folder / "ledger.jsonl").read_bytes().splitlines())
        server.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What the meter costs.")
    parser.add_argument("--rounds", type=int, default=11, help="pairs of turns (default: 11)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of a turn (default: 0.6)")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("bench: the CPU of a process is read from /proc, which only Linux has")
    if limit := pinned({1}):
        limit()
    found = asyncio.run(bench(options))
    for name, key in (("2 KB JSON", "json"), (f"SSE of {CHUNKS} chunks", "sse")):
        side = found[key]
        costs = f"{side['cpu_ms_without']} / {side['cpu_ms_with']} ms a call"
        print(f"{name:20} CPU without / with the meter: {side['cpu_ratio']:.3f}   ({costs})")
    print(f"{'SSE, first event':20} later by {found['sse']['first_event_later_ms']} ms (median, one call at a time)")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
