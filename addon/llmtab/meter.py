"""The shell: mitmproxy's options and hooks, nothing else. The only room that imports mitmproxy's flows.

Knows when mitmproxy calls what, and hands bytes, headers and times on. Must not know what they mean. Nothing here may
harm the traffic: the stream tap swallows every error, hooks only read, and the one change to a request is taking off
our labels.
"""

import asyncio
import gc
import logging
import re
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import time
from typing import Any, Final

from mitmproxy import ctx, exceptions, http, tls
from mitmproxy.addonmanager import Loader

from llmtab import attribution, retries
from llmtab.booking import book
from llmtab.exchange import Answer, Call, Exchange, How, Observation, TapMemory
from llmtab.headers import Picker
from llmtab.profiles import GUESS, Claim
from llmtab.record import new_id
from llmtab.repeats import Repeats
from llmtab.setup import Setup, declare_options
from llmtab.tap import tapped
from llmtab.upkeep import Upkeep, warn_of_age
from llmtab.watch import Watchers

log = logging.getLogger("llmtab")

TCP_TIMEOUT: Final = 3600
"""Seconds. mitmproxy cuts a connection after 600 s of silence, and a slow model is silent for longer than that."""
UPLOAD: Final = 64 * 1024
"""A request body above this that nobody will read is passed on as it comes."""
SHUTDOWN_WAIT: Final = 5.0
_STREAMING: Final = re.compile(
    r"text/event-stream|application/(?:x-ndjson|stream\+json|x-jsonl|jsonl|vnd\.amazon\.eventstream|grpc|connect)", re.I
)
_ASKS_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
_ANSWER_HEADERS: Final = frozenset({b"content-type", b"content-encoding"})
_CALL_HEADERS: Final = frozenset({b"content-type", b"content-encoding"}) | attribution.HEADERS | retries.HEADERS
_IS_LABEL: Final = re.compile(attribution.PREFIX.decode()).match
_STATE: Final = "_llmtab_exchange"


type Lines = Future[list[dict[str, Any]]]


