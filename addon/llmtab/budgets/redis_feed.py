"""What a server has to be told of a ledger: its calls as what they take from limits, and how far they were told.

Knows the ledger's files and the file that remembers the place. Must not know connections.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import NamedTuple

from llmtab.budgets.charges import Need, charges, counted_at
from llmtab.budgets.checkpoint import checkpoint_path, save
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.rebuild import MALFORMED, Line, Place, horizon, unread
from llmtab.budgets.windows import Span


class Told(NamedTuple):
    """A call of the ledger: its line's writer and number, what it took, and the moment it counts in."""

    writer: str
    seq: int
    needs: list[Need]
    at: float


@dataclass(slots=True)
class Sum:
    """What lines of a writer behind number `last` and up to `seq` took from a limit. `spent`: by bucket and a
    moment of its window."""

    limit: Limit
    writer: str
    last: int
    seq: int
    spent: dict[tuple[str, float], int] = field(default_factory=dict)


def sums(calls: Iterable[Told], last: Mapping[tuple[str, str], int]) -> list[Sum]:
    """Of calls that are behind the last ones that were counted, by limit and writer."""
    found: dict[tuple[str, str], Sum] = {}
    spans: dict[str, Span] = {}
    for call in calls:
        for limit, key, amount in call.needs:
            place = limit.name, call.writer
            if call.seq <= last[place]:
                continue
            if place not in found:
                found[place] = Sum(limit, call.writer, last[place], call.seq)
            start, end = spans.get(limit.name) or (0.0, 0.0)
            if not start <= call.at < end or limit.window.sliding:  # calendars take their time
                start, end = spans[limit.name] = limit.window.at(call.at)
            middle = limit.window.bin / 2 if limit.window.sliding else 0.0
            one, at = found[place], call.at if limit.own else start + middle
            one.seq = max(one.seq, call.seq)
            one.spent[key, at] = one.spent.get((key, at), 0) + amount
    return [*found.values()]


class Feed:
    """The ledger at `path` under these limits. `writer`: ours, whose calls count against limits of one process."""

    def __init__(self, path: Path, limits: Limits, writer: str) -> None:
        self._path, self._limits, self._writer = path, limits, writer

    def chunks(self, place: Place, now: float, size: int) -> Iterator[list[Told]]:
        """All calls behind a place that count in a window which is still open, in the ledger's order; the place moves
        on with them."""
        for chunk in batched(self._calls(place, now), size):
            yield list(chunk)

    def _calls(self, place: Place, now: float) -> Iterator[Told]:
        call: list[Line] = []
        for line in unread(self._path, place, horizon(self._limits, now)):
            if call and "parent" in line and line["parent"] == call[0].get("id"):
                call.append(line)
                continue
            yield from self._told(call)
            call = [line]
        yield from self._told(call)

    def _told(self, call: list[Line]) -> Iterator[Told]:
        writer, seq = (call[0].get("writer"), call[0].get("seq")) if call else (None, None)
        if type(writer) is not str or type(seq) is not int:
            return  # not one of our lines: nothing tells whether it was counted
        try:
            at = counted_at(call[0])
            needs = [need for need in charges(self._limits, call, at, own=writer == self._writer) if need.amount]
        except MALFORMED:
            return
        if needs:
            yield Told(writer, seq, needs, at)

    def load(self, epoch: str, names: set[str]) -> Place:
        """How far the server of this epoch was told of limits with these names (by any proxy of this ledger)."""
        try:
            found = json.loads(checkpoint_path(self._path).read_bytes())
            if found["format"] == "redis" and found["epoch"] == epoch and names.issubset(found["limits"]):
                return Place(offset=int(found["offset"]), head=str(found["head"]), tail=bytes.fromhex(found["tail"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none, or one of a store in the process
        return Place()

    def save(self, place: Place, epoch: str, names: set[str]) -> None:
        """May run in a thread."""
        shot = {"format": "redis", "epoch": epoch, "limits": sorted(names), "head": place.head}
        save(checkpoint_path(self._path), self._limits, {**shot, "offset": place.offset, "tail": place.tail.hex()})
