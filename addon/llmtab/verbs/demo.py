"""`llmtab demo`: the product before any reading. Knows how to announce it; what is played is the demo's business."""

import argparse
import sys

from llmtab.entry import script
from llmtab.verbs import Verbs, add_verb


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "demo",
        run,
        summary="watch calls of every kind pass a real proxy, without a key and without a network",
        details="The provider is played by this machine; the figures are made up.",
        example="llmtab demo",
    )
    parser.add_argument(
        "--pace", metavar="SECONDS", type=float, default=0.1, help="between the events of a stream (default: 0.1)"
    )


def run(args: argparse.Namespace) -> int:
    """Plays the calls (in a terminal the proxy draws its table meanwhile), then says where their ledger is."""
    from llmtab import demo
    from llmtab.cells import plain
    from llmtab.ledger.reader import read

    print("Made-up calls to four providers, all of them played by this machine.", flush=True)
    ledger = demo.run(script(), args.pace)
    lines = list(read(ledger))
    if not sys.stdout.isatty():
        print("\n".join(plain(line) for line in lines))
    print(f"\n{len(lines)} lines, one a call: {ledger}")
    print(f"Look at one: head -n 1 {ledger} | python3 -m json.tool")
    return 0
