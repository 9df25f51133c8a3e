"""Rotation: when the growing file of a ledger is finished, how it is renamed, and how finished files are compressed.

Knows file names, sizes, days and locks. Must not know what a line means, beyond the time of a file's first one. Several
processes may rotate one ledger: whoever has the folder's lock does it, the others find the new file.
"""

import gzip
import importlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import IO, Any, Final, cast

from llmtab.ledger.locks import alone
from llmtab.ledger.reader import ZSTD_MODULES, parse, rotated

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B", re.I)
_DAY: Final = re.compile(r"(?:1\s*)?day|daily", re.I)
_UNITS: Final = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
LEAST: Final = 1000
"""Bytes of the smallest file worth a name of its own."""
_STAMP: Final = "%Y%m%dT%H%M%S"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is finished: at `size` bytes, or when its day is over in `zone`."""

    size: int | None = None
    daily: bool = False
    zone: tzinfo = UTC


def rotation(text: str, zone: tzinfo = UTC) -> Rotation | None:
    """From "" (never), "100MB", "day" or "1 day". Raises ValueError for anything else."""
    if not text.strip():
        return None
    if _DAY.fullmatch(text.strip()):
        return Rotation(daily=True, zone=zone)
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < LEAST:
        raise ValueError(f"{text!r}, expected a size like 100MB (1KB at least) or day")
    return Rotation(size=size)


def finished_at(file: Path) -> datetime:
    """When a rotated file was finished, from its name; all its calls were written before."""
    text = file.name.partition(".jsonl")[0].rpartition("-")[2]
    return datetime.strptime(text[:15], _STAMP).replace(tzinfo=UTC) + timedelta(milliseconds=int(text[15:18]))


def rotate(path: Path, rule: Rotation, now: datetime) -> Path | None:
    """Renames the growing file if it is finished; its new name, or None. The caller holds the folder's lock."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if not size or not _is_finished(path, size, rule, now):
        return None
    earlier = [finished_at(file) for file in rotated(path).values()]
    stamp = max([now, *(time + timedelta(milliseconds=1) for time in earlier[-1:])])  # the clock may have been set back
    name = f"{path.stem}-{stamp.strftime(_STAMP)}{stamp.microsecond // 1000:03d}Z{path.suffix}"
    return path.rename(path.with_name(name))


def _is_finished(path: Path, size: int, rule: Rotation, now: datetime) -> bool:
    if rule.size is not None:
        return size >= rule.size
    return rule.daily and _begun(path, rule.zone) < now.astimezone(rule.zone).date()


def _begun(path: Path, zone: tzinfo) -> date:
    """The day the growing file was begun: when the one before it was finished, else that of its first line.

    Not the first line's day alone: a call that began before midnight may be the first to end after it.
    """
    if earlier := rotated(path):
        return finished_at([*earlier.values()][-1]).astimezone(zone).date()
    with path.open("rb") as file:
        first = parse(file.readline(_BLOCK))
    try:
        return datetime.fromisoformat(first[0]["time"]).astimezone(zone).date()
    except (IndexError, KeyError, TypeError, ValueError):
        return datetime.fromtimestamp(path.stat().st_mtime, zone).date()


def compress_finished(path: Path) -> bool:
    """Compresses the finished files of the ledger at `path` that no writer holds any more. Whether none is left over.

    The caller holds the folder's lock. A file keeps its plain form until its compressed one is on the disk.
    """
    plain = [file for file in rotated(path).values() if file.suffix == path.suffix]
    return all([_compress(file) for file in plain])  # noqa: C419 - one that is still held must not stop the others


def _compress(file: Path) -> bool:
    with file.open("r+b") as source, alone(source.fileno()) as mine:
        if not mine:
            return False
        module = _zstd()
        target = file.with_name(file.name + (".zst" if module else ".gz"))
        part = target.with_name(target.name + ".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            with _compressor(raw, module) as packed:
                shutil.copyfileobj(source, packed, _BLOCK)
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(target)
        sync_folder(file.parent)
        file.unlink()
    return True


def _zstd() -> Any:
    for name in ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return None


@contextmanager
def _compressor(raw: IO[bytes], zstd: Any) -> Iterator[IO[bytes]]:
    packed = zstd.open(raw, "wb") if zstd else gzip.GzipFile(fileobj=raw, mode="wb")
    with packed:
        yield cast(IO[bytes], packed)


def sync_folder(folder: Path) -> None:
    """A rename or a deletion in the folder is on the disk when this returns."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
