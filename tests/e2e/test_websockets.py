"""Sockets through a real mitmdump: messages reach both sides unchanged, and every response is on the ledger once."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from proxy import MAIN, Proxy, until
from socket_upstream import CUT, WAIT, Close, Script, SocketUpstream
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from llmtab.estimates.guess import Guesser
from socket_cases import Case, differences, lines, load, names, play

RESPONSES = "api.openai.com/v1/responses"
URL = f"wss://{RESPONSES}"
CASES = [name for name in names() if not name.startswith("custom/")]  # those need an llmtab.yaml
CREATE = {"type": "response.create", "model": "o4-mini", "input": []}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketUpstream]:
    with SocketUpstream(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def running(provider: SocketUpstream, conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(provider, tmp_path_factory.mktemp("sockets"), conf=conf) as proxy:  # type: ignore[arg-type]
        yield proxy
        assert "Traceback" not in proxy.output()


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.mark()
    return running


@pytest.fixture
def start(provider: SocketUpstream, conf: Path, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """`start("--set", "x=y")` starts a proxy of the test's own."""
    with contextlib.ExitStack() as stack:

        def starter(*said: str, script: Path = MAIN) -> Proxy:
            return stack.enter_context(Proxy(provider, tmp_path, *said, conf=conf, script=script))  # type: ignore[arg-type]

        yield starter


def dial(proxy: Proxy, url: str, **options: Any) -> ClientConnection:
    """A client's socket through the proxy."""
    context = ssl.create_default_context(cafile=proxy.conf / "mitmproxy-ca-cert.pem")
    # This client's reading thread takes a TLS 1.3 session ticket for a message and hangs (about once in 500 sockets).
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    options.setdefault("ssl", context)
    return connect(url, proxy=f"http://127.0.0.1:{proxy.port}", max_size=None, **options)


def target(case: Case) -> str:
    return case.url.partition("://")[2].partition("?")[0].replace("//", "/")


def script(case: Case, *, binary: bool = False) -> list[Any]:
    """The server's side of a case."""
    return [WAIT if frame.from_client else frame.data if binary else json.loads(frame.data) for frame in case.frames]


def talk(client: ClientConnection, case: Case) -> None:
    """The client's side: what it hears is what was said."""
    for frame in case.frames:
        if frame.from_client:
            client.send(frame.data.decode())
        else:
            heard = client.recv(timeout=10)
            assert json.loads(heard) == json.loads(frame.data)


@pytest.mark.parametrize("coding", ["deflate", None])
@pytest.mark.parametrize("name", CASES)
def test_each_response_gives_its_line(proxy: Proxy, provider: SocketUpstream, name: str, coding: str | None) -> None:
    """With permessage-deflate or without: the figures of the case, one line a response, before the socket ends; none
    for the upgrade."""
    case = load(name)
    provider.on(target(case), script(case))
    with dial(proxy, case.url, compression=coding, additional_headers=case.headers) as client:
        talk(client, case)
        found = proxy.settled(len(case.expect))
        assert [_but_times(line, expect) for line, expect in zip(found, case.expect, strict=True)] == [{}] * len(found)
    proxy.settled(len(case.expect), grace=0.1)
    assert [json.loads(data) for data in provider.heard] == [json.loads(f.data) for f in case.frames if f.from_client]


@pytest.mark.parametrize("name", ["google/sockets/live", "openai/sockets/responses_lanes"])
def test_binary_frames_are_read_too(proxy: Proxy, provider: SocketUpstream, name: str) -> None:
    """Gemini sends its JSON in binary frames: they arrive as such, and count as text does."""
    case = load(name)
    provider.on(target(case), script(case, binary=True))
    with dial(proxy, case.url) as client:
        talk(client, case)
    found = proxy.settled(len(case.expect))
    assert [_but_times(line, expect) for line, expect in zip(found, case.expect, strict=True)] == [{}] * len(found)


