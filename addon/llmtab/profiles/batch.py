"""Where the items of a batch result stand, and what each says about itself beside its answer.

Knows the `batch:` block of a route, made ready to run. Must not know files, ranges or the ledger, nor what is inside an
answer: the dialects read that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import Compiler, Scope, Slots, Test, pointer_parts, walk, walk_each

type Parts = tuple[str, ...]


class Batch:
    """The batch results of one route. `each` is empty where the result is a file of one JSON object a line."""

    __slots__ = ("_error_type", "_failed", "_id", "_key", "_request_id", "_results", "_shapes", "_status", "each")

    def __init__(self, spec: Mapping[str, Any], dialects: Sequence[Dialect]) -> None:
        compiler = Compiler(Slots(), set())
        self.each = _pointers(spec.get("each"))
        self._results = [compiler.test(where) for where in spec["results"]]
        self._failed = [compiler.test(where) for where in spec.get("failed") or ()]
        self._id, self._key = _pointers(spec.get("id")), _pointers(spec.get("key"))
        self._status, self._request_id = _pointers(spec.get("status")), _pointers(spec.get("request_id"))
        self._error_type = _pointers(spec.get("error_type"))
        tests = {name: compiler.test(where) for name, where in (spec.get("shapes") or {}).items()}
        self._shapes = [(tests.get(dialect.name), dialect) for dialect in dialects]
        if strange := tests.keys() - {dialect.name for dialect in dialects}:
            raise ValueError(f"batch: shapes: {', '.join(sorted(strange))}: not among the dialects of this route")

    def items(self, document: Any) -> Iterator[Any]:
        """The items of a whole JSON document, in order."""
        for parts in self.each:
            items = [element for _, element in walk_each(document, parts)]
            if items:
                yield from items
                return

    def is_result(self, item: Any) -> bool:
        """Whether this is the result of one request of a batch, by its shape."""
        return type(item) is dict and _holds(self._results, item)

    def has_failed(self, item: Any) -> bool:
        """Whether the request failed, was cancelled or expired: nobody is billed for those."""
        status = self.status(item)
        return (status is not None and status >= 400) or _holds(self._failed, item)

    def dialect(self, item: Any) -> Dialect:
        """What the item's answer speaks: the first shape that fits, else the last dialect."""
        return next((its for test, its in self._shapes if test is None or test(_NOWHERE, item)), self._shapes[-1][1])

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


_NOWHERE = Scope({}, {}, lambda: None, {}, lambda name: None)


def _holds(tests: Sequence[Test], item: Any) -> bool:
    return any(test(_NOWHERE, item) for test in tests)


def _pointers(refs: Sequence[str] | None) -> tuple[Parts, ...]:
    return tuple(pointer_parts(ref) for ref in refs or ())


def _first(pointers: Sequence[Parts], item: Any) -> Any:
    return next((value for parts in pointers if (value := walk(item, parts)) is not None), None)
