"""What is spent, kept across a restart: a picture of the buckets and of how far the ledger was counted.

Knows one JSON file beside the ledger. Must not know calls. It holds nothing that the ledger does not: one that is
absent, broken or made for other limits costs a longer start.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmtab.budgets.buckets import Bucket
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.rebuild import Place
from llmtab.budgets.store import Embedded

log = logging.getLogger("llmtab")

FORMAT: Final = 1
FRESH: Final = 30.0
"""Seconds for which a picture still tells what is reserved."""


def checkpoint_path(ledger: Path) -> Path:
    """Beside the ledger: `ledger.jsonl` -> `ledger.budgets.json`."""
    return ledger.with_suffix(".budgets.json")


def picture(store: Embedded, place: Place, now: float) -> dict[str, Any]:
    """What is spent and how far it was counted, as plain values."""
    buckets = [
        [b.limit.name, b.key, b.start, b.spent, b.reserved, b.carried, None if b.bins is None else list(b.bins.items())]
        for b in store.buckets()
        if not b.limit.own
    ]  # fmt: skip
    return {"at": now, "inode": place.inode, "offset": place.offset, "seqs": dict(place.seqs), "buckets": buckets}


def save(path: Path, limits: Limits, shot: Mapping[str, Any]) -> None:
    """Writes a picture, whole or not at all. May run in a thread; an error costs only time at the next start."""
    digests = {limit.name: limit.digest for limit in limits.all}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"format": FORMAT, "digests": digests, **shot}, file, separators=(",", ":"))
        temporary.replace(path)
    except OSError as error:
        log.info("llmtab: the budgets' checkpoint %s is not written: %s", path, error.strerror or error)
        with contextlib.suppress(OSError):
            temporary.unlink()


def load(path: Path, limits: Limits, store: Embedded, now: float | None = None) -> Place | None:
    """The store filled from a checkpoint, and the place to go on from. None, and nothing filled, where there is none
    or it was made for other limits. `now`: for onlookers, who see what was reserved as well if that was just now."""
    try:
        found = json.loads(path.read_bytes())
        named = {limit.name: limit for limit in limits.all}
        fits = found["format"] == FORMAT and all(
            limit.own or found["digests"].get(limit.name) == limit.digest for limit in limits.all
        )
        if not fits:
            return None
        fresh = now is not None and abs(now - found["at"]) < FRESH
        buckets = [
            _bucket(named[name], key, start, (spent, reserved if fresh else 0, carried, bins))
            for name, key, start, spent, reserved, carried, bins in found["buckets"]
            if name in named
        ]
        told = [
            (str(event), str(name), str(key), float(start), int(level))
            for event, name, key, start, level in found.get("told") or ()
        ]
        for bucket in buckets:
            store.put(bucket)
        return Place(found["seqs"], found["inode"], found["offset"], told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _bucket(limit: Limit, key: str, start: float, held: tuple[int, int, int, Any]) -> Bucket:
    begin, end = limit.window.at(start)
    bucket = Bucket(limit, key, begin, end)
    spent, reserved, carried, bins = held
    bucket.hold(spent, reserved, carried)
    if bucket.bins is not None:
        bucket.bins = {float(at): amount for at, amount in bins or ()}
        bucket.slide(start)
    return bucket
