"""`llmtab run`: a program behind a proxy of its own, with its terminal, signals and status; and a true bill."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from machine import SECONDS, Machine
from proxy import free_port, until
from sdk import needs
from test_lines import ASKED, CHAT
from test_streams import CLAUDE_END, CLAUDE_START, CLAUDE_TEXT
from upstream import Upstream, reply, stream
from way_out import WayOut

OPENAI = "POST api.openai.com/v1/chat/completions"
CALL = f"""
import json, os, ssl, urllib.request
def call(url, body={ASKED!r}):
    asked = urllib.request.Request(url, json.dumps(body).encode(), {{"content-type": "application/json"}})
    with urllib.request.urlopen(asked, context=ssl.create_default_context(), timeout=20) as answer:
        return answer.read()
"""
TO_OPENAI = CALL + "print(json.loads(call('https://api.openai.com/v1/chat/completions'))['id'])"


def python(code: str) -> list[str]:
    """A Python program; urllib believes the proxy and SSL_CERT_FILE, as most clients do."""
    return [sys.executable, "-c", code]


def test_a_bill(tmp_path: Path, way: WayOut, upstream: Upstream) -> None:
    """On a fresh machine, behind a company's proxy: the call works, ledger and bill agree, and what is
    kept is the user's alone."""
    upstream.on(OPENAI, reply(CHAT))
    machine = Machine(tmp_path, way)
    done = machine.run(*python(TO_OPENAI))
    assert (done.status, done.out) == (0, "chatcmpl-A1\n"), done.err
    [line] = machine.lines()
    assert (line["outcome"], line["usage"]["input_tokens"], "labels" in line) == ("ok", 1200, False)
    bill = done.bill
    assert (bill["calls"], bill["input_tokens"], bill["output_tokens"]) == (1, 1200, 85)
    assert bill["cost_usd"] == line["cost_usd"] > 0
    assert [model["model"] for model in bill["models"]] == ["gpt-4o-mini-2024-07-18"]
    assert stat.S_IMODE(machine.ledger.parent.stat().st_mode) == 0o700


def test_the_bill_for_people(machine: Machine, upstream: Upstream) -> None:
    """Calls, tokens, cost by model, what caching saved, what failed and what was slowest; on standard error."""
    upstream.on(OPENAI, reply(CHAT))
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, 0.3, *CLAUDE_END))
    upstream.on("POST api.mistral.ai/v1/chat/completions", reply({"message": "slow down"}, 429))
    code = f"""{TO_OPENAI}
call('https://api.anthropic.com/v1/messages', {{'model': 'claude-sonnet-4-5', 'stream': True}})
try:
    call('https://api.mistral.ai/v1/chat/completions', {{'model': 'mistral-large-latest'}})
except OSError:
    pass
"""
    done = machine.llmtab("run", "--", *python(code))
    assert done.out == "chatcmpl-A1\n", done.err
    assert "llmtab: 3 calls, 2,520 tokens in (2,024 cached)" in done.err
    for said in ("gpt-4o-mini-2024-07-18 (openai)", "claude-sonnet-4-5-20250929 (anthropic)", "prompt caching saved $",
                 "not ok: 1 rate_limited", "slowest: ", "ledger.jsonl"):  # fmt: skip
        assert said in done.err, done.err
    assert machine.llmtab("run", "--quiet", "--", "true").err == ""


def test_only_this_run(machine: Machine, upstream: Upstream) -> None:
    """The bill is of this run, whatever else the ledger holds; `--bill FILE` keeps standard error for the program,
    and the file is for its owner's eyes."""
    upstream.on(OPENAI, reply(CHAT))
    machine.run(*python(TO_OPENAI))
    bill = machine.folder / "bill.json"
    done = machine.run(*python(TO_OPENAI), options=["--bill", str(bill)])
    assert done.err == ""
    assert json.loads(bill.read_text())["calls"] == 1
    assert bill.stat().st_mode & 0o077 == 0
    assert len(machine.lines()) == 2


def test_a_bill_is_not_lost(machine: Machine, upstream: Upstream) -> None:
    """Where its file cannot be written any more when the program is done, the bill is on standard error; the status is
    still the program's. A bill's file is only made when there is a bill."""
    (machine.work / "out").mkdir()
    done = machine.run("sh", "-c", "ls out; rmdir out; exit 3", options=["--bill", "out/bill.json"])
    assert (done.status, done.out, done.bill["calls"]) == (3, "", 0)
    assert "--bill out/bill.json: No such file or directory" in done.err


