"""Whose call it is, through a real mitmdump: the proxy's user, labels of a run, rules, agents, fields, keys' names."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxy import PATIENCE, Proxy, until
from upstream import Upstream, reply

from llmtab.attribution import keynames

CHAT_PATH = "api.openai.com/v1/chat/completions"
MESSAGES_PATH = "api.anthropic.com/v1/messages"
CHAT = {"id": "c1", "model": "gpt-4o-mini-2024-07-18", "usage": {"prompt_tokens": 12, "completion_tokens": 5}}
MESSAGE = {
    "type": "message", "id": "m1", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
UUID = "0b1c7f3e-8d52-4c1c-9a45-3c7a1f0e9d11"

type Start = Callable[..., Proxy]


@pytest.fixture(autouse=True)
def answers(upstream: Upstream) -> None:
    upstream.on(f"POST {CHAT_PATH}", reply(CHAT))
    upstream.on(f"POST {MESSAGES_PATH}", reply(MESSAGE))


@pytest.fixture
def named(upstream: Upstream, conf: Path, tmp_path: Path) -> Callable[..., Proxy]:
    """`named("llmtab.yaml's text", "--set", "x=y", LLMTAB_LABELS="a=b")` makes a proxy that is still to be started."""

    def make(yaml: str = "", *options: str, **variables: str) -> Proxy:
        path = tmp_path / "llmtab.yaml"
        path.write_text(yaml)
        proxy = Proxy(upstream, tmp_path, "--set", f"llmtab_config={path}", *options, conf=conf)
        proxy.environment |= {"LLMTAB_HOME": str(tmp_path / "home"), **variables}
        return proxy

    return make


def labels(proxy: Proxy, url: str = f"https://{CHAT_PATH}", body: Any = ASKED, headers: Any = ()) -> dict[str, str]:
    """The labels on the line of one call."""
    proxy.mark()
    assert proxy.call(url, body, headers).status == 200
    [line] = proxy.settled(1, grace=0)
    found: dict[str, str] = line.get("labels", {})
    return found


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_the_proxy_user(scheme: str, own: Proxy, upstream: Upstream) -> None:
    """`HTTPS_PROXY=http://alice+project=web:x@...` says who calls, nobody has to say it, and it goes no further."""
    url = f"{scheme}://{CHAT_PATH}"
    assert labels(own, url) == {}
    own.user = "alice+project=web:the secret password"
    assert labels(own, url) == {"consumer": "alice", "project": "web"}
    assert labels(own, url, headers=[("x-llmtab-project", "api")]) == {"project": "api", "consumer": "alice"}
    seen = upstream.seen[-1].headers
    assert [name for name in seen if "proxy" in name or "llmtab" in name] == []
    own.user = ""
    assert labels(own, url) == {}
    assert "password" not in own.ledger.read_text() + own.output()


def test_the_user_of_an_unknown_path_goes_no_further(own: Proxy, upstream: Upstream) -> None:
    """Also where there is nothing to meter the provider does not see who the client is to the proxy."""
    own.user = "alice:the secret password"
    own.call("http://api.openai.com/v1/nobody/knows", ASKED)
    own.call("http://www.example.com/page", ASKED)
    assert [seen.path for seen in upstream.seen[-2:]] == ["/v1/nobody/knows", "/page"]
    assert all("proxy-authorization" not in seen.headers for seen in upstream.seen[-2:])


def test_a_user_who_has_to_say_a_password(start: Start, upstream: Upstream) -> None:
    """With mitmproxy's own `proxyauth` the user that it found is the consumer."""
    proxy = start("--set", "proxyauth=alice:secret")
    proxy.user = "alice:secret"
    for scheme in ("https", "http"):
        assert labels(proxy, f"{scheme}://{CHAT_PATH}") == {"consumer": "alice"}
    proxy.user = "alice:wrong"
    assert proxy.call(f"http://{CHAT_PATH}", ASKED).status == 407


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_says_who_it_is(own: Proxy, tmp_path: Path) -> None:
    """A real client that is told of the proxy by HTTPS_PROXY with a user in it."""
    told = own.environment | {"HTTPS_PROXY": f"http://alice+team=blue%20team:x@127.0.0.1:{own.port}"}
    ca, body = own.conf / "mitmproxy-ca-cert.pem", json.dumps(ASKED)
    command = ["curl", "-sf", "--cacert", ca, f"https://{CHAT_PATH}", "-d", body]
    subprocess.run(command, env=told, check=True, capture_output=True, timeout=PATIENCE)
    [line] = own.settled(1)
    assert line["labels"] == {"consumer": "alice", "team": "blue team"}


