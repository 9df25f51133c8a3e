"""The files: llmtab.yaml and what it names, prices, the ledger and its notes.

Knows how to look at them. Never writes. Must not know proxies or clients.
"""

import shutil
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from llmtab import coverage as coverage_of
from llmtab.doctor import Finding
from llmtab.ledger.reader import files, last_line, notes_path, parse, recent

TAIL: Final = 8 << 20
"""Bytes at the end of a ledger whose chains are checked; `llmtab verify` checks all of it."""
FULL: Final = 100 << 20
"""Bytes that should be free."""
AHEAD: Final = timedelta(minutes=2)
_STREAMS: Final = "stream_options.include_usage in the program, or llmtab proxy --set llmtab_inject_usage"
_COVERED: Final = {
    coverage_of.REFUSED: "llmtab run -- CMD sets every variable",
    coverage_of.TUNNELLED: "take the host out of ignore_hosts, or into allow_hosts, in ~/.mitmproxy/config.yaml",
    coverage_of.OPAQUE: "nothing: see what that client's maker says it used",
    coverage_of.UNKNOWN: "llmtab check https://HOST shows what to write into llmtab.yaml",
    coverage_of.NO_USAGE: "llmtab_estimate=true estimates them; llmtab check FILE shows what an answer of theirs has",
}
"""What helps against each kind of blind spot."""
_SHARED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs"})
"""File systems on which appending is not atomic."""


def config(path: Path | None, now: datetime) -> Iterator[Finding]:
    """llmtab.yaml with all it names, as the proxy would read it; and the age of the prices."""
    from llmtab.home import home
    from llmtab.sources import Sources

    usual = home() / "llmtab.yaml"
    try:
        contents = Sources(path).read()
    except (OSError, ValueError) as error:
        gone = path is not None and not path.exists()
        mend = "name a file that is there" if gone else "mend that line"
        mend += "; llmtab init makes the usual one" if gone else "; llmtab init shows all there is"
        yield Finding("config", "error", " ".join(str(error).split()), mend)
        return
    if contents.config.path is None:
        yield Finding("config", "note", f"no {usual}: the built-in profiles and prices hold", "llmtab init")
    else:
        yield Finding("config", "ok", f"{contents.config.path}")
    if said := contents.prices.stale_note(now.date()):
        yield Finding("prices", "warning", said, "pip install -U llmtab")
    else:
        yield Finding("prices", "ok", f"prices of {contents.prices.as_of}")


def ledger(path: Path, now: datetime) -> Iterator[Finding]:
    """The ledger: who may read it, whether its end is whole, whether lines were lost, whether there is room."""
    found = _permissions(path)
    yield from found
    yield from _room(path)
    if not files(path):
        yield Finding("ledger", "note", f"no ledger at {path} yet", "llmtab demo shows one")
        return
    lines = list(recent(path, TAIL))
    yield from _torn(path)
    yield from _dropped(path)
    broken = _chains(path)
    for text in broken[:3]:
        yield Finding("ledger", "error", text, f"llmtab verify {path}")
    newest = max((at for line in lines if (at := _time(line))), default=None)
    if newest and newest > now + AHEAD:
        text = f"the newest line is of {newest:%Y-%m-%d %H:%M} UTC, in the future: the clock was set back"
        yield Finding("clock", "warning", text, "sudo timedatectl set-ntp true")
    if not broken:
        last = f", the last of {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
        whole = f"its last {len(lines):,} lines are whole{last}" if lines else "no call on it yet"
        yield Finding("ledger", "ok", f"{path}: {whole}")


def coverage(path: Path, now: datetime) -> Iterator[Finding]:
    """What proxies did not see in the last day, as they noted it beside the ledger."""
    from llmtab.coverage import noted

    for kind, text in noted(path, now - timedelta(days=1)).told():
        mend = _STREAMS if kind == coverage_of.NO_USAGE and "in_stream" in text else _COVERED[kind]
        yield Finding("coverage", "warning", f"in the last day: {text}", mend)


