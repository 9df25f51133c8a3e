"""Tokens of a prompt, counted: the texts of its messages and the JSON of its tools, or slices where it is large.

Knows messages, parts and schemas by their look. Must not know which provider they are for, nor any price.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from llmtab.estimates.pieces import SAMPLE, SLICES, Counter, Family, tokens

BLOB: Final = 512
"""Characters without a space from which on a text is a file."""
MOST: Final = 200_000
"""Values that are looked at; an honest request has hundreds."""
_SPEAKS: Final = ("role", "parts", "content")
_NOT_SAID: Final = frozenset(
    {"type", "role", "id", "tool_call_id", "tool_use_id", "call_id", "cache_control", "status"}
)


def counted(parts: Sequence[Any], count: Counter, kin: Family) -> float:
    """Tokens of the parts of a parsed request: each a text, a list of messages, or other JSON (schemas of tools).

    What `count` gives is taken for this family's tokens; what its template adds comes on top.
    """
    said: list[str] = []
    tools: list[str] = []
    left, extra = [MOST], kin.start
    for part in parts:
        for item in part if isinstance(part, list) else [part]:
            if isinstance(item, dict) and not any(key in item for key in _SPEAKS) and not _is_text(item):
                tools.append(json.dumps(item, separators=(",", ":"), ensure_ascii=False))
            else:
                extra += kin.message
                _collect(item, said, left)
    schemas = tokens("\n".join(tools), count) * kin.schema + (kin.tools if tools else 0)
    return tokens("\n".join(said), count) + schemas + extra


def _is_text(item: dict[str, Any]) -> bool:
    return isinstance(item.get("text"), str) and "parameters" not in item and "input_schema" not in item


def _collect(value: Any, said: list[str], left: list[int]) -> None:
    """The texts inside a message, at any depth, without words that are no text."""
    stack = [value]
    while stack and left[0] > 0:
        left[0] -= 1
        here = stack.pop()
        if isinstance(here, str):
            if not (len(here) > BLOB and here.isascii() and " " not in here[:BLOB]):
                said.append(here)
        elif isinstance(here, list):
            stack.extend(reversed(here))
        elif isinstance(here, dict):
            stack.extend(inside for key, inside in reversed(here.items()) if key not in _NOT_SAID)


def sampled(body: bytes, count: Counter) -> float:
    """Tokens of a request's JSON that is not parsed, by slices of it."""
    size, step = SAMPLE // SLICES, max(1, len(body) // SLICES)
    looked = b"\n".join(body[start : start + size] for start in range(0, len(body), step)).decode("utf-8", "replace")
    return tokens(looked, count) * len(body) / max(1, min(len(body), size * SLICES))
