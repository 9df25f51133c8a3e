"""The desk for sockets: messages go in as they pass, the lines of responses that are over go onto the ledger.

Knows the open sockets, that a large message is read in a thread while those behind it wait their turn, and which
attributes of a flow tell of a socket (it imports nothing of mitmproxy). Must not know what a message means. However a
socket ends, its responses leave their lines exactly once.
"""

import asyncio
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import time
from typing import Any, Final, NamedTuple, Protocol

from llmtab.attribution.labels import request_labels
from llmtab.attribution.ladder import Ladder
from llmtab.desk import Desk
from llmtab.events import BIG, parse
from llmtab.exchange import Exchange
from llmtab.observation import Call, Observation
from llmtab.sockets.socket import Socket

STATE: Final = "_llmtab_socket"
"""The attribute of a flow that holds its socket."""
PAUSE: Final = 0.002
"""Seconds between two looks at whether a large message is read."""
ORDERLY: Final = frozenset({1000, 1001, 1005})
"""Close codes of a socket that was meant to end: normal, going away, none given."""


class Passed(Protocol):
    """A message as the proxy keeps it; `timestamp`: epoch seconds."""

    content: bytes
    from_client: bool
    timestamp: float


class Passing(Protocol):
    """A socket as the proxy sees it: all messages so far, and how it ended."""

    messages: list[Any]
    closed_by_client: bool | None
    close_code: int | None


class Message(NamedTuple):
    """One message, either way, at `at` (epoch seconds)."""

    data: bytes
    from_client: bool
    at: float


