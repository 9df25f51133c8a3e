"""`llmtab proxy`: what it passes on, and for whom it does not open the door."""

import socket
import sys
from itertools import pairwise
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


def test_the_table_groups_by_the_word_that_is_asked_for(started: list[list[str]]) -> None:
    """`--by project` is the option llmtab_by; without it the table groups as llmtab.yaml and the options say."""
    assert main(["proxy", "-p", "0", "--by", "project"]) == 0
    assert main(["proxy", "-p", "0"]) == 0
    assert ["llmtab_by=project" in command for command in started] == [True, False]


def test_more_doors(started: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """--reverse and --upstream add modes beside the usual one, each announced with how to use it; a password for the
    way out is mitmproxy's option and not in the mode."""
    arguments = ["--reverse", "openai@0", "--reverse", "https://llm.example.com@0"]
    assert main(["proxy", "-p", "0", *arguments]) == 0
    assert main(["proxy", "-p", "0", "--upstream", "http://ann:secret@corp:3128", "--reverse", "openai@0"]) == 0
    first, second = started
    assert [value for word, value in pairwise(first) if word == "--mode"] == [
        "regular", "reverse:https://api.openai.com@0", "reverse:https://llm.example.com@0",
    ]  # fmt: skip
    assert "upstream:http://corp:3128" in second
    assert "upstream_auth=ann:secret" in second
    assert "secret" not in capsys.readouterr().out


def test_nothing_is_printed_of_what_passes(started: list[list[str]]) -> None:
    """mitmdump would print URLs, keys in their queries among them: not unless it is asked to."""
    main(["proxy", "-p", "0"])
    main(["proxy", "-p", "0", "--flow-detail", "2"])
    assert "flow_detail=0" in started[0]
    assert "flow_detail=0" not in started[1]


@pytest.mark.parametrize("arguments", [["-p", "99999"], ["--reverse", "openai@99999"]])
def test_no_such_port(started: list[list[str]], capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A port that cannot be is one line."""
    assert main(["proxy", *arguments]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("llmtab proxy: ")
    assert not started


def test_a_door_that_is_taken(started: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """The port of any mode in use is one line, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert main(["proxy", "-p", "0", "--reverse", f"openai@{taken}"]) == 1
    assert str(taken) in capsys.readouterr().err
    assert started == []
