"""Bytes onto the end of a file that other processes append to as well, whatever the disk does.

Knows file descriptors, short writes, full and slow disks, files that vanish. Must not know what the bytes mean beyond
"a batch is whole lines, each ending in a newline". Nothing here raises after `open`; what cannot be written waits.
"""

import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmtab.ledger.locks import claim_alive

log = logging.getLogger("llmtab")

WAITING_BYTES: Final = 64 * 1024 * 1024
"""What may wait in memory for a disk that refuses: about 50,000 calls; the proxy itself needs more for its streams."""
WAITING_BATCHES: Final = 100_000
SLOW_SECONDS: Final = 0.05
"""A write this slow would be felt by every stream on the event loop: from then on a thread writes."""
CALM_SECONDS: Final = 5.0
"""The thread hands back after this long without a slow or failed write."""
FLUSH_SECONDS: Final = 5.0
"""How long `close` waits for a slow disk before the process ends without it."""

type Write = Callable[[int, bytes], int]

# macOS has no fdatasync.
_datasync: Final = getattr(os, "fdatasync", os.fsync)

LOOK_SECONDS: Final = 0.2
"""How long a rotation by somebody else may stay unnoticed."""


class Appender:
    """One file, appended to with one write a batch, by one thread at a time.

    `put` and `pump` belong to the caller's thread (the event loop); while a disk is slow a thread of our own writes.
    """

    def __init__(self, path: Path, write: Write = os.write) -> None:
        self.path = path
        self.trouble = ""
        """Why lines wait, in a few words; empty while the disk is healthy."""
        self.dirty = False
        """Something was written since the last `sync`."""
        self._write = write
        self._queue: deque[bytes] = deque()
        # Pairs of counters, each changed by one thread only, need no lock; their difference is what waits.
        self._bytes_in = self._bytes_out = 0
        self._lines_in = self._lines_out = 0
        self._name = str(path)
        self._fd = -1
        self._file = (0, 0)  # device and inode of what `_fd` is open on
        self.opened = 0
        """How often the file was opened: once more after each rotation."""
        self._end = -1  # where our last write ended, -1 where that says nothing about the file as it is
        self._looked = 0.0  # when the path was last looked up
        self._half = 0  # bytes of the queue's first batch that are in the file already
        self._busy = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._syncing = threading.Lock()
        self._sync_failed = False

    # -- what the caller does ------------------------------------------------------------------------------------------

    def put(self, batch: bytes) -> None:
        """Queues whole lines (the caller asks `has_room` first) and writes what it can."""
        if not self._queue and self._thread is None and self._at_once(batch):
            return
        self._queue.append(batch)
        self._bytes_in += len(batch)
        self._lines_in += batch.count(b"\n")
        self.pump()

    def _at_once(self, batch: bytes) -> bool:
        """Nearly every batch: the file is open, ends where our last write ended, and takes the whole. False, and
        nothing is changed, where that is not so."""
        with self._busy:
            start = time.perf_counter()
            if self._fd < 0 or self._half or self.trouble or start - self._looked >= LOOK_SECONDS:
                return False
            try:
                file = os.fstat(self._fd)
                if not file.st_nlink or file.st_size != self._end:
                    return False
                count = self._write(self._fd, batch)
            except OSError:
                return False
            self._end += count
            self.dirty = True
            seconds = time.perf_counter() - start
        if count != len(batch):  # a full disk took a part
            self._half = count
            return False
        if seconds >= SLOW_SECONDS:
            self._start_thread(seconds)
        return True

    def has_room(self) -> bool:
        """Whether one more batch may wait; the bound is passed by at most that batch."""
        return self._bytes_in - self._bytes_out < WAITING_BYTES and len(self._queue) < WAITING_BATCHES

    @property
    def waiting(self) -> int:
        """Lines that are in memory only."""
        return self._lines_in - self._lines_out

    @property
    def slow(self) -> bool:
        """Whether a thread writes because the disk is slow."""
        return self._thread is not None

    def pump(self) -> None:
        """Writes what waits, as far as the disk takes it."""
        if self._thread is not None:
            self._wake.set()
        elif self._queue:
            with self._busy:  # held by others for a moment only, as long as there is no thread
                slowest = self._drain(stop_when_slow=True)
            if slowest >= SLOW_SECONDS:
                self._start_thread(slowest)

    def sync(self) -> None:
        """fdatasync; blocks, so call it off the event loop. Safe while other threads write, sync, reopen or close.

        Who comes while another thread syncs waits for it: often nothing is left to do then.
        """
        with self._syncing:
            with self._busy:
                if self._thread is not None:
                    self._drain(stop_when_slow=False)
                if self._fd < 0 or not self.dirty:
                    return
                self.dirty = False
                copy = os.dup(self._fd)
            self._sync(copy)

    def _sync(self, fd: int) -> None:
        """Syncs and closes a descriptor."""
        try:
            _datasync(fd)
            self._sync_failed = False
        except OSError as error:
            self.dirty = True
            if not self._sync_failed:
                log.error("llmtab: cannot sync %s: %s; it is tried again", self.path, error.strerror)
            self._sync_failed = True
        finally:
            os.close(fd)

    def close(self, *, sync: bool = True) -> None:
        """Writes what waits, syncs, closes. A later `put` opens the file again."""
        if (thread := self._thread) is not None:
            self._closing = True
            self._wake.set()
            thread.join(FLUSH_SECONDS)
            self._closing = False
            if thread.is_alive():
                log.error("llmtab: %s is too slow to finish; %d lines may be lost", self.path, self.waiting)
                return
        with self._busy:
            self._drain(stop_when_slow=False)
        if sync:
            self.sync()
        with self._busy:
            self._forget()
        if self._queue:
            log.error("llmtab: %s: %s: %d lines could not be written", self.path, self.trouble, self.waiting)

    # -- opening -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Creates the folder (0700) and the file (0600) where missing. OSError if it cannot be appended to."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Opened for reading too: whether the file ends in a newline is looked up before the first write.
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
        opened = os.fstat(fd)
        if not stat.S_ISREG(opened.st_mode):
            os.close(fd)
            raise OSError("it is not a regular file")
        self._let_go()
        self._fd, self._file = fd, (opened.st_dev, opened.st_ino)
        self.opened += 1
        claim_alive(fd)
        # Renamed since, and perhaps locked for being compressed: what is written there would be lost.
        if not self._is_ours(self._stat_path()):
            self.open()

    def look(self) -> None:
        """Lets go of a file that was rotated or deleted, so that a writer with nothing to write is in nobody's way."""
        if self._fd >= 0 and not self._queue and not self._half and self._thread is None:
            with self._busy:
                if self._fd >= 0 and not self._is_ours(self._stat_path()):
                    self._let_go()

    def _stat_path(self) -> os.stat_result | None:
        try:
            return os.stat(self._name)  # noqa: PTH116 - once a call, and Path.stat takes longer
        except FileNotFoundError:
            return None

    def _is_ours(self, there: os.stat_result | None) -> bool:
        return there is not None and (there.st_dev, there.st_ino) == self._file

    def _let_go(self) -> None:
        if self._fd >= 0 and self.dirty:  # rotated or deleted before it was synced
            threading.Thread(target=self._sync, args=(self._fd,), name="llmtab-sync", daemon=True).start()
            self._fd = -1
        self._forget()

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._end = -1, -1

    # -- writing -------------------------------------------------------------------------------------------------------

    def _drain(self, *, stop_when_slow: bool) -> float:
        """Writes batches in order until the queue is empty or the disk refuses. Returns the slowest write's seconds."""
        slowest = 0.0
        while self._queue:
            batch = self._queue[0]
            start = time.perf_counter()
            try:
                self._append(batch)
            except OSError as error:
                self._failed(error)
                break
            finally:
                slowest = max(slowest, time.perf_counter() - start)
            self._half = 0
            self._queue.popleft()
            self._bytes_out += len(batch)
            self._lines_out += batch.count(b"\n")
            self.dirty = True
            if stop_when_slow and slowest >= SLOW_SECONDS:
                break
        if self.trouble and not self._queue:
            log.warning("llmtab: %s can be written again", self.path)
            self.trouble = ""
        return slowest

    def _append(self, batch: bytes) -> None:
        size = self._size()
        data, kept = self._prepare(batch, size)
        done = 0
        while done < len(data):
            count = self._write(self._fd, data[done:] if done else data)
            if count <= 0:
                raise OSError("nothing was written")
            done += count
            self._half = max(kept + done, 0)
            # Where the file ends now, unless another process wrote in between: then the next write takes a closer look.
            self._end = size + done

    def _prepare(self, batch: bytes, size: int) -> tuple[bytes, int]:
        """What to write, and how many bytes of the batch stand before it in the file (-1: a newline is put in front).

        A half-written batch is finished if nobody wrote after it, else it begins again at its first unfinished line.
        """
        half, kept = self._half, batch.rfind(b"\n", 0, self._half) + 1
        if half and (size == self._end or self._ends_in(batch[kept:half], size)):
            return batch[half:], half
        if batch[half : half + 1] == b"\n" and 0 <= self._end < size and os.pread(self._fd, 1, self._end) == b"\n":
            # All but its newline was there, and another process put that before its own line.
            return batch[half + 1 :], half + 1
        newline_needed = size and size != self._end and os.pread(self._fd, 1, size - 1) != b"\n"
        self._half, self._end = kept, -1
        # A line torn by somebody's crash or full disk must not be glued to ours.
        if newline_needed:
            return b"\n" + batch[kept:], kept - 1
        return batch[kept:] if kept else batch, kept

    def _ends_in(self, piece: bytes, size: int) -> bool:
        """Whether the file, of which nobody knows where our last write ended, ends in a piece of a line."""
        return 0 < len(piece) <= size and os.pread(self._fd, len(piece), size - len(piece)) == piece

    def _size(self) -> int:
        """The file's size, after opening it (again) where it was rotated, deleted or never opened."""
        if self._fd >= 0:
            # What we began in a file that was renamed is finished there; in a deleted one it would be lost.
            # Under load the path itself is looked up only now and then: a deleted file shows in its link count, and one
            # that was renamed a moment ago is still read as part of the ledger.
            ours = os.fstat(self._fd)
            now = time.perf_counter()
            if ours.st_nlink and (self._half or now - self._looked < LOOK_SECONDS):
                return ours.st_size
            self._looked = now
            there = self._stat_path()
            if there and self._is_ours(there):
                return there.st_size
        self.open()
        return os.fstat(self._fd).st_size

    def _failed(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if not self.trouble:
            log.error("llmtab: cannot write %s: %s; lines wait in memory and will be written later", self.path, reason)
        self.trouble = reason

    # -- slow disks ----------------------------------------------------------------------------------------------------

    def _start_thread(self, seconds: float) -> None:
        message = "llmtab: %s: one write took %.0f ms; a thread writes until the disk is fast again"
        log.warning(message, self.path, seconds * 1e3)
        self._thread = threading.Thread(target=self._serve, name="llmtab-ledger", daemon=True)
        self._wake.set()
        self._thread.start()

    def _serve(self) -> None:
        calm_since = time.monotonic()
        while not self._closing and time.monotonic() - calm_since < CALM_SECONDS:
            self._wake.wait(1.0)
            self._wake.clear()
            with self._busy:
                slowest = self._drain(stop_when_slow=False)
            if slowest >= SLOW_SECONDS or self._queue:
                calm_since = time.monotonic()
        if not self._closing:
            log.warning("llmtab: %s is fast again", self.path)
        self._thread = None
