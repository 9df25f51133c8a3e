"""`llmtab proxy`: what it passes on, and for whom it does not open the door."""

import sys
from types import SimpleNamespace

import pytest

from llmtab.cli import main


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments mitmdump was started with, instead of starting it."""
    calls: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "mitmproxy.tools.main", SimpleNamespace(mitmdump=calls.append))
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen-host", "0.0.0.0"],
        ["--listen-host", "192.168.1.5"],
        ["--listen-host", "::"],
        ["--listen-host", ""],
        ["--listen-host", "0.0.0.0", "--proxyauth", "any"],
        ["--mode", "regular@0.0.0.0:8081"],
    ],
)
def test_an_open_proxy_is_refused(
    started: list[list[str]], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Listening beyond this machine without asking who is there is refused, with both ways out named."""
    assert main(["proxy", *arguments]) == 1
    assert started == []
    error = capsys.readouterr().err
    assert "--proxyauth" in error
    assert "--insecure-open-proxy" in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--listen-host", "127.0.0.2"],
        ["--listen-host", "::1"],
        ["--listen-host", "localhost"],
        ["--listen-host", "0.0.0.0", "--proxyauth", "ann:secret"],
        ["--listen-host", "0.0.0.0", "--set", "proxyauth=@users.htpasswd"],
        ["--listen-host", "0.0.0.0", "--insecure-open-proxy"],
        ["--mode", "reverse:https://api.openai.com@127.0.0.1:8082"],
    ],
)
def test_a_closed_one_starts(started: list[list[str]], arguments: list[str]) -> None:
    """On this machine, with a password, or with the flag that says so, it starts; mitmdump never sees the flag."""
    assert main(["proxy", "-p", "0", *arguments]) == 0
    [command] = started
    assert "--insecure-open-proxy" not in command
