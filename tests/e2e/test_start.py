"""Starting: what is wrong is one clear line and a non-zero exit, what is unwise a warning, and what is right runs."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from proxy import MAIN, MITMDUMP, PATIENCE, Proxy, free_port, until
from upstream import Upstream, reply

CONFIGS = {
    "no yaml": ("hosts: [", "yaml"),
    "unknown key": ("hostz: {}", "hostz"),
    "pointer typo": ("hosts:\n  llm.example.com:\n    input_tokens: /usage/~2\n    output_tokens: /out\n", "~2"),
    "gravitee": (
        "hosts:\n  llm.example.com:\n    gravitee: {extraction: {type: NOBODY}, pricing: {type: none}}\n",
        "nobody",
    ),
}


def failed(tmp_path: Path, conf: Path, *arguments: str, command: list[str] | None = None) -> list[str]:
    """The lines that a start which fails prints, without mitmproxy's own last word; the exit status is not zero."""
    command = [*(command or [*MITMDUMP, "-s", str(MAIN), "-p", str(free_port())]), "--set", f"confdir={conf}"]
    command += ["--set", "termlog_verbosity=warn"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [line for line in lines if "logged during startup" not in line]


def one(lines: list[str]) -> str:
    """The one line there is."""
    assert len(lines) == 1, "\n".join(lines)
    return lines[0]


@pytest.mark.parametrize(
    "option", ["llmtab_intercept=some", "llmtab_table=maybe", "llmtab_fsync=never", "llmtab_by=Two words"]
)
def test_a_bad_value_stops_the_start(option: str, tmp_path: Path, conf: Path) -> None:
    """A value that an option does not know: one line with the option, the value and what was expected."""
    line = one(failed(tmp_path, conf, "--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", option))
    name, _, value = option.partition("=")
    assert name in line
    assert value in line
    assert "expected" in line


@pytest.mark.parametrize("option", ["llmtab_config", "llmtab_pricing", "llmtab_profiles"])
def test_a_missing_file_stops_the_start(option: str, tmp_path: Path, conf: Path) -> None:
    """A file that is not there: one line that names the option's path."""
    arguments = ["--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", f"{option}={tmp_path}/gone.yaml"]
    assert "gone.yaml" in one(failed(tmp_path, conf, *arguments))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_stops_the_start(name: str, tmp_path: Path, conf: Path) -> None:
    """A config that cannot be read or understood: one line with the file, the line and the key."""
    text, named = CONFIGS[name]
    (tmp_path / "llmtab.yaml").write_text(text)
    arguments = ["--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", f"llmtab_config={tmp_path}/llmtab.yaml"]
    line = one(failed(tmp_path, conf, *arguments))
    assert "llmtab.yaml:" in line
    assert named in line.lower()


def test_a_broken_price_file_stops_the_start(tmp_path: Path, conf: Path) -> None:
    """A price that is no number: one line with the file and the line."""
    (tmp_path / "prices.yaml").write_text("openai:\n  gpt-4o:\n    - input: cheap\n")
    arguments = ["--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", f"llmtab_pricing={tmp_path}/prices.yaml"]
    assert "prices.yaml:" in one(failed(tmp_path, conf, *arguments))


def test_a_ledger_that_cannot_be_written_stops_the_start(tmp_path: Path, conf: Path) -> None:
    """A ledger path that is a folder, or lies under a file: one line that names it."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "ledger.jsonl"):
        assert str(path) in one(failed(tmp_path, conf, "--set", f"llmtab_ledger={path}"))


def test_a_port_in_use_stops_the_start(proxy: Proxy, tmp_path: Path, conf: Path) -> None:
    """`llmtab proxy` on a port that is taken: one line that names the port, exit status not zero."""
    command = [sys.executable, "-m", "llmtab.cli", "proxy", "-p", str(proxy.port)]
    environment = os.environ | {"PYTHONPATH": str(MAIN.parent)}
    command += ["--set", f"llmtab_ledger={tmp_path}/other.jsonl", "--set", f"confdir={conf}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Loading script" not in line]
    assert str(proxy.port) in one([line for line in lines if "logged during startup" not in line])


def llmtab_proxy(conf: Path, *arguments: str) -> list[str]:
    """What starts `llmtab proxy` on any free port."""
    return [sys.executable, "-m", "llmtab.cli", "proxy", "-p", "0", "--set", f"confdir={conf}", *arguments]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "llmtab proxy: unrecognized arguments: --bogus (see llmtab proxy --help, mitmdump --help)"),
        (["--set", "llmtab_bugdet=1"], "did you mean llmtab_budget?"),
        (["--set", "nosuch=1"], "there is no option nosuch"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, tmp_path: Path, conf: Path) -> None:
    """`llmtab proxy` with an argument that nobody knows: what is wrong with it, and no word on how to use the proxy."""
    environment = os.environ | {"PYTHONPATH": str(MAIN.parent)}
    arguments = [*arguments, "--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", "termlog_verbosity=warn"]
    done = subprocess.run(
        llmtab_proxy(conf, *arguments), capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1
    assert said in one([line for line in (done.stdout + done.stderr).splitlines() if "during startup" not in line])


def test_how_to_use_it_is_said_when_it_listens(tmp_path: Path, conf: Path) -> None:
    """With any free port as well: the one it has got is in the line to paste."""
    environment = os.environ | {"PYTHONPATH": str(MAIN.parent)}
    process = subprocess.Popen(
        llmtab_proxy(conf, "--set", f"llmtab_ledger={tmp_path}/l.jsonl", "--set", "termlog_verbosity=warn"),
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert re.search(r'any client: eval "\$\(llmtab env --proxy http://127\.0\.0\.1:[1-9]\d+\)"', line), line


def test_the_folder_is_no_script(tmp_path: Path) -> None:
    """`mitmdump -s addon` cannot work: mitmproxy takes a file, and says so."""
    command = [*MITMDUMP, "-s", str(MAIN.parent)]
    assert "No such script" in one(failed(tmp_path, tmp_path, command=command))


def test_an_unknown_option_is_a_warning(
    start: Callable[..., Proxy], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt `llmtab_*` option, which mitmdump ignores in silence, is named in a warning; so is a variable."""
    monkeypatch.setenv("LLMTAB_LEGDER", "x")
    proxy = start("--set", "llmtab_legder=x")
    until(lambda: "llmtab_legder" in proxy.output(), "the warning")
    assert "LLMTAB_LEGDER is no option, did you mean LLMTAB_LEDGER?" in proxy.output()


def test_the_ledger_is_private(proxy: Proxy, upstream: Upstream) -> None:
    """The ledger is 0600: who called what is nobody else's business."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {}}, 500))
    proxy.call("https://api.openai.com/v1/chat/completions", {"model": "gpt-4o"})
    proxy.settled(1)
    assert proxy.ledger.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_when_told(own: Proxy, how: signal.Signals) -> None:
    """Control-C, a service manager and a closed terminal each end the proxy in good order."""
    time.sleep(0.5)  # it listens a little before it has all its signal handlers
    assert own.stop(how) == 0


def test_llmtab_proxy_meters(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """`llmtab proxy` is mitmdump with the addon, listening on this machine only; mitmdump's arguments go through."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    place = proxy.command.index("-s")
    listen = proxy.command.index("--listen-host")
    proxy.command = [sys.executable, "-m", "llmtab.cli", "proxy", *proxy.command[place + 2 : listen]]
    proxy.command += ["-p", str(proxy.port), "--set", f"confdir={conf}", "--set", f"llmtab_ledger={proxy.ledger}"]
    proxy.command += ["--set", f"ssl_verify_upstream_trusted_ca={upstream.ca}"]
    proxy.environment["PYTHONPATH"] = str(MAIN.parent)
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {}}, 500))
    with proxy:
        proxy.call("https://api.openai.com/v1/chat/completions", {"model": "gpt-4o"})
        [line] = proxy.settled(1)
        assert (line["status"], line["outcome"], line["error"]) == (500, "error", "server")
        listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, timeout=PATIENCE).stdout
        if listening:  # Linux: the local address of our port is loopback, not every interface
            assert f"0100007F:{proxy.port:04X} 00000000:0000 0A" in listening


