"""Events to counters: the fold of one call's events over one dialect.

Knows how usage objects of several events become one (replaced, merged, summed), how rows become inclusive counters,
and what the events say beside: model, id, tier, end, error, money. Must not know bytes, hosts, prices or the ledger.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from llmtab.amounts import amount_of
from llmtab.profiles.compiled import Dialect, Part
from llmtab.profiles.refs import Scope, walk
from llmtab.profiles.rows import Row
from llmtab.record import wire_text
from llmtab.usage import COUNTERS, Quantity, excesses

NOTHING: Final[dict[str, Any]] = {}
"""Stands for the usage object of a call that had none."""
STANDARD_TIERS: Final[Mapping[str, str]] = {"default": "standard", "on_demand": "standard"}
"""Words for the ordinary tier that several providers share. `auto` is none of them: it is a request's wish, and where
an answer only repeats it the tier that served the call is not known, nor is its price."""
WISH: Final = "auto"

MOST_REASONS: Final = 16
"""Different reasons to stop that are kept of one call: no provider has as many, a hostile list has millions."""
MOST_PARTS: Final = 64
"""Sub-lines of one call: each is a priced line of its own. The longest loops of server-side tools have a dozen."""


@dataclass(slots=True)
class Reading:
    """What the events of one call said. `counters` are inclusive; `final`: the figures will not change any more."""

    dialect: Dialect
    seen: bool = False
    final: bool = False
    ended: bool = False
    failed: bool = False
    counters: dict[str, Quantity] = field(default_factory=dict)
    estimate: dict[str, Quantity] = field(default_factory=dict)
    """Units that we counted ourselves (characters asked for, images that came): only where the answer told no usage."""
    parts: list[tuple[str | None, dict[str, Quantity]]] = field(default_factory=list)
    model: str | None = None
    request_model: str | None = None
    price_model: str | None = None
    """The name to price by, where it is neither of the two above (Bedrock's answers name the vendor's model)."""
    response_id: str | None = None
    request_id: str | None = None
    service_tier: str | None = None
    pricing_tier: str | None = None
    region: str | None = None
    session: str | None = None
    error_type: str | None = None
    finish_reasons: list[str] = field(default_factory=list)
    money: Decimal | None = None
    beside: Decimal | None = None
    """USD that another party charges for this call, as far as the provider knows it."""
    billing: str | None = None
    not_billed: bool = False
    flags: list[str] = field(default_factory=list)


class Fold:
    """Feed it each parsed event, then ask once for the `Reading`. Never raises, whatever the events hold."""

    __slots__ = (
        "_accumulated",
        "_finish",
        "_last",
        "dialect",
        "ended",
        "failed",
        "final",
        "scope",
        "seen",
    )

    def __init__(self, dialect: Dialect, scope: Scope) -> None:
        self.dialect = dialect
        self.scope = scope
        scope.slots = [None] * dialect.slot_count
        self.seen = self.final = self.ended = self.failed = False
        self._last: Any = None
        self._finish: list[str] = []
        self._accumulated: dict[str, Quantity] = {}

    def feed(self, event: Any) -> None:
        """One event: a JSON value, or the text `[DONE]`."""
        dialect, scope = self.dialect, self.scope
        for parts in dialect.unwrap:
            inner = walk(event, parts)
            if inner is not None:
                event = inner
                break
        if (self.final or self.ended) and any(test(scope, event) for test in dialect.begin):
            self._begin_again()
        slots = scope.slots
        if type(event) is dict:
            dialect.fast_slots(event, slots)
        else:
            for number, parts, keeps_first in dialect.plain_slots:
                keep(slots, number, walk(event, parts), keeps_first)
        for number, getter, keeps_first in dialect.slow_slots:
            keep(slots, number, getter(scope, event), keeps_first)
        if dialect.when is None or dialect.when(scope, event):
            self._usage(event)
        self._marks(event)

    def _begin_again(self) -> None:
        """A second answer starts in the same stream: its account is the one that counts, and it is open."""
        self.scope.usage = self._last = None
        self.seen = self.final = self.ended = False
        self._accumulated.clear()

    def _usage(self, event: Any) -> None:
        scope, dialect = self.scope, self.dialect
        for in_event, root in dialect.roots:
            found = root(scope, event) if in_event else None
            if type(found) is dict:
                break
        else:
            return
        snapshot = dialect.snapshot is not None and dialect.snapshot(scope, found)
        scope.usage = found if snapshot or scope.usage is None else merged(scope.usage, found)
        self._last = found
        self.seen = True
        for row in self.dialect.rows_by_event:
            self._accumulate(row, found)

    def _accumulate(self, row: Row, found: Any) -> None:
        value, old = row.plain(self.scope, found), self._accumulated.get(row.name)
        if value is None:
            return
        if old is None:
            self._accumulated[row.name] = value
        elif row.fold == "sum":
            self._accumulated[row.name] = old + value
        elif row.fold == "max":
            self._accumulated[row.name] = max(old, value)

    def _marks(self, event: Any) -> None:
        """What the event says about the call's course."""
        dialect, scope = self.dialect, self.scope
        if dialect.fast_marks is not None and type(event) is dict:
            marks = dialect.fast_marks(event)
            if marks:
                self.final |= bool(marks & 1)
                self.ended |= bool(marks & 2)
                self.failed |= bool(marks & 4)
        else:
            self.final = self.final or any(test(scope, event) for test in dialect.final)
            self.ended = self.ended or any(test(scope, event) for test in dialect.end)
            self.failed = self.failed or any(test(scope, event) for test in dialect.error)
        for reasons in dialect.finish:
            for value in reasons(scope, event):
                text = wire_text(value) or wire_text(as_text(value))
                if text and len(self._finish) < MOST_REASONS and text not in self._finish:
                    self._finish.append(text)

    def reading(self) -> Reading:
        """All that was said, once the events are over."""
        dialect, scope = self.dialect, self.scope
        if (
            not self.seen
            and dialect.header_roots
            and any(not in_event and root(scope, None) is not None for in_event, root in dialect.roots)
        ):
            scope.usage, self._last, self.seen = {}, {}, True
        out = Reading(dialect, self.seen, self.final, self.ended, self.failed, finish_reasons=self._finish)
        if self.seen:
            self._count(out)
            if dialect.parts:
                scope.dropped = False
                shares = (share for part in dialect.parts for share in self._shares(part))
                out.parts = list(islice(shares, MOST_PARTS + 1))
                if len(out.parts) > MOST_PARTS or scope.dropped:
                    out.parts = out.parts[:MOST_PARTS]
                    out.flags.append("dropped:parts")
        if dialect.estimate and not out.counters:
            out.estimate = {
                row.name: value for row in dialect.estimate if (value := row.plain(scope, None)) is not None
            }
        usage = scope.usage if scope.usage is not None else NOTHING
        self._facts(out, usage)
        if dialect.money:
            figures = dialect.money_figures(scope.slots, scope, usage)
            if figures != dialect.no_money:
                out.money, out.beside = self._money(figures, beside=False), self._money(figures, beside=True)
        for basis, where in dialect.billing:
            if where is None or where(scope, scope.usage):
                out.billing = basis
                break
        if dialect.not_billed:
            out.not_billed = any(test(scope, scope.usage) for test in dialect.not_billed)
        return out

    def _facts(self, out: Reading, usage: Any) -> None:
        dialect, scope = self.dialect, self.scope
        model, asked, price_model, ident, request_id, tier, pricing_tier, place, session, kind = dialect.facts(
            scope.slots, scope, usage
        )
        # Most calls have but a few of these, and what they have is fit to keep: `_text` is for the others.
        if model is not None:
            out.model = wire_text(model) or _text(out, "response_model", model)
        if asked is not None:
            out.request_model = wire_text(asked) or _text(out, "request_model", asked)
        if price_model is not None:
            out.price_model = _text(out, "price_model", price_model)
        if ident is not None:
            out.response_id = wire_text(ident) or _text(out, "response_id", ident)
        if request_id is not None:
            out.request_id = wire_text(request_id) or _text(out, "request_id", request_id)
        if session is not None:
            out.session = _text(out, "session", session)
        if kind is not None:
            out.error_type = _text(out, "error_type", kind)
        if tier is not None:
            out.service_tier = tier = wire_text(tier) or _text(out, "service_tier", tier)
        if pricing_tier is not None:
            tier = _text(out, "pricing_tier", pricing_tier) or tier
        if tier is not None:
            named = dialect.tiers.get(tier) or STANDARD_TIERS.get(tier.lower(), tier.lower())
            # The first events of a stream repeat the wish; if the account did not come, what was served did not either.
            out.pricing_tier = None if named == WISH and not out.seen else named
        if isinstance(place, str) and place:
            out.region = wire_text(dialect.regions.get(place, place))

    def _count(self, out: Reading) -> None:
        """Rows to inclusive counters, then the checks of section 4 of the design."""
        scope, dialect, counters = self.scope, self.dialect, out.counters
        accumulated, usage = self._accumulated, scope.usage
        odd = dialect.fast_rows(usage, counters)
        for number in (*dialect.slow_rows, *odd):
            row = dialect.rows[number]
            scope.dropped = False
            value = accumulated.get(row.name) if row.fold != "last" else row.plain(scope, usage)
            if value is not None:
                counters[row.name] = value
                if value and row.kinds:
                    counters[row.kind(scope)] = value
            if scope.dropped:
                out.flags.append(f"dropped:{row.name}")
        for row in dialect.outside_rows:
            _add_outside(row, counters, scope)
        if excesses(counters):
            self._clamp_stale(out)
        _check_total(out, dialect.total(scope, usage) if dialect.total is not None else None)

    def _clamp_stale(self, out: Reading) -> None:
        """A part that only an earlier event gave may exceed a parent that a later one lowered: then the parent holds.

        In the order of the table, parents before their parts.
        """
        counters, rows = out.counters, {row.name: row for row in self.dialect.rows}
        for name, counter in COUNTERS.items():
            limits = [counters[whole] for whole in (counter.parent, *counter.crosses) if whole in counters]
            if name not in counters or not limits or counters[name] <= min(limits):
                continue
            if name in rows and rows[name].plain(self.scope, self._last) is None:
                counters[name] = min(limits)
            out.flags.append(f"part_exceeds:{name}")

    def _shares(self, part: Part) -> Iterator[tuple[str | None, dict[str, Quantity]]]:
        scope = self.scope
        for element, _ in part.each(scope, scope.usage):
            if part.where is not None and not part.where(scope, element):
                continue
            counters = {row.name: value for row in part.rows if (value := row.plain(scope, element)) is not None}
            if any(counters.values()):  # OpenAI lists the tools that were not used, with zeros
                _set_total(counters)
                yield wire_text(part.model(scope, element)), counters

    def _money(self, figures: Sequence[Any], *, beside: bool) -> Decimal | None:
        """USD that the provider itself named for this call; None where it named none."""
        total: Decimal | None = None
        for entry, figure in zip(self.dialect.money, figures, strict=True):
            if figure is None or entry.beside is not beside:
                continue
            if entry.where is not None and not entry.where(self.scope, self.scope.usage):
                continue
            amount = amount_of(figure)
            if amount is None or (amount == 0 and entry.zero_is_unknown):
                continue
            total = (total or Decimal(0)) + amount * entry.scale
        return total


