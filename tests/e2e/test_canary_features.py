"""Nothing private on disk or screen: sockets, batch files, estimates, asked-for usage, budgets and their alerts."""

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from batch_files import chat, jsonl, part, whole
from canary import Nest, answer_body, error_body, request_body, request_headers, response_headers, sse
from machine import Machine
from proxy import Proxy, until
from socket_upstream import CUT, WAIT, SocketUpstream
from test_canary import CHAT, printed, private
from test_websockets import dial
from upstream import Answer, Upstream, reply
from websockets.exceptions import ConnectionClosed

OPENAI = "POST api.openai.com/v1/chat/completions"
CONFIG = """
budgets:
  - {{name: each, limit: 0.000001 USD per day, per: [consumer], match: {{model: gpt-4o}}}}
alerts:
  webhook: http://127.0.0.1:{port}/hook
  headers: {{x-hook-key: {key}}}
  command: [{python}, -c, "import sys; open({out!r}, 'a').write(sys.stdin.read())"]
"""
VERBS: tuple[list[str], ...] = (
    ["tail", "-n", "99", "--json"], ["tail", "--by-session"], ["top", "--json"], ["doctor", "--json"], ["verify"],
    ["price", "--estimates"], ["key", "list"],
)  # fmt: skip


def check_nothing_is_told(nest: Nest, proxy: Proxy, folder: Path) -> None:
    """No canary in a file, a file's name or what a verb prints; and no file that others may read."""
    assert nest.in_files(folder) == {}
    for verb in VERBS:
        assert nest.found(printed(proxy, *verb)) == [], verb
    assert "Traceback" not in proxy.output()
    ours = [proxy.ledger, *proxy.folder.glob("ledger*"), *(folder / "LLMTAB_HOME").rglob("*")]
    wide = {path.name: oct(path.stat().st_mode) for path in ours if path.is_file() and path.stat().st_mode & 0o077}
    assert wide == {}


def batch_item(nest: Nest, number: int, **over: Any) -> dict[str, Any]:
    """One line of a result file, with a canary in everything that is the caller's own."""
    item = chat(number, nest.put("batch: answer"), custom_id=nest.put("batch: custom id"), **over)
    item[nest.put("batch: key")] = nest.put("batch: value")
    return item