@pytest.mark.parametrize("who", ["server", "client"])
@pytest.mark.parametrize("name", CASES)
def test_a_socket_cut_at_each_message(proxy: Proxy, provider: SocketUpstream, name: str, who: str) -> None:
    """Reset after any of its messages, by either side, without a close frame: what was over is exact, what was under
    way is there once, says how it ended, and has an estimate of what its text cost."""
    case = load(name)
    wanted = []
    for count in range(1, len(case.frames) + 1):
        cut = Case(**{**vars(case), "frames": case.frames[:count], "by_client": who == "client", "orderly": False})
        provider.on(target(case), [*script(cut), *([CUT] if who == "server" else [])])
        with contextlib.suppress(ConnectionClosed), dial(proxy, case.url) as client:
            talk(client, cut)
            if who == "server":
                client.recv(timeout=10)
            else:
                time.sleep(0.05)
                client.socket.shutdown(2)
        wanted += [_said(line) for line in lines(cut, play(cut), Guesser(list).guess)]
        proxy.settled(len(wanted), grace=0)
    # What is estimated is written a moment after what is not.
    assert sorted(map(str, map(_said, proxy.settled(len(wanted))))) == sorted(map(str, wanted))


def test_a_refused_upgrade_is_an_error_that_costs_nothing(proxy: Proxy, provider: SocketUpstream) -> None:
    """What never became a socket leaves its error line, once."""
    for status in (401, 429, 500):
        provider.on(RESPONSES, status)
        with pytest.raises(InvalidStatus):
            dial(proxy, URL)
    found = proxy.settled(3)
    assert [line["status"] for line in found] == [401, 429, 500]
    assert [line["error"] for line in found] == ["auth", "rate_limited", "server"]
    assert {(line["outcome"], line["cost_usd"], line["cost_source"]) for line in found} == {
        ("error", Decimal(0), "not_billed")
    }


def test_an_idle_socket_leaves_nothing(proxy: Proxy, provider: SocketUpstream) -> None:
    """A socket on which nobody asked anything is not a call."""
    for end in ([Close(1000)], [Close(1011)], [CUT], []):
        provider.on(RESPONSES, end)
        with dial(proxy, URL) as client, contextlib.suppress(ConnectionClosed):
            if end:
                client.recv(timeout=10)
    proxy.settled(0)


def test_a_large_message_keeps_its_place(proxy: Proxy, provider: SocketUpstream) -> None:
    """Messages above 256 KiB are read aside; those behind them wait, and the lines come in their order."""
    big = {**CREATE, "instructions": "x" * 3_000_000}
    steps = [WAIT, *_answer("resp_1", text="y" * 2_000_000), WAIT, *_answer("resp_2"), WAIT, *_answer("resp_3")]
    provider.on(RESPONSES, [*steps, Close()])
    with dial(proxy, URL, compression=None) as client:
        for asked in (big, CREATE, big):
            client.send(json.dumps(asked))
            for _ in range(2):
                client.recv(timeout=10)
    found = proxy.settled(3)
    assert [line["response_id"] for line in found] == ["resp_1", "resp_2", "resp_3"]
    assert {line["request_model"] for line in found} == {"o4-mini"}
    assert [line["usage"]["input_tokens"] for line in found] == [7, 7, 7]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_proxy_that_ends(start: Callable[..., Proxy], provider: SocketUpstream, how: signal.Signals) -> None:
    """What is under way when the proxy is told to end is on the ledger, once, as aborted."""
    proxy = start()
    created, completed = _answer("resp_1")
    provider.on(RESPONSES, [WAIT, created, completed, WAIT, {**created, "response": {"id": "resp_2"}}])
    with dial(proxy, URL) as client, contextlib.suppress(ConnectionClosed):
        for count in (2, 1):
            client.send(json.dumps(CREATE))
            for _ in range(count):
                client.recv(timeout=10)
        assert proxy.stop(how) == 0
    first, second = proxy.settled(2)
    assert (first["response_id"], first["outcome"], first["usage_source"]) == ("resp_1", "ok", "reported")
    assert (second["response_id"], second["outcome"], second["usage_source"]) == ("resp_2", "aborted", "none")


