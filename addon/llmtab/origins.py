"""What is configured and who said so: each value with the file and line, variable or option that it comes from.

Knows the order of belief: an option given, mitmproxy's config.yaml, the environment, llmtab.yaml, the default. Must not
know what a value does. Values that look like secrets are never shown.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from llmtab import documents, environment
from llmtab.home import config_file, home

MITMPROXY: Final = Path("~/.mitmproxy/config.yaml")
HIDDEN: Final = "***"
_SECRET: Final = re.compile(r"(?:^|_)(?:secret|token|password|passwd|webhook|credentials?|authorization)s?$")
DEFAULT: Final = "default"
_SWITCH: Final = {"": True, "true": True, "false": False, "toggle": True}
_EXPECTED: Final = {str: "text (in quotes)", bool: "true or false"}

type Loc = tuple[str | int, ...]


class Value(NamedTuple):
    """`name`: an option's, or the keys of llmtab.yaml joined by points. `origin`: `default`, `option`,
    `environment LLMTAB_LEDGER` or `FILE:LINE`."""

    name: str
    value: Any
    origin: str


def options(
    table: tuple[environment.Option, ...],
    given: Mapping[str, Any],
    variables: Mapping[str, str],
    mitmproxy: Path = MITMPROXY,
) -> Iterator[Value]:
    """Every option of ours. `given`: as after `--set`. Raises ValueError for a variable that does not fit."""
    path = mitmproxy.expanduser()
    written = documents.load(path, cache=False) if path.is_file() else None
    lines = documents.places(path) if isinstance(written, dict) else {}
    for name, kind, default, _ in table:
        said = environment.stated(name, kind, variables)
        if name in given:
            yield Value(name, given[name], "option")
        elif isinstance(written, dict) and name in written:
            place = f"{path}:{lines.get((name,)) or lines.get((name, 0), 1)}"
            if not _fits(written[name], kind):
                raise ValueError(
                    f"{place}: {name}: {written[name]!r}, expected {_EXPECTED.get(kind, 'a list of texts')}"
                )
            yield Value(name, written[name], place)
        elif said is not None:
            yield Value(name, said, f"environment {environment.variable(name)}")
        else:
            yield Value(name, _usual(name, default), DEFAULT)


def given(table: tuple[environment.Option, ...], words: Iterable[str]) -> dict[str, Any]:
    """`--set NAME=VALUE` as mitmproxy reads it. Raises ValueError for what is no option, or lacks its value."""
    kinds = {name: kind for name, kind, *_ in table}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in kinds:
            raise ValueError(f"there is no option {name}{environment.meant(name, kinds)}")
        if kinds[name] == Sequence[str]:
            found.setdefault(name, []).extend([text] if equals else [])
        elif kinds[name] is bool:
            if text not in _SWITCH:
                raise ValueError(f"{name}: {text!r}, expected true or false")
            found[name] = _SWITCH[text]
        elif not equals:
            raise ValueError(f"{name} has no value, expected --set {name}=VALUE")
        else:
            found[name] = text
    return found


def _fits(value: Any, kind: Any) -> bool:
    if kind == Sequence[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


def _usual(name: str, default: Any) -> Any:
    """A default as it works out: two of ours depend on where the home is."""
    if name == "llmtab_ledger":
        return str(home() / "ledger.jsonl")
    if name == "llmtab_config":
        return str(config_file() or "")
    return list(default) if default == () else default


def file_values(path: Path | None) -> Iterator[Value]:
    """Every value of llmtab.yaml, and the defaults of what it does not say. Raises ConfigError."""
    from llmtab.config_schema import File

    said = documents.load(path, cache=False) if path is not None else None
    lines = documents.places(path) if path is not None and said else {}
    for loc, value in _leaves(said or {}, ()):
        yield Value(_name(loc), _shown(loc, value), f"{path}:{lines.get(loc, 1)}")
    stated = set(lines)
    for loc, value in _leaves(File().model_dump(mode="json", by_alias=True), ()):
        if value not in (None, [], {}) and not any(loc == other[: len(loc)] for other in stated):
            yield Value(_name(loc), value, DEFAULT)


def config_path(option: str) -> Path | None:
    """The llmtab.yaml that holds: the one named, else the usual one if it is there."""
    return Path(option).expanduser() if option else config_file()


def _leaves(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*loc, key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, (*loc, number))
    elif loc:  # a file of comments alone says nothing
        yield loc, value


def _name(loc: Loc) -> str:
    return ".".join(map(str, loc))


def _shown(loc: Loc, value: Any) -> Any:
    """The value, unless its name or its form says that it is a secret."""
    if any(isinstance(part, str) and _SECRET.search(part.lower()) for part in loc[-2:]):
        return HIDDEN
    if isinstance(value, str) and "://" in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return HIDDEN
        if parts.password or parts.query:
            return f"{parts.scheme}://{parts.hostname}/{HIDDEN}"
    return value
