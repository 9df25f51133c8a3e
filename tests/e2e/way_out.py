"""A company's proxy in tests: takes CONNECT for any host and leads to the local upstream, asking for a password."""

import asyncio
import base64
import contextlib
import threading
from dataclasses import dataclass, field

from upstream import HOSTS, Upstream

USER, PASSWORD = "ann", "pass:word"
_ASKED = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
_KNOWN = tuple(host.removeprefix("*") for host in HOSTS)


@dataclass
class WayOut:
    """`with WayOut(upstream) as way: way.url` is what HTTPS_PROXY is set to. `hosts`: whom it was asked for."""

    upstream: Upstream
    hosts: list[str] = field(default_factory=list)

    def __enter__(self) -> "WayOut":
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._main(ready)], name="way out")
        self._thread.start()
        assert ready.wait(10), "the way out did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _main(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://{USER}:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stop.wait()
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, *_ = head.split(" ")
            host = target.partition(":")[0]
            if method != "CONNECT" or not host.endswith(_KNOWN):
                writer.write(b"HTTP/1.1 502 Nobody\r\ncontent-length: 0\r\n\r\n")
            elif _ASKED not in head:
                writer.write(b"HTTP/1.1 407 Who?\r\ncontent-length: 0\r\n\r\n")
            else:
                self.hosts.append(host)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                there = await asyncio.open_connection("127.0.0.1", self.upstream.tls_port)
                await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
