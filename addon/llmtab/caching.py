"""Parsed files kept as JSON, so that a start need not parse YAML or run pydantic again.

Knows content hashes, two folders (beside the package: built into the wheel; the user's cache folder) and how a
Decimal survives JSON. Must not know YAML, prices or profiles. A cache is only ever a copy: one that is absent,
corrupt, of another version or of another content is rebuilt, and a folder that cannot be written costs only time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from llmtab.home import home, private_folder

FORMAT = "llmtab-cache-2"
KEPT_FILES = 64  # an edited file leaves its old parsed form behind; beyond this many the oldest go


def cached(paths: Path | Sequence[Path], version: str, build: Callable[[], Any], *, extra: str = "") -> Any:
    """The value of `build()`, kept by the content of `paths` (and `extra`), their names and `version`.

    `version` names the form; the code that builds it belongs to `paths`, so that no other code believes it. The value
    may hold dict (str keys), list, str, int, Decimal, bool and None. Raises what `build` and reading `paths` raise
    (OSError).
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    key = _key(files, version, extra)
    for folder in (packaged_folder(), user_folder()):
        payload = _read(folder / f"{key}.json", key)
        if payload is not None:
            return decode(payload)
    value = build()
    _write(user_folder(), key, encode(value))
    return value


def bake(paths: Sequence[Path], version: str, build: Callable[[], Any], folder: Path, *, extra: str = "") -> Path:
    """Write the cache file that `cached` would look for into `folder`, if it is not there. Returns its path."""
    key = _key(paths, version, extra)
    if _read(folder / f"{key}.json", key) is None and not _write(folder, key, encode(build())):
        raise OSError(f"cannot write a cache file in {folder}")
    return folder / f"{key}.json"


def packaged_folder() -> Path:
    """Where the wheel keeps parsed forms of the files it ships."""
    return Path(__file__).with_name("_cache")


def user_folder() -> Path:
    """Where parsed forms of edited files go: `cache` under $LLMTAB_HOME, else under ~/.llmtab."""
    return home() / "cache"


def encode(value: Any) -> bytes:
    """Compact JSON; a Decimal keeps its digits and stays recognisable (it always has a point or an exponent)."""
    return "".join(_pieces(value)).encode()


def decode(payload: bytes) -> Any:
    """The inverse of `encode`."""
    return json.loads(payload, parse_float=Decimal)


def _pieces(value: Any) -> Iterable[str]:
    if isinstance(value, Decimal):
        text = str(value)
        yield text if "." in text or "E" in text else f"{text}e0"
    elif isinstance(value, dict):
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            if not isinstance(key, str):
                raise TypeError(f"a cached dict needs str keys, not {key!r}")
            yield f"{',' if index else ''}{json.dumps(key, ensure_ascii=False)}:"
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for index, item in enumerate(value):
            if index:
                yield ","
            yield from _pieces(item)
        yield "]"
    elif value is None or isinstance(value, str | int):
        yield json.dumps(value, ensure_ascii=False)
    else:
        raise TypeError(f"cannot cache a {type(value).__name__}")


def _key(files: Sequence[Path], version: str, extra: str) -> str:
    """Names without folders: the same files installed elsewhere (a wheel) are the same content."""
    digest = hashlib.sha256(f"{FORMAT}\0{version}\0{extra}".encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:40]


def _read(path: Path, key: str) -> bytes | None:
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return payload if head == _header(key, payload) else None


def _header(key: str, payload: bytes) -> bytes:
    return f"{FORMAT} {key} {hashlib.sha256(payload).hexdigest()}".encode()


def _write(folder: Path, key: str, payload: bytes) -> bool:
    """Whole or not at all: a reader in another process never sees half a file."""
    import tempfile  # brings half a dozen modules that a start from the cache does not need

    name = None
    try:
        private_folder(folder)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(_header(key, payload) + b"\n" + payload)
        Path(name).replace(folder / f"{key}.json")
        _prune(folder)
    except OSError:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        return False
    return True


def _prune(folder: Path) -> None:
    files = [(path.stat().st_mtime, path) for path in folder.glob("*.json")]
    for _, path in sorted(files)[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