def test_batches_estimates_and_budgets(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Items, custom ids, texts that are counted, requests that are changed, refusals and what alerts say of them."""
    nest, said = Nest(), tmp_path / "said.txt"
    proxy = private(upstream, conf, tmp_path, "default")
    proxy.command += ["--set", "llmtab_inject_usage=true", "--set", "llmtab_estimate=true"]
    key = "not-a-canary"
    config = tmp_path / "LLMTAB_HOME" / "llmtab.yaml"
    config.touch(0o600)
    config.write_text(CONFIG.format(port=upstream.plain_port, key=key, python=sys.executable, out=str(said)))
    target = f"POST 127.0.0.1:{upstream.plain_port}/hook"
    upstream.on(target, reply({}))
    before = len(upstream.seen)
    with proxy:
        for what in ("guessed", "asked"):
            kind = [("content-type", "text/event-stream"), *response_headers(nest, what)]
            upstream.on(OPENAI, Answer(sse(nest, what, b"data: [DONE]\n\n"), 200, kind, "chunked"))
            body = request_body(nest, what, model="gpt-4o-mini", stream=True)
            if what == "guessed":
                body["stream_options"] = {}
            assert proxy.call(CHAT, body, request_headers(nest, what)).status == 200
        upstream.on(OPENAI, Answer([json.dumps(error_body(nest, "refuses")).encode()], 400))
        proxy.call(CHAT, request_body(nest, "refuses", model="gpt-4o-mini", stream=True))
        failed = {"status_code": 400, "request_id": "req-x", "body": error_body(nest, "batch")}
        file = jsonl(
            [batch_item(nest, 0), batch_item(nest, 1), batch_item(nest, 2, response=failed), {"x": nest.put("odd")}]
        )
        for answer in (whole(file), part(file, len(file) // 2, len(file)), whole(file[:-30])):
            upstream.on("GET api.openai.com/v1/files/file-1/content", answer)
            url = f"https://api.openai.com/v1/files/file-1/content?after={nest.put('batch: query')}"
            proxy.call(url, headers=request_headers(nest, "batch"), method="GET")
        proxy.user = f"bob:{nest.put('password')}"
        upstream.on(OPENAI, reply(answer_body(nest, "over")))
        headers = [pair for pair in request_headers(nest, "over") if pair[0] != "proxy-authorization"]
        refused = proxy.call(CHAT, request_body(nest, "over", model="gpt-4o"), headers)
        assert refused.status == 429
        assert nest.found(refused.body + repr(refused.headers.items()).encode()) == []
        until(said.exists, "the alert")
        until(lambda: any(each.path == "/hook" for each in upstream.seen[before:]), "the webhook")
        proxy.stop(signal.SIGTERM)
    [hook] = [each for each in upstream.seen[before:] if each.path == "/hook"]
    assert json.loads(hook.body)["bucket"] == {"consumer": "bob"}
    assert nest.found(hook.body + repr(hook.headers).encode()) == []
    sources = [line["usage_source"] for line in proxy.lines()]
    assert "estimated" in sources and sources.count("reported") >= 2
    assert any("usage_injected" in line.get("flags", ()) for line in proxy.lines())
    assert len(nest.found(repr(upstream.seen[before:]).encode())) > 50
    check_nothing_is_told(nest, proxy, tmp_path)


def test_sockets(conf: Path, tmp_path: Path) -> None:
    """Instructions, input, tools, deltas, transcripts and errors on sockets; also of a response that is cut short and
    of frames that no proxy understands."""
    nest = Nest()
    where = nest.put
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    asked = [
        {"type": "session.update", "session": {"instructions": where("instructions"), "user": where("session user")}},
        {"type": "response.create", "event_id": where("event"), "response": {
            "instructions": where("own instructions"), "metadata": {where("key"): where("value")},
            "tools": [{"type": "function", "name": where("tool"), "description": where("tool text")}],
            "input": [{"type": "message", "content": [{"type": "input_text", "text": where("input")}]}]}},
        {"type": where("unknown type"), where("unknown key"): where("unknown value")},
        {"type": "input_audio_buffer.append", "audio": where("sound")},
        {"type": "response.create", "response": {"instructions": where("more instructions")}},
    ]  # fmt: skip

    def answered(ident: str, **more: Any) -> dict[str, Any]:
        message = {"type": "message", "content": [{"type": "text", "text": where(f"{ident}: output")}]}
        return {"id": ident, "object": "realtime.response", "output": [message], "status": "completed",
                "metadata": {where(f"{ident}: key"): where(f"{ident}: value")}, **more}  # fmt: skip

    def delta(ident: str) -> dict[str, Any]:
        return {"type": "response.text.delta", "response_id": ident, "item_id": "item_1", "delta": where("delta")}

    said = [
        {"type": "session.created", "session": {"id": where("session id"), "instructions": where("default")}},
        {"type": "response.created", "response": answered("resp_1", status="in_progress", usage=None)},
        delta("resp_1"),
        {"type": "response.done", "response": answered("resp_1", usage=usage)},
        {"type": "error", "error": {"type": where("error type"), "code": where("code"), "message": where("message")}},
        {"type": "conversation.item.input_audio_transcription.completed", "transcript": where("transcript"),
         "item_id": "item_1", "usage": {"type": "tokens", **usage}},
        {"type": "response.created", "response": answered("resp_2", status="in_progress", usage=None)},
        *(delta("resp_2") for _ in range(30)),
    ]  # fmt: skip
    with SocketUpstream(tmp_path / "up" if (tmp_path / "up").mkdir() is None else tmp_path) as provider:
        provider.on(
            "api.openai.com/v1/realtime", [WAIT] * len(asked) + [*said, b"\xff" + where("odd").encode(), 0.2, CUT]
        )
        with private(provider, conf, tmp_path, "debug") as proxy:  # type: ignore[arg-type]
            url = f"wss://api.openai.com/v1/realtime?model=gpt-realtime&key={where('query')}"
            headers = [
                pair for pair in request_headers(nest, "socket") if pair[1].isascii() and pair[0] != "user-agent"
            ]
            with contextlib.suppress(ConnectionClosed), dial(proxy, url, additional_headers=headers) as client:
                for message in asked:
                    client.send(json.dumps(message))
                while True:
                    client.recv(timeout=10)
            until(lambda: len(proxy.lines()) >= 3, "the lines")
            proxy.stop(signal.SIGTERM)
    lines = proxy.lines()
    assert {"ok", "broken"} <= {line["outcome"] for line in lines}, lines
    assert len(nest.found(json.dumps([str(each) for each in provider.heard]).encode())) > 10
    check_nothing_is_told(nest, proxy, tmp_path)


def test_a_run_and_its_bill(machine: Machine, upstream: Upstream) -> None:
    """What a program says to a provider, and to its own proxy, stands neither on its bill nor in any file."""
    nest = Nest()
    upstream.on(OPENAI, Answer([json.dumps(error_body(nest, "run")).encode()], 429))
    upstream.on("POST api.anthropic.com/v1/messages", reply(answer_body(nest, "run")))
    asked = request_body(nest, "run", model="gpt-4o-mini")
    headers = dict(request_headers(nest, "run")[: -len(("user-agent", "project", "bad"))])
    places = [f"{CHAT}?key={nest.put('run: query')}", f"https://api.anthropic.com/v1/messages?{nest.put('run: name')}"]
    code = f"""
import json, ssl, urllib.request
for url in {places!r}:
    headers = {{"content-type": "application/json", **{headers!r}}}
    asked = urllib.request.Request(url, {json.dumps(asked)!r}.encode(), headers)
    try:
        urllib.request.urlopen(asked, context=ssl.create_default_context(), timeout=20).read()
    except OSError as error:
        assert error.code == 429
"""
    bill = machine.folder / "bill.json"
    for options in (["--json"], [f"--bill={bill}", "--label=team=x"], ["--budget=0.00001"]):
        done = machine.llmtab("run", *options, "--", sys.executable, "-c", code)
        assert nest.found((done.out + done.err).encode()) == [], done.err
        assert done.status == 0, done.err
    assert len(machine.lines()) == 6
    assert nest.in_files(machine.folder) == {}
