"""A provider on this machine that speaks WebSocket: a TLS and a plain port, and scripts that a test composes.

A script is a list of steps: `WAIT` for a message of the client, a dict to send as JSON text, bytes to send as a binary
frame, a number of seconds to wait, `CUT` (the connection is reset), or a `Close`. At the end of a script the server
waits for the client to close. A number instead of a script is the status that turns the upgrade down.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from upstream import certificates
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

WAIT: Final = object()
CUT: Final = object()


@dataclass(frozen=True)
class Close:
    """A close frame."""

    code: int = 1000


type Script = Sequence[Any] | int


@dataclass
class SocketUpstream:
    """Plays the script of `host/path`; a target that nobody composed is turned down with 404."""

    folder: Path
    scripts: dict[str, Script] = field(default_factory=dict)
    heard: list[Any] = field(default_factory=list)
    """Messages of clients, as they came."""
    tls_port: int = 0
    plain_port: int = 0

    def __enter__(self) -> "SocketUpstream":
        self._context, self.ca = certificates(self.folder)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=[ready], name="socket-upstream")
        self._thread.start()
        assert ready.wait(10), "the upstream did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def on(self, target: str, script: Script) -> None:
        """From now on `target` (`api.openai.com/v1/responses`, no query) is answered so."""
        self.scripts[target] = script
        self.heard.clear()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        options: dict[str, Any] = {"process_request": self._answer, "max_size": None, "close_timeout": 1}
        async with (
            serve(self._play, "127.0.0.1", 0, ssl=self._context, **options) as tls,
            serve(self._play, "127.0.0.1", 0, **options) as plain,
        ):
            self.tls_port = next(iter(tls.sockets)).getsockname()[1]
            self.plain_port = next(iter(plain.sockets)).getsockname()[1]
            ready.set()
            await self._stop.wait()

    def _script(self, request: Request) -> Script:
        host = request.headers["Host"].partition(":")[0]
        path = request.path.partition("?")[0].replace("//", "/")
        return self.scripts.get(host + path, 404)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        script = self._script(request)
        if isinstance(script, int):
            return connection.respond(script, json.dumps({"error": {"type": "nobody", "message": "no"}}))
        return None

    async def _play(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        script = self._script(connection.request)
        assert not isinstance(script, int)
        with contextlib.suppress(ConnectionClosed):
            for step in script:
                if step is WAIT:
                    self.heard.append(await connection.recv())
                elif step is CUT:
                    await asyncio.sleep(0.05)
                    connection.transport.abort()
                elif isinstance(step, Close):
                    await connection.close(step.code)
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    await connection.send(step if isinstance(step, bytes) else json.dumps(step))
            await connection.wait_closed()
