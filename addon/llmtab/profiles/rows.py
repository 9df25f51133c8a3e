"""The rows of a dialect: how one counter is read from a usage object.

Knows the forms of a row and what counts as a number. Must not know events, files or which counter means what.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from llmtab.profiles.refs import Compiler, Getter, Scope, Test
from llmtab.usage import Quantity

type TermFn = Callable[[Scope, Any], Quantity | None]

MOST: Final = 10**15  # no call has used that much of anything; a greater figure is noise or an attack
LONGEST_NUMERAL: Final = 32
PLACES: Final = 9
"""Decimal places of a quantity that is not whole (seconds of audio, say)."""


def quantity(value: Any) -> Quantity | None:
    """A figure from the wire: integral floats and numeric strings are numbers; booleans, NaN, negatives are not."""
    kind = type(value)
    if kind is int:
        return value if 0 <= value <= MOST else None
    if kind is str:
        if len(value) > LONGEST_NUMERAL or "_" in value or not value.isascii():
            return None  # what Python takes for digits beyond that, nobody meant as a number
    elif kind is not float and kind is not Decimal:
        return None
    try:
        number = Decimal(value if kind is str else repr(value) if kind is float else value)
    except InvalidOperation:
        return None
    if not number.is_finite() or not 0 <= number <= MOST:
        return None
    number = round(number, PLACES)  # 0.1 + 0.2 on the wire is 0.3, and 1e-300 must not fill a line with zeros
    return int(number) if number == number.to_integral_value() else number.normalize()


class Row:
    """How one counter is read: the plain terms are summed; the `outside` terms wait until the total is known."""

    __slots__ = ("fold", "kinds", "name", "outside", "terms")

    def __init__(
        self,
        name: str,
        terms: Sequence[TermFn],
        outside: Sequence[tuple[TermFn, TermFn]],
        fold: str,
        kinds: Sequence[tuple[str, Test | None]] = (),
    ) -> None:
        self.name = name
        self.kinds = tuple(kinds)
        self.terms = tuple(terms)
        self.outside = tuple(outside)
        self.fold = fold

    def plain(self, scope: Scope, here: Any) -> Quantity | None:
        """The sum of the plain terms that have a value; None where none has."""
        total: Quantity | None = None
        for term in self.terms:
            value = term(scope, here)
            if value is not None:
                total = value if total is None else total + value
        return total

    def kind(self, scope: Scope) -> str:
        """The counter that the figure is a figure of, too: the first kind that holds, else its own."""
        return next((name for name, where in self.kinds if where is None or where(scope, scope.usage)), self.name)


def rows_of(compiler: Compiler, rows: Mapping[str, Any], base: str = "here") -> tuple[Row, ...]:
    """The rows of a mapping, those that are None left out. `base` as in `Compiler`. Raises ValueError."""
    return tuple(_row(compiler, name, row, base) for name, row in rows.items() if row is not None)


def term_of(compiler: Compiler, term: Any, base: str = "here") -> TermFn:
    """One term as a function. `base` as in `Compiler`. Raises ValueError."""
    if isinstance(term, str):
        return _number(compiler.ref(term, base))
    if "any" in term:
        choices = [term_of(compiler, choice, base) for choice in term["any"]]
        return lambda scope, here: next((v for c in choices if (v := c(scope, here)) is not None), None)
    if "sum" in term:
        return _aggregate(compiler, _based(term["sum"], base), term, lambda value: quantity(value))
    if "count" in term:
        return _aggregate(compiler, _based(term["count"], base), term, lambda value: 1)
    if "length" in term:
        text = compiler.ref(term["length"], base)
        return lambda scope, here: len(value) if isinstance(value := text(scope, here), str) else None
    return _number(compiler.ref(term["ref"], base, test_of(compiler, term["where"])))


def _based(ref: str, base: str) -> str:
    return f"event:{ref}" if base == "event" and ref.startswith("/") else ref


def _aggregate(
    compiler: Compiler, ref: str, term: Mapping[str, Any], worth: Callable[[Any], Quantity | None]
) -> TermFn:
    """The sum of the elements' worth; None where no element fits, so that absent stays unknown."""
    each, where = compiler.each(ref), test_of(compiler, term.get("where"))
    distinct = compiler.ref(term["distinct"]) if term.get("distinct") is not None else None

    def run(scope: Scope, here: Any) -> Quantity | None:
        total: Quantity | None = None
        seen = set()
        for element, value in each(scope, here):
            if where is not None and not where(scope, element):
                continue
            if distinct is not None:
                key = repr(distinct(scope, element))
                if key in seen:
                    continue
                seen.add(key)
            one = worth(value)
            if one is not None:
                total = one if total is None else total + one
            elif value is not None:
                scope.dropped = True
        return total

    return run


def _row(compiler: Compiler, name: str, row: Any, base: str) -> Row:
    terms, fold = (row["terms"], row.get("fold") or "last") if isinstance(row, Mapping) else (row, "last")
    plain = [term_of(compiler, term, base) for term in terms if isinstance(term, str) or "outside" not in term]
    outside = [
        (term_of(compiler, term["outside"]), term_of(compiler, term["of"]))
        for term in terms
        if not isinstance(term, str) and "outside" in term
    ]
    kinds = row.get("kinds") or () if isinstance(row, Mapping) else ()
    tests = [(kind["is"], test_of(compiler, kind.get("where"))) for kind in kinds]
    return Row(name, plain, outside, fold, tests)


def _number(getter: Getter) -> TermFn:
    def read(scope: Scope, here: Any) -> Quantity | None:
        value = getter(scope, here)
        if value is None:
            return None
        number = quantity(value)
        if number is None:
            scope.dropped = True
        return number

    return read


def test_of(compiler: Compiler, where: Mapping[str, Any] | None) -> Test | None:
    """The test of a `where`; None where there is none. Raises ValueError."""
    return compiler.test(where) if where else None
