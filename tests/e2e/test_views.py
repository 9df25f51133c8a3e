"""What a user sees while the proxy runs, and what the proxy says it does not see."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from proxy import PATIENCE, Proxy, free_port, until
from upstream import Upstream, reply, stream

from llmtab.coverage import Gap, noted
from llmtab.ledger.reader import notes_path
from llmtab.ledger.verify import verify

CHAT = "https://api.openai.com/v1/chat/completions"
CHUNK = {"id": "c1", "model": "gpt-4o-2024-08-06", "choices": [{"index": 0, "delta": {"content": "hello"}}]}
LAST = {"id": "c1", "model": "gpt-4o-2024-08-06", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


def handshake(proxy: Proxy, host: str, agent: str = "") -> bool:
    """Asks for a tunnel and shakes hands as a client without our CA; whether it found a certificate that it trusts."""
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as plain:
        named = f"User-Agent: {agent}\r\n" if agent else ""
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{named}\r\n".encode())
        head = plain.recv(4096)
        assert b" 200 " in head
        try:
            with ssl.create_default_context().wrap_socket(plain, server_hostname=host):
                return True
        except ssl.SSLError:
            return False


def test_a_client_that_refuses_our_ca_is_named(own: Proxy) -> None:
    """A client without our CA is told of in the log at once, with the variable to set, and noted for other programs."""
    assert not handshake(own, "api.openai.com", "curl/8.5.0")
    assert not handshake(own, "api.openai.com", "curl/8.5.0")
    assert not handshake(own, "api.anthropic.com")
    until(lambda: "CURL_CA_BUNDLE" in own.output() and "NODE_EXTRA_CA_CERTS" in own.output(), "the hints", own.output)
    assert "api.openai.com refused our CA (curl at 127.0.0.1)" in own.output()
    own.stop()
    assert noted(own.ledger).gaps == {
        Gap("refused_ca", "api.openai.com", "curl"): 2,
        Gap("refused_ca", "api.anthropic.com"): 1,
    }
    assert "127.0.0.1" not in notes_path(own.ledger).read_text()


def test_what_is_tunnelled_or_looks_like_an_llm_is_counted(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """LLM hosts that `ignore_hosts` keeps from us, unknown hosts that look like one, and calls without usage: counted,
    and nothing of it but hosts and reasons is written down."""
    proxy = start("--ignore-hosts", r"api\.anthropic\.com")
    handshake(proxy, "api.anthropic.com")
    handshake(proxy, "llm.example.com")
    handshake(proxy, "www.example.com")
    upstream.on("POST api.openai.com/v1/chat/completions", stream(CHUNK, b"data: [DONE]\n\n"))
    upstream.on("GET api.openai.com/v1/secret/path", reply({}))
    proxy.call(CHAT, {"model": "gpt-4o", "stream": True})
    proxy.call("https://api.openai.com/v1/secret/path?key=secret", method="GET")
    proxy.settled(1)
    proxy.stop()
    assert noted(proxy.ledger).gaps == {
        Gap("tunnelled", "api.anthropic.com"): 1,
        Gap("unknown_host", "llm.example.com"): 1,
        Gap("no_usage", "api.openai.com", "no_usage_in_stream"): 1,
        Gap("unknown_path", "api.openai.com"): 1,
    }
    assert "secret" not in notes_path(proxy.ledger).read_text()
    assert verify(proxy.ledger).ok


def test_mitmweb_answers_the_commands(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """In mitmweb no table is drawn: `llmtab.summary` and `llmtab.tail` answer, and the log says that they do."""
    proxy, port = Proxy(upstream, tmp_path, conf=conf), free_port()
    proxy.command[2] = proxy.command[2].replace("mitmdump", "mitmweb")
    proxy.command += ["--no-web-open-browser", "--web-port", str(port), "--set", "web_password=test"]
    proxy.command += ["--set", "llmtab_by=provider"]
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {}}, 429))

    def command(name: str, *arguments: str) -> list[str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/commands/{name}?token=test",
            json.dumps({"arguments": arguments}).encode(),
            {"Content-Type": "application/json", "Cookie": "_mitmproxy_xsrf=x", "X-XSRFToken": "x"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found = json.load(answer)
        assert "error" not in found, found
        return list(found["value"])

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return True
        return False

    with proxy:
        until(answers, "mitmweb's own page")
        assert command("llmtab.tail") == ["no calls yet"]
        proxy.call(CHAT, {"model": "gpt-4o"})
        proxy.settled(1)
        summary = command("llmtab.summary")
        assert "1 call" in summary[0]
        assert any(line.startswith("openai ") for line in summary)
        [line] = command("llmtab.tail", "5")
        assert "error rate_limited" in line
        assert "commands: llmtab.summary, llmtab.tail" in proxy.output()
    assert "─" * 20 not in proxy.output()


def test_the_console_answers_the_commands(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """In mitmproxy's console the commands are typed behind a colon, and open what they tell; no table is drawn."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    proxy.command[2] = proxy.command[2].replace("mitmdump", "mitmproxy")
    proxy.terminal = True
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {"type": "tokens"}}, 429))
    with proxy:
        until(lambda: "llmtab meters" in proxy.output(), "the status line", proxy.output)
        proxy.call(CHAT, {"model": "gpt-from-tomorrow"})
        proxy.settled(1)
        proxy.type(":llmtab.tail\r")
        until(lambda: "error rate_limited" in proxy.output(), "the last calls", proxy.output)
        proxy.type("q:llmtab.summary\r")
        until(lambda: re.search(r"1 call\b", proxy.output()) is not None, "the sums", proxy.output)


def test_a_call_in_flight_is_on_the_screen(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """While a stream runs, its row shows what has come so far; when it is over, the line takes its place. Grouped by
    the word that was asked for."""
    proxy, go_on = Proxy(upstream, tmp_path, "--set", "llmtab_by=project", conf=conf), threading.Event()
    proxy.terminal = True
    upstream.on("POST api.openai.com/v1/chat/completions", stream(CHUNK, CHUNK, go_on, LAST, b"data: [DONE]\n\n"))
    with proxy:
        labels = [("x-llmtab-project", "web-shop")]
        with proxy.open(CHAT, {"model": "gpt-4o", "stream": True}, labels) as answer:
            until(lambda: re.search(r"1st \d+m?s, 2", proxy.output()) is not None, "the live row", proxy.output)
            assert "gpt-4o-2024-08-06" in proxy.output()
            go_on.set()
            answer.read()
        proxy.settled(1)
        until(lambda: "1 call" in proxy.output(), "the line", proxy.output)
    groups = proxy.output().rpartition("project  ")[2]
    assert "web-shop" in groups
    assert "today " in proxy.output()


def test_a_stuck_terminal_delays_no_stream(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Nobody reads what the table draws (Ctrl-S, a suspended window): calls go on as quickly as ever, and the proxy
    stops when it is told to."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    proxy.terminal = True
    upstream.on("POST api.openai.com/v1/chat/completions", stream(CHUNK, 0.02, LAST, b"data: [DONE]\n\n"))
    slowest = 0.0
    with proxy:
        until(lambda: "no calls yet" in proxy.output(), "the table")
        proxy.stick()
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            began = time.monotonic()
            proxy.call(CHAT, {"model": "gpt-4o" + "x" * 60, "stream": True})
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.0
        assert proxy.stop() == 0
