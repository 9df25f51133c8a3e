"""`llmtab doctor`: what it finds, and that each finding names what mends it."""

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mitmproxy.certs import CertStore

from llmtab import coverage
from llmtab.cli import main
from llmtab.clients import environment
from llmtab.doctor import Finding, files, machine, trust
from llmtab.ledger.writer import Ledger
from llmtab.run.authority import CERTIFICATE, PRIVATE, certificate, expires

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def graded(findings: Iterator[Finding], grade: str) -> list[Finding]:
    """The findings of a grade; whatever is no `ok` says what to do about it."""
    found = list(findings)
    assert [finding for finding in found if finding.grade in ("warning", "error") and not finding.mend] == []
    return [finding for finding in found if finding.grade == grade]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as mitmproxy makes it."""
    folder = tmp_path_factory.mktemp("mitmproxy")
    CertStore.from_store(folder, "mitmproxy", 2048)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of llmtab's with nothing in it, private as it should be."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("LLMTAB_HOME", str(path))
    return path


@pytest.fixture
def proxy() -> Iterator[int]:
    """A port that answers as a mitmproxy does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n<title>mitmproxy</title>")
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_the_ca(authority: Path) -> None:
    """A CA that is there is well until it is about to end, and useless after."""
    [fine] = graded(trust.authority(authority, NOW), "ok")
    assert CERTIFICATE in fine.text
    end = expires(authority / CERTIFICATE)
    [soon] = graded(trust.authority(authority, end - timedelta(days=10)), "warning")
    assert f"{end:%Y-%m-%d}" in soon.text
    [over] = graded(trust.authority(authority, end + timedelta(days=1)), "error")
    assert str(authority) in over.mend


def test_no_ca(tmp_path: Path) -> None:
    """Before the first start there is none, which is no fault."""
    [finding] = trust.authority(tmp_path, NOW)
    assert (finding.grade, finding.mend) == ("note", "llmtab run -- true")


def test_a_ca_that_others_may_read(authority: Path) -> None:
    """Whoever has the CA's key can read what trusts it."""
    key = authority / PRIVATE
    mode = key.stat().st_mode
    key.chmod(0o644)
    [finding] = graded(trust.authority(authority, NOW), "error")
    key.chmod(mode)
    assert finding.mend == f"chmod 600 {key}"


def test_the_ca_is_made_once(tmp_path: Path) -> None:
    """`llmtab env` before the first start makes the CA that the proxy will use."""
    path = certificate(tmp_path)
    before = path.read_bytes()
    assert certificate(tmp_path).read_bytes() == before
    assert (tmp_path / PRIVATE).stat().st_mode & 0o077 == 0


def test_a_shell_that_is_set_up(authority: Path, proxy: int, tmp_path: Path) -> None:
    """With all variables as `llmtab env` prints them there is nothing to say."""
    said = environment(f"http://127.0.0.1:{proxy}", authority / CERTIFICATE, {}, tmp_path)
    assert {finding.grade for finding in trust.shell(said, authority / CERTIFICATE)} == {"ok"}


@pytest.mark.parametrize(
    ("change", "grade", "said"),
    [
        ({"https_proxy": ""}, "warning", "https_proxy"),
        ({"NO_PROXY": "localhost,.openai.com"}, "error", "NO_PROXY has .openai.com"),
        ({"NO_PROXY": "*"}, "error", "NO_PROXY has *"),
        ({"NODE_USE_ENV_PROXY": ""}, "warning", "NODE_USE_ENV_PROXY"),
        ({"SSL_CERT_FILE": "/gone.pem"}, "error", "/gone.pem"),
        ({"SSL_CERT_FILE": __file__}, "error", "lacks our CA"),
        ({"SSL_CERT_FILE": ""}, "warning", "SSL_CERT_FILE is not set"),
    ],
)
def test_known_bad_combinations(
    change: dict[str, str], grade: str, said: str, authority: Path, proxy: int, tmp_path: Path
) -> None:
    """What makes clients go past the proxy or refuse it, in silence mostly, is named."""
    usual = environment(f"http://127.0.0.1:{proxy}", authority / CERTIFICATE, {}, tmp_path)
    [finding] = graded(trust.shell(usual | change, authority / CERTIFICATE), grade)
    assert said in finding.text


