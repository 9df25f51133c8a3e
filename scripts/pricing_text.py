"""Entries as the text of pricing.yaml: one line a model where it fits, the same text for the same prices.

Knows YAML's quoting and our order of keys. Must not know where prices come from.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"}


def entry_lines(name: str, entry: Mapping[str, Any], indent: str) -> list[str]:
    """One model's lines: a flow mapping, or the names and a list of dated prices."""
    names = {key: value for key, value in entry.items() if key != "prices"}
    prices = entry.get("prices", [])
    if len(prices) < 2 and not any("from" in row for row in prices):
        return wrapped(f"{indent}{scalar(name)}: ", flow(names | (prices[0] if prices else {})), indent + "    ")
    lines = [f"{indent}{scalar(name)}:"]
    lines += [line for key in names for line in wrapped(f"{indent}  {key}: ", flow(names[key]), indent + "    ")]
    lines.append(f"{indent}  prices:")
    return lines + [line for row in prices for line in wrapped(f"{indent}    - ", flow(row), indent + "      ")]


def wrapped(start: str, text: str, indent: str) -> list[str]:
    """`text` after `start`, broken after commas: a flow mapping (and a quoted text) may go on in the next line."""
    lines = [start]
    for piece in text.replace(", ", ",\n").split("\n"):
        space = " " if lines[-1].endswith(",") else ""
        if len(lines[-1]) + len(space) + len(piece) > WIDTH and lines[-1] != start:
            lines.append(indent + piece)
        else:
            lines[-1] += space + piece
    return lines


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar that reads back as itself."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\d|x\d+(\.\d+)?", text) or (_PLAIN.fullmatch(text) and text.lower() not in _WORDS):
        return text
    if re.fullmatch(r"[A-Za-z][\w ,;.()/'%+-]*", text) and ": " not in text and "," not in text:
        return text
    return "'" + text.replace("'", "''") + "'"


def _key(key: str) -> str:
    """Keys are always read as text, so that a number needs no quotes (`above: {272000: ...}`)."""
    return key if key.isdigit() else scalar(key)