class SocketDesk:
    """One for each meter; all of it belongs to the event loop. Sockets live on their flows, so that they outlive it."""

    def __init__(self, desk: Desk) -> None:
        self._trims = False
        self._desk = desk
        self._open: Final[dict[int, Socket]] = {}
        self._behind: Final[dict[int, deque[Message]]] = {}
        """Messages behind one that is being parsed, by socket."""
        self._endings: Final[dict[int, tuple[float, bool, int | None]]] = {}
        self._pool: ThreadPoolExecutor | None = None

    # -- the shell's side ----------------------------------------------------------------------------------------------

    def look_at(self, master: object, options: Any) -> None:
        """Which tool this is: mitmdump keeps all messages of an open socket for nobody but those who write flows to a
        file, so that old ones are taken off its list; in the other tools people look at them."""
        dumps = any(kind.__name__ == "DumpMaster" for kind in type(master).__mro__)
        self._trims = dumps and not (options.save_stream_file or options.hardump)

    def install(self, meter: object) -> None:
        """The hooks of the set-up in force: with `llmtab_fsync=always` a message that ends a response waits until the
        line is on the disk."""
        setup = self._desk.setup
        synced = setup is not None and setup.ledger.fsync == "always"
        vars(meter)["websocket_message"] = self._message_synced if synced else self._message_passes
        vars(meter)["websocket_end"] = self._ends

    def upgrade(self, flow: Any, exchange: Exchange, ladder: Ladder, user: str | None) -> None:
        """A call that asked to become a socket became one: from here on its messages tell what is billed. `user`: who
        the client is to the proxy."""
        exchange.closed = True
        call, claim = exchange.call, exchange.claim
        self._desk.calls.pop(call.id, None)
        headers = tuple((name.encode(), value.encode()) for name, value in call.headers.items())
        labels = request_labels(headers)[0] if ladder.believes_headers else {}
        label = partial(ladder.climb, provider=claim.binding.provider, user=user)
        socket = Socket(call, claim, exchange.answer, labels, label)
        self._open[id(socket)] = socket
        setattr(flow, STATE, socket)

    def _message_passes(self, flow: Any) -> bool:
        """The `websocket_message` hook. Whether it gave a line."""
        passing: Passing = flow.websocket
        socket, booked = vars(flow).get(STATE), False
        if socket is not None:
            last: Passed = passing.messages[-1]
            booked = self.message(socket, Message(last.content, last.from_client, last.timestamp))
        if self._trims:
            del passing.messages[:-1]
        return booked

    async def _message_synced(self, flow: Any) -> None:
        if self._message_passes(flow) and self._desk.setup is not None:
            await self._desk.written()
            await asyncio.get_running_loop().run_in_executor(None, self._desk.setup.ledger.sync)

    def _ends(self, flow: Any) -> None:
        """The `websocket_end` hook."""
        socket: Socket | None = vars(flow).pop(STATE, None)
        if socket is not None:
            end: Passing = flow.websocket
            self.close(socket, time(), by_client=bool(end.closed_by_client), code=end.close_code)

    # -- the desk's side -----------------------------------------------------------------------------------------------

    def message(self, socket: Socket, message: Message) -> bool:
        """A message passes. Whether it gave a line at once."""
        behind = self._behind.get(id(socket))
        if behind is not None:
            behind.append(message)
            return False
        if len(message.data) > BIG:
            self._behind[id(socket)] = deque()
            self._parse(socket, message)
            return False
        self._open[id(socket)] = socket  # after a reload it is another desk's socket that speaks here
        return self._book(socket.feed(message.data, message.at, from_client=message.from_client))

    async def heard(self, socket: Socket) -> None:
        """Returns when every message of a socket that came so far is read: large ones are parsed elsewhere."""
        while id(socket) in self._behind:
            await asyncio.sleep(PAUSE)

    def close(self, socket: Socket, at: float, *, by_client: bool, code: int | None) -> None:
        """A socket ends: at once, or when what came before its end is read. `code`: that of its close frame; 1006
        stands for none, as Codex leaves."""
        if id(socket) in self._behind:
            self._endings[id(socket)] = at, by_client, code
            return
        self._open.pop(id(socket), None)
        self._book(socket.close("aborted" if by_client else "broken", at, orderly=code in ORDERLY))

    def finish(self, at: float, *, sockets: bool) -> None:
        """The process ends, or another desk takes over: what waits is read now, open `sockets` get their lines."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for number in list(self._behind):
            self._catch_up(self._open[number])
        for socket in list(self._open.values()) if sockets else ():
            self._book(socket.close("aborted", at))

    def _parse(self, socket: Socket, message: Message) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmtab-socket")
        self._open[id(socket)] = socket
        job = self._pool.submit(parse, message.data)
        self._behind[id(socket)].appendleft(message)
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._parsed, socket, done))

    def _parsed(self, socket: Socket, job: Future[Any]) -> None:
        """Back on the event loop: this message, then those behind it up to the next large one."""
        behind = self._behind.get(id(socket))
        if not behind:
            return  # a shutdown was faster
        data, from_client, at = behind.popleft()
        self._book(socket.hear(job.result(), data, at, from_client=from_client))
        while behind:
            message = behind.popleft()
            if len(message.data) > BIG:
                self._parse(socket, message)
                return
            self._book(socket.feed(message.data, message.at, from_client=message.from_client))
        self._caught_up(socket)

    def _catch_up(self, socket: Socket) -> None:
        """All that waits, without a thread."""
        for data, from_client, at in self._behind.get(id(socket), ()):
            self._book(socket.feed(data, at, from_client=from_client))
        self._caught_up(socket)

    def _caught_up(self, socket: Socket) -> None:
        self._behind.pop(id(socket), None)
        ending = self._endings.pop(id(socket), None)
        if ending is not None:
            at, by_client, code = ending
            self.close(socket, at, by_client=by_client, code=code)

    def refuse(self, socket: Socket, call: Call) -> None:
        """What the last message asked for is not sent on: its line says so."""
        self._book(socket.refuse(call, time()))

    def _book(self, over: list[Observation]) -> bool:
        for seen in over:
            self._desk.settle(seen)
        return bool(over)