def test_a_dead_proxy(authority: Path) -> None:
    """A shell whose proxy has ended: every call fails until it is back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    [finding] = graded(trust.shell({"HTTPS_PROXY": url, "https_proxy": url}, authority / CERTIFICATE), "error")
    assert finding.mend == f"llmtab proxy -p {url.rpartition(':')[2]}"


def test_what_mends_a_shell_stays_with_its_proxy(authority: Path, proxy: int, tmp_path: Path) -> None:
    """The command to type is for the proxy that the shell goes through, wherever that listens."""
    url = f"http://127.0.0.1:{proxy}"
    usual = environment(url, authority / CERTIFICATE, {}, tmp_path)
    for change in ({"https_proxy": ""}, {"SSL_CERT_FILE": ""}, {"SSL_CERT_FILE": "/gone.pem"}):
        found = [finding for finding in trust.shell(usual | change, authority / CERTIFICATE) if finding.mend]
        assert [finding.mend for finding in found] == [f'eval "$(llmtab env --proxy {url})"']


def test_a_proxy_that_is_no_url(authority: Path) -> None:
    """A typing error in HTTPS_PROXY is a finding, not the end of the doctor."""
    [finding] = trust.shell({"HTTPS_PROXY": "http://127.0.0.1:abc"}, authority / CERTIFICATE)
    assert (finding.grade, "HTTPS_PROXY" in finding.text) == ("error", True)


def test_the_port(proxy: int) -> None:
    """A port that a mitmproxy holds is well; one that something else holds is not ours to take."""
    assert [finding.grade for finding in trust.port(proxy)] == ["ok"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        number = server.getsockname()[1]
        [finding] = graded(trust.port(number), "warning")
        thread.join()
    assert finding.mend == f"llmtab proxy -p {number + 1}"


def test_mitmproxys_own_settings(tmp_path: Path) -> None:
    """Settings of mitmproxy that hide LLM hosts or weaken its checks are named; others are its user's business."""
    (tmp_path / "config.yaml").write_text("ignore_hosts: ['openai']\nssl_insecure: true\nshowhost: true\n")
    found = graded(trust.settings(tmp_path), "warning")
    assert [finding.mend.split()[1] for finding in found] == ["ignore_hosts", "ssl_insecure"]


def test_a_wrong_config(home: Path) -> None:
    """A mistake in llmtab.yaml: file, line, key."""
    (home / "llmtab.yaml").write_text("timezone: Mars\n")
    [finding] = graded(files.config(None, NOW), "error")
    assert "llmtab.yaml:1: timezone" in finding.text


def test_old_prices(home: Path) -> None:
    """Prices of the table grow old."""
    [finding] = graded(files.config(None, NOW + timedelta(days=400)), "warning")
    assert "days old" in finding.text
    assert graded(files.config(None, datetime.now(UTC)), "error") == []


def line(number: int, time: str = "2026-11-21T09:00:00.000Z") -> dict[str, object]:
    """A line before it is chained."""
    return {"schema": 1, "id": f"id-{number}", "time": time, "provider": "openai", "outcome": "ok"}


@pytest.fixture
def ledger(home: Path) -> Path:
    """A ledger of five lines."""
    path = home / "ledger.jsonl"
    writer = Ledger(path)
    writer.open()
    writer.append([line(number) for number in range(5)])
    writer.close()
    return path


def test_a_healthy_ledger(ledger: Path) -> None:
    """Nothing to mend, and how many lines were looked at."""
    [finding] = files.ledger(ledger, NOW)
    assert (finding.grade, "last 5 lines are whole" in finding.text) == ("ok", True)


def test_an_altered_line(ledger: Path) -> None:
    """A changed figure in the end of the ledger shows."""
    ledger.write_bytes(ledger.read_bytes().replace(b'"id-3"', b'"id-8"'))
    found = graded(files.ledger(ledger, NOW), "error")
    assert "line 3 of writer" in found[0].text
    assert found[0].mend == f"llmtab verify {ledger}"


