"""What is spent, kept across a restart: a picture of the buckets and of how far the ledger was counted.

Knows one JSON file beside the ledger. Must not know calls. It holds nothing that the ledger does not: one that is
absent, broken, or made for other limits or another ledger costs a longer start.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any, Final

from llmtab.budgets.buckets import Bucket
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.rebuild import Place
from llmtab.budgets.store import Embedded
from llmtab.budgets.windows import Span

log = logging.getLogger("llmtab")

FORMAT: Final = 2
FRESH: Final = 30.0
"""Seconds for which a picture still tells what is reserved."""
AHEAD: Final = 60.0
"""Seconds by which clocks may differ. A picture from later than that was made while the clock was wrong: windows that
are open may have been over then."""


def checkpoint_path(ledger: Path) -> Path:
    """Beside the ledger: `ledger.jsonl` -> `ledger.budgets.json`."""
    return ledger.with_suffix(".budgets.json")


def picture(store: Embedded, place: Place, ledger: Path, now: float) -> dict[str, Any]:
    """What is spent and how far the ledger was counted, as plain values."""
    buckets = [
        [b.limit.name, b.key, b.start, b.spent, b.reserved, b.carried, None if b.bins is None else list(b.bins.items())]
        for b in store.buckets()
        if not b.limit.own
    ]  # fmt: skip
    return {
        "at": now, "ledger": ledger.name, "head": place.head, "offset": place.offset, "tail": place.tail.hex(),
        "seqs": dict(place.seqs), "buckets": buckets,
    }  # fmt: skip


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


def load(path: Path, limits: Limits, store: Embedded, now: float | None = None) -> Place:
    """The store filled from a checkpoint, and the place to go on from: the ledger's beginning, and nothing filled,
    where there is none or it was made for other limits or another ledger. What was told is known in any case.

    `now`: for onlookers, who see what was reserved as well if that was just now.
    """
    told: list[Any] = []
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        told = [
            (str(event), str(name), str(key), float(start), int(level))
            for event, name, key, start, level in found.get("told") or ()
        ]
        if found.get("format") != FORMAT or found["at"] > (now or time()) + AHEAD:
            return Place(told=told)
        place = _place(found)
        place.told = told
        named = {limit.name: limit for limit in limits.all}
        same = all(limit.own or found["digests"].get(limit.name) == limit.digest for limit in limits.all)
        if not same or not place.is_of(path.with_name(found["ledger"])):
            return Place(told=told)
        fresh = now is not None and abs(now - found["at"]) < FRESH
        spans: dict[tuple[str, float], Span] = {}
        buckets = [
            _bucket(spans, named[name], key, start, (int(spent), int(reserved) if fresh else 0, int(carried), bins))
            for name, key, start, spent, reserved, carried, bins in found["buckets"]
            if name in named
        ]
    except Exception as error:  # whatever stands in that file
        log.debug("llmtab: the budgets' checkpoint %s is not used: %r", path, error)
        return Place(told=told)
    for bucket in buckets:
        store.put(bucket)
    return place


def _place(found: Mapping[str, Any]) -> Place:
    seqs, offset, head, tail = found["seqs"], found["offset"], found["head"], bytes.fromhex(found["tail"])
    if not isinstance(head, str) or type(offset) is not int or not 0 < len(tail) <= offset:
        raise ValueError("no place")
    return Place({str(writer): int(seq) for writer, seq in seqs.items()}, offset=offset, head=head, tail=tail)


def _bucket(
    spans: dict[tuple[str, float], Span], limit: Limit, key: str, start: float, held: tuple[int, int, int, Any]
) -> Bucket:
    """`spans`: windows that were asked for already; thousands of callers share them."""
    span = spans.get((limit.name, start))
    if span is None:
        span = spans[limit.name, start] = limit.window.at(start)
    bucket = Bucket(limit, str(key), *span)
    spent, reserved, carried, bins = held
    bucket.hold(spent, reserved, carried)
    if bucket.bins is not None:
        bucket.bins = {float(at): int(amount) for at, amount in bins or ()}
        bucket.slide(start)
    return bucket
