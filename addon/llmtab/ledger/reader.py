"""A ledger read back: its files as one, its lines as dicts.

Knows file names, rotation, compression, torn and glued lines. Must not know what a line means, and never writes: any
number of readers may look at a ledger that is being written.
"""

import gzip
import importlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from llmtab.ledger.chain import unglue
from llmtab.record import decode

BUFFER: Final = 1 << 20
_BLOCK: Final = 1 << 16
_SUFFIXES: Final = ("", ".gz", ".zst")
ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd", "zstandard")


@dataclass
class Skipped:
    """What a reader passed over: lines torn by a crash or a full disk, and lines that are no JSON object."""

    lines: int = 0


def notes_path(path: Path) -> Path:
    """Where drops, checkpoints and prunes of the ledger at `path` are noted: `ledger.jsonl` -> `ledger.notes.jsonl`."""
    return path.with_suffix(".notes" + path.suffix)


def files(path: Path) -> list[Path]:
    """The files of the ledger at `path`, oldest first: the rotated ones, then the one that grows.

    Rotated files are called `ledger-20260728T101112345Z.jsonl`, or that with `.gz` or `.zst`. One that stands there
    twice (while it is being compressed) is named once, plain.
    """
    return [*rotated(path).values(), *([path] if path.exists() else [])]


def rotated(path: Path) -> dict[str, Path]:
    """The rotated files of the ledger at `path`, oldest first: name without compression suffix -> file as it is now."""
    stamp = rf"({re.escape(path.stem)}-\d{{8}}T\d{{9}}Z{re.escape(path.suffix)})(?:\.gz|\.zst)?"
    found: dict[str, Path] = {}
    names = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208 - names are all we need
    for name in sorted(names):  # the plain name sorts before its compressed form
        if match := re.fullmatch(stamp, name):
            found.setdefault(match[1], path.with_name(name))
    return found


def open_file(path: Path) -> IO[bytes]:
    """A ledger file for reading, decompressed by its suffix, also where it was compressed since it was listed.

    FileNotFoundError if it is gone; ValueError if it is compressed with zstd and no module for that is installed.
    """
    for suffix in _SUFFIXES:
        try:
            return _open(path.with_name(path.name + suffix))
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"{path} is gone")


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return _open_zstd(path)
    return path.open("rb", buffering=BUFFER)


def _open_zstd(path: Path) -> IO[bytes]:
    """Through whichever module there is: Python 3.14's, its backport (newer mitmproxy brings it), or zstandard."""
    for name in ZSTD_MODULES:
        try:
            return io.BufferedReader(importlib.import_module(name).open(path, "rb"), BUFFER)
        except ModuleNotFoundError:
            continue
    raise ValueError(f"{path}: no zstd module is installed")


def raw_lines(path: Path) -> Iterator[tuple[Path, int, bytes]]:
    """(file, line number from 1, bytes) of every physical line of the ledger. FileNotFoundError if there is none."""
    found = files(path)
    if not found:
        raise FileNotFoundError(f"no ledger at {path}")
    for file in found:
        with open_file(file) as opened:
            for number, raw in enumerate(opened, 1):
                yield file, number, raw


def read(path: Path, skipped: Skipped | None = None) -> Iterator[dict[str, Any]]:
    """Every line of the ledger at `path`, rotated files included, oldest file first.

    Lines that cannot be read are counted in `skipped`; the end of a file that is just being written is not one yet.
    FileNotFoundError if there is no ledger at all.
    """
    for _, _, raw in raw_lines(path):
        yield from parse(raw, skipped)


def recent(path: Path, size: int = BUFFER) -> Iterator[dict[str, Any]]:
    """The lines in the last `size` bytes of the file that grows, oldest first; none where there is no ledger yet."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - size)
        file.seek(start)
        if start:
            file.readline()  # the middle of a line
        for raw in file:
            yield from parse(raw)


def parse(raw: bytes, skipped: Skipped | None = None) -> list[dict[str, Any]]:
    """The calls on one physical line: one; none if it is blank, torn or not ended yet; more if lines were glued."""
    if not raw.endswith(b"\n") or raw.isspace():
        return []
    try:
        return [decode(raw)]
    except (ValueError, RecursionError):
        pass
    lines = []
    for piece in unglue(raw[:-1]):
        try:
            lines.append(decode(piece))
        except (ValueError, RecursionError):
            if skipped:
                skipped.lines += 1
    return lines


def last_line(file: BinaryIO, size: int) -> int:
    """Where the bytes after the last newline of an open file begin; `size` where it ends in a newline or is empty."""
    end = size
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