def test_a_torn_line(ledger: Path) -> None:
    """A line that a crash cut short, and one that was set aside before."""
    ledger.write_bytes(ledger.read_bytes() + b'{"schema":1,"id":"to')
    [torn] = graded(files.ledger(ledger, NOW), "warning")
    assert "torn (20 bytes)" in torn.text
    ledger.with_name("ledger.jsonl.torn").write_bytes(b"x\n")
    assert len(graded(files.ledger(ledger, NOW), "note")) == 1


def test_lost_lines(ledger: Path) -> None:
    """Lines that never reached the disk are in the notes, and here."""
    writer = Ledger(ledger)
    writer.open()
    writer.note("dropped", lines=7, before=0)
    writer.close()
    [finding] = graded(files.ledger(ledger, NOW), "warning")
    assert "7 lines never reached the disk" in finding.text


def test_a_clock_that_was_set_back(ledger: Path) -> None:
    """A line from the future: prices and windows would be the wrong ones."""
    [finding] = graded(files.ledger(ledger, NOW - timedelta(days=1)), "warning")
    assert "in the future" in finding.text
    assert graded(machine.clock(datetime(1970, 1, 2, tzinfo=UTC)), "error")[0].mend
    assert graded(machine.clock(NOW), "error") == []


def test_a_home_that_others_may_look_into(home: Path, ledger: Path) -> None:
    """What the proxy warns of at its start, the doctor finds as well."""
    home.chmod(0o755)
    [finding] = graded(files.ledger(ledger, NOW), "warning")
    assert finding.mend == f"chmod 700 {home}"


def test_a_ledger_that_others_may_read(ledger: Path) -> None:
    """Who called what is nobody else's business."""
    ledger.chmod(0o644)
    [finding] = graded(files.ledger(ledger, NOW), "warning")
    assert finding.mend == f"chmod 600 {ledger}"


@pytest.mark.parametrize(
    ("version", "grade"),
    [("v20.20.2", "warning"), ("v22.20.0", "warning"), ("v22.21.0", "ok"), ("v24.4.9", "warning"), ("v24.11.0", "ok"),
     ("v26.0.0", "ok"), ("v23.11.0", "warning")],
)  # fmt: skip
def test_node(version: str, grade: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Node.js that cannot be told of a proxy bypasses it without a word."""
    (tmp_path / "node").write_text(f"#!/bin/sh\necho {version}\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [finding.grade for finding in machine.node()] == [grade]


def test_this_python() -> None:
    """What the tests run on is good enough."""
    assert {finding.grade for finding in machine.python()} == {"ok"}


def test_the_verb(home: Path, ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 where something is wrong; --json for programs, --quiet only what wants mending."""
    (home / "llmtab.yaml").write_text("hostz: {}\n")
    assert main(["doctor", "--no-call", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"topic", "grade", "text", "mend"} == set(found[0])
    assert [one["topic"] for one in found if one["grade"] == "error"] == ["config"]
    assert main(["doctor", "--no-call", "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "llmtab.yaml:1" in said
    assert "Python 3" not in said
    assert main(["doctor", "--no-call", "--config", str(tmp_path / "gone.yaml")]) == 1
    assert "-> name a file that is there" in capsys.readouterr().out


def test_what_helps_against_a_blind_spot(ledger: Path) -> None:
    """Each kind has its own remedy: variables do not make a provider tell its usage."""
    now = datetime.now(UTC)
    seen = [
        [coverage.REFUSED, "api.openai.com", "node", 1],
        [coverage.NO_USAGE, "api.openai.com", "no_usage_in_stream", 3],
    ]
    writer = Ledger(ledger)
    writer.open()
    writer.note(coverage.NOTE, seen=seen)
    writer.close()
    refused, silent = graded(files.coverage(ledger, now), "warning")
    assert "llmtab run" in refused.mend
    assert "llmtab run" not in silent.mend
    assert "stream_options.include_usage" in silent.mend
    assert "llmtab_inject_usage" in silent.mend


def test_every_blind_spot_has_its_remedy(ledger: Path) -> None:
    """None that a reader is told of is without one."""
    for kind in coverage.KINDS:
        writer = Ledger(ledger)
        writer.open()
        writer.note(coverage.NOTE, seen=[[kind, "api.openai.com", "", 1]])
        writer.close()
    told = coverage.noted(ledger).told()
    assert len(graded(files.coverage(ledger, datetime.now(UTC)), "warning")) == len(told) == len(coverage.KINDS) - 2
