"""`llmtab key`: which keys were used, by their fingerprints, and names for them.

Knows the ledger's `client.key` and the file of names. Must not know keys: one that is to be recognised is read from the
environment or from stdin, and never printed.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.live.grid import Cell

_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]{0,31}(?:_[A-Z0-9]{1,31}){1,7}")
"""What is surely the name of a variable; a key could look like any other word."""
LEAST: Final = {"name": 8, "providers": 9}
"""Columns that may be cut, and how far."""
DETAILS = """On the ledger a key is a fingerprint (k_...), made with a random key of this
machine. A name is kept in keys.yaml under $LLMTAB_HOME and is the `consumer` of every call from then on, unless
a header, the proxy's user or a rule says who it is."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb and what it can do."""
    parser = add_verb(
        verbs,
        "key",
        run,
        summary="list the keys that were used, and give them names",
        details=DETAILS,
        example='llmtab key name k_0123456789abcdef "ci bot"',
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = what.add_parser("list", help="fingerprints on the ledger and in keys.yaml, the last used first")
    listing.add_argument("--json", action="store_true", help="one JSON object a key")
    add_ledger_argument(listing)
    naming = what.add_parser("name", help="give a fingerprint a name, in place of any it has")
    naming.add_argument("fingerprint", metavar="FINGERPRINT")
    naming.add_argument("name", metavar="NAME")
    forgetting = what.add_parser("forget", help="take a fingerprint's name away")
    forgetting.add_argument("fingerprint", metavar="FINGERPRINT")
    asking = what.add_parser("of", help="the fingerprint of the key in an environment variable, or on stdin")
    asking.add_argument("variable", metavar="VARIABLE", nargs="?", help="e.g. OPENAI_API_KEY; default: stdin")


def run(args: argparse.Namespace) -> int:
    """Does what was asked. Raises ValueError for what is no fingerprint, no name or no key."""
    from llmtab.attribution import keynames

    if args.what == "list":
        return _list(args.ledger or default_ledger(), args.json)
    if args.what == "of":
        print(_fingerprint(args.variable))
    elif args.what == "name":
        keynames.put(keynames.usual(), args.fingerprint, args.name)
        print(f"{args.fingerprint} is {args.name}")
    elif not keynames.FORM.fullmatch(args.fingerprint):  # may be a key
        raise ValueError("that is no fingerprint, expected k_ and 16 hex digits (see llmtab key list)")
    else:
        known = keynames.load(keynames.usual()).get(args.fingerprint)
        if known is None:
            raise ValueError(f"{args.fingerprint} has no name")
        keynames.put(keynames.usual(), args.fingerprint, None)
        print(f"{args.fingerprint} was {known}")
    return 0


def _fingerprint(variable: str | None) -> str:
    from llmtab.attribution.fingerprints import Fingerprints
    from llmtab.home import home

    if variable and variable not in os.environ and not _VARIABLE.fullmatch(variable):  # may be a key
        raise ValueError("that is no variable's name like OPENAI_API_KEY; a key itself is read from stdin only")
    secret = os.environ.get(variable, "").strip() if variable else sys.stdin.readline().strip()
    found = Fingerprints(home() / "key").of({"x-api-key": secret})
    if found is None:
        raise ValueError(f"{variable} is not set" if variable else "no key on stdin")
    return found


def _list(ledger: Path, as_json: bool) -> int:
    from llmtab.attribution import keynames
    from llmtab.pricing.compare import to_json

    names = keynames.load(keynames.usual())
    found = _used(ledger) if ledger.exists() else {}
    rows = sorted(found.values(), key=lambda row: row["last"], reverse=True)
    rows += [{"key": key, "calls": 0} for key in names if key not in found]
    for row in rows:
        if row["key"] in names:
            row["name"] = names[row["key"]]
        if as_json:
            print(to_json(_facts(row)))
    if not as_json:
        print("\n".join(_table(rows)) if rows else "no key on the ledger yet")
    return 0


def _used(ledger: Path) -> dict[str, dict[str, Any]]:
    """Keys on the ledger: the sum of their calls, the last call's time, providers."""
    from llmtab.ledger.reader import read
    from llmtab.live.totals import Sum

    found: dict[str, dict[str, Any]] = {}
    main, key = None, None
    for line in read(ledger):
        if line.get("parent", "") != main:  # another model's share follows its call, and names no key of its own
            main, key = line.get("id"), (line.get("client") or {}).get("key")
        if not key:
            continue
        row = found.setdefault(key, {"key": key, "sum": Sum(), "last": "", "providers": []})
        row["sum"].add(line)
        row["last"] = max(row["last"], str(line.get("time", "")))
        if line.get("provider") not in row["providers"]:
            row["providers"].append(line.get("provider"))
    return found


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    """A key for a program; `unpriced_lines` are in no sum, and what a subscription covers stands apart."""
    one = row.get("sum")
    known: dict[str, Any] = {name: row[name] for name in ("last", "providers", "name") if name in row}
    if one is None:
        return {"key": row["key"], "calls": 0, **known}
    money = {"cost_usd": one.cost, "notional_usd": one.notional, "unpriced_lines": one.unpriced}
    return {"key": row["key"], "calls": one.calls, **money, **known}


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a key: columns as wide as the terminal has room for, and all there is to say where there is none."""
    from llmtab.live import ansi
    from llmtab.live.grid import Column, Grid, cells_of

    shown = [_cells(row) for row in rows]
    ranks = {"key": 0, "name": 1, "calls": 2, "cost": 0, "last used": 3, "providers": 4}
    columns = []
    for name, rank in ranks.items():
        wide = max(len(name), *(cells_of(cells[name].text) for cells in shown))
        least = min(wide, LEAST.get(name, wide))
        columns.append(Column(name, least, wide, rank, right=name in ("calls", "cost")))
    colour, terminal = ansi.wanted(sys.stdout, os.environ), sys.stdout.isatty()
    grid = Grid(columns, shutil.get_terminal_size().columns if terminal else 10_000)
    titles = [grid.title()] if terminal else []
    yield from (ansi.text(row, colour=colour) for row in (*titles, *map(grid.row, shown)))


def _cells(row: dict[str, Any]) -> "dict[str, Cell]":
    from llmtab.cells import safe
    from llmtab.live.grid import Cell
    from llmtab.live.rows import covered, money

    one, words = row.get("sum"), {"key": Cell(row["key"]), "name": Cell(safe(row.get("name", "-")), "name")}
    if one is None:
        return words | {
            "calls": Cell("-"),
            "cost": Cell("-"),
            "last used": Cell("not on this ledger"),
            "providers": Cell(""),
        }
    spent = money(one) if one.cost or not one.notional else ""
    if one.unpriced and not one.cost:
        spent = "unpriced"
    return words | {
        "calls": Cell(f"{one.calls:,}"),
        "cost": Cell(" ".join(filter(None, (spent, covered(one) if one.notional else ""))), "money"),
        "last used": Cell(safe(row["last"][:16].replace("T", " ")), "dim"),
        "providers": Cell(", ".join(safe(name, 32) for name in row["providers"])),
    }
