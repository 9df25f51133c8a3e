"""One item of a batch result becomes its line: read by its dialect, at batch rates, its `custom_id` as a fingerprint.

Knows one item at a time. Must not know files, ranges, or which items are booked already.
"""

from collections.abc import Callable
from typing import Any, Final

from llmtab.booking import book
from llmtab.events import parse
from llmtab.extract import Fold, Reading
from llmtab.observation import Answer, Call, Observation
from llmtab.pricing import PriceBook
from llmtab.profiles import Claim
from llmtab.profiles.batch import Batch
from llmtab.profiles.refs import Scope
from llmtab.record import new_id, wire_text

TIER: Final = "batch"
LABEL: Final = "custom_id"
"""The label that holds the fingerprint of the client's name for the request."""

type Line = dict[str, Any]


class Items:
    """Reads the items of one download. `name_of(custom_id)`: its fingerprint. `call`: the request for the file."""

    def __init__(self, call: Call, claim: Claim, answer: Answer, name_of: Callable[[str], str]) -> None:
        assert claim.binding.batch is not None
        self.batch: Final[Batch] = claim.binding.batch
        self._call = call
        self._claim = claim
        self._answer = answer
        self._name_of = name_of

    def lines(self, raw: bytes | None, now: float, prices: PriceBook) -> list[Line]:
        """The lines of one line of a file (None: it was too long to be kept), which ends up at epoch `now`.

        [] where it is no result of a batch. Any thread.
        """
        item = parse(raw) if raw is not None else None
        if item is None:
            return self._booked(self._unread(), now, 0, "json" if raw is not None else "limit", prices)
        return self.item_lines(item, len(raw or b""), now, prices)

    def item_lines(self, item: Any, size: int, now: float, prices: PriceBook) -> list[Line]:
        """The same for an item that is parsed; `size`: its bytes."""
        batch = self.batch
        if not batch.is_result(item):
            return []
        reading = self._reading(item)
        status = batch.status(item)
        answer = self._answer if status is None else Answer(status, self._answer.headers, self._answer.head_at)
        key = batch.key(item)
        return self._booked(reading, now, size, "", prices, answer, key)

    def _reading(self, item: Any) -> Reading:
        batch = self.batch
        fold = self._fold(batch.dialect(item))
        failed = batch.has_failed(item)
        fold.feed(item)
        reading = fold.reading()
        reading.pricing_tier = TIER
        reading.request_id = wire_text(batch.request_id(item)) or reading.request_id
        if failed:
            reading.failed = True
            reading.error_type = reading.error_type or wire_text(batch.error_type(item))
        return reading

    def _unread(self) -> Reading:
        reading = self._fold(self._claim.binding.dialects[-1]).reading()
        reading.pricing_tier = TIER
        return reading

    def _fold(self, dialect: Any) -> Fold:
        call, captures = self._call, self._claim.captures
        return Fold(dialect, Scope(self._answer.headers, call.headers, _no_request, captures, call.query))

    def _booked(
        self,
        reading: Reading,
        now: float,
        size: int,
        undecodable: str,
        prices: PriceBook,
        answer: Answer | None = None,
        key: str | None = None,
    ) -> list[Line]:
        call = self._call
        labels = call.labels if key is None else {**call.labels, LABEL: self._name_of(key)}
        call = Call(
            new_id(int(now * 1e9)), call.host, call.method, call.path, call.began, call.headers, _no_request,
            call.query, labels, call.client,
        )  # fmt: skip
        seen = Observation(
            call, self._claim, answer or self._answer, reading, "complete", now, "http", False, undecodable,
            response_bytes=size,
        )  # fmt: skip
        return book(seen, prices)


def placed(line: Line, batch_id: str, item: int | None) -> Line:
    """The line with its place in the batch, in the ledger's order; an item whose place is not known says so."""
    flags = line.pop("flags", [])
    line["batch"] = {"id": batch_id} if item is None else {"id": batch_id, "item": item}
    if item is None:
        flags = [*flags, "item_unknown"]
    if flags:
        line["flags"] = flags
    return line


def _no_request() -> Any:
    return None
