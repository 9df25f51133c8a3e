"""`llmtab env`: the variables in each shell's language."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmtab.cli import main
from llmtab.clients import VARIABLES
from llmtab.run.announced import announce, withdraw
from llmtab.run.authority import CERTIFICATE, PRIVATE, certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as mitmproxy makes it."""
    folder = tmp_path_factory.mktemp("mitmproxy")
    certificate(folder)
    return folder


@pytest.fixture
def ca(authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A CA, and a home with a space and a quote in its name."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "ann's home"))
    for name in [variable.name for variable in VARIABLES]:
        monkeypatch.delenv(name, raising=False)
    return str(authority / CERTIFICATE)


def wanted(ca: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What it says of itself as JSON."""
    assert main(["env", "--ca", ca, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish"])
def test_a_shell_understands_it(shell: str, ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A real shell that runs the lines has every variable, spaces and quotes in values intact."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    said = wanted(ca, capsys)
    assert main(["env", "--ca", ca, "--shell", "fish" if shell == "fish" else "sh"]) == 0
    script = capsys.readouterr().out + "\nenv"
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, env=bare)
    found = dict(row.partition("=")[::2] for row in done.stdout.splitlines())
    assert {name: found.get(name) for name in said} == said


def test_undone(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--unset takes back all that was set."""
    said = wanted(ca, capsys)
    main(["env", "--ca", ca, "--shell", "sh"])
    script = capsys.readouterr().out
    main(["env", "--unset", "--shell", "sh"])
    script += capsys.readouterr().out + "env"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert set(said) & {row.partition("=")[0] for row in done.stdout.splitlines()} == set()


def test_powershell(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Quotes are doubled there."""
    main(["env", "--ca", ca, "--shell", "powershell"])
    said = capsys.readouterr().out.splitlines()
    assert "$env:HTTPS_PROXY = 'http://127.0.0.1:8080'" in said
    assert any("ann''s home" in line for line in said)


def test_labels(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels ride on the proxy's user; LLMTAB_PROXY, for `llmtab run`, is without them."""
    main(["env", "--ca", ca, "--json", "--label", "project=web", "--proxy", "10.0.0.5:3128"])
    said = json.loads(capsys.readouterr().out)
    assert (said["HTTPS_PROXY"], said["LLMTAB_PROXY"]) == (
        "http://+project=web:x@10.0.0.5:3128",
        "http://10.0.0.5:3128",
    )


def test_docker(tmp_path: Path, ca: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for `docker run $(...)`: the network, one bundle for all CA variables, and no variable of this machine's
    paths; a path with a space, which $(...) cannot carry, is an error that says so."""
    assert main(["env", "--ca", ca, "--docker"]) == 1
    assert "has a space" in capsys.readouterr().err
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSL_CERT_FILE", "/somewhere/on/this/machine.pem")
    assert main(["env", "--ca", ca, "--docker"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    words = line.split()
    assert words[:2] == ["--network", "host"]
    source, target, mode = words[words.index("-v") + 1].split(":")
    assert (Path(source).read_bytes().endswith(Path(ca).read_bytes()), mode) == (True, "ro")
    assert f"SSL_CERT_FILE={target}" in words
    assert "machine.pem" not in line
    main(["env", "--ca", ca, "--docker", "--proxy", "http://host.docker.internal:8080"])
    assert "--add-host host.docker.internal:host-gateway" in capsys.readouterr().out


def in_shell(*steps: list[str], env: dict[str, str]) -> dict[str, str]:
    """The environment of a shell that has evaluated what `llmtab env` printed at each step."""
    words = [shlex.join([sys.executable, "-m", "llmtab.cli", "env", "--shell", "sh", *step]) for step in steps]
    script = "".join(f'eval "$({word})"\n' for word in words) + "env -0"
    root = str(Path(__file__).parents[1] / "addon")
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "LLMTAB_HOME": os.environ["LLMTAB_HOME"]}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=bare | env)
    return dict(one.partition("=")[::2] for one in done.stdout.split("\0") if one)


def test_what_was_there_before_comes_back(ca: str) -> None:
    """A company's proxy and roots are there again after --unset, even if `llmtab env` was evaluated twice."""
    own = {
        "HTTPS_PROXY": "http://ann:x@corp:3128",
        "NO_PROXY": "corp",
        "SSL_CERT_FILE": ca,
        "LLMTAB_LEDGER": "/l.jsonl",
    }
    step = ["--ca", ca, "--label", "a=b"]
    between = in_shell(step, step, env=own)
    assert between["HTTPS_PROXY"] == "http://+a=b:x@127.0.0.1:8080"
    after = in_shell(step, step, ["--unset"], env=own)
    assert {name: after.get(name) for name in own} == own
    assert {name for name in after if name.startswith("LLMTAB_")} == {"LLMTAB_HOME", "LLMTAB_LEDGER"}
    assert set(after) & {variable.name for variable in VARIABLES} == {"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"}


def test_what_llmtab_did_not_set_is_not_unset(ca: str) -> None:
    """--unset leaves alone what the user has set, without `llmtab env` or after it."""
    own = {"HTTPS_PROXY": "http://corp:3128", "SSL_CERT_FILE": "/corp.pem", "NO_PROXY": "corp"}
    after = in_shell(["--unset"], env=own)
    assert {name: after.get(name) for name in own} == own
    running = {"LLMTAB_PROXY": "http://127.0.0.1:8080", "https_proxy": "http://127.0.0.1:8080"}
    after = in_shell(["--unset"], env=own | running)
    assert {name: after.get(name) for name in [*own, *running]} == own | dict.fromkeys(running)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--proxy", "nonsense:"], "--proxy: expected the URL of a proxy"),
        (["--proxy", "http://127.0.0.1:99999"], "--proxy: expected the URL of a proxy"),
        (["--proxy", "ftp://corp"], "--proxy: expected the URL of a proxy"),
        (["--ca", "/etc/passwd"], "--ca /etc/passwd: expected the proxy's certificate"),
        (["--ca", "/gone.pem"], "/gone.pem: No such file"),
        (["--unset", "--json"], "not with --json"),
        (["--unset", "--docker"], "not with --docker"),
    ],
)
def test_nothing_is_printed_for_nonsense(
    ca: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error, and nothing for `eval`."""
    assert main(["env", "--ca", ca, *arguments]) > 0
    got = capsys.readouterr()
    assert (got.out, got.err.count("\n")) == ("", 1)
    assert said in got.err


def test_the_cas_key_is_given_to_nobody(ca: str, authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mitmproxy's file of certificate and key lies beside the certificate; its key would be in every bundle."""
    assert main(["env", "--ca", str(authority / PRIVATE)]) == 1
    assert "has a private key in it" in capsys.readouterr().err


def test_waiting_in_vain_prints_nothing(
    ca: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --wait the variables are of a proxy that answers, or there are none."""
    monkeypatch.setattr("llmtab.verbs.env.WAIT_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert main(["env", "--ca", ca, "--wait", "--proxy", url]) == 1
    assert capsys.readouterr().out == ""


def test_the_proxys_own_ledger(ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A proxy on this machine is asked where it writes."""
    note = announce([("127.0.0.1", 8080)], tmp_path / "team.jsonl")
    assert wanted(ca, capsys)["LLMTAB_LEDGER"] == str(tmp_path / "team.jsonl")
    withdraw(note)
    assert "LLMTAB_LEDGER" not in wanted(ca, capsys)
