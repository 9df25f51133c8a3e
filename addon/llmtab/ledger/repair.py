"""What is looked at before a ledger is appended to again: a torn last line, and who may read the file.

Knows the end of a file and its mode bits. Must not know chains' values or how lines are written.
"""

import os
import stat
from pathlib import Path

from llmtab.ledger.chain import split
from llmtab.ledger.locks import alone
from llmtab.ledger.reader import last_line


def set_torn_tail_aside(path: Path) -> int:
    """Moves what follows the last newline of `path` into `<path>.torn` and returns how many bytes that were.

    A power cut or a kill in mid-write leaves such a tail. A tail that is a whole line gets its newline and stays.
    Nothing is touched while another writer lives: the tail may be a line that it is writing just now. OSError as usual.
    """
    with path.open("r+b") as file, alone(file.fileno()) as mine:
        size = file.seek(0, os.SEEK_END)
        start = last_line(file, size)
        if not mine or start == size:
            return 0
        file.seek(start)
        tail = file.read()
        if split(tail):
            file.write(b"\n")
            return 0
        _keep(path.with_name(path.name + ".torn"), tail)
        file.truncate(start)
        return len(tail)


def _keep(path: Path, tail: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(tail + b"\n")
        file.flush()
        os.fsync(file.fileno())


def too_wide(path: Path) -> str | None:
    """A sentence naming who can get at a file (the ledger, its notes, a key, llmtab.yaml) beside its owner, or None.

    A folder that others may read shows them names only; one they may write to lets them replace the file, unless it
    is sticky (as /tmp is). A file that is not there yet is nobody's business.
    """
    try:
        mode, folder = stat.S_IMODE(path.stat().st_mode), path.parent.stat().st_mode
    except FileNotFoundError:
        return None
    if mode & 0o077:
        return f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}"
    if folder & 0o022 and not folder & stat.S_ISVTX:
        return f"{path.parent} can be written by others (mode {stat.S_IMODE(folder):04o}): chmod 700 {path.parent}"
    return None


def too_open(folder: Path) -> str | None:
    """A sentence about a folder of llmtab's own that others may look into, or None. One that is not there is closed."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except FileNotFoundError:
        return None
    return f"{folder} is open to others (mode {mode:04o}): chmod 700 {folder}" if mode & 0o077 else None
