"""The shell: mitmproxy's options and hooks, nothing else. The only room that imports mitmproxy's flows.

Knows when mitmproxy calls what, and hands bytes, headers and times on. Must not know what they mean. Nothing here may
harm the traffic: the stream tap swallows every error, hooks only read, and the one change to a request is taking off
what was meant for us: labels, and who the client is to the proxy.
"""

import asyncio
import gc
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from time import time
from typing import Final

from mitmproxy import ctx, exceptions, http, tls
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import server_hooks

from llmtab import retries
from llmtab.attribution import agents
from llmtab.attribution import labels as attribution
from llmtab.attribution.ladder import Ladder
from llmtab.batches.brake import brake
from llmtab.batches.desk import Batches, Fetch
from llmtab.coverage import exempted
from llmtab.desk import Desk
from llmtab.exchange import Exchange
from llmtab.headers import Picker
from llmtab.observation import Answer, Call
from llmtab.passing import is_large, is_stream, streams
from llmtab.profiles import GUESS, SOCKET, Claim
from llmtab.record import new_id
from llmtab.rounds import Rounds
from llmtab.setup import Setup, declare_options
from llmtab.sockets.desk import SocketDesk
from llmtab.tap import tapped
from llmtab.upkeep import Upkeep, warn_of_age
from llmtab.watch import Watchers

log = logging.getLogger("llmtab")

TCP_TIMEOUT: Final = 3600
"""Seconds. mitmproxy cuts a connection after 600 s of silence, and a slow model is silent for longer than that."""
_ANSWER_HEADERS: Final = frozenset({b"content-type", b"content-encoding"})
_CALL_HEADERS: Final = frozenset({b"content-type", b"content-encoding"}) | attribution.HEADERS | retries.HEADERS
_IS_OURS: Final = re.compile(f"{attribution.PREFIX.decode()}|{attribution.PROXY_USER.decode()}$").match
_NO_QUERY: Final[dict[str, str]] = {}
_STATE: Final = "_llmtab_exchange"
_BATCH: Final = "_llmtab_batch"
_USER: Final = "_llmtab_user"
"""Of a client connection: who it said it is when it asked for a tunnel."""


