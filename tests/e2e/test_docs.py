"""The guides: every command in them is run, on a machine whose only way out leads to the local providers."""

import contextlib
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import node
import pytest
from answers import compose
from machine import LLMTAB, Machine
from proxy import MAIN, free_port, until
from test_lines import ASKED, CHAT
from upstream import Upstream, reply
from way_out import WayOut

from llmtab.clients import VARIABLES
from llmtab.ledger.reader import read
from llmtab.run.project import labels_at

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = ("clients.md", "agents.md")
HERE = ("llmtab", "sleep", "eval", "python", "curl", "docker", "nohup", "mitmdump", "mitmweb", "mitmproxy")
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-x", "CODEX_API_KEY": "sk-x", "GEMINI_API_KEY": "x", "OPENAI_API_KEY": "x",
    "GEMINI_CLI_TRUST_WORKSPACE": "true", "OPENAI_MODEL": "gpt-4o-mini", "OPENAI_BASE_URL": "https://api.openai.com/v1",
}  # fmt: skip
NEEDS_LOGIN = ("copilot",)
STARTS_A_PROXY = re.compile(r"(llmtab proxy|mitm\w+ -s)(?!.*&$)")
APP = f"""
import json, ssl, urllib.request
body = json.dumps({ASKED!r}).encode()
url = "https://api.openai.com/v1/chat/completions"
asked = urllib.request.Request(url, body, {{"content-type": "application/json"}})
print(json.load(urllib.request.urlopen(asked, context=ssl.create_default_context(), timeout=20))["id"])
"""
TOOL = """#!/bin/sh
# llmtab on this machine: its proxy listens on a port of the test's own, and finds its way out.
verb=$1; [ $# -gt 0 ] && shift
case "$verb $*" in
"proxy "*--upstream*|"proxy "*--reverse*) exec {llmtab} proxy -p {port} --set confdir={conf} "$@" ;;
"proxy "*) exec {llmtab} proxy -p {port} --upstream {way} --set ssl_verify_upstream_trusted_ca={ca} "$@" ;;
"env "*--proxy*) exec {llmtab} env "$@" ;;
"env "*) exec {llmtab} env --proxy http://127.0.0.1:{port} "$@" ;;
esac
exec {llmtab} "$verb" "$@"
"""
DOCKER = """#!{python}
# docker run, played on this machine: variables and mounts as asked, then the command behind the image's name.
import os, sys
words, variables, mounts = sys.argv[2:], {{}}, {{}}
while words[0].startswith("-"):
    flag = words.pop(0)
    if flag == "--rm":
        continue
    value = words.pop(0)
    if flag == "-e":
        name, _, said = value.partition("=")
        variables[name] = said
    elif flag == "-v":
        source, target, mode = value.split(":")
        assert os.path.isfile(source) and mode == "ro"
        mounts[target] = source
    else:
        assert flag in ("--network", "--add-host"), flag
told = {{name: mounts.get(value, value) for name, value in variables.items()}}
if "host.docker.internal" in told["HTTPS_PROXY"]:  # nothing here has that name
    sys.exit(0)
os.execvpe(words[1], words[1:], {{"PATH": os.environ["PATH"], **told}})
"""


def blocks(language: str) -> list[Any]:
    """(guide, code) of every code block of a language, a parameter each."""
    found = []
    for guide in GUIDES:
        codes = re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(), re.S)
        found += [pytest.param(code, id=f"{guide}:{code.splitlines()[0][:50]}") for code in codes]
    return found


def steps() -> list[Any]:
    """The `run:` lines of the CI examples, a script for each example."""
    found = [re.findall(r"- run: (.*)", block.values[0]) for block in blocks("yaml")]
    return [pytest.param("\n".join(lines) + "\n", id=lines[0][:50]) for lines in found if lines]


