"""YAML files as plain values, with errors that name file, line and key.

Knows YAML 1.2 (JSON is a subset) and its traps: duplicate keys are errors, `22:30`, `no` and dates stay text, numbers
with a point or an exponent are Decimals of their own digits (never floats), keys are always text as written. Must not
know what any file means. ruamel.yaml and pydantic are imported only when a file is really parsed or checked: a start
from the cache needs neither.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from llmtab.caching import bake, cached

__all__ = ["ConfigError", "bake", "cached", "check", "fail", "load", "loads", "places"]

VERSION = "documents-1"
TAG = "tag:yaml.org,2002:"

type Loc = Sequence[str | int]
"""Where a value stands: keys and list indexes from the top."""


class ConfigError(ValueError):
    """What is wrong in a file a person wrote, in one line: `file:line: key: what is wrong, what was expected`."""

    def __init__(self, message: str, *, file: str, line: int | None = None, key: str | None = None) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (where, key, " ".join(message.split())) if part))
        self.message, self.file, self.line, self.key = message, file, line, key


def load(path: Path, *, cache: bool = True) -> Any:
    """The file's content as dict (str keys), list, str, int, Decimal, bool and None. Raises ConfigError."""
    try:
        if cache:
            return cached([path, Path(__file__)], VERSION, lambda: loads(_text(path), str(path)))
        return loads(_text(path), str(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from None


def loads(text: str, name: str) -> Any:
    """Like `load`, from text; `name` stands for the file in errors."""
    root = _compose(text, name)
    try:
        return None if root is None else _plain(root, name, set())
    except RecursionError:
        raise ConfigError("is nested too deeply", file=name) from None


def fail(path: Path | str, loc: Loc, message: str, *, text: str | None = None) -> ConfigError:
    """An error about the value at `loc`; its line is looked up by parsing again (the key itself may be missing)."""
    line = None
    try:
        root = _compose(text if text is not None else _text(Path(path)), str(path))
        line = _line(root, loc)
    except (OSError, ConfigError, RecursionError):
        pass  # the file is gone or broken by now: the message matters more than its line
    return ConfigError(message, file=str(path), line=line, key=".".join(map(str, loc)) or None)


def check(model: Any, data: Any, path: Path | str, *, text: str | None = None, inside: Loc = ()) -> Any:
    """`data` validated by a pydantic model class or TypeAdapter; the first problem becomes the one ConfigError.

    `inside`: where in the file `data` stands, if it is not the whole file.
    """
    from pydantic import ValidationError

    validate = model.validate_python if hasattr(model, "validate_python") else model.model_validate
    try:
        return validate(data)
    except ValidationError as error:
        from llmtab.config_errors import describe

        loc, message = describe(error, model, data)
        raise fail(path, (*inside, *loc), message, text=text) from None


def places(path: Path) -> dict[tuple[str | int, ...], int]:
    """Where each value of a file stands that is no mapping and no list (or an empty one): its keys -> its line."""
    found: dict[tuple[str | int, ...], int] = {}

    def note(node: Any, loc: tuple[str | int, ...], line: int) -> None:
        if isinstance(node.value, str) or not node.value:
            found[loc] = line
        elif node.tag == f"{TAG}map":
            for key, item in node.value:
                note(item, (*loc, str(key.value)), key.start_mark.line + 1)
        else:
            for number, item in enumerate(node.value):
                note(item, (*loc, number), item.start_mark.line + 1)

    root = _compose(_text(path), str(path))
    if root is not None:
        note(root, (), root.start_mark.line + 1)
    return found


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", file=str(path), line=line) from None


def _compose(text: str, name: str) -> Any:
    """The tree of nodes: the one form that has types, duplicates and line numbers."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    directive = re.search(r"^%", text, re.MULTILINE)
    if directive:  # %YAML 1.1 would bring `22:30` = 1350 and `no` = false back
        line = text.count("\n", 0, directive.start()) + 1
        raise ConfigError("a % directive, expected plain YAML 1.2", file=name, line=line)
    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not YAML: {message}", file=name, line=mark.line + 1 if mark else None) from None
    except YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", file=name) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", file=name) from None


def _plain(node: Any, name: str, open_nodes: set[int]) -> Any:
    if isinstance(node.value, str):
        return _scalar(node, name)
    if node.tag not in (f"{TAG}map", f"{TAG}seq"):
        raise _at(node, name, f"tag {node.tag}, expected none")
    if id(node) in open_nodes:
        raise _at(node, name, "an alias inside its own anchor")
    open_nodes.add(id(node))
    if node.tag == f"{TAG}seq":
        value: Any = [_plain(item, name, open_nodes) for item in node.value]
    else:
        value = {key: _plain(item, name, open_nodes) for key, item in _members(node, name)}
    open_nodes.discard(id(node))
    return value


def _members(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key, item in node.value:
        if not isinstance(key.value, str):
            raise _at(key, name, "a key that is a list or a mapping, expected text")
        if key.tag == f"{TAG}merge":
            raise _at(key, name, "a merge key (<<), expected the entries written out")
        if key.value in seen:
            message = f"duplicate key (first in line {seen[key.value]}), expected each key once"
            raise ConfigError(message, file=name, line=key.start_mark.line + 1, key=key.value)
        seen[key.value] = key.start_mark.line + 1
        yield key.value, item


def _scalar(node: Any, name: str) -> Any:
    kind, text = node.tag.removeprefix(TAG), node.value
    if kind in ("str", "timestamp", "value"):
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind not in ("int", "float"):
        raise _at(node, name, f"tag {node.tag}, expected none")
    try:
        return _number(kind, text.replace("_", ""))
    except (ValueError, InvalidOperation):
        raise _at(node, name, f"the number {text[:40]!r}, expected a finite one") from None


def _number(kind: str, text: str) -> int | Decimal:
    if kind == "int":
        based = text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b")
        return int(text, 0 if based else 10)
    number = Decimal(text)  # ".inf" and ".nan" are not numbers here
    if not number.is_finite():
        raise ValueError(text)
    return number


def _at(node: Any, name: str, message: str) -> ConfigError:
    return ConfigError(message, file=name, line=node.start_mark.line + 1)


def _line(root: Any, loc: Loc) -> int | None:
    """The line of the deepest part of `loc` that exists: of the key where it is a member, else of the value."""
    node, line = root, None
    for part in loc:
        if node is None or isinstance(node.value, str):
            break
        if node.tag == f"{TAG}map":
            found = [(key, item) for key, item in node.value if key.value == str(part)]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line + 1
        elif isinstance(part, int) and 0 <= part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line if line or root is None else root.start_mark.line + 1
