"""`llmtab key`: which keys were used, by their fingerprints, and names for them.

Knows the ledger's `client.key` and the file of names. Must not know keys: one that is to be recognised is read from the
environment or from stdin, and never printed.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

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

    secret = os.environ.get(variable, "").strip() if variable else sys.stdin.readline().strip()
    found = Fingerprints(home() / "key").of({"x-api-key": secret})
    if found is None:
        raise ValueError(f"{variable} is not set" if variable else "no key on stdin")
    return found


def _list(ledger: Path, as_json: bool) -> int:
    import json

    from llmtab.attribution import keynames

    names = keynames.load(keynames.usual())
    found = _used(ledger) if ledger.exists() else {}
    rows = sorted(found.values(), key=lambda row: row["last"], reverse=True)
    rows += [{"key": key, "calls": 0} for key in names if key not in found]
    for row in rows:
        if row["key"] in names:
            row["name"] = names[row["key"]]
        if as_json:
            print(json.dumps(row, default=str))
        else:
            print(_row(row))
    if not rows and not as_json:
        print("no key on the ledger yet")
    return 0


def _used(ledger: Path) -> dict[str, dict[str, Any]]:
    """Keys on the ledger: calls, known cost in USD, the last call's time, providers, user agents."""
    from decimal import Decimal

    from llmtab.ledger.reader import read

    found: dict[str, dict[str, Any]] = {}
    main, key = None, None
    for line in read(ledger):
        if line.get("parent", "") != main:  # another model's share follows its call, and names no key of its own
            main, key = line.get("id"), (line.get("client") or {}).get("key")
        if not key:
            continue
        row = found.setdefault(key, {"key": key, "calls": 0, "cost_usd": Decimal(0), "last": "", "providers": []})
        row["calls"] += "parent" not in line
        row["cost_usd"] += line.get("cost_usd") or 0
        row["last"] = max(row["last"], str(line.get("time", "")))
        if line.get("provider") not in row["providers"]:
            row["providers"].append(line.get("provider"))
    return found


def _row(row: dict[str, Any]) -> str:
    name = row.get("name", "-")
    if not row["calls"]:
        return f"{row['key']}  {name:<20}  not on this ledger"
    calls = f"{row['calls']} call{'s' if row['calls'] != 1 else ''}"
    money, providers = f"{row['cost_usd']:.6f} USD", ", ".join(map(str, row["providers"]))
    return f"{row['key']}  {name:<20}  {calls:>10}  {money:>16}  {row['last'][:16]}  {providers}"
