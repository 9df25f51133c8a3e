"""The JSON Schema of a line: it changes only on purpose, and every line obeys it."""

import json
from pathlib import Path
from typing import Any

import pytest

import records
from golden import load, names, natural
from llmtab.ledger.chain import Chain
from llmtab.record import decode, schema

GOLDEN = Path(__file__).parent / "data" / "schema.json"


def without_titles(value: Any) -> Any:
    """The schema without the titles that pydantic makes up: they differ from version to version."""
    if isinstance(value, dict):
        return {
            key: without_titles(inner) for key, inner in value.items() if key != "title" or not isinstance(inner, str)
        }
    return [without_titles(inner) for inner in value] if isinstance(value, list) else value


def test_the_schema_changes_only_on_purpose() -> None:
    """A new or changed key shows here first; if meant, write `without_titles(schema())` to tests/data/schema.json."""
    assert without_titles(schema()) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", names())
def test_every_golden_line_obeys_the_schema(name: str) -> None:
    """Lines of every provider, sealed and read back, have the keys and types that the schema names."""
    chain = Chain("w")
    for line in natural(load(name)):
        records.check(decode(chain.seal(line)))


@pytest.mark.parametrize(
    "fault", [{"status": "200"}, {"outcome": "fine"}, {"provider": None}, {"surprise": 1}, {"cost_usd": "0.1"}]
)
def test_what_breaks_the_schema_is_noticed(fault: dict[str, Any]) -> None:
    """The check that the other tests rely on does notice a wrong type, a wrong word and an unknown key."""
    line = decode(Chain("w").seal(natural(load("openai/chat"))[0]))
    with pytest.raises((ValueError, AssertionError)):
        records.check(line | fault)
