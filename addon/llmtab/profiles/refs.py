"""References and tests: the two words every profile is made of, compiled to plain functions.

Knows how a reference is spelt (`/pointer`, `event:/pointer`, `usage:/pointer`, `header:NAME` of the response,
`request:/pointer`, `request_header:NAME`, `path:NAME`, `host:NAME`, `query:NAME`), checks it with the `jsonpointer`
package when a profile is loaded, and compiles it to a function that walks the pointer's parts (resolving with the
package on every event would be twelve times slower). Must not know counters, providers or streams.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from jsonpointer import JsonPointer, JsonPointerException

type Getter = Callable[["Scope", Any], Any]
"""(scope, here) -> the value, None where there is none."""
type Test = Callable[["Scope", Any], bool]

KINDS: Final = frozenset({"event", "usage", "header", "request", "request_header", "path", "host", "query"})
EACH: Final = "*"


class Scope:
    """What a reference may look at, besides the element it stands in.

    `usage`: the usage object folded so far. `slots`: the last value of each event-level reference. `headers`: response
    headers by lower-case name, `request_headers` the request's. `request()`: the request's JSON, parsed when first
    asked for. `captures`: what the host and path patterns caught. `query(name)`: one query parameter.
    """

    __slots__ = ("captures", "dropped", "headers", "query", "request", "request_headers", "slots", "usage")

    def __init__(
        self,
        headers: Mapping[str, str],
        request_headers: Mapping[str, str],
        request: Callable[[], Any],
        captures: Mapping[str, str],
        query: Callable[[str], str | None],
    ) -> None:
        self.usage: Any = None
        self.dropped = False  # set by a row that met a figure which is no number
        self.slots: list[Any] = []
        self.headers = headers
        self.request_headers = request_headers
        self.request = request
        self.captures = captures
        self.query = query


class Slots:
    """The event-level references of one dialect: each is read from every event and its last (or first) value kept."""

    def __init__(self) -> None:
        self.count = 0
        self.plain: list[tuple[int, tuple[str, ...], bool]] = []
        """(slot, pointer, keeps its first value) of bare look-ups, for `generated`."""
        self.others: list[tuple[int, Getter, bool]] = []
        self.first = False
        """Whether slots added now keep their first value: an id is the call's from the first event on."""
        self._index: dict[tuple[str, bool], int] = {}

    def add(self, pointer: tuple[str, ...], where: Test | None) -> int:
        """The slot's number; the same reference gives the same slot."""
        key = (f"{pointer} {id(where) if where else ''}", self.first)
        if key not in self._index:
            number = self._index[key] = self.count
            self.count += 1
            if where is None and pointer and EACH not in pointer and not any(part.isdecimal() for part in pointer):
                self.plain.append((number, pointer, self.first))
            else:
                self.others.append((number, _event_getter(pointer, where), self.first))
        return self._index[key]


def split_ref(text: str) -> tuple[str, str]:
    """`header:x-id` -> ("header", "x-id"); a bare pointer has the kind "". Raises ValueError where it is neither."""
    if text == "" or text.startswith("/"):
        return "", text
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        raise ValueError(
            f"{text!r} is no reference: expected /a/pointer or one of {', '.join(sorted(KINDS))} with a colon"
        )
    if kind in ("event", "usage", "request") and rest and not rest.startswith("/"):
        raise ValueError(f"{text!r}: the pointer after {kind}: must start with /")
    if kind in ("header", "request_header", "path", "host", "query") and not rest:
        raise ValueError(f"{text!r}: a name is missing after {kind}:")
    return kind, rest


@lru_cache(4096)  # the built-in profiles have a thousand pointers, and use each a hundred times
def pointer_parts(pointer: str) -> tuple[str, ...]:
    """The parts of an RFC 6901 pointer, unescaped. Raises ValueError on a wrong one."""
    try:
        return tuple(JsonPointer(pointer).parts)
    except JsonPointerException as error:
        raise ValueError(f"{pointer!r} is no JSON pointer (RFC 6901): {error}") from error


def walk(here: Any, parts: Sequence[str]) -> Any:
    """The value at `parts` under `here`, or None. Never raises, whatever the document."""
    for part in parts:
        if type(here) is dict:
            here = here.get(part)
        elif type(here) is list:
            here = here[int(part)] if part.isdecimal() and int(part) < len(here) else None
        else:
            return None
    return here


