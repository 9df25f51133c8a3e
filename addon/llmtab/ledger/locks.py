"""Advisory locks between the processes that share a ledger.

Every writer holds a shared lock on the file it appends to: "a writer lives". Whoever wants to cut the file short or
to compress it needs the exclusive lock, and gets none while a writer lives or where the file system has no locks.
Appending itself takes no lock: one write with O_APPEND is enough.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


def claim_alive(fd: int) -> None:
    """Takes the shared lock. Waits up to a tenth of a second for somebody who mends the file; no lock is no error."""
    for _ in range(20):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.005)
        except OSError:
            return


@contextlib.contextmanager
def alone(fd: int) -> Iterator[bool]:
    """Whether no writer lives on the open file; while the context lasts none begins."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """One process at a time rotates or prunes in a folder; False for the others."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with alone(fd) as mine:
            yield mine
    finally:
        os.close(fd)