def test_labels_of_a_run(named: Callable[..., Proxy]) -> None:
    """`llmtab_labels` labels every call; LLMTAB_LABELS is its default, and a call's own words win."""
    with named("", LLMTAB_LABELS="project=shop, env=ci") as proxy:
        assert labels(proxy) == {"project": "shop", "env": "ci"}
        assert labels(proxy, headers=[("x-llmtab-env", "dev")]) == {"env": "dev", "project": "shop"}
    with named("", "--set", "llmtab_labels=project=web", LLMTAB_LABELS="project=shop") as proxy:
        assert labels(proxy) == {"project": "web"}


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (("LLMTAB_LABELS", "web"), "llmtab_labels: 'web', expected labels like project=web"),
        (("LLMTAB_ESTIMATE", "perhaps"), "LLMTAB_ESTIMATE: 'perhaps', expected true or false"),
    ],
)
def test_a_wrong_variable_stops_the_start(named: Callable[..., Proxy], variable: tuple[str, str], said: str) -> None:
    """A mistake in LLMTAB_LABELS, or in any variable, is one clear error, and the proxy does not start."""
    proxy = named("", **dict([variable]))
    done = subprocess.run(proxy.command, env=proxy.environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


RULES = """
attribution:
  fields:
    end_user: {take: [request:/user], hash: true}
    feature: request_header:x-feature
rules:
  - match: {label: {consumer: [alice, bob]}}
    labels: {team: growth}
  - match: {host: "*.anthropic.com", agent: claude-cli/*}
    labels: {project: coding}
  - match: {system: "(?i)customer support"}
    labels: {intent: support}
  - match: {address: 127.0.0.0/8, model: gpt-4o*}
    labels: {env: laptop}
"""


def test_rules_and_fields(named: Callable[..., Proxy]) -> None:
    """Rules of llmtab.yaml give labels by user, host, agent, address, model and system prompt; fields take values."""
    with named(RULES) as proxy:
        assert labels(proxy) == {"env": "laptop"}
        proxy.user = "alice:x"
        body = ASKED | {
            "user": "jane@example.com",
            "messages": [{"role": "system", "content": "You are a Customer Support agent."}],
        }
        found = labels(proxy, body=body, headers=[("X-Feature", "search")])
        person = found.pop("end_user")
        assert found == {
            "consumer": "alice", "team": "growth", "env": "laptop", "intent": "support", "feature": "search",
        }  # fmt: skip
        assert person.startswith("u_")
        proxy.user = ""
        claude = [("user-agent", "claude-cli/2 (x)")]
        found = labels(proxy, f"https://{MESSAGES_PATH}", {"model": "claude-sonnet-4-5"}, claude)
        assert found == {"project": "coding", "agent": "claude-code"}
        whole = proxy.ledger.read_text()
    assert "jane" not in whole
    assert "Customer" not in whole


def test_label_headers_can_be_disbelieved(named: Callable[..., Proxy], upstream: Upstream) -> None:
    """With `headers: off` a client's labels are not believed, and still go no further."""
    with named("attribution: {headers: off}\n") as proxy:
        assert labels(proxy, headers=[("x-llmtab-project", "web")]) == {}
        assert "x-llmtab-project" not in upstream.seen[-1].headers


def test_an_edit_of_rules_holds_at_once(named: Callable[..., Proxy], tmp_path: Path) -> None:
    """Rules and names of keys are picked up while the proxy runs; a mistake leaves the last good ones in force."""
    with named("rules: [{labels: {project: one}}]\n") as proxy:
        assert labels(proxy) == {"project": "one"}
        (tmp_path / "llmtab.yaml").write_text("rules: [{labels: {project: two}}]\n")
        until(lambda: labels(proxy) == {"project": "two"}, "the edit")
        (tmp_path / "llmtab.yaml").write_text("rules: [{labels: {Project: three}}]\n")
        until(lambda: "rules.0.labels.Project" in proxy.output(), "the complaint", proxy.output)
        assert labels(proxy) == {"project": "two"}
        (tmp_path / "llmtab.yaml").write_text("{}\n")
        key = [("authorization", "Bearer sk-ci")]
        until(lambda: labels(proxy, headers=key) == {}, "the next edit")
        fingerprint = proxy.lines()[-1]["client"]["key"]
        keynames.put(tmp_path / "home" / "keys.yaml", fingerprint, "ci bot")
        until(lambda: labels(proxy, headers=key) == {"consumer": "ci bot"}, "the name")
        assert labels(proxy) == {}


AGENTS: list[tuple[str, list[tuple[str, str]], dict[str, Any], dict[str, str]]] = [
    (f"https://{MESSAGES_PATH}?beta=true", [("user-agent", "claude-cli/2.1.329 (external, sdk-cli)")],
     {"metadata": {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": UUID})}},
     {"agent": "claude-code", "session": UUID}),
    (f"https://{MESSAGES_PATH}", [("user-agent", "claude-cli/2.1 (x)"), ("x-claude-code-session-id", UUID),
                                  ("x-claude-code-agent-type", "Explore")],
     {"metadata": {"user_id": "somebody@example.com"}},
     {"agent": "claude-code", "session": UUID, "subagent": "Explore"}),
    (f"https://{CHAT_PATH}", [("user-agent", "QwenCode/0.24.4 (linux; x64)")], {"metadata": {"sessionId": UUID}},
     {"agent": "qwen-code", "session": UUID}),
    (f"https://{CHAT_PATH}", [("user-agent", "codex_exec/0.169.0 (Debian)"), ("session-id", UUID),
                              ("x-openai-subagent", "review")],
     {}, {"agent": "codex", "session": UUID, "subagent": "review"}),
    (f"https://{CHAT_PATH}", [("user-agent", "opencode/1.18"), ("x-session-id", "ses_4f7c1a2b3c")],
     {}, {"agent": "opencode", "session": "ses_4f7c1a2b3c"}),
    (f"https://{CHAT_PATH}", [("user-agent", "OpenAI/Python 3.52.0")], {"metadata": {"sessionId": UUID}}, {}),
]  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
def test_sessions_of_agents(large: bool, proxy: Proxy) -> None:
    """Known agents' calls have their name and session, from headers or the body, of large bodies as well."""
    text = "x" * (400_000 if large else 10)
    for url, headers, body, expected in AGENTS:
        asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **body}
        assert labels(proxy, url, asked, headers) == expected


def test_a_large_body_does_not_wait_for_its_labels(named: Callable[..., Proxy]) -> None:
    """A rule that looks into bodies delays no answer: a large one is read beside the traffic."""
    with named('rules: [{match: {system: "support"}, labels: {intent: support}}]\n') as proxy:
        asked = ASKED | {"system": "support", "messages": [{"role": "user", "content": "x" * 8_000_000}]}
        assert labels(proxy, body=asked) == {"intent": "support"}
        began = time.monotonic()
        assert labels(proxy, body=ASKED | {"system": "support"}) == {"intent": "support"}
        assert time.monotonic() - began < 2