def _permissions(path: Path) -> list[Finding]:
    from llmtab.home import home
    from llmtab.ledger.repair import too_open, too_wide

    files_of_ours = path, notes_path(path), home() / "key"
    said = dict.fromkeys(filter(None, (too_open(home()), *map(too_wide, files_of_ours))))
    return [Finding("permissions", "warning", *_halves(text)) for text in said] + _unwritable(path)


def _halves(text: str) -> tuple[str, str]:
    """`... can be read by others (mode 0644): chmod 600 FILE` as text and command."""
    said, _, mend = text.rpartition(": ")
    return said, mend


def _unwritable(path: Path) -> list[Finding]:
    import os

    place = path if path.exists() else next(folder for folder in path.parents if folder.exists())
    if os.access(place, os.W_OK) and not (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        return []
    return [Finding("permissions", "error", f"{place} cannot be written", f"chown {os.getuid()} {place}")]


def _room(path: Path) -> Iterator[Finding]:
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < FULL:
        text = f"{free >> 20} MB are free for {path}"
        yield Finding("disk", "error" if free < FULL >> 4 else "warning", text, "llmtab prune --keep 90d")
    if (kind := _file_system(place)) in _SHARED:
        text = f"{path} lies on {kind}, where lines of two machines can tear each other"
        yield Finding("disk", "warning", text, "export LLMTAB_HOME=/a/local/folder")


def _file_system(place: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of file system that holds a path, "" where that cannot be told."""
    try:
        rows = [row.split()[1:3] for row in mounts.read_text().splitlines()]
    except (OSError, IndexError):
        return ""
    inside = [(len(point), kind) for point, kind in rows if place.resolve().is_relative_to(point)]
    return max(inside, default=(0, ""))[1]


def _torn(path: Path) -> Iterator[Finding]:
    aside = path.with_name(path.name + ".torn")
    if aside.exists():
        text = f"{aside}: {aside.stat().st_size} bytes of lines that a crash tore were set aside"
        yield Finding("ledger", "note", text, f"llmtab verify {path}")
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = path.stat().st_size
        if (start := last_line(file, size)) < size:
            text = f"the last line of {path} is torn ({size - start} bytes)"
            yield Finding("ledger", "warning", text, "the next start of the proxy sets it aside")


def _dropped(path: Path) -> Iterator[Finding]:
    notes = notes_path(path)
    lost = sum(int(note.get("lines", 0)) for note in recent(notes, TAIL) if note.get("note") == "dropped")
    if lost:
        text = f"{lost} lines never reached the disk, as the notes say"
        yield Finding("ledger", "warning", text, f"llmtab verify {path}")


def _chains(path: Path) -> list[str]:
    """What does not follow from its writer's line before, in the end of the file that grows.

    Where no line follows there is a chain key, without which nothing can be said.
    """
    from llmtab.ledger.chain import link, numbering, split

    compute, last, bad, good = link(), dict[bytes, tuple[int, bytes]](), list[str](), 0
    for raw in _raw_tail(path):
        sealed, number = split(raw[:-1]), numbering(raw)
        if sealed is None or number is None:
            if not raw.isspace() and not parse(raw):
                bad.append(f"{path} has a line that cannot be read")
            continue
        writer, seq = number
        before = last.get(writer) or ((-1, writer) if seq == 0 else None)
        if before and before[0] + 1 == seq:
            fits = compute(before[1], sealed[0]) == sealed[1]
            good += fits
            if not fits:
                bad.append(f"line {seq} of writer {writer.decode()} was altered, or the one before it")
        last[writer] = seq, sealed[1]
    return bad if good else []


def _raw_tail(path: Path) -> Iterator[bytes]:
    """The whole lines in the last TAIL bytes."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        if file.tell():
            file.readline()
        yield from (raw for raw in file if raw.endswith(b"\n"))


def _time(line: dict[str, Any]) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(line.get("time")))
    except ValueError:
        return None
    return found if found.tzinfo else None


def labels(folder: Path) -> Iterator[Finding]:
    """Whose work is done in this folder."""
    from llmtab.run.project import labels_at, stated

    try:
        found = labels_at(folder, Path.home())
    except ValueError as error:
        yield Finding("labels", "error", str(error), "mend that line")
        return
    if found:
        yield Finding("labels", "ok", f"llmtab run labels calls from here {stated(found)}")