class Meter:
    """The addon: one exchange a claimed call, one finaliser for every way a call can end."""

    name = "llmtab"
    request: Callable[[http.HTTPFlow], None]  # there only while estimates are on: a hook that is absent costs nothing

    def __init__(self) -> None:
        self.setup: Setup | None = None
        self.coverage: Counter[str] = Counter()
        self._open: dict[str, Exchange] = {}
        self._pickers: dict[frozenset[bytes], tuple[Picker, Picker]] = {}
        self._stream_all = False
        self._memory = TapMemory()
        self._retries = retries.Retries()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Lines] = set()
        self._repeats = Repeats()
        self._ticker: asyncio.Task[None] | None = None
        self._watchers = Watchers()
        self._upkeep = Upkeep()

    # -- life ----------------------------------------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        declare_options(loader.add_option)

    def configure(self, updated: set[str]) -> None:
        """Read what changed. At the start an error stops the start; later the last good set-up stays in force."""
        self._stream_all = bool(ctx.options.stream_large_bodies)
        if self.setup is not None and not any(name.startswith("llmtab_") for name in updated):
            return
        try:
            self._put_in_force(Setup.read(ctx.options, self.setup))
        except (ValueError, OSError) as error:
            if self.setup is not None:
                raise exceptions.OptionsError(f"llmtab: {error}") from None
            # One clear line; an error in the log before `running` is over is what ends mitmproxy's start with status 1.
            log.error("llmtab: %s", error)

    def _put_in_force(self, setup: Setup) -> None:
        """From here on this set-up holds; calls under way keep the profiles they were claimed by."""
        self.setup = setup
        setup.ledger.keep_by(setup.policy)
        self._pickers.clear()
        vars(self).pop("response", None)
        if setup.ledger.fsync == "always":
            vars(self)["response"] = self._response_synced  # an instance's own hook: the other modes pay nothing for it
        vars(self).pop("request", None)
        if self._upkeep.switch(setup):
            self.request = self._estimate

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
            warn_of_age(self.setup)
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
                edited = self._upkeep.tick(self.setup, self._watchers.note)
                if edited is not None:
                    self._put_in_force(edited)
                self._watchers.tick(self.setup.ledger)

    def done(self) -> None:
        """At shutdown every open call gets its line now (mitmproxy's error hooks come later); on a reload they
        live on."""
        if self._ticker is not None:
            self._ticker.cancel()
        asked = getattr(ctx.master, "should_exit", None)
        exiting = asked is None or asked.is_set()
        if exiting:
            now = time()
            for exchange in list(self._open.values()):
                self._book(exchange, "aborted", now, None)
        for job in wait(list(self._pending), SHUTDOWN_WAIT).done:
            self._collect(job)
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._watchers.stop(exiting=exiting)
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
        claim, host = self._claim(setup, request)
        if claim is None or claim.binding.role in ("not_billed", "batch"):
            self._labels(request)
            if claim is None and setup.profiles.at_host(request.data.host.lower(), request.data.port):
                self.coverage["unknown path"] += 1
            if _has_large_body(request):
                request.stream = True
            return
        exchange = Exchange(self._call(setup, flow, claim, host), claim, self._memory)
        setattr(flow, _STATE, exchange)
        if claim.binding.profile == GUESS:
            self._watchers.mention(host)
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

    @staticmethod
    def _labels(request: http.Request) -> dict[str, str]:
        """The labels in the request's headers, which are taken off where that breaks no signature."""
        labels, fields = attribution.request_labels(request.headers.fields)
        if fields is not None:
            request.headers.fields = fields
        return labels

    def _call(self, setup: Setup, flow: http.HTTPFlow, claim: Claim, host: str) -> Call:
        request, data = flow.request, flow.request.data
        headers = self._pickers_for(claim)[0].pick(data.headers.fields)
        labels = self._labels(request) if any(map(_IS_LABEL, headers)) else {}
        peer, client = flow.client_conn.peername, {}
        if peer:
            client["address"] = peer[0]
        if agent := attribution.agent_text(headers.get("user-agent")):
            client["agent"] = agent
        query = request.query.get if b"?" in data.path else _no_query
        if key := setup.fingerprints.of(headers, query("key")):
            client["key"] = key
        if session := attribution.session_label(headers):
            labels.setdefault("session", session)
        began = data.timestamp_start
        method = data.method.decode("ascii", "replace")
        ident = new_id(int(began * 1e9))
        return Call(
            ident, host, method, claim.path, began, headers, lambda: flow.request.raw_content, query, labels, client
        )

    def _pickers_for(self, claim: Claim) -> tuple[Picker, Picker]:
        """What picks the headers of a request and of its answer that this claim's profile, or we, want to see."""
        names = claim.binding.headers
        pair = self._pickers.get(names)
        if pair is None:
            asks = Picker(_CALL_HEADERS | names, _is_wanted)
            pair = self._pickers[names] = asks, Picker(_ANSWER_HEADERS | names)
        return pair

    def _estimate(self, flow: http.HTTPFlow) -> None:
        """The `request` hook: what this call is expected to cost, before it leaves."""
        exchange, estimator = vars(flow).get(_STATE), self._upkeep.estimator
        if exchange is not None and self.setup is not None and estimator is not None:
            size = flow.request.headers.get("content-length", "")
            exchange.call.estimate = estimator.before(exchange.call, exchange.claim, size, self.setup.prices, time())

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Whatever streams is streamed on every decrypted host; a claimed call's stream is tapped."""
        response, exchange = flow.response, vars(flow).get(_STATE)
        if response is None:
            return
        if exchange is None:
            if not response.stream and _STREAMING.match(response.headers.get("content-type", "")):
                response.stream = True
            return
        data = response.data
        headers = self._pickers_for(exchange.claim)[1].pick(data.headers.fields)
        exchange.answer = Answer(data.status_code, headers, data.timestamp_start)
        if response.stream or self._streams(flow, exchange, headers.get("content-type", "")):
            response.stream = tapped(exchange, response.stream, self._over)

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
        return b'"stream"' in body and bool(
            _ASKS_STREAM.search(body, 0, UPLOAD) or _ASKS_STREAM.search(body, max(0, len(body) - UPLOAD))
        )

    def response(self, flow: http.HTTPFlow) -> None:
        exchange = vars(flow).get(_STATE)
        if exchange is None or flow.response is None:
            return
        body = None if exchange.tapped else flow.response.raw_content
        ended_at = flow.response.timestamp_end or time()
        self._close(flow, exchange, "complete", ended_at, body)

    async def _response_synced(self, flow: http.HTTPFlow) -> None:
        """The `response` hook of `llmtab_fsync=always`: the end of this call waits until its line is on the disk."""
        claimed = vars(flow).get(_STATE) is not None
        Meter.response(self, flow)
        if claimed and self.setup is not None:
            if self._pending:
                await asyncio.wait([asyncio.wrap_future(job) for job in self._pending])
            await asyncio.get_running_loop().run_in_executor(None, self.setup.ledger.sync)

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
        if exchange.closed:
            if exchange.following is None or not exchange.following.tapped:
                return
            exchange = exchange.following
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
        return self._booked_lines(exchange, exchange.close(how, ended_at, body))

    def _over(self, exchange: Exchange) -> bool:
        """The last event of a stream passes: its line is written before the client sees it, and leaves."""
        asked = exchange.call.body()
        if exchange.needs_thread(asked):
            return False
        exchange.call.request_bytes = len(asked) if asked is not None else 0
        seen = exchange.close_early(time())
        if seen is not None:
            self._write(self._booked_lines(exchange, seen))
        return exchange.closed

    def _booked_lines(self, exchange: Exchange, seen: Observation | None) -> list[dict[str, Any]]:
        self._open.pop(exchange.call.id, None)
        if seen is None or self.setup is None or (seen.call.follows and not seen.reading.seen):
            return []
        lines = book(seen, self.setup.prices)
        if lines:
            lines[0] = self._retries.mark(lines[0], seen.call, seen.ended_at)
        if not lines:
            self.coverage["no usage on an unknown path"] += 1
        elif self._repeats.seen(exchange.claim.binding.role == "retrieve", lines[0]):
            self.coverage["a stored answer read again"] += 1
            return []
        return lines

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if lines and self.setup is not None:
            self.setup.ledger.append(lines)
            self._watchers.tell(lines)
            if self._upkeep.estimator is not None:
                self._upkeep.estimator.learn(lines[0])


def _has_large_body(request: http.Request) -> bool:
    length = request.headers.get("content-length")
    return int(length) > UPLOAD if length and length.isdecimal() else "transfer-encoding" in request.headers


def _is_wanted(name: bytes) -> bool:
    return attribution.is_label_name(name) or attribution.is_session_name(name)


def _no_query(_: str) -> str | None:
    return None