def test_labels(machine: Machine, upstream: Upstream) -> None:
    """--label is above LLMTAB_LABELS, that above the nearest .llmtab.yaml, that above the repository's name."""
    upstream.on(OPENAI, reply(CHAT))
    (machine.folder / "work" / ".git").mkdir()
    env = {"LLMTAB_LABELS": "team=core,env=ci"}
    machine.run(*python(TO_OPENAI), options=["--label", "env=dev"], env=env)
    (machine.folder / "work" / ".llmtab.yaml").write_text("labels:\n  project: shop\n  team: web\n")
    machine.run(*python(TO_OPENAI))
    first, second = machine.lines()
    assert first["labels"] == {"project": "work", "team": "core", "env": "dev"}
    assert second["labels"] == {"project": "shop", "team": "web"}


def test_a_wrong_label_file_is_one_line(machine: Machine) -> None:
    """A .llmtab.yaml that cannot be understood: file, line and key; the program is not started."""
    (machine.folder / "work" / ".llmtab.yaml").write_text("labels:\n  Project: shop\n")
    done = machine.run("touch", "started")
    assert done.status == 125
    assert ".llmtab.yaml:2: labels.Project" in done.err
    assert not (machine.work / "started").exists()


def test_a_run_in_a_run(machine: Machine, upstream: Upstream) -> None:
    """Inside another run the same proxy serves: one line a call, and each run has its own bill."""
    upstream.on(OPENAI, reply(CHAT))
    (machine.folder / "inner.py").write_text(TO_OPENAI)
    (machine.folder / "outer.py").write_text(
        f"{TO_OPENAI}\nimport subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'llmtab.cli', 'run', '--json', '-l', 'step=2', '--bill', 'inner.json',"
        f" '--', sys.executable, {str(machine.folder / 'inner.py')!r}], check=True)\n"
    )
    done = machine.run(sys.executable, str(machine.folder / "outer.py"), options=["-l", "step=1", "-l", "team=a"])
    assert done.status == 0, done.err
    one, two = machine.lines()
    assert (one["labels"], one["writer"]) == ({"step": "1", "team": "a"}, two["writer"])
    assert {"step": "2", "team": "a"}.items() <= two["labels"].items()
    inner = json.loads((machine.work / "inner.json").read_text())
    assert (inner["calls"], inner["labels"]["run"]) == (1, two["labels"]["run"])
    assert done.bill["calls"] == 2


