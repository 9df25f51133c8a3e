"""The plain parts of a dialect as generated Python: one straight function instead of a tree of closures.

Rows, slots and tests that are nothing but member look-ups make up nearly all of every dialect and run on every call; as
straight code they cost a tenth. Whatever is more than a look-up, and every value that is not what it usually is, goes
back to the closures of `compiled`, which define the meaning: a test holds both against each other.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

from llmtab.profiles.refs import EACH, pointer_parts, split_ref

type FastRows = Callable[[Any, dict[str, Any]], Sequence[int]]
"""(usage object, counters to fill) -> numbers of the rows that have to be read the slow way."""
type FastSlots = Callable[[Any, list[Any]], None]
type FastMarks = Callable[[Any], int]
type Choice = int | tuple[str, ...] | Callable[[Any, Any], Any]
"""One alternative: a slot's number, a pointer into the usage object, or a closure (scope, usage object)."""
type FastFacts = Callable[[list[Any], Any, Any], tuple[Any, ...]]
"""(slots, scope, usage object) -> for each fact its first alternative that has a value which is not empty."""

_SIGNS = "*?["


class _Writer:
    """Lines of a function whose argument `d` is a dict; look-ups under the same object fetch that object once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._objects: dict[tuple[str, ...], str] = {(): "d"}

    def get(self, parts: tuple[str, ...]) -> str:
        """An expression for the value at `parts`."""
        return f"{self._object(parts[:-1])}.get({parts[-1]!r})"

    def _object(self, parts: tuple[str, ...]) -> str:
        if parts not in self._objects:
            source = self.get(parts)
            name = f"p{len(self._objects)}"
            self.lines += [f"{name} = {source}", f"if type({name}) is not dict: {name} = E"]
            self._objects[parts] = name
        return self._objects[parts]

    def function(self, arguments: str, result: str, names: Mapping[str, Any] | None = None) -> Any:
        """The function, compiled. Only names, member names as literals, and numbers ever get into the source."""
        body = "\n    ".join([*self.lines, f"return {result}"])
        scope: dict[str, Any] = {"E": {}, **(names or {})}
        exec(_code(f"def f({arguments}):\n    {body}\n"), scope)
        return scope["f"]


@lru_cache(maxsize=1024)
def _code(source: str) -> CodeType:
    """Compiled source: most routes of a dialect differ in what no function speaks of."""
    return compile(source, "<profile>", "exec")


def _plain(ref: Any) -> tuple[str, ...] | None:
    """The parts of a bare pointer to a member, or None for any other reference."""
    if not isinstance(ref, str) or not ref.startswith("/"):
        return None
    parts = pointer_parts(ref)
    return None if any(part == EACH or part.isdecimal() for part in parts) else parts


def _choices(term: Any) -> list[tuple[str, ...]] | None:
    """The pointers of a term that is one, or a choice of some."""
    refs = term["any"] if isinstance(term, Mapping) and set(term) == {"any"} else [term]
    found = [_plain(ref) for ref in refs]
    return None if any(parts is None for parts in found) else [parts for parts in found if parts]


def fast_rows(rows: Mapping[str, Any], most: int) -> tuple[FastRows, list[int]]:
    """A function for the plain rows, and the numbers of the others (numbered as `rows` without its None entries)."""
    writer, others = _Writer(), []
    writer.lines.append("odd = ()")
    for number, (name, row) in enumerate((name, row) for name, row in rows.items() if row is not None):
        terms = row if isinstance(row, (list, tuple)) else [{}]
        choices = [_choices(term) for term in terms]
        if any(choice is None for choice in choices):
            others.append(number)
            continue
        _row(writer, number, name, [choice for choice in choices if choice], most)
    return writer.function("d, out", "odd"), others


def _row(writer: _Writer, number: int, name: str, terms: list[list[tuple[str, ...]]], most: int) -> None:
    writer.lines.append("t = None")
    for choices in terms:
        for at, parts in enumerate(choices):
            source = writer.get(parts)
            writer.lines.append(f"{'if x is None: ' if at else ''}x = {source}")
        writer.lines += [
            "if x is not None and t is not False:",
            f"    if type(x) is int and 0 <= x <= {most}: t = x if t is None else t + x",
            "    else: t = False",
        ]
    writer.lines.append(f"if t is False: odd += ({number},)")
    writer.lines.append(f"elif t is not None: out[{name!r}] = t")


def fast_slots(pointers: Sequence[tuple[int, tuple[str, ...], bool]]) -> FastSlots:
    """A function that keeps the values of these (slot, pointer, keeps its first value) of one event."""
    writer = _Writer()
    for number, parts, keeps_first in pointers:
        writer.lines.append(f"x = {writer.get(parts)}")
        first = f" and s[{number}] is None" if keeps_first else ""
        writer.lines.append(f"if x is not None and x != ''{first}: s[{number}] = x")
    writer.lines.append("pass")
    found: FastSlots = writer.function("d, s", "None")
    return found


def fast_facts(facts: Sequence[Sequence[Choice]]) -> FastFacts:
    """One function for all of these facts."""
    writer = _Writer()
    names: dict[str, Choice] = {}
    for number, choices in enumerate(facts):
        fact = f"f{number}"
        writer.lines.append(f"{fact} = None")
        for choice in choices:
            if isinstance(choice, int):
                source = f"s[{choice}]"
            elif isinstance(choice, tuple):
                source = writer.get(choice)
            else:
                name = f"g{len(names)}"
                names[name], source = choice, f"{name}(scope, d)"
            writer.lines.append(f"if {fact} is None or {fact} == '': {fact} = {source}")
    found: FastFacts = writer.function("s, scope, d", f"({''.join(f'f{n}, ' for n in range(len(facts)))})", names)
    return found


def fast_marks(*groups: Sequence[Mapping[str, Any]]) -> FastMarks | None:
    """A function giving a bit for each group (1, 2, 4) in which one of the tests holds for an event that is an object;
    None where a test is not plain."""
    writer, bits = _Writer(), []
    for number, tests in enumerate(groups):
        sources = [_holds(writer, where) for where in tests]
        if None in sources:
            return None
        if any(source != "False" for source in sources):
            bits.append(f"({1 << number} if {' or '.join(map(str, sources))} else 0)")
    found: FastMarks = writer.function("d", " | ".join(bits) or "0")
    return found


def _holds(writer: _Writer, where: Mapping[str, Any]) -> str | None:
    """The source of one test, which is all of its conditions; None where one is not plain."""
    sources = []
    for ref, expected in where.items():
        if ref == "" and isinstance(expected, str):
            return "False"  # the event as a text: an object is none
        parts = _plain(ref)
        source = _condition(writer.get(parts), expected) if parts else None
        if source is None:
            return None
        sources.append(source)
    return f"({' and '.join(sources)})" if sources else "True"


def _condition(value: str, expected: Any) -> str | None:
    if expected == "present":
        return f"{value} is not None"
    if expected == "absent":
        return f"{value} is None"
    if isinstance(expected, str) and not any(sign in expected for sign in _SIGNS):
        return f"{value} == {expected!r}"
    if isinstance(expected, list) and all(isinstance(e, str) and not any(s in e for s in _SIGNS) for e in expected):
        if {"present", "absent"} & set(expected):
            return None
        return "(" + " or ".join(f"{value} == {e!r}" for e in expected) + ")"
    return None


def plain_pointer(ref: str) -> tuple[str, ...] | None:
    """The parts of a reference into the event that is a bare look-up."""
    kind, rest = split_ref(ref)
    return _plain(rest) if kind in ("", "event") and rest else None