def _text(out: Reading, name: str, value: Any) -> str | None:
    """A fact as text, if the ledger may hold it; what it may not is flagged."""
    if value is None or value == "" or isinstance(value, (dict, list)):
        return None
    text = wire_text(value) or wire_text(as_text(value))
    if text is None:
        out.flags.append(f"dropped:{name}")
    return text


def keep(slots: list[Any], number: int, value: Any, keeps_first: bool) -> None:
    """Keep an event's value in its slot: null and the empty string say nothing."""
    if value is not None and value != "" and not (keeps_first and slots[number] is not None):
        slots[number] = value


def as_text(value: Any) -> str | None:
    """A fact as text: some clients ask for enums as numbers. None for anything that is no short scalar."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and abs(value) < 10**18 else None


def merged(old: Any, new: Any) -> dict[str, Any]:
    """`new` over `old`, member by member: null erases nothing, objects are merged, everything else is replaced."""
    out = dict(old)
    for key, value in new.items():
        if value is None:
            continue
        before = out.get(key)
        out[key] = merged(before, value) if type(value) is dict and type(before) is dict else value
    return out


def _add_outside(row: Row, counters: dict[str, Quantity], scope: Scope) -> None:
    """Terms that belong to the counter only if the provider's own total is not reached without them."""
    for term, total_of in row.outside:
        value, total = term(scope, scope.usage), total_of(scope, scope.usage)
        if not value:
            continue
        reached = counters.get("input_tokens", 0) + counters.get("output_tokens", 0)
        if total is None or reached < total:
            counters[row.name] = counters.get(row.name, 0) + value


def _set_total(counters: dict[str, Quantity]) -> Quantity | None:
    if "input_tokens" not in counters and "output_tokens" not in counters:
        return None
    total = counters.get("input_tokens", 0) + counters.get("output_tokens", 0)
    counters["total_tokens"] = total
    return total


def _check_total(out: Reading, reported: Quantity | None) -> None:
    total = _set_total(out.counters)
    if reported is not None and total is not None and reported != total:
        out.counters["reported_total_tokens"] = reported
        out.flags.append("total_mismatch")
