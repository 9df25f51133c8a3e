"""`llmtab verify`: was a ledger altered? Knows how to say it; the chains are the business of `ledger_verify`."""

import argparse
from pathlib import Path

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "verify",
        run,
        summary="check that no line of the ledger was altered, removed, inserted or moved",
        details="Exit status 0 if all is as it was written, 1 if not, or if a line is no ledger's and no torn one.",
        example="llmtab verify ~/.llmtab/ledger.jsonl",
    )
    key = "the key file of a ledger written with llmtab_chain_key"
    parser.add_argument("--key", metavar="FILE", type=Path, help=key)
    parser.add_argument("--json", action="store_true", help="the findings as one JSON object")
    add_ledger_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Walks the ledger with its rotated files and its notes."""
    import json
    from dataclasses import asdict

    from llmtab.cells import counted
    from llmtab.ledger.chain import chain_key
    from llmtab.ledger.verify import verify

    path = args.ledger or default_ledger()
    report = verify(path, chain_key(args.key) if args.key else None)
    if args.json:
        print(json.dumps({"ok": report.ok, **asdict(report)}))
        return 0 if report.ok else 1
    for problem in report.problems:
        print(problem)
    for place in report.torn:
        print(f"{place}: torn: a crash or a full disk cut it short; it counts as no call")
    if report.dropped:
        print(f"{counted(report.dropped, 'line')} never reached the disk, as the notes say")
    found = "every chain is whole" if report.ok else counted(report.count, "problem")
    if report.ok and not report.lines:
        found = "there is no line in it yet"
    print(f"{path}: {counted(report.lines, 'line')} of {counted(report.writers, 'writer')}: {found}")
    return 0 if report.ok else 1