@pytest.mark.parametrize("tool", ["mitmweb", "mitmproxy"])
def test_the_other_tools_meter_too(tool: str, upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """The same file works in mitmweb and in the console of mitmproxy, whose own screens are left alone."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    proxy.command[2] = proxy.command[2].replace("mitmdump", tool)
    if tool == "mitmweb":
        proxy.command += ["--no-web-open-browser", "--web-port", str(free_port())]
    proxy.terminal = tool == "mitmproxy"
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {}}, 500))
    with proxy:
        proxy.call("https://api.openai.com/v1/chat/completions", {"model": "gpt-4o"})
        proxy.settled(1)
    assert "ledger.jsonl" not in proxy.output()


def test_a_terminal_shows_the_table(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """mitmdump in a terminal draws the table, with the call and where the ledger is, and not its own lines between."""
    proxy = Proxy(upstream, tmp_path, conf=conf)
    proxy.terminal = True
    upstream.on("POST api.openai.com/v1/chat/completions", reply({"error": {"type": "tokens"}}, 429))
    with proxy:
        proxy.call("https://api.openai.com/v1/chat/completions", {"model": "gpt-from-tomorrow"})
        proxy.settled(1)
        until(lambda: "gpt-from-tomorrow" in proxy.output(), "the call in the table")
    assert "rate_limited" in proxy.output()
    assert "client connect" not in proxy.output().partition("no calls yet")[2]
