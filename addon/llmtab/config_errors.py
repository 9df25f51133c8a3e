"""A pydantic ValidationError as one sentence a person can act on.

Knows how pydantic reports (locations, unions, unknown keys) and how to list the keys a model accepts. Must not know
files or what a model is for. Imported only when something is wrong.
"""

import difflib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

type Loc = tuple[str | int, ...]


def describe(error: ValidationError, model: Any, data: Any) -> tuple[Loc, str]:
    """The first problem's place in `data` and what is wrong there, what was expected, and how many more there are.

    A union reports every branch; the branch that got furthest into the data is the one that was meant.
    """
    found = [(_placed(item, data), item) for item in error.errors(include_url=False)]
    loc, first = max(found, key=lambda pair: len(pair[0]))
    places = {place for place, _ in found if loc[: len(place)] != place}
    more = f" (and {len(places)} more)" if places else ""
    return loc, _sentence(first, loc, model) + more


def _placed(item: Any, data: Any) -> Loc:
    """pydantic's location without the parts that name union branches, validators or keys-as-such."""
    parts: list[str | int] = []
    value = data
    for index, part in enumerate(item["loc"]):
        if _holds(value, part):
            value = value[part]
        elif not (item["type"] == "missing" and index == len(item["loc"]) - 1):
            continue
        parts.append(part)
    return tuple(parts)


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _sentence(item: Any, loc: Loc, model: Any) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        known = sorted(set(_keys(model, loc[:-1])))
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = (
            f"expected {close[0]!r}?" if close else f"expected one of: {', '.join(known)}" if known else "expected none"
        )
        return f"unknown key, {hint}"
    if kind == "missing":
        return "is missing, expected a value"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("value_error", "assertion_error"):
        return message
    expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    return f"{_shown(item['input'])}, expected {expected}"


def _shown(value: Any) -> str:
    """Short, and never a whole subtree: configuration may hold secrets further down."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return str(value) if isinstance(value, Decimal) else repr(value)[:60]


def _keys(model: Any, loc: Sequence[str | int]) -> Iterator[str]:
    """Names that the model at `loc` accepts, over every branch of unions and containers on the way."""
    for candidate in _models(model, tuple(loc)):
        for name, field in candidate.model_fields.items():
            yield str(field.validation_alias or field.alias or name)


def _models(annotation: Any, loc: Loc) -> Iterator[type[BaseModel]]:
    annotation = getattr(annotation, "__value__", annotation)  # a `type X = ...` alias
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            yield annotation
            return
        for name, field in annotation.model_fields.items():
            if loc[0] in (name, field.alias, field.validation_alias):
                yield from _models(field.annotation, loc[1:])
        return
    origin = getattr(annotation, "__origin__", None)
    rest = loc[1:] if origin in (dict, list, tuple) and loc else loc
    if hasattr(annotation, "core_schema"):  # a TypeAdapter
        yield from _models(annotation._type, loc)
        return
    for inner in get_args(annotation):
        yield from _models(inner, rest)
