"""Whether a line of the ledger is what the JSON Schema says: used on every line that any end-to-end test produces."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from llmtab.record import FIELDS, Record, schema


@cache
def _model() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


@cache
def _required() -> frozenset[str]:
    return frozenset(schema()["required"])


def check(line: Mapping[str, Any]) -> None:
    """Raises where the line (read back, money as Decimal) has a wrong type, lacks a key, or has one nobody knows."""
    _model().validate_python(dict(line), strict=True)
    assert not _required() - line.keys(), (_required() - line.keys(), line)
    assert list(line) == [key for key in FIELDS if key in line], line
