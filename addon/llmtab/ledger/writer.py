"""The ledger: finished calls onto disk, once, in order, chained.

Knows writers, numbering, the notes beside the ledger and when to sync. Must not know what a line means, mitmproxy, or
terminals. After `open` nothing here raises: a disk that refuses costs memory, at worst a counted and noted line, never
a call.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from llmtab.ledger.appender import Appender, Write, log
from llmtab.ledger.chain import Chain
from llmtab.ledger.held import Held, left_behind
from llmtab.ledger.housekeeping import Housekeeper, Policy
from llmtab.ledger.notes import Notes, utc_now
from llmtab.ledger.reader import notes_path
from llmtab.ledger.repair import set_torn_tail_aside, too_wide

SYNC_MODES: Final = ("always", "interval", "off")
CHECKPOINT_SECONDS: Final = 300.0
"""How often the notes say how far a busy writer has come: what is cut from the end of a writer that crashed shows up to
the last of these."""
FINISH_SECONDS: Final = 2.0
"""How long `close` waits for a rotation that is under way."""


class LedgerError(OSError):
    """The ledger cannot be written at start. str() is one line: which path and why."""


class Ledger:
    """The ledger of one process. All but `sync` belong to one thread (the event loop).

    `fsync`: "always" (the caller awaits `sync` in an executor before a call ends), "interval" (`tick` syncs in a
    thread), "off". `key` makes the chain an HMAC. `policy`: rotation and retention. `write` is the system call,
    replaceable to try failing disks.
    """

    def __init__(
        self,
        path: Path,
        *,
        fsync: str = "interval",
        writer: str | None = None,
        key: bytes | None = None,
        policy: Policy | None = None,
        now: Callable[[], datetime] = utc_now,
        write: Write = os.write,
    ) -> None:
        if fsync not in SYNC_MODES:
            raise ValueError(f"fsync must be one of {', '.join(SYNC_MODES)}, not {fsync!r}")
        self.path = path
        self.fsync = fsync
        self.writer = writer or secrets.token_hex(8)
        self.dropped = 0
        """Lines given up because too many waited."""
        self._noted = 0  # drops that are in the notes already
        self._drop_seq = 0
        self.key = key
        self._chain = Chain(self.writer, key)
        self._file = Appender(path, write)
        self._notes = Notes(path, writer=self.writer, key=key, now=now, write=write)
        self._housekeeper = Housekeeper(path, policy or Policy(), key=key, now=now)
        self._checkpoint = 0
        self._checkpoint_at = time.monotonic()
        self._opened = 0
        self._syncing: threading.Thread | None = None
        self._held = Held(path, self.writer)
        self._freed: set[str] = set()  # held calls that were appended; the disk may still refuse them

    @property
    def seq(self) -> int:
        """The number of this writer's next line."""
        return self._chain.seq

    @property
    def waiting(self) -> int:
        """Lines that are in memory only, because the disk refuses or is slow."""
        return self._file.waiting

    @property
    def trouble(self) -> str:
        """Why lines wait, in a few words; empty while all is well."""
        return self._file.trouble or ("the disk is slow" if self._file.slow else "")

    def open(self) -> None:
        """Creates what is missing, sets a torn last line aside. Raises LedgerError if the path cannot be written."""
        try:
            if self.path.is_file():
                self._mend()
            self._file.open()
            self._take_over()
            wide = too_wide(self.path), too_wide(notes_path(self.path))
        except OSError as error:
            raise LedgerError(f"cannot write the ledger {self.path}: {error.strerror or error}") from error
        for said in dict.fromkeys(filter(None, wide)):
            log.warning("llmtab: %s", said)

    def keep_by(self, policy: Policy) -> None:
        """From here on files are rotated and kept by this policy."""
        self._housekeeper.policy = policy

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Appends a call (its line and its sub-lines), or calls that belong together, with one write. Never raises;
        what the disk refuses waits."""
        if not self._file.has_room():
            self._drop(lines, f"too many wait for {self.path}")
            return
        mark = self._chain.seq, self._chain.last
        try:
            batch = b"".join([self._chain.seal(line) for line in lines])
        except (TypeError, ValueError) as error:
            self._chain.seq, self._chain.last = mark
            self._drop(lines, f"cannot be encoded ({type(error).__name__})")
            return
        self._file.put(batch)
        if self._held:
            self._freed.update(line["id"] for line in lines)
            self._let_go()
        if self.dropped != self._noted:
            self._note_drops()

    def hold(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The lines of a call will be appended later, in some seconds: until then they lie beside the ledger, and a
        writer that is killed leaves them to the next one. Never raises."""
        if not self.trouble:
            self._held.keep(lines)

    def tick(self) -> None:
        """About once a second: retries what waits, notes drops and checkpoints, has files rotated and pruned, and
        syncs, in threads. Never blocks."""
        self._file.pump()
        self._file.look()
        self._let_go()
        self._notes.pump()
        if self.dropped != self._noted:
            self._note_drops()
        another_file = self._file.opened > self._opened > 0
        self._opened = self._file.opened
        if another_file or time.monotonic() - self._checkpoint_at >= CHECKPOINT_SECONDS:
            self._checkpoint_at = time.monotonic()
            self._note_checkpoint()
        self._housekeeper.tick()
        if self.fsync != "off" and self._file.dirty and not (self._syncing and self._syncing.is_alive()):
            self._syncing = threading.Thread(target=self._file.sync, name="llmtab-sync", daemon=True)
            self._syncing.start()

    def sync(self) -> None:
        """Everything written so far is on the disk when this returns (unless `fsync` is "off"). Blocks; any thread."""
        if self.fsync != "off":
            self._file.sync()
            self._held.sync()

    def close(self) -> None:
        """Writes what waits and a checkpoint, syncs, closes the files. A later `append` opens them again."""
        self._file.close(sync=self.fsync != "off")
        if not self.waiting:  # else the next start finds there what this one could not write
            self._held.close()
        if self.dropped != self._noted:
            self._note_drops()
        self._note_checkpoint()
        self._notes.close(sync=self.fsync != "off")
        self._housekeeper.wait(FINISH_SECONDS)

    def note(self, kind: str, **facts: Any) -> None:
        """Adds a line to the notes: what happened to the ledger itself. Never raises."""
        self._notes.add(kind, **facts)

    def _note_checkpoint(self) -> None:
        if self._chain.seq != self._checkpoint and not self.waiting:
            self._checkpoint = self._chain.seq
            self.note("checkpoint", lines=self._chain.seq, last=self._chain.last.decode())

    def _mend(self) -> None:
        """A torn tail that cannot be moved (a full disk) is no reason not to start: the next line ends it."""
        try:
            torn = set_torn_tail_aside(self.path)
        except OSError as error:
            log.warning("llmtab: the torn last line of %s stays: %s", self.path, error.strerror or error)
            return
        if torn:
            log.warning("llmtab: the last line of %s was torn: %d bytes are set aside in .torn", self.path, torn)
            self.note("torn", bytes=torn)

    def _let_go(self) -> None:
        if self._freed and not self.waiting:
            self._held.let_go(self._freed)
            self._freed.clear()

    def _take_over(self) -> None:
        """Books what writers that were killed had held."""
        for path, calls in left_behind(self.path):
            for lines in calls:
                self.append(lines)
            if calls:
                log.warning("llmtab: a writer was killed while %d calls waited for their lines: booked now", len(calls))
            if not self.waiting:
                path.unlink(missing_ok=True)

    def _drop(self, lines: Sequence[Mapping[str, Any]], why: str) -> None:
        if self.dropped == self._noted:
            log.error("llmtab: lines are dropped: %s", why)
            self._drop_seq = self._chain.seq
        self.dropped += len(lines)

    def _note_drops(self) -> None:
        """Once the disk is back: how many lines are missing, the first of them before which number of this writer."""
        if self._file.waiting:
            return
        log.error("llmtab: %d lines were dropped and are not in %s", self.dropped - self._noted, self.path)
        self.note("dropped", lines=self.dropped - self._noted, before=self._drop_seq)
        self._noted = self.dropped