def test_a_proxy_with_a_ledger_of_its_own(machine: Machine, upstream: Upstream) -> None:
    """After `llmtab env` a run reads the ledger that the shell's proxy really writes, and says so where it cannot know;
    what is for a proxy of the run's own is refused, and --private, the way out it names, works."""
    upstream.on(OPENAI, reply(CHAT))
    port, team = free_port(), machine.work / "team.jsonl"
    words = [
        "proxy",
        "-p",
        str(port),
        "--set",
        f"llmtab_ledger={team}",
        "--upstream",
        machine.environment["HTTPS_PROXY"],
    ]
    words += ["--set", f"ssl_verify_upstream_trusted_ca={machine.environment['SSL_CERT_FILE']}"]
    process = subprocess.Popen(
        machine.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=machine.environment,
        cwd=machine.work, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        shell = json.loads(machine.llmtab("env", "--wait", "--json", "--proxy", f"127.0.0.1:{port}").out)
        until(lambda: bool(list((machine.ledger.parent / "running").glob("*.json"))), "the proxy's note")
        done = machine.run(*python(TO_OPENAI), env=shell)
        assert (done.bill["calls"], done.bill["ledger"], "ledger_sure" in done.bill) == (1, str(team), False), done.err
        for options in (["--ledger", "foo.jsonl"], ["--budget", "1"]):
            refused = machine.run("true", options=options, env=shell)
            assert (refused.status, "add --private" in refused.err) == (125, True)
        private = machine.run(*python(TO_OPENAI), options=["--budget", "1", "--private"], env=shell)
        assert (private.status, private.bill["calls"]) == (0, 1), private.err
        (note,) = (machine.ledger.parent / "running").glob("*.json")
        note.unlink()
        blind = machine.llmtab("run", "--", *python(TO_OPENAI), env=shell | {"LLMTAB_LEDGER": ""})
        assert "where the proxy writes is not known" in blind.err
        assert machine.run("true", env=shell | {"LLMTAB_LEDGER": ""}).bill["ledger_sure"] is False
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_status_is_the_programs(machine: Machine, command: list[str], status: int) -> None:
    """Its own status; 128 + the signal that ended it; 127 where there is no such program, 126 where it cannot run."""
    assert machine.run(*command).status == status


def test_arguments_are_left_alone(machine: Machine) -> None:
    """What follows CMD is the program's, options and `--` among it; `--` before CMD may be left out."""
    wanted = ["--json", "-l", "x", "--", "--quiet", ""]
    code = "import sys; print(sys.argv[1:])"
    assert machine.llmtab("run", "-q", "--", *python(code), *wanted).out == f"{wanted}\n"
    assert machine.llmtab("run", "-q", *python(code), *wanted).out == f"{wanted}\n"


def test_a_wrong_option_starts_nothing(machine: Machine) -> None:
    """A proxy that does not start: one line that says why, status 125, and the program is not started."""
    for options in (["--budget", "much"], ["--set", "llmtab_fsync=never"], ["--set", "llmtab_legder=x"],
                    ["--config", "gone.yaml"], ["--label", "Web"], ["--set", "nosuch=1"], ["--set", "server=false"],
                    ["--set", "llmtab_table=on"], ["--bill", "gone/bill"], ["--bill", "."]):  # fmt: skip
        done = machine.run("touch", "started", options=options)
        assert (done.status, len(done.err.splitlines())) == (125, 1), done.err
        assert options[1].partition("=")[0] in done.err or options[0] in done.err, done.err
        assert "llmtab: " not in done.err
    assert not (machine.work / "started").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program(machine: Machine, how: signal.Signals) -> None:
    """A signal sent to llmtab is the program's; the bill comes when the program has ended."""
    code = f"""
import signal, sys
signal.signal({int(how)}, lambda *_: sys.exit(42))
print("ready", flush=True)
signal.pause()
"""
    process = subprocess.Popen(
        machine.command("run", "--json", "--", *python(code)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=machine.environment, cwd=machine.work, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 42
    assert json.loads(err)["status"] == 42


def test_the_programs_terminal(machine: Machine, upstream: Upstream) -> None:
    """The program has the terminal: it sees one on all three ends, and Control-C reaches it once and ends it, not the
    proxy: the call it makes while it tidies up is still on the bill."""
    upstream.on(OPENAI, reply(CHAT))
    code = f"""{CALL}
import signal, sys, time
stops = []
signal.signal(signal.SIGINT, lambda *_: stops.append(1))
print("tty", all(os.isatty(end) for end in (0, 1, 2)), flush=True)
while not stops:
    time.sleep(0.02)
call('https://api.openai.com/v1/chat/completions')
time.sleep(0.2)
print("stops", len(stops), flush=True)
sys.exit(130)
"""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *machine.command("run", "--json", "--", *python(code))], stdin=slave,
        stdout=slave, stderr=slave, env=machine.environment, cwd=machine.work, close_fds=True,
    )  # fmt: skip
    os.close(slave)
    seen = bytearray()

    def read_to(word: bytes) -> None:
        while word not in seen:
            assert select.select([master], [], [], SECONDS)[0], seen.decode()
            seen.extend(os.read(master, 4096))

    read_to(b"tty True")
    os.write(master, b"\x03")
    read_to(b'"failed"')
    assert process.wait(30) == 130
    os.close(master)
    assert b"stops 1" in seen
    assert b'"calls":1' in seen


def test_the_proxy_ends_with_llmtab(machine: Machine) -> None:
    """Even when llmtab is killed, no proxy stays behind."""
    code = "import os, time; print(os.environ['LLMTAB_PROXY'], flush=True); time.sleep(20)"
    process = subprocess.Popen(
        machine.command("run", "--", *python(code)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=machine.environment, cwd=machine.work, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    address = process.stdout.readline().decode().strip()
    host, _, port = address.removeprefix("http://").partition(":")
    process.kill()
    process.wait()

    def gone() -> bool:
        import socket

        try:
            socket.create_connection((host, int(port)), 0.5).close()
        except ConnectionRefusedError:
            return True
        return False

    until(gone, "the proxy to end")
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()


def test_a_program_that_refuses_the_ca(machine: Machine) -> None:
    """A program that does not believe the CA is named with the bill, not left in the dark."""
    code = """
import socket, ssl, urllib.parse
proxy = urllib.parse.urlsplit(__import__("os").environ["HTTPS_PROXY"])
plain = socket.create_connection((proxy.hostname, proxy.port))
plain.sendall(b"CONNECT api.openai.com:443 HTTP/1.1\\r\\n\\r\\n"); plain.recv(4096)
import certifi
try:
    ssl.create_default_context(cafile=certifi.where()).wrap_socket(plain, server_hostname="api.openai.com")
except ssl.SSLError:
    print("refused")
"""
    done = machine.run(*python(code))
    assert done.out == "refused\n"
    assert "llmtab: the proxy said: " in done.err
    assert "api.openai.com" in done.err


@needs("openai")
def test_openai_from_a_cold_start_in_two_seconds(machine: Machine, upstream: Upstream) -> None:
    """An SDK's call under `llmtab run`, from the cold start to the bill: less than 2 s over the program's own time."""
    upstream.on(OPENAI, reply(CHAT))
    code = "import openai; client = openai.OpenAI(api_key='x', max_retries=0); "
    code += f"print(client.chat.completions.create(**{ASKED!r}).usage.total_tokens)"
    assert machine.run("true").status == 0  # the CA is made, bytecode and price table are kept: once a machine
    best = 9.0
    for _ in range(3):
        began = time.monotonic()
        done = machine.run(*python(code))
        over = time.monotonic() - began - float(done.bill["seconds"])
        assert done.out == "1285\n", done.err
        best = min(best, over)
    assert best < 2.0, best
    assert {line["cost_usd"] for line in machine.lines()} == {done.bill["cost_usd"]}
    assert isinstance(done.bill["cost_usd"], Decimal)


def test_a_budget_is_a_hard_stop(machine: Machine, upstream: Upstream) -> None:
    """--budget: the call that would go beyond it is refused and never leaves; the next run starts afresh."""
    usage = {"prompt_tokens": 8, "completion_tokens": 100, "total_tokens": 108}
    upstream.on(OPENAI, reply({**CHAT, "usage": usage}))
    code = f"""{CALL}
import urllib.error
for number in range(50):
    try:
        call('https://api.openai.com/v1/chat/completions', {{**{ASKED!r}, "max_tokens": 100}})
    except urllib.error.HTTPError as error:
        print(number, error.code)
        break
"""
    before = len(upstream.seen)
    done = machine.run(*python(code), options=["--budget", "0.001"])
    number, status = map(int, done.out.split())
    assert (status, 1 <= number < 50) == (429, True), done.err
    assert len(upstream.seen) - before == number
    assert Decimal(0) < done.bill["cost_usd"] <= Decimal("0.001")
    assert done.bill["failed"] == {"refused": 1}
    again = machine.run(*python(TO_OPENAI), options=["--budget", "0.10"])
    assert (again.status, again.bill["calls"]) == (0, 1), again.err
    least = machine.run(*python(code), options=["--budget", "0.0000001"])
    assert least.out.split() == ["0", "429"], least.err


def test_doctor_makes_a_call(machine: Machine) -> None:
    """`llmtab doctor` sends one call through a real proxy, TLS on both sides, and finds it on a ledger; the user's own
    ledger is not touched."""
    done = machine.llmtab("doctor", "--json")
    assert done.status == 0, done.out + done.err
    [call] = [finding for finding in json.loads(done.out) if finding["topic"] == "call"]
    assert call["grade"] == "ok", call
    assert machine.lines() == []


def test_doctor_names_what_stops_a_call(machine: Machine) -> None:
    """Where no proxy can start (here: a CA that is no certificate) the test call says why, and the status is 1."""
    conf = machine.folder / ".mitmproxy"
    conf.unlink()
    conf.mkdir()
    (conf / "mitmproxy-ca.pem").write_text("nonsense")
    (conf / "mitmproxy-ca-cert.pem").write_text("nonsense")
    done = machine.llmtab("doctor")
    assert done.status == 1
    assert "is no certificate" in done.out
    assert "a test call through the proxy failed" in done.out
