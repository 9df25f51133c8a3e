"""The reasons behind a reading: a dialect that reads the same bytes, with every single reference as a row of its own.

Knows the words of the profile language, and says them so that a person understands. Must not know bytes, hosts, prices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import EACH, pointer_parts, split_ref
from llmtab.proposal import looks_like_usage, shown
from llmtab.usage import Quantity

type Leaf = tuple[str, int, str, bool]
"""Counter, number of its term, reference in words, and whether it is added only where a total is not reached."""


class Probe:
    """A dialect whose rows are the single references of another one's rows, and which writes down what it was shown."""

    def __init__(self, name: str, spec: Mapping[str, Any]) -> None:
        self._leaves: dict[str, Leaf] = {}
        self._kinds: dict[str, str] = {}  # counters that take a whole row's figure as theirs, by the rule of its kinds
        rows = {key: self._rows(spec.get(key) or {}, key) for key in ("usage", "estimate")}
        self.dialect = Dialect(name, {**spec, **rows, "parts": None, "money": None})
        self._patterns = [tuple(pattern) for pattern in _pointers(spec)]
        self._root = ""
        self._shown: dict[tuple[str, ...], bool] = {}
        texts = list(spec.get("roots") or ("/usage",))
        self.dialect.roots = [
            (inside, partial(self._show, text, get) if inside else get)
            for text, (inside, get) in zip(texts, self.dialect.roots, strict=True)
        ]

    def _rows(self, rows: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """A row for each reference, under the fold of the row that it comes from."""
        out: dict[str, Any] = {}
        for counter, row in rows.items():
            terms, fold = (row["terms"], row.get("fold")) if isinstance(row, Mapping) else (row or (), None)
            if isinstance(row, Mapping):
                self._kinds |= {one["is"]: counter for one in row.get("kinds") or () if one["is"] != counter}
            for number, term in enumerate(terms):
                for leaf in _alternatives(term):
                    name = f"{kind} {len(self._leaves)}"
                    outside = isinstance(leaf, Mapping) and "outside" in leaf
                    self._leaves[name] = (counter, number, words(leaf), outside)
                    plain = leaf["outside"] if outside else leaf
                    out[name] = {"terms": [plain], "fold": fold} if fold else [plain]
        return out

    def _show(self, text: str, get: Callable[[Any, Any], Any], scope: Any, event: Any) -> Any:
        found = get(scope, event)
        if type(found) is dict:
            self._root = split_ref(text)[1]
            for pointer, value in numbers(found):
                self._shown[pointer] = self._shown.get(pointer, False) or bool(value)
        return found

    def sources(
        self, figures: Mapping[str, Quantity], counted: Mapping[str, Quantity]
    ) -> dict[str, list[tuple[str, Quantity]]]:
        """For each of the counters what each of its terms gave: of alternatives the first that had something."""
        found: dict[str, list[tuple[str, Quantity]]] = {}
        taken = set()
        for name, (counter, term, said, outside) in self._leaves.items():
            if name not in figures or counter not in counted or (counter, term) in taken:
                continue
            taken.add((counter, term))
            before = sum(value for _, value in found.get(counter, ()))
            if not outside or before + figures[name] <= counted[counter]:
                at_root = said.startswith("/") and name.startswith("usage")
                found.setdefault(counter, []).append((self._root + said if at_root else said, figures[name]))
        for kind, counter in self._kinds.items():
            if kind in counted and counter in found:
                found[kind] = found[counter]
        return found

    def explained(self) -> list[tuple[str, ...]]:
        """Members of the usage object that a row looks at."""
        return [pointer for pointer in self._shown if any(_fits(pointer, pattern) for pattern in self._patterns)]

    def unread(self) -> dict[str, bool]:
        """The other ones, and whether they were ever more than 0. Of a whole body only what looks like usage."""
        read = set(self.explained())
        return {
            self._root + shown(pointer): value
            for pointer, value in self._shown.items()
            if pointer not in read and (self._root or looks_like_usage(pointer))
        }


def numbers(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int | float]]:
    """Every number in a JSON value with where it stands; the elements of a list share the place `*`."""
    inside: Sequence[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = [*value.items()]
    elif isinstance(value, list):
        inside = [(EACH, one) for one in value]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, value
    for key, one in inside:
        yield from numbers(one, (*at, key))


def _alternatives(term: Any) -> Iterator[Any]:
    if isinstance(term, Mapping) and "any" in term:
        for one in term["any"]:
            yield from _alternatives(one)
    else:
        yield term


def _pointers(spec: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every place of the usage object that the words of a dialect speak of."""
    for key in ("usage", "total", "money", "snapshot"):
        yield from _spoken(spec.get(key), ("", "usage"))
    for key in ("tier", "pricing_tier", "billing", "not_billed", "model", "id"):
        yield from _spoken(spec.get(key), ("usage",))
    for part in spec.get("parts") or ():
        for inside in _spoken([part["usage"], part.get("where"), part["model"]], ("",)):
            yield (*pointer_parts(split_ref(part["each"])[1]), *inside)


def _spoken(value: Any, kinds: Sequence[str]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        try:
            kind, rest = split_ref(value)
        except ValueError:  # what a condition expects
            return
        if kind in kinds and rest:
            yield pointer_parts(rest)
    elif isinstance(value, Mapping):
        for each in ("sum", "count"):
            if each in value:  # its conditions speak of the element
                base = next(iter(_spoken(value[each], kinds)), ())
                element = base[: max((n for n, part in enumerate(base, 1) if part == EACH), default=0)]
                for inside in _spoken(list(value.get("where") or ()), ("",)):
                    yield (*element, *inside)
        for key, inside in value.items():
            yield from _spoken(inside, kinds)
            if key == "where" and not {"sum", "count"} & set(value):
                yield from _spoken(list(inside), kinds)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _spoken(inside, kinds)


def _fits(pointer: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(pointer) == len(pattern) and all(b in (EACH, a) for a, b in zip(pointer, pattern, strict=True))


def words(term: Any) -> str:
    """A term of a row, or a fact, in words."""
    if not isinstance(term, Mapping):
        return str(term)
    where = ", ".join(f"{ref or 'it'} is {_value(expected)}" for ref, expected in (term.get("where") or {}).items())
    said = f" where {where}" if where else ""
    if "any" in term:
        return ", else ".join(words(one) for one in term["any"])
    if "outside" in term:
        return f"{term['outside']} if {term['of']} is not reached without it"
    for verb, text in (("sum", "sum of "), ("count", "number of "), ("length", "characters of "), ("first", "first ")):
        if verb in term:
            return f"{text}{term[verb]}{said}"
    return f"{words(term['ref'])}{said}"


def row_words(row: Any) -> str:
    """A counter's row in words: terms are added up."""
    terms, fold = (row["terms"], row.get("fold")) if isinstance(row, Mapping) else (row, None)
    texts = [words(term) for term in terms]
    said = " + ".join(f"({text})" if len(texts) > 1 and ", else " in text else text for text in texts)
    if isinstance(row, Mapping):
        said += "".join(_kind(kind) for kind in row.get("kinds") or ())
    return f"{said} ({fold} over the events)" if fold and fold != "last" else said


def _kind(kind: Mapping[str, Any]) -> str:
    tests = (f"{ref} is {_value(expected)}" for ref, expected in (kind.get("where") or {}).items())
    return f"; {kind['is']} {'where ' if kind.get('where') else 'otherwise'}{', '.join(tests)}"


def _value(expected: Any) -> str:
    if isinstance(expected, list):
        return " or ".join(map(_value, expected))
    if isinstance(expected, Mapping):
        said = {"some": "somewhere ", "none": "nowhere "}
        return ", ".join(f"{said[word]}{_value(one)}" for word, one in expected.items() if one is not None)
    return str(expected).lower() if isinstance(expected, bool) else str(expected)
