"""Options from the environment: LLMTAB_LEDGER for llmtab_ledger, and so on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmtab import environment, setup
from llmtab.config import ConfigError
from llmtab.home import config_file
from llmtab.sources import Sources
from llmtab.verbs import default_ledger

OPTIONS = (
    ("llmtab_ledger", str, "", ""),
    ("llmtab_estimate", bool, False, ""),
    ("llmtab_pricing", Sequence[str], (), ""),
)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, {"llmtab_ledger": "", "llmtab_estimate": False, "llmtab_pricing": []}),
        ({"LLMTAB_LEDGER": "x"}, {"llmtab_ledger": "x", "llmtab_estimate": False, "llmtab_pricing": []}),
        ({"LLMTAB_ESTIMATE": "1"}, {"llmtab_ledger": "", "llmtab_estimate": True, "llmtab_pricing": []}),
        ({"LLMTAB_ESTIMATE": "Off"}, {"llmtab_ledger": "", "llmtab_estimate": False, "llmtab_pricing": []}),
        ({"LLMTAB_ESTIMATE": "maybe"}, {"llmtab_ledger": "", "llmtab_estimate": False, "llmtab_pricing": []}),
        ({"LLMTAB_PRICING": f"a{os.pathsep}b{os.pathsep}"},
         {"llmtab_ledger": "", "llmtab_estimate": False, "llmtab_pricing": ["a", "b"]}),
        ({"LLMTAB_LEDGER": "", "LLMTAB_OTHER": "x"},
         {"llmtab_ledger": "", "llmtab_estimate": False, "llmtab_pricing": []}),
    ],
)  # fmt: skip
def test_the_environment_gives_defaults(variables: dict[str, str], found: dict[str, Any]) -> None:
    """Every option is a variable too; a list is written like PATH, and an empty variable says nothing."""
    assert environment.defaults(OPTIONS, variables) == found


def test_a_wrong_variable_is_named() -> None:
    """A variable that its option cannot be is one clear error."""
    with pytest.raises(ValueError, match="LLMTAB_ESTIMATE: 'maybe', expected true or false"):
        environment.check(OPTIONS, {"LLMTAB_ESTIMATE": "maybe"})
    environment.check(OPTIONS, {"LLMTAB_ESTIMATE": "yes"})


def test_every_option_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no option of ours that the environment cannot give."""
    for name, kind, *_ in setup.OPTIONS:
        monkeypatch.setenv(name.upper(), "true" if kind is bool else "something")
    declared: dict[str, Any] = {}
    setup.declare_options(lambda name, kind, default, text: declared.update({name: default}))
    assert {name for name, value in declared.items() if value not in (True, "something", ["something"])} == set()


def test_the_verbs_look_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMTAB_LEDGER, LLMTAB_CONFIG and LLMTAB_HOME hold for the verbs as for the proxy, each on its own."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    monkeypatch.delenv("LLMTAB_LEDGER", raising=False)
    monkeypatch.delenv("LLMTAB_CONFIG", raising=False)
    assert default_ledger() == tmp_path / "ledger.jsonl"
    assert config_file() is None
    (tmp_path / "llmtab.yaml").write_text("timezone: Europe/Berlin\n")
    monkeypatch.setenv("LLMTAB_LEDGER", str(tmp_path / "elsewhere" / "l.jsonl"))
    assert default_ledger() == tmp_path / "elsewhere" / "l.jsonl"
    assert config_file() == tmp_path / "llmtab.yaml"
    monkeypatch.setenv("LLMTAB_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        Sources().read()