def test_reloading_the_addon_keeps_open_sockets(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path
) -> None:
    """The script is reloaded while an answer is under way: it has its one line, and so has what is asked afterwards,
    and what is under way when the proxy ends."""
    checkout = tmp_path / "checkout" / "addon"  # a copy: other proxies watch the real file
    checkout.mkdir(parents=True)
    main = Path(shutil.copy(MAIN, checkout))
    (checkout / "llmtab").symlink_to(MAIN.with_name("llmtab"))
    (checkout.parent / "pricing.yaml").symlink_to(MAIN.parents[1] / "pricing.yaml")
    proxy = start(script=main)
    created, completed = _answer("resp_1")
    provider.on(RESPONSES, [WAIT, created, WAIT, completed, WAIT, *_answer("resp_2"), WAIT, _answer("resp_3")[0]])
    with dial(proxy, URL) as client, contextlib.suppress(ConnectionClosed):
        client.send(json.dumps(CREATE))
        client.recv(timeout=10)
        before = proxy.output().count("Loading script")
        now = time.time()
        os.utime(main, (now, now))
        until(lambda: proxy.output().count("Loading script") > before, "the reload")
        time.sleep(0.2)
        client.send("{}")
        client.recv(timeout=10)
        for count in (2, 1):
            client.send(json.dumps(CREATE))
            for _ in range(count):
                client.recv(timeout=10)
        proxy.stop()
    found = proxy.settled(3)
    assert [line["response_id"] for line in found] == ["resp_1", "resp_2", "resp_3"]
    assert [line["outcome"] for line in found] == ["ok", "ok", "aborted"]


def test_a_line_is_on_the_disk_before_its_last_message(start: Callable[..., Proxy], provider: SocketUpstream) -> None:
    """With `llmtab_fsync=always` a client that has heard the end of its answer finds the line in the ledger."""
    proxy = start("--set", "llmtab_fsync=always")
    for number in range(20):
        provider.on(RESPONSES, [WAIT, *_answer(f"resp_{number}")])
        with dial(proxy, URL) as client:
            client.send(json.dumps(CREATE))
            for _ in range(2):
                client.recv(timeout=10)
            assert len(proxy.lines()) == number + 1


def test_mitmdump_does_not_pile_up_messages(
    start: Callable[..., Proxy], provider: SocketUpstream, tmp_path: Path
) -> None:
    """A socket of a thousand messages holds the last one; with `-w` all of them are kept for the file."""
    look = tmp_path / "look.py"
    look.write_text(
        "def websocket_end(flow):\n"
        f"    open({str(tmp_path / 'held')!r}, 'a').write(f'{{len(flow.websocket.messages)}}\\n')\n"
    )
    for said in ([], ["-w", str(tmp_path / "flows")]):
        provider.on(RESPONSES, [*({"type": "ping", "n": n} for n in range(1000)), Close()])
        proxy = start("-s", str(look), *said)
        with dial(proxy, URL) as client, contextlib.suppress(ConnectionClosed):
            while client.recv(timeout=10):
                pass
        proxy.stop()
    held = [int(line) for line in (tmp_path / "held").read_text().split()]
    assert held == [1, 1000]
    assert (tmp_path / "flows").stat().st_size > 1000


def _answer(ident: str, text: str = "") -> Script:
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    body = {"id": ident, "model": "o4-mini-2025-04-16", "status": "completed", "instructions": text, "usage": usage}
    return [
        {"type": "response.created", "response": {**body, "instructions": "", "status": "in_progress", "usage": None}},
        {"type": "response.completed", "response": body},
    ]


def _but_times(line: dict[str, Any], expect: dict[str, Any]) -> dict[str, Any]:
    """The differences to what a case expects, times aside; prices are those that ship."""
    kept = {key: value for key, value in expect.items() if key not in ("time", "first_token", "cost_usd")}
    return differences(line, kept)


def _said(line: dict[str, Any]) -> tuple[Any, ...]:
    """What a line says, except how large a guessed prompt is: the guess depends on the calls that the proxy saw before,
    and those are another test's."""
    keys = ("api", "response_id", "request_model", "response_model", "outcome", "usage_source", "usage_reason")
    usage = dict(line.get("usage") or {})
    guessed = {"input_tokens", "total_tokens"} if "input_tokens" in line.get("estimated", ()) else ()
    return (*(line.get(key) for key in keys), {name: usage[name] if name not in guessed else "some" for name in usage})
