"""Where the items of a batch result stand, and what each says about itself beside its answer.

Knows the `batch:` block of a route, made ready to run. Must not know files, ranges or the ledger, nor what is inside an
answer: the dialects read that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from llmtab.profiles.compiled import Dialect
from llmtab.profiles.generated import fast_marks
from llmtab.profiles.refs import Compiler, Scope, Slots, pointer_parts, walk, walk_each

RESULT, FAILED, SHAPES = 1, 2, 2

type Parts = tuple[str, ...]


class Batch:
    """The batch results of one route. `each` is empty where the result is a file of one JSON object a line."""

    __slots__ = (
        "_dialects", "_error_type", "_fast", "_id", "_key", "_request_id", "_status", "_tests", "each",
    )  # fmt: skip

    def __init__(self, spec: Mapping[str, Any], dialects: Sequence[Dialect]) -> None:
        self.each = _pointers(spec.get("each"))
        self._id, self._key = _pointers(spec.get("id")), _pointers(spec.get("key"))
        self._status, self._request_id = _pointers(spec.get("status")), _pointers(spec.get("request_id"))
        self._error_type = _pointers(spec.get("error_type"))
        shapes: Mapping[str, Any] = spec.get("shapes") or {}
        if strange := shapes.keys() - {dialect.name for dialect in dialects}:
            raise ValueError(f"batch: shapes: {', '.join(sorted(strange))}: not among the dialects of this route")
        self._dialects = dialects
        groups = [spec["results"], spec.get("failed") or (), *([shapes.get(its.name, {})] for its in dialects)]
        self._fast = fast_marks(*groups)
        compiler = Compiler(Slots(), set())
        self._tests = [[compiler.test(where) if where else _always for where in group] for group in groups]

    def items(self, document: Any) -> Iterator[Any]:
        """The items of a whole JSON document, in order."""
        for parts in self.each:
            items = [element for _, element in walk_each(document, parts)]
            if items:
                yield from items
                return

    def is_result(self, item: Any) -> bool:
        """Whether this is the result of one request of a batch, by its shape."""
        return bool(self._marks(item) & RESULT)

    def has_failed(self, item: Any) -> bool:
        """Whether the request failed, was cancelled or expired: nobody is billed for those."""
        status = self.status(item)
        return (status is not None and status >= 400) or bool(self._marks(item) & FAILED)

    def dialect(self, item: Any) -> Dialect:
        """What the item's answer speaks: the first shape that fits, else the last dialect."""
        fits = self._marks(item) >> SHAPES
        return self._dialects[(fits & -fits).bit_length() - 1]

    def _marks(self, item: Any) -> int:
        """A bit for each group of tests of which one holds: RESULT, FAILED, then one for each dialect's shape."""
        if type(item) is not dict:
            return 0
        if self._fast is not None:
            return self._fast(item)
        tests = enumerate(self._tests)
        return sum(1 << at for at, group in tests if any(test(_NOWHERE, item) for test in group))

    def document_id(self, document: Any) -> Any:
        """The id under which a document's items are counted, where it is not the one of the path."""
        return _first(self._id, document)

    def key(self, item: Any) -> str | None:
        """The client's own name for the request (never to be kept as it is)."""
        found = _first(self._key, item)
        return found if isinstance(found, str) and found else None

    def status(self, item: Any) -> int | None:
        """The status that this request had, or None."""
        found = _first(self._status, item)
        return found if type(found) is int and 100 <= found <= 599 else None

    def request_id(self, item: Any) -> Any:
        return _first(self._request_id, item)

    def error_type(self, item: Any) -> Any:
        return _first(self._error_type, item)


_NOWHERE: Final = Scope({}, {}, lambda: None, {}, lambda name: None)


def _always(scope: Scope, item: Any) -> bool:
    return True


def _pointers(refs: Sequence[str] | None) -> tuple[Parts, ...]:
    return tuple(pointer_parts(ref) for ref in refs or ())


def _first(pointers: Sequence[Parts], item: Any) -> Any:
    for parts in pointers:
        value = walk(item, parts)
        if value is not None:
            return value
    return None
