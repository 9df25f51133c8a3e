"""Nothing private on disk or screen: secrets in every place a call has, and a search of all that was written."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from canary import USAGE, Nest, request_body, request_headers, sent, socketed, sse, torn
from proxy import HERE, MAIN, PATIENCE, Proxy
from upstream import Answer, Upstream, reply

CHAT = "https://api.openai.com/v1/chat/completions"
SETTINGS = {
    "default": [],
    "debug": ["termlog_verbosity=debug", "llmtab_intercept=all", "llmtab_warn_usd=0.000001", "llmtab_fsync=always"],
    "table": ["llmtab_intercept=all"],
}


def private(upstream: Upstream, conf: Path, tmp_path: Path, setting: str) -> Proxy:
    """A proxy whose every file lies under `tmp_path`: home, temporary files, ledger, logs."""
    options = [part for option in SETTINGS[setting] for part in ("--set", option)]
    # mitmdump's own lines name whole URLs; with the table on they are off, else they are switched off here.
    quiet = [] if setting == "table" else ["--set", "flow_detail=0"]
    (tmp_path / "run").mkdir()
    proxy = Proxy(upstream, tmp_path / "run", "-s", str(HERE / "ours.py"), *quiet, *options, conf=conf)
    proxy.terminal = setting == "table"
    for name in ("HOME", "LLMTAB_HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        proxy.environment[name] = str(tmp_path / name)
    proxy.environment["LLMTAB_TEST_LOG"] = str(tmp_path / "ours.log")
    return proxy


def printed(proxy: Proxy, *verb: str) -> bytes:
    """What a verb prints about the proxy's ledger."""
    command = [sys.executable, "-m", "llmtab.cli", *verb, "--ledger", str(proxy.ledger)]
    done = subprocess.run(
        command, capture_output=True, timeout=60, env=proxy.environment | {"PYTHONPATH": str(MAIN.parent)}
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_secret_is_written_anywhere(setting: str, upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Prompts, completions, keys, cookies, queries, uploads, ids and errors: none in any file or on the screen."""
    nest, gate = Nest(), threading.Event()
    before = len(upstream.seen)
    with private(upstream, conf, tmp_path, setting) as proxy:
        statuses = list(sent(nest, upstream, proxy))
        assert len(statuses) >= 30
        torn(nest, upstream, proxy)
        assert nest.found(socketed(nest, upstream, proxy)) != []
        steps = sse(nest, "killed", gate)
        upstream.on(
            "POST api.openai.com/v1/chat/completions",
            Answer(steps, 200, [("content-type", "text/event-stream")], "chunked"),
        )
        asked = request_body(nest, "killed", model="gpt-4o-mini", stream=True)
        url = f"{CHAT}?key={nest.put('killed: query')}"
        with proxy.open(url, asked, request_headers(nest, "killed")) as response:
            assert nest.found(response.read1()) != []
            status = proxy.stop(signal.SIGTERM)
        gate.set()
    assert status == 0
    lines = proxy.lines()
    assert len(lines) >= 20
    assert lines[-1]["outcome"] == "aborted"
    assert any(line["labels"] == {"project": "allowed"} for line in lines if "labels" in line)
    arrived = repr(upstream.seen[before:]).encode()
    assert len(nest.found(arrived)) > 300, "the canaries were not sent"
    assert nest.in_files(tmp_path) == {}
    for verb in (["tail", "-n", "99"], ["tail", "-n", "99", "--json"], ["verify"]):
        assert nest.found(printed(proxy, *verb)) == []
    assert "Traceback" not in proxy.output()
    if setting == "table":
        assert "/v1/chat/completions" not in proxy.output(), "mitmdump prints URLs beside the table"
    key = tmp_path / "LLMTAB_HOME" / "key"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o077) in ((0o600, 0), (0o600, 0o055))


MAPPED = """
attribution:
  fields:
    end_user: request:/user
    feature: {take: [request:/metadata/user_id, request:/safety_identifier], hash: true}
    tier: {take: request_header:x-custom-secret, hash: true}
rules:
  - match: {system: "(?i)^kanari", tools: kanari, header: {x-session-token: "*"}, label: {consumer: alice}}
    labels: {intent: support}
"""


@pytest.mark.parametrize("setting", ["default", "debug"])
def test_only_what_is_mapped_is_kept(setting: str, upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Of passwords, users and metadata only the field that llmtab.yaml takes is on disk; what is hashed, and what a
    rule only looks at, is not."""
    nest = Nest()
    with private(upstream, conf, tmp_path, setting) as proxy:
        proxy.stop(signal.SIGTERM)
    (tmp_path / "LLMTAB_HOME" / "llmtab.yaml").write_text(MAPPED)
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"id": "c", "model": "gpt-4o", "usage": USAGE}))
    with proxy:
        proxy.user = f"alice:{nest.put('password of the proxy')}"
        for scheme in ("https", "http"):
            body = request_body(nest, scheme, model="gpt-4o")
            headers = [pair for pair in request_headers(nest, scheme)[:-2] if pair[0] != "proxy-authorization"]
            assert proxy.call(f"{scheme}://api.openai.com/v1/chat/completions", body, headers).status == 200
        lines = proxy.settled(2)
        proxy.stop(signal.SIGTERM)
    for line in lines:
        found = line["labels"]
        assert (found["consumer"], found["intent"]) == ("alice", "support")
        assert nest.names[found["end_user"]].endswith("request user")
        assert {found["feature"][:2], found["tier"][:2]} == {"u_"}
    wanted = sorted(f"{scheme}: request user" for scheme in ("https", "http"))
    written = nest.in_files(tmp_path)  # the log says a call's labels too
    assert written["ledger.jsonl"] == wanted
    assert {place for places in written.values() for place in places} == set(wanted)


def test_a_killed_proxy_leaves_no_secret(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """SIGKILL in mid-stream and a torn last line: what the next start sets aside and writes holds no secret either."""
    nest, gate = Nest(), threading.Event()
    with private(upstream, conf, tmp_path, "default") as proxy:
        steps = sse(nest, "killed", gate)
        upstream.on(
            "POST api.openai.com/v1/chat/completions",
            Answer(steps, 200, [("content-type", "text/event-stream")], "chunked"),
        )
        asked = request_body(nest, "killed", model="gpt-4o-mini", stream=True)
        with proxy.open(CHAT, asked, request_headers(nest, "killed")) as response:
            assert nest.found(response.read1()) != []
            os.kill(proxy.process.pid, signal.SIGKILL)
            proxy.process.wait(PATIENCE)
        gate.set()
    with proxy.ledger.open("ab") as ledger:
        ledger.write(b'{"schema":1,"id":"torn')
    with proxy:
        torn(nest, upstream, proxy)
    assert [line["outcome"] for line in proxy.lines()] == ["broken"]
    assert nest.in_files(tmp_path) == {}
