"""`llmtab proxy`: what it passes on, and for whom it does not open the door."""

import socket
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmtab.cli import main


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The arguments mitmdump was started with, instead of starting it."""
    calls: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "llmtab.run.dump", SimpleNamespace(start=calls.append))
    monkeypatch.setenv("HOME", str(tmp_path))  # mitmproxy's own settings lie there
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--set", "llmtab_bugdet=1"],
            "there is no option llmtab_bugdet, did you mean llmtab_budget? (llmtab proxy --opt",
        ),
        (["--set=llmtab_bugdet=1"], "did you mean llmtab_budget?"),
        (["--set", "llmtab_ledger"], "llmtab_ledger has no value"),
        (["--set", "llmtab_budget=much"], "llmtab_budget: "),
        (["--set", "llmtab_config=bad.yaml"], "bad.yaml:1: hostz: unknown key, expected 'hosts'?"),
        (["--set", "llmtab_chain_key=short"], "short: 4 bytes, expected a random key"),
        (["--set", "confdir=conf"], "config.yaml:1: llmtab_budget: 5, expected text"),
        (["--upstream", "foo"], "--upstream foo: expected a URL like"),
        (["--upstream", "http://foo:99999"], "expected the URL of a proxy"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_start(
    started: list[list[str]],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An option that is misspelt (a budget that nobody would hold) or cannot hold stops the start with one line."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("hostz: {}\n")
    Path("short").write_text("key\n")
    Path("short").chmod(0o600)
    Path("conf").mkdir()
    Path("conf", "config.yaml").write_text("llmtab_budget: 5\n")
    assert main(["proxy", "-p", "0", *arguments]) == 1
    got = capsys.readouterr()
    assert said in got.err
    assert (got.err.count("\n"), got.out, started) == (1, "", [])


def test_options_can_be_looked_up_whatever_they_are(started: list[list[str]]) -> None:
    """`--options` shows them even where one of them is wrong."""
    assert main(["proxy", "-p", "0", "--set", "llmtab_bugdet=1", "--options"]) == 0
    assert started