class Meter:
    """The addon: one exchange a claimed call, one finaliser for every way a call can end."""

    name = "llmtab"
    request: Callable[[http.HTTPFlow], None]  # there only while estimates are on: a hook that is absent costs nothing

    def __init__(self) -> None:
        self._pickers: dict[frozenset[bytes], tuple[Picker, Picker]] = {}
        self._stream_all = False
        self._exempt: Callable[[str], bool] | None = None
        """Whether mitmproxy was told to leave a `host:port` alone; None where it was told of none."""
        self._ticker: asyncio.Task[None] | None = None
        self._rounds = Rounds()
        self._watchers = Watchers()
        self._upkeep = Upkeep()
        self.desk = Desk(self._watchers.tell, self._upkeep)
        self.sockets = SocketDesk(self.desk)
        self.batches = Batches(self.desk)

    # -- life ----------------------------------------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        declare_options(loader.add_option)
        self._watchers.declare_commands(loader.add_command)

    def configure(self, updated: set[str]) -> None:
        """Read what changed. At the start an error stops the start; later the last good set-up stays in force."""
        self._stream_all = bool(ctx.options.stream_large_bodies)
        self.sockets.look_at(ctx.master, ctx.options)
        self._exempt = exempted(ctx.options.ignore_hosts, ctx.options.allow_hosts)
        if self.desk.setup is not None and not any(name.startswith("llmtab_") for name in updated):
            return
        try:
            self._put_in_force(Setup.read(ctx.options, self.desk.setup))
        except (ValueError, OSError) as error:
            if self.desk.setup is not None:
                raise exceptions.OptionsError(f"llmtab: {error}") from None
            # One clear line; an error in the log before `running` is over is what ends mitmproxy's start with status 1.
            log.error("llmtab: %s", error)

    def _put_in_force(self, setup: Setup) -> None:
        """From here on this set-up holds; calls under way keep the profiles they were claimed by."""
        self.desk.guard = self._upkeep.guard(setup, self.desk.guard)
        self.desk.setup = setup
        setup.ledger.keep_by(setup.policy)
        self._ladder = Ladder(setup.config.sections, setup.labels, setup.config.key_names, setup.fingerprints)
        self._pickers.clear()
        vars(self).pop("response", None)
        if setup.ledger.fsync == "always":
            vars(self)["response"] = self._response_synced  # an instance's own hook: the other modes pay nothing for it
        vars(self).pop("request", None)
        if self._upkeep.switch(setup):
            self.request = self._estimate
        self.sockets.install(self)
        vars(self).pop("responseheaders", None)
        vars(self).pop("addons", None)
        if helpers := self._upkeep.helpers(setup, _STATE):
            vars(self)["addons"] = helpers
        if self.desk.guard is not None:
            self.desk.guard.install(self, _STATE, http.Response.make, _tell_client)

    def running(self) -> None:
        for name in ctx.options.deferred:
            if name.startswith("llmtab_"):
                log.warning("llmtab: there is no option %s; see mitmdump --options", name)
        if getattr(ctx.options, "tcp_timeout", TCP_TIMEOUT) == ctx.options.default("tcp_timeout"):
            ctx.options.update(tcp_timeout=TCP_TIMEOUT)
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):  # a closed terminal would end the process without a word
            loop.add_signal_handler(signal.SIGHUP, ctx.master.shutdown)
        if self.desk.setup is not None:
            self._watchers.start(ctx.master, ctx.options, self.desk.setup)
            warn_of_age(self.desk.setup)
        self._ticker = loop.create_task(self._tick())
        # Profiles and prices are tens of thousands of objects that live as long as the process: without this every full
        # collection would walk them again, at the expense of the traffic.
        gc.collect()
        gc.freeze()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            if (setup := self.desk.setup) is not None:
                self._rounds.go(setup.ledger.tick, self._look, self.batches.tick, self.desk.tick, self._show)

    def _look(self) -> None:
        if self.desk.setup and (edited := self._upkeep.tick(self.desk.setup, self._watchers.note)):
            self._put_in_force(edited)

    def _show(self) -> None:
        if self.desk.guard is not None:
            self._watchers.limits(self.desk.guard.bars())
        if self.desk.setup is not None:
            self._watchers.tick(self.desk.setup.ledger, self.desk.calls.values(), self.desk.coverage)

    def done(self) -> None:
        """At shutdown every open call gets its line now (mitmproxy's error hooks come later); on a reload they
        live on."""
        if self._ticker is not None:
            self._ticker.cancel()
        asked = getattr(ctx.master, "should_exit", None)
        exiting = asked is None or asked.is_set()
        self.sockets.finish(time(), sockets=exiting)
        self.batches.finish()
        self.desk.finish(calls=exiting)
        if self.desk.guard is not None:
            self.desk.guard.close()
        if self.desk.setup is not None:
            self._watchers.stop(self.desk.setup.ledger, self.desk.coverage, exiting=exiting)
            self.desk.setup.ledger.close()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """Only LLM hosts are decrypted; every other connection passes through opaque."""
        setup = self.desk.setup
        if setup is None or setup.intercept_all or type(data.context.client.proxy_mode).__name__ == "ReverseMode":
            return
        address = data.context.server.address or ("", 443)
        host = (data.client_hello.sni or address[0]).lower()
        if not setup.profiles.at_host(host, address[1]):
            data.ignore_connection = True
            self.desk.coverage.passed(host)

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """A client broke off: as a rule it does not trust our CA. Which one it was, its request for a tunnel tells."""
        setup, address = self.desk.setup, data.context.server.address or ("", 443)
        host = (data.conn.sni or address[0]).lower()
        if setup is not None and (setup.intercept_all or setup.profiles.at_host(host, address[1])):
            asked = (getattr(layer, "flow", None) for layer in data.context.layers)
            agents_of = (flow.request.headers.get("user-agent", "") for flow in asked if flow is not None)
            peer = data.context.client.peername or ("",)
            self._watchers.warn(self.desk.coverage.refused_ca(host, peer[0], next(agents_of, "")))

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Who a client says it is when it asks for a tunnel. Nobody has to say it, and the header goes no further."""
        user = next(iter(flow.metadata.get("proxyauth", ())), None)
        user = user or attribution.proxy_user(flow.request.headers.get("proxy-authorization"))
        if user:
            setattr(flow.client_conn, _USER, user)
        setup, host, port = self.desk.setup, flow.request.host.lower(), flow.request.port
        exempt = self._exempt is not None and self._exempt(f"{host}:{port}")
        if exempt and setup is not None and setup.profiles.at_host(host, port):
            self.desk.coverage.tunnelled(host)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.desk.nested.connected(data.server)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        setup, request = self.desk.setup, flow.request
        if setup is None or flow.is_replay == "response":
            return
        claim, host = self._claim(setup, request)
        if claim is not None and claim.binding.batch is not None:
            setattr(flow, _BATCH, self.batches.open(self._call(setup, flow, claim, host), claim))
            return
        if claim is None or claim.binding.role == "not_billed":
            attribution.take_labels(request.headers)
            if claim is None and setup.profiles.at_host(request.data.host.lower(), request.data.port):
                self.desk.coverage.unknown_path(host)
            if is_large(request.headers.get("content-length"), request.headers.get("transfer-encoding")):
                request.stream = True
            return
        exchange = Exchange(self._call(setup, flow, claim, host), claim, self.desk.memory)
        setattr(flow, _STATE, exchange)
        if claim.binding.profile == GUESS:
            self._watchers.mention(host)
        self.desk.open(exchange)

    @staticmethod
    def _claim(setup: Setup, request: http.Request) -> tuple[Claim | None, str]:
        """The claim for a request, and the host by the name it was claimed under."""
        data = request.data
        method, path = data.method.decode("ascii", "replace"), data.path.decode("utf-8", "replace")
        if method == "GET" and request.headers.get("upgrade", "").lower() == "websocket":
            method = SOCKET
        claim = setup.profiles.match(data.host, data.port, method, path)
        if claim is None or claim.binding.profile == GUESS:
            named = request.pretty_host  # transparent modes know the name only from the Host header
            if named != data.host:
                return setup.profiles.match(named, data.port, method, path) or claim, named
        return claim, data.host

    def _call(self, setup: Setup, flow: http.HTTPFlow, claim: Claim, host: str) -> Call:
        request, data = flow.request, flow.request.data
        headers = self._pickers_for(claim)[0].pick(data.headers.fields)
        labels, user = {}, vars(flow.client_conn).get(_USER)
        if any(map(_IS_OURS, headers)):
            said = attribution.take_labels(request.headers)
            labels = said if self._ladder.believes_headers else {}
            user = attribution.proxy_user(headers.pop("proxy-authorization", None)) or user
        if flow.metadata:
            user = next(iter(flow.metadata.get("proxyauth", ())), user)
        peer = flow.client_conn.peername
        client = {"address": peer[0]} if peer else {}
        query = request.query.get if b"?" in data.path else _NO_QUERY.get
        if key := setup.fingerprints.of(headers, query("key")):
            client["key"] = key
        began, method = data.timestamp_start, data.method.decode("ascii", "replace")
        call = Call(
            new_id(int(began * 1e9)), host, method, claim.path, began, headers, lambda: flow.request.raw_content, query,
            labels, client, server=(data.host, data.port),
        )  # fmt: skip
        self._ladder.climb(call, claim.binding.provider, user)
        return call

    def _pickers_for(self, claim: Claim) -> tuple[Picker, Picker]:
        """What picks the headers of a request and of its answer that this claim's profile, or we, want to see."""
        names = claim.binding.headers
        pair = self._pickers.get(names)
        if pair is None:
            asks = Picker(_CALL_HEADERS | names | self._ladder.headers, _is_wanted)
            pair = self._pickers[names] = asks, Picker(_ANSWER_HEADERS | names)
        return pair

    def _estimate(self, flow: http.HTTPFlow) -> None:
        """The `request` hook: what this call is expected to cost, before it leaves."""
        exchange, estimator, setup = vars(flow).get(_STATE), self._upkeep.estimator, self.desk.setup
        if exchange is not None and setup is not None and estimator is not None:
            size = flow.request.headers.get("content-length", "")
            exchange.call.estimate = estimator.before(exchange.call, exchange.claim, size, setup.prices, time())

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Whatever streams is streamed on every decrypted host; a claimed call's stream is tapped."""
        response, exchange = flow.response, vars(flow).get(_STATE)
        if response is None:
            return
        if exchange is None:
            if (fetch := vars(flow).get(_BATCH)) is not None:
                self._fetched(flow, response, fetch)
            if not response.stream and is_stream(response.headers.get("content-type", "")):
                response.stream = True
            return
        data = response.data
        headers = self._pickers_for(exchange.claim)[1].pick(data.headers.fields)
        exchange.answer = Answer(data.status_code, headers, data.timestamp_start)
        if response.stream or self._streams(flow, exchange, headers.get("content-type", "")):
            response.stream = tapped(exchange, response.stream, self.desk.over)

    def _fetched(self, flow: http.HTTPFlow, response: http.Response, fetch: Fetch) -> None:
        """The head of what may be a batch's results."""
        headers = self._pickers_for(fetch.claim)[1].pick(response.data.headers.fields)
        answer = Answer(response.status_code, headers, response.data.timestamp_start)
        stop = brake(ctx.master.addons.get("proxyserver"), flow.client_conn, lambda: flow.server_conn)
        response.stream = fetch.answered(answer, response.headers.get("content-range", ""), response.stream, stop)

    def _streams(self, flow: http.HTTPFlow, exchange: Exchange, content_type: str) -> bool:
        if self._stream_all or is_stream(content_type):
            return True
        if flow.response is None or flow.response.status_code >= 400:
            return False
        return exchange.claim.binding.stream or streams(content_type, flow.request.raw_content or b"")

    def response(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        if flow.response is None:
            return None
        exchange = vars(flow).pop(_STATE, None)  # it reads the flow's request: no ring of references after this
        if exchange is None:
            if (fetch := vars(flow).pop(_BATCH, None)) is not None:
                fetch.close(complete=True, body=flow.response.raw_content)
            return None
        if flow.websocket is not None and exchange.claim.binding.socket:
            self.sockets.upgrade(flow, exchange, self._ladder, vars(flow.client_conn).get(_USER))
            return None
        body = None if exchange.tapped else flow.response.raw_content
        ended_at = flow.response.timestamp_end or time()
        return self.desk.close(exchange, "complete", ended_at, body)

    async def _response_synced(self, flow: http.HTTPFlow) -> None:
        """The `response` hook of `llmtab_fsync=always`: the end of this call waits until its line is on the disk."""
        claimed = not vars(flow).keys().isdisjoint((_STATE, _BATCH))
        Meter.response(self, flow)
        if claimed and self.desk.setup is not None:
            await self.batches.written()
            await self.desk.written()
            await asyncio.get_running_loop().run_in_executor(None, self.desk.setup.ledger.sync)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = vars(flow).pop(_STATE, None)
        if exchange is not None:
            left = flow.client_conn.timestamp_end is not None or not flow.client_conn.connected
            unsent = exchange.claim.binding.socket or flow.server_conn.timestamp_tcp_setup is None
            exchange.unsent = not exchange.tapped and unsent
            killed = flow.error is not None and flow.error.msg == flow.error.KILLED_MESSAGE
            self.desk.close(exchange, "aborted" if left or killed else "broken", time(), None)
        elif (fetch := vars(flow).pop(_BATCH, None)) is not None:
            fetch.close(complete=False, body=None)


def _tell_client(flow: http.HTTPFlow, frame: bytes) -> None:
    ctx.master.commands.call("inject.websocket", flow, True, frame)


def _is_wanted(name: bytes) -> bool:
    return attribution.is_ours(name) or agents.is_session_name(name)
