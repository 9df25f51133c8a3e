"""`llmtab_inject_usage`: asks OpenAI-shaped streams for their usage where the client did not, and hides what comes.

Knows which requests may be changed, and how: one member is put in front of the body's others, `Accept-Encoding` becomes
identity, and the chunk of figures that comes for it is taken out of the stream. Must not know what usage means. Flows
are handed in by the shell; with the option off none of this is imported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from llmtab.events import BIG, parse
from llmtab.exchange import Exchange
from llmtab.strip import Stripper

log = logging.getLogger("llmtab")

MEMBER: Final = b'"stream_options":{"include_usage":true},'
MOST: Final = 16 * 1024 * 1024
"""Bytes of a body that is looked at; one above BIG in a thread."""
MARK: Final = "_llmtab_injected"
SIGNS: Final = ("content-md5", "digest", "content-digest", "signature", "x-amz-content-sha256")
"""Headers that vouch for the body: a request that has one is left as it is."""
FLAG: Final = "usage_injected"
REFUSED: Final = (400, 422)

type Stream = Callable[[bytes], bytes | Iterable[bytes]]


class Injector:
    """The hooks, an addon of its own. `state`: where a flow keeps its exchange."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._refusing: set[str] = set()

    def request(self, flow: Any) -> Awaitable[None] | None:
        """The body is there and has not left: put the member in, if this is a stream that tells no usage by itself."""
        exchange, request = vars(flow).get(self._state), flow.request
        if exchange is None or flow.response is not None or not self._takes(exchange, request):
            return None
        body = request.raw_content
        if not body or len(body) > MOST or b'"stream"' not in body:
            return None
        if len(body) > BIG:
            return self._in_thread(flow, exchange, body)
        self._put(flow, exchange, injected(body))
        return None

    async def _in_thread(self, flow: Any, exchange: Exchange, body: bytes) -> None:
        """A large body is read beside the event loop; only its own call waits, for a few milliseconds."""
        self._put(flow, exchange, await asyncio.get_running_loop().run_in_executor(None, injected, body))

    def _takes(self, exchange: Exchange, request: Any) -> bool:
        """Whether this host knows the member, and nobody vouches for the body as it is."""
        binding, headers = exchange.claim.binding, request.headers
        return (
            binding.role == "billed"
            and bool(binding.dialects)
            and bool(binding.dialects[0].spec.get("include_usage"))
            and exchange.call.host not in self._refusing
            and headers.get("content-encoding", "identity") == "identity"
            and not any(name in headers for name in SIGNS)
        )

    @staticmethod
    def _put(flow: Any, exchange: Exchange, body: bytes | None) -> None:
        if body is None:
            return
        flow.request.content = body
        flow.request.headers["accept-encoding"] = "identity"
        setattr(flow, MARK, FLAG)
        told = exchange.call.later

        def later(request: Callable[[], Any], reading: Any) -> None:
            """The line says that the request was changed, and whether the client saw anything of it."""
            if told is not None:
                told(request, reading)
            reading.flags.append(vars(flow)[MARK])

        exchange.call.later = later

    def responseheaders(self, flow: Any) -> None:
        """The tap is on: behind it the chunk of figures is taken out."""
        response = flow.response
        if response is None or vars(flow).get(MARK) is None or response.status_code >= 400:
            return
        coding = response.headers.get("content-encoding", "identity")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        if coding != "identity":
            setattr(flow, MARK, f"{FLAG}:coded")  # coded all the same: it passes as it is
            return
        if "content-length" in response.headers:
            del response.headers["content-length"]
            if flow.request.http_version.startswith("HTTP/1"):
                response.headers["transfer-encoding"] = "chunked"
        response.stream = stripped(response.stream)

    def response(self, flow: Any) -> None:
        """A host that refuses the member is not sent it again."""
        response = flow.response
        if vars(flow).get(MARK) is None or response is None or response.status_code not in REFUSED:
            return
        said = response.get_content(strict=False) or b""  # some servers compress it all the same
        if b"stream_options" in said or b"include_usage" in said:
            host = flow.request.pretty_host
            self._refusing.add(host)
            log.warning("llmtab: %s refuses stream_options.include_usage: it is no longer asked for usage", host)


def injected(body: bytes) -> bytes | None:
    """The body with the member put in, or None: for what is no stream, or says itself what it wants of its stream."""
    asked = parse(body)
    if type(asked) is not dict or asked.get("stream") is not True or "stream_options" in asked:
        return None
    start = body.find(b"{") + 1
    return body[:start] + MEMBER + body[start:]


def stripped(before: Stream | bool) -> Stream:
    """The stream callable of an answer whose chunk of figures is taken out. `before`: what it passes first.

    Like the tap it never raises: then the bytes go on as they are.
    """
    feed, first = Stripper().feed, before if callable(before) else None

    def strip(chunk: bytes) -> bytes | Iterable[bytes]:
        got = chunk if first is None else first(chunk)
        pieces = [got] if isinstance(got, bytes) else list(got)
        passed = [feed(piece) for piece in pieces if piece]
        if not chunk:
            passed.append(feed(b""))
        return [piece for piece in passed if piece]  # never b"": that would end a chunked body

    return strip
