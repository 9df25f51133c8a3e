"""Which ledger a proxy on this machine writes: it leaves a note in the home while it runs, and holds a lock on it.

Knows the note and how one of a proxy that has ended is told from one that lives. Must not know who asks, or mitmproxy.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

from llmtab.clients import LOCAL, endpoint
from llmtab.home import home, private_folder

EVERYWHERE: Final = ("", "0.0.0.0", "::")


def announce(listens: Iterable[Sequence[Any]], ledger: Path) -> TextIO:
    """Leaves the note of this process: where it listens, (host, port, ...) each. It holds as long as the file that is
    returned is open. Raises OSError."""
    folder = _folder()
    private_folder(folder)
    for _ in _notes(folder):  # takes away those of the dead
        pass
    path = _own(folder)
    file = path.with_suffix("").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    json.dump(
        {"listens": [[str(host), int(port)] for host, port, *_ in listens], "ledger": str(ledger.absolute())}, file
    )
    file.flush()
    Path(file.name).replace(path)  # only now: whoever finds a note without a lock takes it for one of the dead
    return file


def withdraw(note: TextIO) -> None:
    """Takes the note of this process away."""
    _own(_folder()).unlink(missing_ok=True)
    note.close()


def _own(folder: Path) -> Path:
    return folder / f"{os.getpid()}.json"


def ledger_of(url: str) -> Path | None:
    """The ledger of the proxy that listens there; None where it left no note: on another machine, of another user."""
    place = endpoint(url)
    if place is None or not _is_here(place[0]):
        return None
    found = {Path(note["ledger"]) for note in _notes(_folder()) if _listens(note, *place)}
    return found.pop() if len(found) == 1 else None


def _folder() -> Path:
    return home() / "running"


def _is_here(host: str) -> bool:
    return host in LOCAL or host.startswith("127.")


def _listens(note: dict[str, Any], host: str, port: int) -> bool:
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    return any(at == port and (where in EVERYWHERE or where in hosts) for where, at in note["listens"])


def _notes(folder: Path) -> Iterator[dict[str, Any]]:
    """Those of proxies that run; what others left is taken away."""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                note = json.load(file)
                yield {"listens": [(str(host), int(port)) for host, port in note["listens"]], "ledger": note["ledger"]}
            else:
                path.unlink()
