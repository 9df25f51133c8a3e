"""Options from the environment: LLMTAB_LEDGER for llmtab_ledger, and so on."""

import os
from collections.abc import Sequence
from typing import Any

import pytest

from llmtab import environment, setup

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