@pytest.fixture
def shop(machine: Machine, way: WayOut, upstream: Upstream) -> Machine:
    """A machine with a project, its programs, and `llmtab` on its PATH."""
    compose(upstream)
    (machine.work / "app.py").write_text(APP)
    shutil.copytree(MAIN.parent, machine.work / "addon", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (machine.work / "pricing.yaml").symlink_to(MAIN.parents[1] / "pricing.yaml")
    tools = machine.folder / "bin"
    tools.mkdir()
    port = free_ports()
    words = {"llmtab": " ".join(LLMTAB), "port": port, "way": way.url, "ca": upstream.ca, "conf": "~/.mitmproxy"}
    programs = {"llmtab": TOOL.format(**words), "docker": DOCKER.format(python=sys.executable)}
    for tool in ("mitmdump", "mitmweb", "mitmproxy"):
        code = f"import sys; from mitmproxy.tools.main import {tool}; {tool}(sys.argv[1:])"
        web = f"--web-port {free_port()}" if tool == "mitmweb" else ""
        programs[tool] = f'#!/bin/sh\nexec {sys.executable} -c "{code}" -p {port} {web} "$@"\n'
    programs["python"] = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    machine.environment |= KEYS | {
        "PATH": f"{tools}:{node.path()}", "GITHUB_ENV": str(machine.work / "github.env"), "TEST_PORT": str(port),
        "TERM": "xterm-256color",
    }  # fmt: skip
    return machine


def missing(code: str) -> str | None:
    """Why a block cannot be run here: its first program that is neither ours nor installed."""
    for line in code.splitlines():
        for word in re.findall(r"^(?:llmtab run .*?-- )?([a-z]+)\b", line):
            if word in NEEDS_LOGIN:
                return f"{word} needs a login"
            if word not in HERE and not node.has(word) and not shutil.which(word):
                return f"{word} is not installed"
    return None


@pytest.mark.parametrize("code", [*blocks("sh"), *steps()])
def test_a_command(code: str, shop: Machine, upstream: Upstream) -> None:
    """What the guide shows works as it stands there."""
    if program := missing(code):
        pytest.skip(program)
    if "app.py" in code or "curl" in code:  # these do not stream
        upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    endless = STARTS_A_PROXY.match(code.splitlines()[-1]) is not None
    log = shop.folder / "log"
    environment = {
        name: value for name, value in shop.environment.items() if name != "HTTPS_PROXY" or "llmtab run" in code
    }
    terminal, its = pty.openpty()
    termios.tcsetwinsize(its, (40, 120))
    threading.Thread(target=drained, args=[terminal, shop.folder / "screen"], daemon=True).start()
    with log.open("wb") as out:
        screen = its if "mitmproxy -s" in code else out  # a console tool needs a terminal
        process = subprocess.Popen(
            ["bash", "-e", "-c", code], cwd=shop.work, env=environment, stdin=its, stdout=screen, stderr=screen,
            start_new_session=True,
        )  # fmt: skip
    os.close(its)
    try:
        if endless:
            port = int(shop.environment["TEST_PORT"])
            until(lambda: process.poll() is not None or listens(port), "the proxy", log.read_text)
            time.sleep(0.5)
            assert process.poll() is None, log.read_text() + (shop.folder / "screen").read_text()
        else:
            assert process.wait(120) == 0, log.read_text()
    finally:
        end(process)
        if "cline" in code:
            node.end_leftovers(shop.work)
    if "app.py" in code and "internal" not in code:
        ledgers = [path for path in (shop.ledger, shop.work / "ledger.jsonl") if path.exists()]
        assert [line["outcome"] for path in ledgers for line in read(path)].count("ok") >= 1, log.read_text()


def drained(terminal: int, path: Path) -> None:
    """What is drawn on a terminal, into a file, until nobody has it open any more."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            file.write(data)
    os.close(terminal)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a block with all that it left in the background."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        time.sleep(0.3)
    process.wait()


def free_ports() -> int:
    """The first of four ports in a row that are free, none of those that the system gives away by itself."""
    while any(map(listens, range(port := random.randrange(20000, 30000), port + 4))):
        pass
    return port


def listens(port: int) -> bool:
    """Whether somebody does."""
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def test_the_project_file(tmp_path: Path) -> None:
    """The .llmtab.yaml of the guide is one."""
    [text] = [block.values[0] for block in blocks("yaml") if "labels:" in block.values[0]]
    (tmp_path / ".llmtab.yaml").write_text(text)
    assert labels_at(tmp_path, tmp_path) == {"project": "web", "team": "core"}


def test_every_variable_is_explained() -> None:
    """The table of variables has all that are set."""
    text = (DOCS / "clients.md").read_text()
    assert [name for name, _, _ in VARIABLES if f"`{name}`" not in text] == []
