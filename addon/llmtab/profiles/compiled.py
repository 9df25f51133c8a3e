"""A dialect made ready to run: rows, facts and tests as functions, and the member names that mark an event worth
parsing.

Knows how the forms of the profile language are evaluated. Must not know files, hosts, or how a stream is cut into
events.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from llmtab.profiles.endings import end_needles
from llmtab.profiles.generated import Choice, fast_facts, fast_marks, fast_rows, fast_slots, plain_pointer
from llmtab.profiles.keys import counts_lists, first_members, keys_of
from llmtab.profiles.refs import EACH, Compiler, Getter, Scope, Slots, Test, pointer_parts, split_ref
from llmtab.profiles.rows import MOST, Row, rows_of, term_of, test_of

FACTS: Final = (
    "model", "request_model", "price_model", "id", "request_id", "tier", "pricing_tier", "region", "session",
    "error_type",
)  # fmt: skip
"""What is asked once when the call is over, in the order of `Dialect.facts`."""


class Part:
    """Another model's share of the call."""

    __slots__ = ("each", "model", "rows", "where")

    def __init__(self, each: Any, where: Test | None, model: Getter, rows: Sequence[Row]) -> None:
        self.each = each
        self.where = where
        self.model = model
        self.rows = tuple(rows)


class Money:
    """Money on the wire: figure x scale = USD."""

    __slots__ = ("beside", "scale", "where", "zero_is_unknown")

    def __init__(self, scale: Decimal, where: Test | None, zero_is_unknown: bool, beside: bool) -> None:
        self.beside = beside
        self.scale = scale
        self.where = where
        self.zero_is_unknown = zero_is_unknown


class Dialect:
    """One wire shape, ready to run. Built from the merged mapping of dialect, provider's overrides and route."""

    __slots__ = (
        "api",
        "begin",
        "billing",
        "counts_lists",
        "end",
        "end_needles",
        "error",
        "estimate",
        "facts",
        "fast_marks",
        "fast_rows",
        "fast_slots",
        "final",
        "finish",
        "header_roots",
        "headers",
        "keys",
        "money",
        "money_figures",
        "name",
        "no_money",
        "not_billed",
        "operation",
        "outside_rows",
        "parts",
        "plain_slots",
        "refusal",
        "regions",
        "roots",
        "rows",
        "rows_by_event",
        "slot_count",
        "slow_rows",
        "slow_slots",
        "snapshot",
        "spec",
        "stream",
        "text",
        "tiers",
        "total",
        "trust",
        "unwrap",
        "when",
    )  # fmt: skip
    begin: list[Test]
    final: list[Test]
    end: list[Test]
    error: list[Test]

    def __init__(self, name: str, spec: Mapping[str, Any]) -> None:
        slots, self.headers = Slots(), set[str]()
        compiler = Compiler(slots, self.headers)
        self.name = name
        self.spec = spec  # what all this was made from, for those who have to say it in words
        self.api: str = spec.get("api") or name
        self.operation: str = spec.get("operation") or "chat"
        self.stream: bool = bool(spec.get("stream"))
        self.trust: bool = bool(spec.get("trust"))
        self.unwrap = [pointer_parts(ref) for ref in spec.get("unwrap") or ()]
        members = frozenset(first_members(spec.get("usage") or {}))
        self.roots = [_root(compiler, ref, members) for ref in spec.get("roots") or ("/usage",)]
        self.rows = rows_of(compiler, spec.get("usage") or {})
        self.estimate = rows_of(compiler, spec.get("estimate") or {}, "event")
        self.rows_by_event = tuple(row for row in self.rows if row.fold != "last")
        self.header_roots = any(not in_event for in_event, _ in self.roots)
        self.outside_rows = tuple(row for row in self.rows if row.outside)
        self.total = term_of(compiler, spec["total"]) if spec.get("total") else None
        self.parts = [_part(compiler, part) for part in spec.get("parts") or ()]
        money = spec.get("money") or ()
        self.money = [_money(compiler, entry) for entry in money]
        self.money_figures = fast_facts([_choices(compiler, entry["ref"], "here") for entry in money])
        self.no_money = (None,) * len(money)
        self.facts = fast_facts([_choices(compiler, spec.get(fact), "event") for fact in FACTS])
        self.tiers: Mapping[str, str] = spec.get("tiers") or {}
        self.refusal: Mapping[str, Any] | None = spec.get("refusal")
        self.regions: Mapping[str, str] = spec.get("regions") or {}
        self.finish = [_event_fact(compiler, ref) for ref in spec.get("finish") or ()]
        self.text = [compiler.each(ref) for ref in spec.get("text") or ()]
        self.when = compiler.test(spec["when"]) if spec.get("when") else None
        self.snapshot = compiler.test(spec["snapshot"]) if spec.get("snapshot") else None
        for tests in ("begin", "final", "end", "error"):
            setattr(self, tests, [compiler.test(where) for where in spec.get(tests) or ()])
        self.billing = [
            (entry["is"], compiler.test(entry["where"], "event") if entry.get("where") else None)
            for entry in spec.get("billing") or ()
        ]
        self.not_billed = [compiler.test(where, "event") for where in spec.get("not_billed") or ()]
        self.slot_count = slots.count
        self.plain_slots, self.slow_slots = tuple(slots.plain), tuple(slots.others)
        self.fast_slots = fast_slots(slots.plain)
        self.fast_rows, slow = fast_rows(spec.get("usage") or {}, MOST)
        self.slow_rows = tuple(slow)
        self.fast_marks = fast_marks(*(spec.get(tests) or () for tests in ("final", "end", "error")))
        self.end_needles = end_needles(spec)
        self.keys = frozenset(keys_of(spec))
        self.counts_lists = counts_lists(spec)


