"""The command line: every verb explains itself, fails in one line, and says by its exit status what happened."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmtab import __version__
from llmtab.cli import _parser, main

ROOT = Path(__file__).parents[1]
LINE = {
    "schema": 1,
    "id": "0190a0b0-0000-7000-8000-000000000001",
    "writer": "w",
    "seq": 0,
    "time": "2026-07-28T10:11:12.345Z",
    "provider": "openai",
    "api": "openai.chat",
    "status": 200,
    "request_model": "gpt-4o",
    "outcome": "ok",
    "usage": {"input_tokens": 5, "output_tokens": 7},
    "usage_source": "reported",
    "cost_usd": 0.0001,
    "cost_source": "list",
    "timing": {"duration_ms": 1200},
    "chain": "0" * 64,
}


def verbs() -> list[str]:
    """Every verb there is."""
    return list(_parser()[1].choices)


def llmtab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the command in a process of its own."""
    command = [sys.executable, "-m", "llmtab.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "addon", timeout=60)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab VERB --help` says what it does and shows an example that begins with its name."""
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"llmtab {verb}" in capsys.readouterr().out.partition("example")[2]


def test_help_lists_the_verbs_quickly() -> None:
    """`llmtab --help` names every verb, and imports nothing heavy for it."""
    began = time.perf_counter()
    done = llmtab("--help")
    took = time.perf_counter() - began
    assert [verb for verb in verbs() if verb not in done.stdout] == []
    assert took < 1.0  # 0.05 s on an idle machine
    code = "import sys; from llmtab.cli import _parser; _parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "addon")
    assert {"mitmproxy", "rich", "pydantic", "ruamel", "json"} & set(modules.stdout.split()) == set()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab --version` names the version of the package."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"llmtab {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["schema", "--nonsense"], ["tail", "-n", "many"]])
def test_wrong_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A verb or argument that does not exist: one line on stderr, exit status 2."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("llmtab")


@pytest.mark.parametrize("verb", ["tail", "verify"])
def test_a_missing_ledger_is_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger that is not there: one line on stderr that names it, exit status 1."""
    assert main([verb, str(tmp_path / "none.jsonl")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "none.jsonl" in err


def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab schema` prints a JSON Schema that names the keys of a line."""
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"id", "provider", "usage", "cost_usd", "chain"} <= set(schema["properties"])


def test_tail_shows_the_last_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab tail -n 2` prints the last two calls, one line each; `--json` prints them as they are on the ledger."""
    ledger = tmp_path / "ledger.jsonl"
    lines = [LINE | {"id": f"id-{n}", "request_model": f"model-{n}", "response_model": f"model-{n}"} for n in range(5)]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["tail", "-n", "2", str(ledger)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert ["model-3" in shown[0], "model-4" in shown[1], len(shown)] == [True, True, 2]
    assert main(["tail", "-n", "1", "--json", str(ledger)]) == 0
    assert json.loads(capsys.readouterr().out) == lines[-1]


def test_tail_follows_without_doubling(tmp_path: Path) -> None:
    """`llmtab tail -f` goes on with new lines, each shown once, and ends quietly when interrupted."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps(LINE) + "\n")
    command = [sys.executable, "-m", "llmtab.cli", "tail", "-f", "--json", str(ledger)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT / "addon"
    ) as tail:
        assert tail.stdout
        assert tail.stderr
        assert json.loads(tail.stdout.readline())["id"] == LINE["id"]
        with ledger.open("a") as file:
            file.write(json.dumps(LINE | {"id": "second"}) + "\n")
        assert json.loads(tail.stdout.readline())["id"] == "second"
        tail.terminate()
        tail.wait(10)
        assert tail.stderr.read() == ""


def test_verify_judges_by_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab verify` ends with 0 for an intact ledger, and with 1 and the place once a byte was changed."""
    from llmtab.ledger.writer import Ledger

    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.open()
    for number in range(3):
        ledger.append([LINE | {"id": f"id-{number}"}])
    ledger.close()
    assert main(["verify", str(path)]) == 0
    assert "3 lines" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b'"output_tokens":7', b'"output_tokens":6', 1))
    assert main(["verify", str(path)]) == 1
    assert "ledger.jsonl:1" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`llmtab schema | head -n 1` prints no traceback."""
    command = f"{sys.executable} -m llmtab.cli schema | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT / "addon")
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_verify_counts_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line is no `1 lines`; a file that is no ledger is no whole one; one without a line is not yet anything."""
    from llmtab.ledger.chain import Chain

    path = tmp_path / "ledger.jsonl"
    path.write_bytes(Chain("w").seal({"schema": 1, "id": "a"}))
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 1 line of 1 writer: every chain is whole\n"
    path.write_text("root:x:0:0\n" * 3)
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().out.endswith("0 lines of 0 writers: 1 problem\n")
    path.write_text("")
    assert main(["verify", str(path)]) == 0
    assert "there is no line in it yet" in capsys.readouterr().out
