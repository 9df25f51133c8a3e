"""`llmtab tail`: the last calls of a ledger, one plain line each, and new ones as they come.

Knows which lines to show. Must not know what they look like (`cells`) or how a ledger is read (`ledger_read`).
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "tail",
        run,
        summary="show the last calls, one line each",
        details="Reads only: the proxy may run or not, and several may be watched at once.",
        example="llmtab tail -f -n 20",
    )
    parser.add_argument("-n", dest="count", metavar="N", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new calls as they come")
    parser.add_argument("--json", action="store_true", help="the lines as they are on the ledger")
    add_ledger_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints until the end of the ledger, or until interrupted."""
    path = args.ledger or default_ledger()
    if not args.follow:
        for line in _last(path, args.count):
            _show(line, args.json)
        return 0
    for line in _followed(path, args.count):
        _show(line, args.json)
    return 0


def _last(path: Path, count: int) -> list[dict[str, Any]]:
    from llmtab.ledger_read import parse, raw_lines

    return [line for _, _, raw in deque(raw_lines(path), maxlen=max(0, count)) for line in parse(raw)]


def _followed(path: Path, count: int) -> Iterator[dict[str, Any]]:
    """The last lines, then new ones. A ledger that is not there yet is waited for."""
    import time

    from llmtab.ledger_follow import Follower

    follower = Follower(path)  # opened first, so that no line falls between the two
    last = _last(path, count) if path.exists() else []
    shown = {line.get("id") for line in last}
    yield from last
    while True:
        for line in follower.poll():
            if line.get("id") not in shown:
                yield line
        time.sleep(0.3)


def _show(line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        from llmtab.record import encode

        print(encode(line).decode())
    else:
        from llmtab.cells import plain

        print(plain(line))
    sys.stdout.flush()
