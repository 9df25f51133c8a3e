"""The shell: mitmproxy's options and hooks, nothing else. The only room that imports mitmproxy's flows.

Knows when mitmproxy calls what, and hands bytes, headers and times on. Must not know what they mean. Nothing here may harm
the traffic: the stream tap swallows every error, hooks only read, and the one change to a request is taking off our labels.
"""

import asyncio
import gc
import logging
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import time
from typing import Any, Final

from mitmproxy import ctx, exceptions, http, tls
from mitmproxy.addonmanager import Loader

from llmtab import attribution
from llmtab.attribution import Fields
from llmtab.booking import book
from llmtab.exchange import Answer, Call, Exchange, How, TapMemory
from llmtab.profiles import GUESS, Claim
from llmtab.record import new_id
from llmtab.setup import Setup, declare_options
from llmtab.watch import Watchers

log = logging.getLogger("llmtab")

TCP_TIMEOUT: Final = 3600
"""Seconds. mitmproxy cuts a connection after 600 s of silence, and a slow model is silent for longer than that."""
UPLOAD: Final = 64 * 1024
"""A request body above this that nobody will read is passed on as it comes."""
SHUTDOWN_WAIT: Final = 5.0
REMEMBERED: Final = 20_000
"""Answers whose figures are booked, for those that read them again."""
_STREAMING: Final = re.compile(
    r"text/event-stream|application/(?:x-ndjson|stream\+json|x-jsonl|jsonl|vnd\.amazon\.eventstream|grpc|connect)", re.I
)
_ASKS_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
_ANSWER_HEADERS: Final = frozenset({b"content-type", b"content-encoding"})
_CALL_HEADERS: Final = frozenset({b"content-type", b"content-encoding"}) | attribution.HEADERS
_STATE: Final = "_llmtab_exchange"


type Lines = Future[list[dict[str, Any]]]


