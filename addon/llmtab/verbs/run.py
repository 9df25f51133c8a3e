"""`llmtab run -- CMD`: a program behind a proxy of its own, and the bill when it is done.

Knows what is asked and in which order things begin and end. Must not know how a proxy is started (`private`), how a
client finds it (`clients`), how a program is run (`child`) or what a bill says (`bill`).
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmtab.verbs import Verbs, add_verb

if TYPE_CHECKING:
    from llmtab.run.behind import Behind
    from llmtab.run.bill import Bill

DETAILS: Final = """
Starts a proxy on a free port of this machine, leads the program to it by environment variables
(proxy and CA), waits for it, and prints what it spent. Where LLMTAB_PROXY names a running proxy (inside
another `llmtab run`, or after `llmtab env`), or --proxy does, that one is used. Labels: from --label, LLMTAB_LABELS,
the nearest .llmtab.yaml, and `project` from the git repository of the working directory.
Exit status: the program's; 128 + N if signal N ended it; 125 if the proxy did not start, 126 and 127 if the
program did not."""
FAILED: Final = 125
SAID: Final = 5
"""Warnings of the proxy that are shown."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    example = 'llmtab run --label project=web --budget 5 -- claude -p "fix the tests"'
    summary = "run a program behind the proxy; a bill at the end"
    parser = add_verb(verbs, "run", run, summary=summary, details=DETAILS, example=example)
    label = "a label of every call, e.g. project=web; may be said several times"
    parser.add_argument("-l", "--label", metavar="NAME=VALUE", action="append", default=[], help=label)
    budget = "a hard stop: calls that would take this run beyond so many USD are refused"
    parser.add_argument("-b", "--budget", metavar="USD", help=budget)
    parser.add_argument("--ledger", metavar="FILE", type=Path, help="of a proxy of its own; default: the usual ledger")
    parser.add_argument("--config", metavar="FILE", type=Path, help="llmtab.yaml (default: the usual one)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no bill, and no warnings")
    parser.add_argument("--json", action="store_true", help="the bill as one line of JSON, on standard error")
    parser.add_argument("--bill", metavar="FILE", type=Path, help="write the bill there, not to standard error")
    parser.add_argument("--proxy", metavar="URL", help="use this running proxy, e.g. http://127.0.0.1:8080")
    parser.add_argument("--private", action="store_true", help="a proxy of its own even where LLMTAB_PROXY names one")
    local = "meter servers on this machine as well (Ollama, vLLM); by default the program reaches them directly"
    parser.add_argument("--local", action="store_true", help=local)
    setting = "an option of the private proxy, as mitmdump's --set"
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help=setting)
    parser.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="the program and its arguments")


def run(args: argparse.Namespace) -> int:
    """Starts, waits, bills."""
    from llmtab.run.behind import behind
    from llmtab.run.child import StartError
    from llmtab.run.child import run as run_program

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        print("llmtab run: no program given, expected llmtab run [options] -- CMD ... (see --help)", file=sys.stderr)
        return 2
    try:
        if args.bill:
            _writable(args.bill)
        proxy = behind(args, labels(args.label, os.environ))
    except (OSError, ValueError) as error:
        print(f"llmtab run: {error}", file=sys.stderr)
        return FAILED
    began = time.monotonic()
    try:
        status = run_program(command, os.environ | proxy.environment)
    except StartError as error:
        print(f"llmtab run: {error}", file=sys.stderr)
        return error.status
    finally:
        seconds = time.monotonic() - began
        bill = _fold(proxy.lines())
    _print(args, bill, proxy, status, seconds)
    return status


def labels(flags: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The labels of a run, the strongest last: those of the folder, LLMTAB_LABELS, --label. Raises ValueError."""
    from llmtab.attribution.labels import stated_labels
    from llmtab.run.project import labels_at

    found = labels_at(Path.cwd(), Path.home())
    try:
        found |= stated_labels(environment.get("LLMTAB_LABELS", ""))
    except ValueError as error:
        raise ValueError(f"LLMTAB_LABELS: {error}") from None
    for flag in flags:
        try:
            found |= stated_labels(flag)
        except ValueError as error:
            raise ValueError(f"--label: {error}") from None
    return found


def _writable(path: Path) -> None:
    """Raises OSError where the bill could not be written: better now than when the program is done."""
    try:
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise IsADirectoryError(None, "Is a directory")
            return  # a pipe or a terminal: opening it may wait for its reader
        there = path.exists()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        if not there:
            path.unlink()
    except OSError as error:
        raise OSError(f"--bill {path}: {error.strerror}") from None


def _fold(lines: Iterator[dict[str, Any]]) -> "Bill":
    from llmtab.run.bill import Bill

    bill = Bill()
    for line in lines:
        bill.add(line)
    return bill


def _print(args: argparse.Namespace, bill: "Bill", proxy: "Behind", status: int, seconds: float) -> None:
    if args.quiet and not args.bill:
        return
    text = _json(bill, proxy, status, seconds) if args.json else _text(bill, proxy, seconds)
    written = args.bill and _write(args.bill, text)
    if args.quiet and (written or not args.bill):
        return
    try:
        if not written:
            print(text, file=sys.stderr)
        for line in proxy.said()[:SAID]:
            print(f"llmtab: the proxy said: {line}", file=sys.stderr)
    except OSError:  # the terminal is gone; the program's exit status still counts
        pass


def _write(path: Path, text: str) -> bool:
    """Whether the bill is in its file now; says so where it is not."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
    except OSError as error:
        print(f"llmtab run: --bill {path}: {error.strerror}", file=sys.stderr)
        return False
    return True


def _json(bill: "Bill", proxy: "Behind", status: int, seconds: float) -> str:
    from llmtab.pricing.compare import to_json

    head = {"status": status, "seconds": round(seconds, 3), "ledger": str(proxy.ledger), "labels": proxy.labels}
    if not proxy.sure:
        head["ledger_sure"] = False
    return to_json(head | bill.data())


def _text(bill: "Bill", proxy: "Behind", seconds: float) -> str:
    from llmtab.cells import duration

    if not bill.total.calls and not proxy.sure:
        said = "where the proxy writes is not known, and no call of this run is in"
        return f"llmtab: {said} {proxy.ledger}; if it writes another ledger: export LLMTAB_LEDGER=FILE"
    if not bill.total.calls:
        return "llmtab: no LLM call came through the proxy; if there were any: llmtab doctor"
    first, *rest = bill.text()
    inside = proxy.ledger.is_relative_to(Path.home())
    place = Path("~", proxy.ledger.relative_to(Path.home())) if inside else proxy.ledger
    return "\n".join([f"llmtab: {first}, in {duration(seconds * 1000)}", *(f"  {line}" for line in rest), f"  {place}"])
