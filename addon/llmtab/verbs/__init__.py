"""What the verbs of the command line share: how one is declared, and where the ledger lies unless said otherwise.

Each module here is one verb (or a pair): `add_parsers(verbs)` declares it, `run(args)` returns its exit status. At
import they know only argparse; what a verb needs is imported when it runs.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from llmtab.home import home

type Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
type Run = Callable[[argparse.Namespace], int]


def add_verb(
    verbs: Verbs, name: str, run: Run, *, summary: str, details: str = "", example: str, passes_on: bool = False
) -> argparse.ArgumentParser:
    """Declares a verb. `example` is a line a user could paste; `passes_on` keeps unknown arguments in `args.rest`."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details.strip()}".strip(),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, passes_on=passes_on)
    return parser


def default_ledger() -> Path:
    """What $LLMTAB_LEDGER names, else `ledger.jsonl` in $LLMTAB_HOME, or in ~/.llmtab."""
    named = os.environ.get("LLMTAB_LEDGER")
    return Path(named).expanduser() if named else home() / "ledger.jsonl"


def add_ledger_argument(parser: argparse.ArgumentParser) -> None:
    """The optional positional LEDGER, as `args.ledger`."""
    parser.add_argument("ledger", metavar="LEDGER", nargs="?", type=Path, help="default: the usual ledger")