class Meter:
    """The addon: one exchange a claimed call, one finaliser for every way a call can end."""

    name = "llmtab"

    def __init__(self) -> None:
        self.setup: Setup | None = None
        self.coverage: Counter[str] = Counter()
        self._open: dict[str, Exchange] = {}
        self._wanted: dict[tuple[str, str, frozenset[bytes]], frozenset[bytes]] = {}
        self._stream_all = False
        self._memory = TapMemory()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Lines] = set()
        self._booked: dict[str, None] = {}
        self._guessed: set[str] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._watchers = Watchers()

    # -- life ----------------------------------------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        declare_options(loader.add_option)

    def configure(self, updated: set[str]) -> None:
        """Read what changed. At the start an error stops the start; later the last good set-up stays in force."""
        self._stream_all = bool(ctx.options.stream_large_bodies)
        if self.setup is not None and not any(name.startswith("llmtab_") for name in updated):
            return
        try:
            self.setup = Setup.read(ctx.options, self.setup)
        except (ValueError, OSError) as error:
            if self.setup is not None:
                raise exceptions.OptionsError(f"llmtab: {error}") from None
            # One clear line; an error in the log before `running` is over is what ends mitmproxy's start with status 1.
            log.error("llmtab: %s", error)

    def running(self) -> None:
        for name in ctx.options.deferred:
            if name.startswith("llmtab_"):
                log.warning("llmtab: there is no option %s; see mitmdump --options", name)
        if getattr(ctx.options, "tcp_timeout", TCP_TIMEOUT) == ctx.options.default("tcp_timeout"):
            ctx.options.update(tcp_timeout=TCP_TIMEOUT)
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):  # a closed terminal would end the process without a word
            loop.add_signal_handler(signal.SIGHUP, ctx.master.shutdown)
        if self.setup is not None:
            self._watchers.start(ctx.master, ctx.options, self.setup)
        self._ticker = loop.create_task(self._tick())
        # Profiles and prices are tens of thousands of objects that live as long as the process: without this every full
        # collection would walk them again, at the expense of the traffic.
        gc.collect()
        gc.freeze()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.setup is not None:
                self.setup.ledger.tick()
                self._watchers.tick(self.setup.ledger)

    def done(self) -> None:
        """At shutdown every open call gets its line now (mitmproxy's error hooks come later); on a reload they live on."""
        if self._ticker is not None:
            self._ticker.cancel()
        exiting = getattr(ctx.master, "should_exit", None)
        if exiting is None or exiting.is_set():
            now = time()
            for exchange in list(self._open.values()):
                self._book(exchange, "aborted", now, None)
        for job in wait(list(self._pending), SHUTDOWN_WAIT).done:
            self._collect(job)
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._watchers.stop()
        if self.setup is not None:
            self.setup.ledger.close()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """Only LLM hosts are decrypted; every other connection passes through opaque."""
        setup = self.setup
        if setup is None or setup.intercept_all or type(data.context.client.proxy_mode).__name__ == "ReverseMode":
            return
        address = data.context.server.address or ("", 443)
        if not setup.profiles.at_host((data.client_hello.sni or address[0]).lower(), address[1]):
            data.ignore_connection = True

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        setup, request = self.setup, flow.request
        if setup is None or flow.is_replay == "response":
            return
        labels, fields = attribution.request_labels(request.headers.fields)
        if fields is not None:
            request.headers.fields = fields
        claim, host = self._claim(setup, request)
        if claim is None or claim.binding.role in ("not_billed", "batch"):
            if claim is None and setup.profiles.at_host(request.data.host.lower(), request.data.port):
                self.coverage["unknown path"] += 1
            if _has_large_body(request):
                request.stream = True
            return
        exchange = Exchange(self._call(setup, flow, claim, host, labels), claim, self._memory)
        setattr(flow, _STATE, exchange)
        if claim.binding.profile == GUESS and host not in self._guessed:
            self._mention(host)
        self._open[exchange.call.id] = exchange

    @staticmethod
    def _claim(setup: Setup, request: http.Request) -> tuple[Claim | None, str]:
        """The claim for a request, and the host by the name it was claimed under."""
        data = request.data
        method, path = data.method.decode("ascii", "replace"), data.path.decode("utf-8", "replace")
        claim = setup.profiles.match(data.host, data.port, method, path)
        if claim is None or claim.binding.profile == GUESS:
            named = request.pretty_host  # transparent modes know the name only from the Host header
            if named != data.host:
                return setup.profiles.match(named, data.port, method, path) or claim, named
        return claim, data.host

    def _mention(self, host: str) -> None:
        """Say once of each unknown host that it looks like an LLM provider, and how to name it."""
        if len(self._guessed) < REMEMBERED:
            self._guessed.add(host)
            said = "llmtab: %s is metered by the shape of its paths; to name it: hosts: {%s: {profile: openai}} in llmtab.yaml"
            log.info(said, host, host)

    def _call(self, setup: Setup, flow: http.HTTPFlow, claim: Claim, host: str, labels: dict[str, str]) -> Call:
        request = flow.request
        data = request.data
        headers = self._picked(request.headers.fields, claim, _CALL_HEADERS)
        peer, client = flow.client_conn.peername, {}
        if peer:
            client["address"] = peer[0]
        agent = attribution.agent_text(headers.get("user-agent"))
        if agent:
            client["agent"] = agent
        query = request.query.get if b"?" in data.path else _no_query
        key = setup.fingerprints.of(headers, query("key"))
        if key:
            client["key"] = key
        session = attribution.session_label(headers)
        if session:
            labels.setdefault("session", session)
        return Call(
            id=new_id(int(data.timestamp_start * 1e9)),
            host=host,
            method=data.method.decode("ascii", "replace"),
            path=claim.path,
            began=data.timestamp_start,
            headers=headers,
            body=lambda: flow.request.raw_content,
            query=query,
            labels=labels,
            client=client,
        )

    def _picked(self, fields: Fields, claim: Claim, names: frozenset[bytes]) -> dict[str, str]:
        """The wanted headers, by lower-case name; the others are never even decoded."""
        wanted = self._wanted.get((claim.binding.route, claim.binding.profile, names))
        if wanted is None:
            wanted = self._wanted[claim.binding.route, claim.binding.profile, names] = names | claim.binding.headers
        return {
            key.decode("ascii"): value.decode("utf-8", "replace")
            for name, value in fields
            if (key := name.lower()) in wanted
        }

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Whatever streams is streamed on every decrypted host; a claimed call's stream is tapped."""
        response, exchange = flow.response, vars(flow).get(_STATE)
        if response is None:
            return
        if exchange is None:
            if not response.stream and _STREAMING.match(response.headers.get("content-type", "")):
                response.stream = True
            return
        headers = self._picked(response.headers.fields, exchange.claim, _ANSWER_HEADERS)
        exchange.answer = Answer(response.status_code, headers, response.timestamp_start)
        if response.stream or self._streams(flow, exchange, headers.get("content-type", "")):
            response.stream = tapped(exchange, response.stream)

    def _streams(self, flow: http.HTTPFlow, exchange: Exchange, content_type: str) -> bool:
        if self._stream_all or _STREAMING.match(content_type):
            return True
        if flow.response is None or flow.response.status_code >= 400:
            return False
        if exchange.claim.binding.stream:
            return True
        if not content_type.startswith("application/json"):
            # audio, images, event streams under a name of their own: nothing a JSON reader would want whole
            return bool(content_type) and "json" not in content_type
        body = flow.request.raw_content or b""
        return bool(_ASKS_STREAM.search(body, 0, UPLOAD) or _ASKS_STREAM.search(body, max(0, len(body) - UPLOAD)))

    def response(self, flow: http.HTTPFlow) -> None:
        exchange = vars(flow).get(_STATE)
        if exchange is None or flow.response is None:
            return
        body = None if exchange.tapped else flow.response.raw_content
        ended_at = flow.response.timestamp_end or time()
        self._close(flow, exchange, "complete", ended_at, body)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = vars(flow).get(_STATE)
        if exchange is not None:
            left = flow.client_conn.timestamp_end is not None or not flow.client_conn.connected
            exchange.unsent = not exchange.tapped and flow.server_conn.timestamp_tcp_setup is None
            killed = flow.error is not None and flow.error.msg == flow.error.KILLED_MESSAGE
            self._close(flow, exchange, "aborted" if left or killed else "broken", time(), None)

    # -- the one finaliser ---------------------------------------------------------------------------------------------

    def _close(self, flow: http.HTTPFlow, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> None:
        """Book the call: at once if that is quick, in a thread where a large body has to be parsed."""
        vars(flow).pop(_STATE, None)  # the exchange reads the flow's request: no ring of references after this
        asked = flow.request.raw_content
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        if not exchange.needs_thread(body) and not exchange.needs_thread(asked):
            self._book(exchange, how, ended_at, body)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmtab-parse")
        job = self._pool.submit(self._lines, exchange, how, ended_at, body)
        self._pending.add(job)
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._collect, done))

    def _collect(self, job: Lines) -> None:
        """The lines of a call that was read in the thread; the ledger belongs to the event loop."""
        if job in self._pending:
            self._pending.discard(job)
            self._write(job.result())

    def _book(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> None:
        self._write(self._lines(exchange, how, ended_at, body))

    def _lines(self, exchange: Exchange, how: How, ended_at: float, body: bytes | None) -> list[dict[str, Any]]:
        self._open.pop(exchange.call.id, None)
        seen = exchange.close(how, ended_at, body)
        if seen is None or self.setup is None:
            return []
        lines = book(seen, self.setup.prices)
        if not lines:
            self.coverage["no usage on an unknown path"] += 1
        elif self._repeats(exchange.claim.binding.role == "retrieve", lines[0]):
            self.coverage["a stored answer read again"] += 1
            return []
        return lines

    def _repeats(self, retrieved: bool, line: dict[str, Any]) -> bool:
        """Whether a stored answer's figures were booked before. What was called twice is never taken for a repeat."""
        figures = line.get("usage") and line.get("response_id")
        key = f"{line.get('host')} {line.get('response_id')}"
        if retrieved and (not figures or key in self._booked):
            return True
        if figures:
            self._booked[key] = None
            if len(self._booked) > REMEMBERED:
                del self._booked[next(iter(self._booked))]
        return False

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if lines and self.setup is not None:
            self.setup.ledger.append(lines)
            self._watchers.tell(lines)


def tapped(exchange: Exchange, before: Any) -> Callable[[bytes], bytes | Iterable[bytes]]:
    """The stream callable: watches every chunk and gives back the very object. It never raises and never changes anything.

    An exception here would hang the client until its own time-out, so this is the one place that catches everything.
    `before`: the callable of an addon that came first, which keeps its say.
    """
    feed, passes = exchange.feed, before if callable(before) else None

    def tap(chunk: bytes) -> bytes | Iterable[bytes]:
        try:
            if chunk:
                feed(chunk, time())
        except Exception:
            exchange.broken_tap = True
        return chunk if passes is None else passes(chunk)

    return tap


def _has_large_body(request: http.Request) -> bool:
    length = request.headers.get("content-length")
    return int(length) > UPLOAD if length and length.isdecimal() else "transfer-encoding" in request.headers


def _no_query(_: str) -> str | None:
    return None
