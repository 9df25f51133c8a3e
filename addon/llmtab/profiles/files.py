"""The files that profiles are read from: found, read, checked by the grammar, and kept in their parsed form.

Knows YAML files and the cache. Must not know what a profile is for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from llmtab.caching import bake, cached
from llmtab.documents import check, fail, load

VERSION: Final = "profiles-1"
ORIGIN: Final = "_from"
"""A user's profile remembers its file (and where in it it stands), so that an error found late still names the line."""


def built_in() -> list[dict[str, Any]]:
    """The profiles that ship. Raises ConfigError where one of them is wrong."""
    found: list[dict[str, Any]] = cached(*_built_in())
    return found


def read_folder(folder: Path) -> list[dict[str, Any]]:
    """The profiles of a folder (or of one file), with where they stand. Raises ConfigError."""
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if folder.is_dir() else [folder]
    return [{**read_profile(path), ORIGIN: (str(path),)} for path in paths]


def read_profile(path: Path) -> dict[str, Any]:
    """One profile file, validated. Raises ConfigError with file, line, key and what was expected."""
    return validated(load(path, cache=False), path)


def validated(data: Any, path: Path | str) -> dict[str, Any]:
    """A profile's plain data if it obeys the grammar. Raises ConfigError."""
    from llmtab.profiles.models import kind_of

    try:
        model = kind_of(data)
    except ValueError as error:
        raise fail(path, (), str(error)) from None
    found: dict[str, Any] = check(model, data, path).model_dump(by_alias=True, exclude_unset=True, mode="json")
    return found


def bake_built_in(folder: Path) -> Path:
    """Write the parsed form of the built-in profiles into `folder`: what makes a first start quick."""
    return bake(*_built_in(), folder)


def _built_in() -> tuple[list[Path], str, Callable[[], Any]]:
    """The files that the built-in profiles are made from, the code that reads them included, and how."""
    room = Path(__file__).parent
    files = [path for name in ("dialects", "surfaces", "providers") for path in sorted((room / name).glob("*.yaml"))]
    code = [*sorted(room.glob("*.py")), room.parent / "documents.py", room.parent / "usage.py"]
    return [*files, *code], VERSION, lambda: [read_profile(path) for path in files]
