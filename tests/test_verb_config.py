"""`llmtab config` and `llmtab schema --config`: what holds, who said so, and whether it could hold."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtab import cli
from llmtab.config_schema import File
from llmtab.setup import OPTIONS


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a user's folder, of the test's own; no option in the environment."""
    for name, *_ in OPTIONS:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[Any, str]]:
    """name -> (value, origin) of `llmtab config --json`."""
    assert cli.main(["config", "--json", *arguments]) == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {value["name"]: (value["value"], value["origin"]) for value in values}


def test_without_a_file_the_defaults_hold(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option and every switch of llmtab.yaml is shown with its default."""
    values = shown(capsys)
    assert {name for name, *_ in OPTIONS} <= values.keys()
    assert values["llmtab_ledger"] == (str(house / "ledger.jsonl"), "default")
    assert values["timezone"] == ("UTC", "default")
    assert values["attribution.keys"] == ("names", "default")


def test_a_file_of_comments_says_nothing(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `llmtab init` writes is the file in force, and every value of it is still a default."""
    (house / "llmtab.yaml").write_text("# timezone: Europe/Berlin\n")
    values = shown(capsys)
    assert values["llmtab_config"] == (f"{house}/llmtab.yaml", "default")
    assert {origin for _, origin in values.values()} == {"default"}
    assert "" not in values


def test_every_value_has_its_origin(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default, llmtab.yaml's line, the environment, mitmproxy's config.yaml, an option: each in its order."""
    (house / "llmtab.yaml").write_text("timezone: Europe/Berlin\nrules:\n  - labels:\n      project: web\n")
    values = shown(capsys)
    assert values["timezone"] == ("Europe/Berlin", f"{house}/llmtab.yaml:1")
    assert values["rules.0.labels.project"] == ("web", f"{house}/llmtab.yaml:4")
    monkeypatch.setenv("LLMTAB_FSYNC", "off")
    monkeypatch.setenv("LLMTAB_PRICING", "a.yaml:b.yaml")
    assert shown(capsys)["llmtab_fsync"] == ("off", "environment LLMTAB_FSYNC")
    assert shown(capsys)["llmtab_pricing"] == (["a.yaml", "b.yaml"], "environment LLMTAB_PRICING")
    config = house / "user" / ".mitmproxy" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("flow_detail: 0\nllmtab_fsync: always\nllmtab_pricing:\n  - c.yaml\n")
    assert shown(capsys)["llmtab_fsync"] == ("always", f"{config}:2")
    assert shown(capsys)["llmtab_pricing"] == (["c.yaml"], f"{config}:4")
    assert shown(capsys, "--set", "llmtab_fsync=interval")["llmtab_fsync"] == ("interval", "option")
    assert shown(capsys, "--set", "llmtab_estimate")["llmtab_estimate"] == (True, "option")


def test_another_file_can_be_looked_at(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--config names the file, as llmtab_config does."""
    (house / "other.yaml").write_text("timezone: Asia/Tokyo\n")
    for words in (["--config", str(house / "other.yaml")], ["--set", f"llmtab_config={house / 'other.yaml'}"]):
        assert shown(capsys, *words)["timezone"] == ("Asia/Tokyo", f"{house}/other.yaml:1")


def test_secrets_are_not_shown(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A webhook, a token or a password in a URL is a secret wherever it stands: the value is not printed."""
    (house / "llmtab.yaml").write_text(
        "hosts:\n  a.example.com: {profile: openai}\nrules:\n"
        "  - labels: {token: kanari1, url: 'https://u:kanari2@x.example/p', link: 'https://x.example/?k=kanari3'}\n"
    )
    for words in ([], ["--json"]):
        assert cli.main(["config", "--show", *words]) == 0
        out = capsys.readouterr().out
        assert "kanari" not in out
        assert "rules.0.labels.token" in out


def test_a_good_configuration_is_ok(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check reads all that a start would read, says what it found, and leaves no file behind."""
    (house / "llmtab.yaml").write_text("hosts:\n  a.example.com: {profile: openai}\nrules: [{labels: {a: b}}]\n")
    (house / "keys.yaml").write_text("k_0123456789abcdef: ci bot\n")
    assert cli.main(["config", "--check"]) == 0
    assert capsys.readouterr().out == f"{house}/llmtab.yaml: ok (1 profiles, 1 named keys, 1 rules)\n"
    assert {path.name for path in house.iterdir()} <= {"llmtab.yaml", "keys.yaml", "cache"}


@pytest.mark.parametrize(
    ("name", "text", "words", "message"),
    [
        ("llmtab.yaml", "timezon: UTC\n", [], "llmtab.yaml:1: timezon: unknown key, expected 'timezone'?"),
        (
            "llmtab.yaml",
            "hosts:\n  a.example.com: {profile: opnai}\n",
            [],
            "llmtab.yaml:2: hosts.a.example.com: profile 'opnai' is not known",
        ),
        ("keys.yaml", "sk-x: a\n", [], "keys.yaml:1: sk-x: expected a fingerprint"),
        ("x", "", ["--set", "llmtab_fsync=of"], "llmtab_fsync: 'of', expected one of always"),
        ("x", "", ["--set", "llmtab_fsnc=off"], "there is no option llmtab_fsnc, did you mean llmtab_fsync?"),
        ("x", "", ["--set", "llmtab_labels=web"], "llmtab_labels: 'web', expected labels like project=web"),
        ("x", "", ["--set", "llmtab_pricing=none.yaml"], "llmtab_pricing: none.yaml: no such file"),
        ("x", "", ["--config", "none.yaml"], "llmtab_config: none.yaml: no such file"),
        ("x", "", ["--set", "llmtab_estimate=yes"], "llmtab_estimate: 'yes', expected true or false"),
        ("x", "", ["--set", "llmtab_ledger"], "llmtab_ledger has no value, expected --set llmtab_ledger=VALUE"),
        ("user/.mitmproxy/config.yaml", "\nllmtab_budget: 5\n", [], "config.yaml:2: llmtab_budget: 5, expected text"),
    ],
)
def test_what_a_start_would_refuse(
    house: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, words: list[str], message: str
) -> None:
    """--check fails with the line that the start would fail with."""
    (house / name).parent.mkdir(parents=True, exist_ok=True)
    (house / name).write_text(text)
    assert cli.main(["config", "--check", *words]) == 1
    got = capsys.readouterr()
    assert message in got.err
    assert got.err.count("\n") == 1
    assert got.out == ""


def test_a_start_would_want_more_than_the_file(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose package is not installed, a chain key that is too short: --check fails as the start would."""
    (house / "short").write_text("key")
    assert cli.main(["config", "--check", "--set", f"llmtab_chain_key={house / 'short'}"]) == 1
    assert "short: 3 bytes, expected a random key" in capsys.readouterr().err
    text = "budgets:\n  limits: [{limit: 5 USD per day}]\n  store: {redis: 'redis://127.0.0.1:1'}\n"
    (house / "llmtab.yaml").write_text(text)
    monkeypatch.setitem(sys.modules, "redis", None)
    assert cli.main(["config", "--check"]) == 1
    assert "budgets.store.redis needs the package redis" in capsys.readouterr().err


def test_a_wrong_variable_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot hold fails the check; one that is misspelt is named."""
    monkeypatch.setenv("LLMTAB_ESTIMATE", "perhaps")
    assert cli.main(["config", "--check"]) == 1
    assert "LLMTAB_ESTIMATE: 'perhaps', expected true or false" in capsys.readouterr().err
    monkeypatch.delenv("LLMTAB_ESTIMATE")
    monkeypatch.setenv("LLMTAB_LEGDER", "x.jsonl")
    assert cli.main(["config", "--check"]) == 0
    assert "LLMTAB_LEGDER is no option, did you mean LLMTAB_LEDGER?" in capsys.readouterr().err


def test_editors_know_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """`llmtab schema --config` is the JSON Schema of llmtab.yaml: each section, its keys, none besides."""
    assert cli.main(["schema", "--config"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["properties"].keys() == File.model_fields.keys()
    assert found["additionalProperties"] is False
    match = found["$defs"]["Match"]["properties"]
    assert {"host", "system", "label"} <= match.keys()
    assert "regular expression" in match["system"]["description"]
    refs = {ref for ref in _refs(found) if ref.startswith("#/$defs/")}
    assert {ref.removeprefix("#/$defs/") for ref in refs} <= found["$defs"].keys()


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for inside in value.values() for ref in _refs(inside)]
    return [ref for inside in value for ref in _refs(inside)] if isinstance(value, list) else []
