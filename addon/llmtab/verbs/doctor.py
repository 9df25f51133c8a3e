"""`llmtab doctor`: is everything as it should be, and what mends it if not.

Knows which questions are asked and how findings are shown. The questions are those of the package `doctor`.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.doctor import Finding

DETAILS: Final = """
Looks at Python, mitmproxy, the CA, the port, this shell's variables, llmtab.yaml, prices and ledger, and
makes one call through a real proxy to a provider that it plays itself; nothing leaves this machine. Each finding comes
with the command that mends it. Exit status: 0 if nothing is wrong (warnings are not), 1 if something is."""
SIGNS: Final = {"ok": "ok", "note": "--", "warning": "!!", "error": "XX"}


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    summary = "find out whether calls are seen, and what mends it if not"
    parser = add_verb(verbs, "doctor", run, summary=summary, details=DETAILS, example="llmtab doctor")
    parser.add_argument("--config", metavar="FILE", type=Path, help="llmtab.yaml (default: the usual one)")
    parser.add_argument("--no-call", action="store_true", help="without the test call, which takes a second or two")
    parser.add_argument("-q", "--quiet", action="store_true", help="only what wants mending")
    parser.add_argument("--json", action="store_true", help="a list of {topic, grade, text, mend}")
    add_ledger_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Asks everything; shows answers as they come."""
    found = []
    for finding in _findings(args):
        found.append(finding)
        if not args.json and not (args.quiet and finding.grade in ("ok", "note")):
            _show(finding)
    if args.json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(finding) for finding in found], indent=2))
    wrong = sum(finding.grade == "error" for finding in found)
    if not args.json:
        warned = sum(finding.grade == "warning" for finding in found)
        print(f"\n{wrong} wrong, {warned} to look at" if wrong or warned else "\nall is well")
    return 1 if wrong else 0


def _findings(args: argparse.Namespace) -> Iterator["Finding"]:
    from datetime import UTC, datetime

    from llmtab.doctor import files, machine, trust
    from llmtab.run.authority import CERTIFICATE, FOLDER

    now, folder, ledger = datetime.now(UTC), FOLDER.expanduser(), args.ledger or default_ledger()
    yield from machine.python()
    yield from machine.node()
    yield from machine.clock(now)
    yield from trust.authority(folder, now)
    yield from trust.settings(folder)
    yield from trust.port()
    yield from trust.shell(os.environ, folder / CERTIFICATE)
    yield from trust.base_urls(os.environ)
    yield from files.config(args.config, now)
    yield from files.labels(Path.cwd())
    yield from files.ledger(ledger, now)
    yield from files.coverage(ledger, now)
    if not args.no_call:
        from llmtab.doctor.trial import trial
        from llmtab.entry import script

        yield from trial(script())


def _show(finding: "Finding") -> None:
    colour = {"error": "31", "warning": "33", "ok": "32"}.get(finding.grade)
    sign = SIGNS[finding.grade]
    if colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        sign = f"\x1b[{colour}m{sign}\x1b[0m"
    print(f"{sign}  {finding.topic:<11}  {finding.text}")
    if finding.mend:
        print(f"{'':17}-> {finding.mend}")
    sys.stdout.flush()
