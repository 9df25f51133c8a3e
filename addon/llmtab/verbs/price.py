"""`llmtab price`: what a call costs, line by line, or why nobody can say; and the table itself.

Knows how to ask the price book and show its answer. Must not know how prices are found or applied: `price -` runs the
same code as the meter.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmtab.verbs import Verbs, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.pricing import Cost, PriceBook, Unpriced
    from llmtab.usage import Usage

COUNTS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache-read": "cache_read_input_tokens",
    "cache-write": "cache_creation_input_tokens",
    "cache-write-1h": "cache_creation_1h_input_tokens",
    "reasoning": "reasoning_output_tokens",
    "input-audio": "audio_input_tokens",
    "output-audio": "audio_output_tokens",
    "web-search": "web_search_requests",
    "web-search-preview": "web_search_preview_requests",
}
MOST: Final = 10**15
"""No call has used that much of anything."""
DETAILS = """With '-' it reads JSON lines {"provider", "model", "usage", "service_tier"?, "region"?, "time"?} and
prints one {"cost_usd", "cost_reason"?, "cost_lines"} for each. Exit status 1: no price."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    example = "llmtab price openai/gpt-4o --input 12000 --cache-read 8000 --output 500"
    summary = "show what a call costs, line by line, or why not"
    parser = add_verb(verbs, "price", run, summary=summary, details=DETAILS, example=example)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model, PROVIDER/MODEL, or - for JSON lines")
    parser.add_argument("--provider", metavar="P", help="who sells it, where several do")
    for name, counter in COUNTS.items():
        parser.add_argument(f"--{name}", metavar="N", type=int, dest=counter, help=f"{counter}")
    parser.add_argument("--use", metavar="COUNTER=N", action="append", default=[], help="any other counter")
    parser.add_argument("--at", metavar="DATE", type=day, help="when the call ended (default: now)")
    parser.add_argument("--tier", metavar="T", help="service tier: batch, flex, priority ...")
    parser.add_argument("--region", metavar="R", help="where it ran: us, eu, a cloud's region")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="every entry, of --provider P only if given")
    what.add_argument("--diff", metavar="FILE", type=Path, help="what the price file FILE would change")
    what.add_argument(
        "--estimates", metavar="LEDGER", type=Path, nargs="?", const=default_ledger(),
        help="how good the estimates before the calls of a ledger were, a line a model",
    )  # fmt: skip
    what.add_argument("--stale", action="store_true", help="how old the table is; exit status 1 if over 60 days")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_table_arguments(parser)


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--pricing`: the same tables as the meter's."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="llmtab.yaml (default: the usual one)")
    parser.add_argument("--pricing", metavar="FILE", type=Path, action="append", default=[], help="further price file")


def run(args: argparse.Namespace) -> int:
    """Answers the one question asked."""
    if args.estimates:
        return _estimates(args.estimates, args.json)
    book = open_book(args)
    if args.stale:
        return _stale(book, datetime.now(UTC).date())
    if args.diff:
        return _diff(book, args)
    if args.list:
        return _list(book, args)
    if args.model is None:
        raise ValueError("a MODEL, -, --list, --diff, --estimates or --stale is needed (see llmtab price --help)")
    return _stream(book) if args.model == "-" else _one(book, args)


def open_book(args: argparse.Namespace, *more: Path) -> "PriceBook":
    """The tables of `--config`, then of `--pricing` and `more` (the last one first), over the shipped one."""
    from llmtab.config import load
    from llmtab.home import config_file
    from llmtab.pricing import PriceBook

    config = load(args.config or config_file())
    extra = [*args.pricing, *more]
    return PriceBook.load(extra=extra, overrides=config.pricing, overrides_path=config.path or "llmtab.yaml")


def moment(text: str) -> datetime:
    """A date or time in RFC 3339, in UTC, which is meant where no zone is said. ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r}, expected a date or time like 2026-07-01 or 2026-07-01T14:00Z") from None
    try:
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the calendar") from None


def day(text: str) -> datetime:
    """`moment` for an argument: says what was expected."""
    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _one(book: "PriceBook", args: argparse.Namespace) -> int:
    from llmtab.pricing.advice import no_factor
    from llmtab.pricing.card import Card
    from llmtab.pricing.compare import described

    provider, model = _place(book, args)
    at = args.at or datetime.now(UTC)
    usage, tier = _asked(args), spoken_tier(provider, args.tier)
    if args.region and (said := no_factor(book, provider, model, args.region, at)):
        print(said, file=sys.stderr)
    if usage:
        return _answer(book.price(usage, provider, model, pricing_tier=tier, region=args.region, at=at), args.json)
    card, match = book.card(provider, model, tier, args.region, at), book.find(provider, model, at)
    if not isinstance(card, Card) or match is None:
        print(f"no price: {card}", file=sys.stderr)
        return 1
    for line in described(match, card):
        print(line)
    return 0


def _place(book: "PriceBook", args: argparse.Namespace) -> tuple[str, str]:
    """Provider and model. A model's name alone must have one seller only: nothing is guessed."""
    from llmtab.pricing.advice import near

    if args.provider:
        return args.provider, args.model
    known = {name for table in book.finder.tables for name in table.providers}
    head, _, rest = args.model.partition("/")
    if rest and head in known:
        return head, rest
    today = (args.at or datetime.now(UTC)).date().isoformat()
    sellers = sorted(name for name in known if book.finder.find(name, args.model, today))
    if not sellers:
        names = near(book, args.model)
        raise ValueError(f"no table has {args.model}" + (f": did you mean {', '.join(names)}?" if names else ""))
    if len(sellers) > 1:
        raise ValueError(f"{args.model} is sold by {', '.join(sellers)}: say --provider P")
    return sellers[0], args.model


def _asked(args: argparse.Namespace) -> "Usage":
    from llmtab.usage import Usage

    counters = {name: value for name in COUNTS.values() if (value := getattr(args, name)) is not None}
    for text in args.use:
        name, _, value = text.partition("=")
        counters[name] = _number(text, value)
    return Usage(checked(counters))


def _number(text: str, value: str) -> int | Decimal:
    try:
        return Decimal(value) if "." in value else int(value)
    except (ValueError, ArithmeticError):
        raise ValueError(f"--use {text}: expected COUNTER=N, as in --use pages=3") from None


def checked(counters: Any) -> dict[str, Any]:
    """Counters as the meter would have them: known names, numbers from 0, unknown (null) ones left out. ValueError."""
    from llmtab.usage import COUNTERS

    if not isinstance(counters, Mapping):
        raise ValueError(f"usage: {counters!r}, expected an object of counters")
    found = {}
    for name, value in counters.items():
        if name not in COUNTERS:
            raise ValueError(f"unknown counter {name!r}")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MOST:
            raise ValueError(f"{name}: {value!r}, expected a number from 0 to {MOST}")
        found[name] = int(value) if value == int(value) else value
    return found


def answer(found: "Cost | Unpriced") -> dict[str, Any]:
    """The answer as a program reads it."""
    from llmtab.pricing import Cost

    if isinstance(found, Cost):
        return {"cost_usd": found.usd, "cost_lines": found.lines, "price": found.price}
    partial = {} if found.partial_usd is None else {"cost_partial_usd": found.partial_usd}
    said = {"cost_usd": None, "cost_reason": found.reason, **partial, "cost_lines": found.lines}
    return said | ({"price": found.price} if found.price else {})


def _answer(found: "Cost | Unpriced", as_json: bool) -> int:
    from llmtab.pricing import Cost
    from llmtab.pricing.compare import short, to_json

    priced = isinstance(found, Cost)
    if as_json:
        print(to_json(answer(found)))
        return 0 if priced else 1
    for line in found.lines:
        factors = " ".join(f"{name} x{short(value)}" for name, value in line.get("factors", {}).items())
        unit = f"{short(line['rate'])} / {line['per']:,}"
        amount = f"{line['counter']:32} {line['quantity']:>12,} x {unit:<20} = {short(line['usd']):>14} USD"
        print(f"{amount}  {factors}".rstrip())
    if isinstance(found, Cost):
        print(f"{found.price['id']}: {short(found.usd)} USD")
        if found.saved_usd:
            print(f"caching saved {short(found.saved_usd)} USD")
        return 0
    known = "" if found.partial_usd is None else f" (what can be priced: {short(found.partial_usd)} USD)"
    print(f"no price: {found.reason}{known}")
    return 1


def _stream(book: "PriceBook") -> int:
    from llmtab.pricing.compare import to_json
    from llmtab.record import decode

    status = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            said = answer(asked(book, decode(line)))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            said, status = {"error": f"line {number}: {error}"}, 1
        print(to_json(said))
    return status


def asked(book: "PriceBook", line: Mapping[str, Any]) -> "Cost | Unpriced":
    """The price of one JSON line. Raises ValueError for what is wrong in it."""
    from llmtab.usage import Usage

    for name in ("provider", "model", "usage"):
        if name not in line:
            raise ValueError(f"no {name!r} in it")
    for name in ("provider", "model", "service_tier", "region", "time"):
        if not isinstance(value := line.get(name), str | None):
            raise ValueError(f"{name}: {value!r}, expected a string")
    provider = line["provider"] or ""
    return book.price(
        Usage(checked(line["usage"])),
        provider,
        line["model"] or "",
        pricing_tier=spoken_tier(provider, line.get("service_tier")),
        region=line.get("region"),
        at=moment(line["time"]) if line.get("time") else datetime.now(UTC),
    )


def spoken_tier(provider: str, tier: str | None) -> str | None:
    """A provider's own word for a tier (`default`, `fast`, `ON_DEMAND_FLEX`) as the meter understands it."""
    from llmtab.extract import STANDARD_TIERS

    return tier and (_tiers(provider).get(tier) or STANDARD_TIERS.get(tier.lower(), tier.lower()))


@lru_cache
def _tiers(provider: str) -> Mapping[str, str]:
    from llmtab.profiles import Profiles

    return Profiles.load().tiers(provider)


def _list(book: "PriceBook", args: argparse.Namespace) -> int:
    from llmtab.pricing.compare import summary, to_json

    entries = [match for match in book.finder.entries() if args.provider in (None, match.provider)]
    if not entries:
        raise ValueError(f"no table has models of {args.provider}")
    for match in entries:
        if args.json:
            print(to_json({"id": f"{match.provider}/{match.model}", **match.entry}))
        else:
            print(f"{match.provider}/{match.model}: {summary(match.entry)}")
    return 0


def _diff(book: "PriceBook", args: argparse.Namespace) -> int:
    from llmtab.cells import counted
    from llmtab.pricing.compare import diff

    changes = diff(book, open_book(args, args.diff))
    for line in changes:
        print(line)
    print(counted(len(changes), "difference"), file=sys.stderr)
    return 0


def _estimates(path: Path, as_json: bool) -> int:
    from llmtab.cells import counted
    from llmtab.estimates.before import accuracy
    from llmtab.ledger.reader import read
    from llmtab.pricing.compare import to_json

    found = {name: one.summary() for name, one in sorted(accuracy(read(path)).items())}
    if as_json:
        print(to_json(found))
        return 0
    for name, one in found.items():
        within = f"{one['within_p90']} within their p90, {one['over_warn']} over warn"
        print(f"{name}: {counted(one['calls'], 'call')}, {within}")
        for key, its in one.items():
            if isinstance(its, dict):
                said = f"estimated x{its['median']} of what came (median), 9 of 10 off by x{its['p90_factor']} at most"
                print(f"  {key:14} {said}")
    if not found:
        print("no call of this ledger was estimated and reported", file=sys.stderr)
    return 0


def _stale(book: "PriceBook", today: date) -> int:
    age = book.stale_days(today)
    lines = list(_ages(book, today))
    print("\n".join(lines))
    return 0 if age is None else 1


def _ages(book: "PriceBook", today: date) -> Iterator[str]:
    from llmtab.cells import counted

    if book.as_of is None:
        yield "the table does not say how old it is"
        return
    days = (today - date.fromisoformat(book.as_of)).days
    advice = "; llmtab has newer ones, or add yours to llmtab.yaml" if book.stale_days(today) else ""
    yield f"prices of {book.as_of}, {counted(days, 'day')} old{advice}"
