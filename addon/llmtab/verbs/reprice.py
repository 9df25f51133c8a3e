"""`llmtab reprice`: a ledger at today's tables, each line at its own time; history itself is never edited.

Knows which lines hold a list price of ours and what a new one changes. Must not know how prices are found.
"""

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.pricing import PriceBook

OURS: Final = frozenset({"list", "estimated", "unpriced"})
"""Costs that come from our table; what a provider reported, and what is not billed, stays."""
PRICED: Final = ("cost_usd", "cost_source", "cost_reason", "cost_partial_usd", "cost_lines", "price", "saved_usd")


@dataclass
class Sum:
    """One model's lines: how many, how many came out otherwise, and both totals in USD of what has a price."""

    lines: int = 0
    changed: int = 0
    old: Decimal = Decimal(0)
    new: Decimal = Decimal(0)
    old_unpriced: int = 0
    new_unpriced: int = 0

    def add(self, old: Decimal | None, new: Decimal | None) -> None:
        self.lines += 1
        self.changed += old != new
        self.old += old or 0
        self.new += new or 0
        self.old_unpriced += old is None
        self.new_unpriced += new is None


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    from llmtab.verbs.price import add_table_arguments, day

    parser = add_verb(
        verbs,
        "reprice",
        run,
        summary="price a ledger again, each line at its own time, and show what changed",
        details="The ledger is never edited; --write makes a new file (without chain: it is no record, but a what-if).",
        example="llmtab reprice --prices-at 2026-07-01",
    )
    parser.add_argument("--prices-at", metavar="DATE", type=day, help="prices of that day, not each line's own")
    parser.add_argument("--write", metavar="OUT", type=Path, help="write the repriced lines to a new file")
    parser.add_argument("--json", action="store_true", help="the sums as one JSON object")
    add_table_arguments(parser)
    add_ledger_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a sum a model. Exit status 0 whatever changed."""
    from llmtab.ledger.reader import Skipped, read
    from llmtab.record import encode
    from llmtab.verbs.price import open_book

    book, path = open_book(args), args.ledger or default_ledger()
    sums: dict[str, Sum] = defaultdict(Sum)
    skipped, left = Skipped(), Counter[str]()
    with _new_file(args.write) as out:
        for line in read(path, skipped):
            new = repriced(line, book, args.prices_at)
            if new is not line:
                name = f"{line.get('provider')}/{line.get('response_model') or line.get('request_model')}"
                sums[name].add(line.get("cost_usd"), new.get("cost_usd"))
            else:
                left[_why(line)] += 1
            if out:
                out.write(encode({key: value for key, value in new.items() if key != "chain"}) + b"\n")
    _show(sums, left, skipped.lines, args.json)
    return 0


def _why(line: Mapping[str, Any]) -> str:
    """Why a line stays as it is."""
    if line.get("cost_source") not in OURS:
        return str(line.get("cost_source", "no cost")).replace("_", " ")
    return "counters unknown here" if line.get("usage") else "no usage"


@contextmanager
def _new_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """A file that must not be there yet, as private as the ledger; half of one is not left behind."""
    with ExitStack() as undo:
        if path is None:
            yield None
            return
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            undo.callback(path.unlink)
            yield out
        undo.pop_all()


def repriced(line: Mapping[str, Any], book: "PriceBook", at: datetime | None) -> Mapping[str, Any]:
    """The line with its list price made anew at `at` (None: at the call's end); the same object if it holds none, or
    counters that are unknown here (a newer version wrote it): no full price without them."""
    from llmtab.booking import incomplete
    from llmtab.pricing import Cost, Unpriced
    from llmtab.record import FIELDS, in_order
    from llmtab.usage import COUNTERS, Usage

    if line.get("cost_source") not in OURS or not line.get("usage") or not COUNTERS.keys() >= line["usage"].keys():
        return line
    usage = Usage(line["usage"])
    when = at or ended(line)
    found = book.price(
        usage, line["provider"], _model(line, book, when),
        pricing_tier=line.get("pricing_tier"), region=line.get("region"), at=when,
    )  # fmt: skip
    if isinstance(found, Cost) and (
        lacking := incomplete(usage.counters, line.get("flags", ()), line.get("usage_source"), found.usd)
    ):
        found = Unpriced(lacking, found.usd, found.lines, found.price)
    values = {key: value for key, value in line.items() if key not in PRICED}
    values["cost_lines"] = found.lines or None
    if found.price:
        values["price"] = {**found.price, "at": f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"}
    if isinstance(found, Cost):
        source = "estimated" if line.get("usage_source") in ("partial", "estimated") else "list"
        values.update(cost_usd=found.usd, cost_source=source, saved_usd=found.saved_usd)
    else:
        values.update(cost_usd=None, cost_source="unpriced", cost_reason=found.reason)
        values["cost_partial_usd"] = found.partial_usd
    known = in_order(values)
    return known | {key: value for key, value in values.items() if key not in FIELDS and value is not None}


def _model(line: Mapping[str, Any], book: "PriceBook", at: datetime) -> str:
    """The name the meter priced the call by."""
    served, asked = str(line.get("response_model") or ""), str(line.get("request_model") or "")
    if not asked or line["provider"] not in _priced_as_asked():
        return served or asked
    entry = line.get("price", {}).get("id", "").removeprefix(f"{line['provider']}/")  # a prompt router's choice
    return next((name for name in (asked, entry) if name and book.find(line["provider"], name, at)), asked)


@lru_cache
def _priced_as_asked() -> frozenset[str]:
    from llmtab.profiles import Profiles

    return Profiles.load().priced_as_asked


def ended(line: Mapping[str, Any]) -> datetime:
    """When a call ended, in UTC: the moment its price is of."""
    said = line.get("price", {}).get("at")
    if said:
        return datetime.fromisoformat(said).astimezone(UTC)
    duration = float(line.get("timing", {}).get("duration_ms", 0))
    return datetime.fromisoformat(line["time"]).astimezone(UTC) + timedelta(milliseconds=duration)


def _show(sums: Mapping[str, Sum], left: Counter[str], skipped: int, as_json: bool) -> None:
    import sys

    from llmtab.cells import counted, safe
    from llmtab.pricing.compare import to_json

    total = Sum()
    for its in sums.values():
        for name in vars(its):
            setattr(total, name, getattr(total, name) + getattr(its, name))
    if as_json:
        models = {name: vars(sums[name]) for name in sorted(sums)}
        print(to_json({"models": models, "total": vars(total), "left": dict(left)}))
        return
    for name in sorted(sums):
        print("\n".join(_said(name, sums[name])))
    print("\n".join(_said("total", total)))
    if left:
        reasons = ", ".join(f"{number:,} {safe(why, 40)}" for why, number in left.most_common())
        print(f"not priced again: {counted(left.total(), 'line')} ({reasons})")
    if skipped:
        print(f"{counted(skipped, 'line')} could not be read", file=sys.stderr)


def _said(name: str, its: Sum) -> Iterator[str]:
    from llmtab.cells import counted
    from llmtab.pricing.compare import short

    moved = f" ({short(its.new - its.old)})" if its.new != its.old else ""
    unpriced = f", unpriced {its.old_unpriced} -> {its.new_unpriced}" if its.old_unpriced or its.new_unpriced else ""
    sums = f"{short(its.old)} -> {short(its.new)} USD{moved}{unpriced}"
    yield f"{name}: {counted(its.lines, 'line')}, {its.changed} changed, {sums}"
