"""The generated functions of a dialect mean what the closures mean that define the profile language."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples
from golden import built_in
from llmtab.extract import keep
from llmtab.profiles.compiled import FACTS, Dialect, _choices
from llmtab.profiles.generated import fast_facts
from llmtab.profiles.refs import EACH, Compiler, Scope, Slots, pointer_parts, split_ref, walk
from llmtab.profiles.rows import MOST

NAMES = sorted(built_in()._dialects)
HEADERS = {"x-request-id": "req_1", "x-litellm-response-cost": "0.5"}


def texts(value: Any) -> Iterable[str]:
    """Every string of a profile, keys of tests included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            yield str(key)
            yield from texts(inside)
    elif isinstance(value, (list, tuple)):
        for inside in value:
            yield from texts(inside)


def pointers(spec: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found = set()
    for text in texts(spec):
        try:
            found.add(pointer_parts(split_ref(text)[1]))
        except ValueError:
            continue
    return sorted(parts for parts in found if parts) or [("usage",)]


def values(spec: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values as the wire may have them where a figure or a fact is expected, and those that tests ask for."""
    words = sorted({text for text in texts(spec) if not text.startswith("/") and len(text) < 40}) or ["x"]
    numbers = [0, 1, 7, MOST, MOST + 1, -1, 1.0, 0.5, -0.5, float("nan"), True, False, "12", "", "x", "1e3"]
    return st.one_of(
        st.none(), st.sampled_from(numbers), st.sampled_from(words), st.integers(0, 50),
        st.sampled_from([[], {}, [1], {"a": 1}, [{"a": None}]]),
    )  # fmt: skip


def put(event: Any, parts: tuple[str, ...], value: Any) -> None:
    """Set a member, making the objects (and lists, for `*`) on the way, unless something else is there already."""
    for at, part in enumerate(parts):
        last, inside = at == len(parts) - 1, [] if parts[at + 1 : at + 2] in ((EACH,), ("0",)) else {}
        if type(event) is list:
            event.append(value if last else inside)
            event = event[-1]
        elif type(event) is dict:
            event = event.setdefault(part, value if last else inside)
        else:
            return


@st.composite
def events(draw: st.DrawFn, spec: Mapping[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {}
    for parts in draw(st.lists(st.sampled_from(pointers(spec)), max_size=14)):
        put(event, parts, draw(values(spec)))
    return event


@lru_cache
def compiled(name: str) -> tuple[Mapping[str, Any], Dialect]:
    spec = built_in().dialect(name)
    return spec, Dialect(name, spec)


def scope_of(dialect: Dialect) -> Scope:
    scope = Scope(HEADERS, {}, lambda: {"model": "asked"}, {}, lambda _: None)
    scope.slots = [None] * dialect.slot_count
    return scope


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # tells True from 1 and 1 from 1.0, and NaN is itself


def first_said(compiler: Compiler, fact: Any, base: str) -> Callable[[Scope, Any], Any]:
    """What a fact means, by the closures alone: its first alternative that is neither null nor empty."""
    refs = fact["any"] if isinstance(fact, Mapping) and "any" in fact else [fact]
    getters = [one(compiler, ref, base) for ref in refs]

    def read(scope: Scope, here: Any) -> Any:
        said = (getter(scope, here) for getter in getters)
        return next((value for value in said if value is not None and value != ""), None)

    return read


def one(compiler: Compiler, ref: Any, base: str) -> Callable[[Scope, Any], Any]:
    if isinstance(ref, str):
        return compiler.ref(ref, base)
    if "any" in ref:
        return first_said(compiler, ref, base)
    return compiler.ref(ref["ref"], base, compiler.test(ref["where"]))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_and_slots(name: str, data: st.DataObject) -> None:
    """Counters and kept values are the same, whichever way a dialect's plain look-ups are done."""
    spec, dialect = compiled(name)
    event = data.draw(events(spec))
    fast, slow = scope_of(dialect), scope_of(dialect)
    for again in (event, data.draw(events(spec))):
        dialect.fast_slots(again, fast.slots)
        for number, parts, keeps_first in dialect.plain_slots:
            keep(slow.slots, number, walk(again, parts), keeps_first)
    assert same(fast.slots, slow.slots)

    roots = [event, *(found for _, root in dialect.roots if type(found := root(slow, event)) is dict)]
    for usage in roots:
        counters: dict[str, Any] = {}
        odd = {*dialect.slow_rows, *dialect.fast_rows(usage, counters)}
        for number, row in enumerate(dialect.rows):
            if number not in odd:
                assert same(counters.get(row.name), row.plain(slow, usage)), row.name
            else:
                assert row.name not in counters


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_marks(name: str, data: st.DataObject) -> None:
    """An event that ends, fails or makes the figures final does so in the generated tests as well."""
    spec, dialect = compiled(name)
    event, scope = data.draw(events(spec)), scope_of(dialect)
    if dialect.fast_marks is None:
        return
    marks = dialect.fast_marks(event)
    for bit, tests in ((1, dialect.final), (2, dialect.end), (4, dialect.error)):
        assert bool(marks & bit) == any(test(scope, event) for test in tests)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_facts_and_money(name: str, data: st.DataObject) -> None:
    """A fact's alternatives are tried in their order: the first that says something is believed."""
    spec = built_in().dialect(name)
    event = data.draw(events(spec))
    wanted = [(spec.get(fact), "event") for fact in FACTS]
    wanted += [(entry["ref"], "here") for entry in spec.get("money") or ()]
    for fact, base in wanted:
        if fact is None or (isinstance(fact, Mapping) and "first" in texts_of_keys(fact)):
            continue
        slots = Slots()
        compiler = Compiler(slots, set())
        found, expected = fast_facts([_choices(compiler, fact, base)]), first_said(compiler, fact, base)
        scope = Scope(HEADERS, {}, lambda: {"model": "asked"}, {}, lambda _: None)
        scope.usage, scope.slots = event, [None] * slots.count
        for number, parts, keeps_first in slots.plain:
            keep(scope.slots, number, walk(event, parts), keeps_first)
        for number, getter, keeps_first in slots.others:
            keep(scope.slots, number, getter(scope, event), keeps_first)
        (value,) = found(scope.slots, scope, event)
        assert same(None if value == "" else value, expected(scope, event)), fact


def texts_of_keys(fact: Any) -> set[str]:
    """The keys of a fact and of its alternatives."""
    if isinstance(fact, Mapping):
        return {*fact, *(key for inside in fact.values() for key in texts_of_keys(inside))}
    if isinstance(fact, (list, tuple)):
        return {key for inside in fact for key in texts_of_keys(inside)}
    return set()
