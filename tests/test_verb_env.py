"""`llmtab env`: the variables in each shell's language."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llmtab.cli import main
from llmtab.clients import VARIABLES

CA = b"-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A CA, and a home with a space and a quote in its name."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "ann's home"))
    for name in [variable.name for variable in VARIABLES]:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "ca.pem"
    path.write_bytes(CA)
    return str(path)


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
    assert (Path(source).read_bytes().endswith(CA), mode) == (True, "ro")
    assert f"SSL_CERT_FILE={target}" in words
    assert "machine.pem" not in line
    main(["env", "--ca", ca, "--docker", "--proxy", "http://host.docker.internal:8080"])
    assert "--add-host host.docker.internal:host-gateway" in capsys.readouterr().out
