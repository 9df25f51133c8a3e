"""`llmtab prune`: deletes old finished files of a ledger, after saying which. What is old is `retention`'s business."""

import argparse
import sys
from pathlib import Path

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

DETAILS = """Only whole files that rotation has finished are deleted, never the one that grows; a note is left,
so that `llmtab verify` knows. Without --yes it asks first; where nobody can be asked it only says what it would do.
Exit status 1 if something could be deleted and was not."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "prune",
        run,
        summary="delete the finished files of a ledger that are older than a time",
        details=DETAILS,
        example="llmtab prune --keep 90d --yes",
    )
    parser.add_argument("--keep", metavar="TIME", required=True, help="how long finished files stay: 90d, 12w, 2y")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--key", metavar="FILE", type=Path, help="the key file, where the ledger has llmtab_chain_key")
    add_ledger_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Says what goes, asks, deletes."""
    from llmtab.ledger.chain import chain_key
    from llmtab.ledger.locks import folder_lock
    from llmtab.ledger.notes import Notes, utc_now
    from llmtab.ledger.reader import files
    from llmtab.ledger.retention import past_their_time, prune, span

    path, keep = args.ledger or default_ledger(), span(args.keep)
    if keep is None:
        raise ValueError("--keep: expected a time like 90d")
    if not files(path):
        raise FileNotFoundError(f"no ledger at {path}")
    doomed = past_their_time(path, keep, utc_now())
    if not doomed:
        print(f"{path}: no finished file is older than {args.keep}")
        return 0
    print(f"To be deleted, finished more than {args.keep} ago:")
    for file in doomed:
        print(f"  {file}")
    if not (args.yes or _agreed()):
        return 1
    key = chain_key(args.key) if args.key else None
    with folder_lock(path.parent) as mine:
        if not mine:
            raise OSError(f"{path.parent}: another process is rotating or pruning; try again")
        for file, lines in prune([file for file in doomed if file.path.exists()], Notes(path, key=key)):
            print(f"deleted {file.path.name} with {lines} lines")
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("nothing was deleted: say --yes")
        return False
    return input("Delete them? [y/N] ").strip().lower() in ("y", "yes")