def walk_each(here: Any, parts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """(element, value) for each match of a pointer with `*` segments; the element is what the last `*` stands for."""
    if EACH not in parts:
        value = walk(here, parts)
        if value is not None:
            yield here, value
        return
    at = parts.index(EACH)
    inside, rest = walk(here, parts[:at]), parts[at + 1 :]
    for element in inside if type(inside) is list else inside.values() if type(inside) is dict else ():
        if EACH in rest:
            yield from walk_each(element, rest)
        else:
            value = walk(element, rest)
            if value is not None:
                yield element, value


class Compiler:
    """Compiles the references of one dialect. `base` says what a bare pointer points into.

    "here": the object the function is given (a usage object, an element, an event). "event": the event, through a
    slot that     keeps the last value seen (the form of `model`, `id` and the like, asked when the call is over).
    """

    def __init__(self, slots: Slots, headers: set[str]) -> None:
        self.slots = slots
        self.headers = headers

    def ref(self, text: str, base: str = "here", where: Test | None = None) -> Getter:
        """A function for one reference. Raises ValueError."""
        kind, rest = split_ref(text)
        if kind == "event" or (kind == "" and base == "event"):
            return self._slot(rest, where)
        getter = self._plain(kind, rest)
        if where is None:
            return getter
        return lambda scope, here: getter(scope, here) if where(scope, here) else None

    def _slot(self, pointer: str, where: Test | None) -> Getter:
        number = self.slots.add(pointer_parts(pointer), where)
        return lambda scope, here: scope.slots[number]

    def _plain(self, kind: str, rest: str) -> Getter:
        if kind == "header":
            name = rest.lower()
            self.headers.add(name)
            return lambda scope, here: scope.headers.get(name)
        if kind == "request_header":
            name = rest.lower()
            self.headers.add(name)
            return lambda scope, here: scope.request_headers.get(name)
        if kind in ("path", "host"):
            return lambda scope, here: scope.captures.get(rest)
        if kind == "query":
            return lambda scope, here: scope.query(rest)
        parts = pointer_parts(rest)
        if kind == "request":
            return lambda scope, here: walk(scope.request(), parts)
        if kind == "usage":
            return lambda scope, here: walk(scope.usage, parts)
        if len(parts) == 1:  # the hot case: one member of the usage object
            name = parts[0]
            return lambda scope, here: here.get(name) if type(here) is dict else walk(here, parts)
        return lambda scope, here: walk(here, parts)

    def each(self, text: str) -> Callable[[Scope, Any], Iterator[tuple[Any, Any]]]:
        """A function giving (element, value) for each match of a reference with `*`. Raises ValueError."""
        kind, rest = split_ref(text)
        parts = pointer_parts(rest)
        if kind == "event":
            at = parts.index(EACH) if EACH in parts else len(parts)
            number = self.slots.add(parts[:at], None)
            return lambda scope, here: walk_each(scope.slots[number], parts[at:])
        if kind == "request":
            return lambda scope, here: walk_each(scope.request(), parts)
        if kind == "usage":
            return lambda scope, here: walk_each(scope.usage, parts)
        if kind:
            raise ValueError(f"{text!r}: {kind}: cannot be counted")
        return lambda scope, here: walk_each(here, parts)

    def test(self, conditions: Mapping[str, Any], base: str = "here") -> Test:
        """All of `{ref: expected}` must hold. Raises ValueError."""
        tests = [self._condition(ref, expected, base) for ref, expected in conditions.items()]
        if len(tests) == 1:
            return tests[0]
        return lambda scope, here: all(test(scope, here) for test in tests)

    def _condition(self, ref: str, expected: Any, base: str) -> Test:
        if isinstance(expected, Mapping):
            return self._elements(ref, expected, base)
        fits = _fits(expected)
        kind, rest = split_ref(ref)
        if kind in ("", "event", "usage", "request") and EACH in pointer_parts(rest):
            each = self.each(ref)
            return lambda scope, here: any(fits(value) for _, value in each(scope, here))
        getter = self.ref(ref, base)
        return lambda scope, here: fits(getter(scope, here))

    def _elements(self, ref: str, expected: Mapping[str, Any], base: str) -> Test:
        """Of all the values of a reference `some` must fit and `none` may."""
        if EACH in pointer_parts(split_ref(ref)[1]):
            each = self.each(ref)
        else:
            getter = self.ref(ref, base)
            each = lambda scope, here: iter([(here, getter(scope, here))])  # noqa: E731
        asked = [(_fits(expected[word]), word == "some") for word in ("some", "none") if expected.get(word) is not None]

        def holds(scope: Scope, here: Any) -> bool:
            values = [value for _, value in each(scope, here)]
            return all(any(map(fits, values)) is wanted for fits, wanted in asked)

        return holds


def _event_getter(parts: tuple[str, ...], where: Test | None) -> Getter:
    if where is None:
        return lambda scope, event: walk(event, parts)
    return lambda scope, event: walk(event, parts) if where(scope, event) else None


def _fits(expected: Any) -> Callable[[Any], bool]:
    """A function that says whether a value is the one expected: a value, a list of them, a glob, `present`,
    `absent`."""
    if expected == "present":
        return lambda value: value is not None
    if expected == "absent":
        return lambda value: value is None
    if isinstance(expected, list):
        choices = [_fits(choice) for choice in expected]
        return lambda value: any(fits(value) for fits in choices)
    if isinstance(expected, str) and any(sign in expected for sign in "*?["):
        match = re.compile(fnmatch.translate(expected)).match
        return lambda value: isinstance(value, str) and match(value) is not None
    kind = bool if isinstance(expected, bool) else object
    return lambda value: value == expected and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
