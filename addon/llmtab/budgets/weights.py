"""Weights that are no counter of ours: a reference into the answer becomes a row of every dialect.

Knows how `weight:` is written, and the form of a dialect's rows. Must not know calls. There is no second way to read an
answer: what a weight points at is folded like any other counter, and stands on the line as `usage.weight`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

COUNTER: Final = "weight"


def is_reference(text: str) -> bool:
    """Whether a weight points into the answer (`/credits`, `header:x-credits`), or names a counter."""
    return text.startswith("/") or ":" in text


def weighed(budgets: Mapping[str, Any] | list[Any] | None) -> dict[str, Any]:
    """What these budgets add to every dialect. Raises ValueError where they point at more than one place."""
    found = sorted({text for text in _weights(budgets) if is_reference(text)})
    if len(found) > 1:
        raise ValueError(f"budgets: weight: {found[1]!r} beside {found[0]!r}, expected one reference in all budgets")
    return {"usage": {COUNTER: found}} if found else {}


def _weights(budgets: Mapping[str, Any] | list[Any] | None) -> Iterator[str]:
    if not budgets:
        return
    said: Mapping[str, Any] = {"limits": budgets} if isinstance(budgets, list) else budgets
    levels = ((said.get("tiers") or {}).get("levels") or {}).values()
    for limit in (*(said.get("limits") or ()), *(limit for level in levels for limit in level)):
        if limit.get("weight"):
            yield limit["weight"]
