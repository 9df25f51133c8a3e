"""Retention: which finished files of a ledger are past their time, and how they go.

Knows whole files and the last line of each writer in them. Must not know what a line means; never cuts a file, never
touches the one that grows. Each deletion is noted before it is done, so that `verify` can tell a pruned
ledger from a cut one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from llmtab.ledger.chain import numbering, split, unglue
from llmtab.ledger.notes import Notes
from llmtab.ledger.reader import open_file, rotated
from llmtab.ledger.rotation import finished_at, sync_folder

_SPAN: Final = re.compile(r"(\d{1,6})\s*(?:(h)(?:ours?)?|(d)(?:ays?)?|(w)(?:eeks?)?|(y)(?:ears?)?)", re.I)
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24, "y": 366 * 24}


def span(text: str) -> timedelta | None:
    """From "90d", "36 hours", "12 weeks", "2y"; "" is for ever (None). Raises ValueError for anything else."""
    if not text.strip():
        return None
    found = _SPAN.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise ValueError(f"{text!r}, expected a time to keep finished files like 90d, 12w or 2y")
    return timedelta(hours=int(found[1]) * _HOURS[(found[2] or found[3] or found[4] or found[5]).lower()])


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished file: `until` is when it was finished (aware UTC), `size` its bytes as they are on the disk."""

    name: str
    path: Path
    until: datetime
    size: int

    def __str__(self) -> str:
        return f"{self.path.name}: {self.size:,} bytes, finished {self.until:%Y-%m-%d %H:%M} UTC"


def past_their_time(path: Path, keep: timedelta, now: datetime) -> list[Finished]:
    """The finished files of the ledger at `path` that were finished longer ago than `keep`, oldest first."""
    found = []
    for name, file in rotated(path).items():
        until = finished_at(file)
        if until + keep >= now:
            break  # a hole in the middle would look like a loss
        found.append(Finished(name, file, until, file.stat().st_size))
    return found


def prune(doomed: list[Finished], notes: Notes) -> Iterator[tuple[Finished, int]]:
    """Deletes these files, oldest first, and gives each with its number of lines. The caller holds the folder's lock.

    Raises OSError where a note cannot be put on the disk: then the file stays.
    """
    for file in doomed:
        count, writers = _account(file.path)
        until = file.until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        notes.add("pruned", file=file.name, lines=count, until=until, writers=writers)
        if not notes.close():
            raise OSError(f"{file.path} is kept: its note cannot be written")
        file.path.unlink()
        sync_folder(file.path.parent)
        yield file, count


def _account(path: Path) -> tuple[int, dict[str, list[int | str]]]:
    """(lines, writer -> [number of its next line, chain of its last one]) of a file."""
    count = 0
    writers: dict[str, list[int | str]] = {}
    with open_file(path) as file:
        for raw in file:
            for piece in unglue(raw.removesuffix(b"\n")):
                number, sealed = numbering(piece), split(piece)
                if number and sealed:
                    count += 1
                    writers[number[0].decode()] = [number[1] + 1, sealed[1].decode()]
    return count, writers