def _root(compiler: Compiler, ref: str, members: frozenset[str]) -> tuple[bool, Getter]:
    """(whether it stands in an event, how to get it); a header root makes the usage object of the headers alone.

    The root "" is the event itself, where it has one of the members that the rows begin with.
    """
    kind, rest = split_ref(ref)
    if kind in ("", "event") and not rest:
        return True, lambda scope, here: here if type(here) is dict and not members.isdisjoint(here) else None
    return kind in ("", "event"), compiler.ref(ref.removeprefix("event:"))


def _part(compiler: Compiler, part: Mapping[str, Any]) -> Part:
    return Part(
        compiler.each(part["each"]),
        test_of(compiler, part.get("where")),
        compiler.ref(part["model"]),
        rows_of(compiler, part["usage"]),
    )


def _money(compiler: Compiler, money: Mapping[str, Any]) -> Money:
    where = test_of(compiler, money.get("where"))
    return Money(
        Decimal(str(money.get("scale") or "1")),
        where,
        money.get("zero") == "unknown",
        bool(money.get("beside")),
    )


def _choices(compiler: Compiler, fact: Any, base: str) -> list[Choice]:
    """The alternatives of a fact; `base` as in `Compiler`: "event" for facts of the call, "here" for the usage
    object."""
    if fact is None:
        return []
    if isinstance(fact, str):
        kind, rest = split_ref(fact)
        parts = plain_pointer(fact)
        if parts and (kind == "event" or base == "event"):
            return [compiler.slots.add(parts, None)]
        if kind == "usage" or (kind == "" and base == "here"):
            parts = plain_pointer(rest)
            return [parts] if parts else [compiler.ref(fact, base)]
        return [compiler.ref(fact, base)]
    if "any" in fact:
        return [choice for one in fact["any"] for choice in _choices(compiler, one, base)]
    if "first" in fact:
        compiler.slots.first = True
        getter = compiler.ref(fact["first"], "event")
        compiler.slots.first = False
        return [getter]
    return [compiler.ref(fact["ref"], base, test_of(compiler, fact["where"]))]


def _event_fact(compiler: Compiler, fact: Any) -> Callable[[Scope, Any], Iterable[Any]]:
    """All values a reference has in one event (several choices end for several reasons)."""
    ref, where = (fact, None) if isinstance(fact, str) else (fact["ref"], test_of(compiler, fact["where"]))
    parts = pointer_parts(split_ref(ref)[1])
    if where is None and len(parts) == 3 and parts[1] == EACH and split_ref(ref)[0] == "":
        return _choice_values(parts[0], parts[2])
    each = compiler.each(ref)
    return lambda scope, event: (
        [value for _, value in each(scope, event)] if where is None or where(scope, event) else ()
    )


def _choice_values(outer: str, inner: str) -> Callable[[Scope, Any], Iterable[Any]]:
    """`/choices/*/finish_reason` in one go: it is asked of every event that is parsed."""

    def values(scope: Scope, event: Any) -> Iterable[Any]:
        elements = event.get(outer) if type(event) is dict else None
        if type(elements) is not list:
            return ()
        return [value for e in elements if type(e) is dict and (value := e.get(inner)) is not None]

    return values
