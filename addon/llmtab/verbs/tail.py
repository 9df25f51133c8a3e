"""`llmtab tail`: the last calls of a ledger, one line each, and new ones as they come.

Knows which lines to show and when. Must not know what they look like (`rows`, `cells`) or how a ledger is read
(`ledger_read`, `ledger_follow`).
"""

import argparse
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmtab.verbs import Verbs, add_ledger_argument, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.ledger.follow import Follower

EVERY: Final = 0.3
"""Seconds between two looks at a ledger that is followed."""
WIDEST: Final = 200
DETAILS: Final = """Reads only: the proxy may run or not, and several proxies may write to the ledger. In a
terminal the lines are columns, with colours unless NO_COLOR is set; elsewhere plain text. Words for --where: model,
provider, host, outcome, billing and other keys of a line, or any label; values may be globs, several with commas
between, and != turns the test."""

type Line = dict[str, Any]
type Show = Callable[[Mapping[str, Any]], None]


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "tail",
        run,
        summary="show the last calls, one line each",
        details=DETAILS,
        example="llmtab tail -f -n 20 --where provider=openai --where 'outcome!=ok'",
    )
    parser.add_argument("-n", dest="count", metavar="N", type=_number, default=10, help="how many (default: 10)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new calls as they come")
    parser.add_argument("--where", metavar="TEST", action="append", default=[], help="only calls like this; repeatable")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--by-session", action="store_true", help="calls of a session together, under its name and sum")
    form.add_argument("--json", action="store_true", help="the lines as they are on the ledger")
    add_ledger_argument(parser)


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number from 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Prints until the end of the ledger, or until interrupted."""
    from llmtab.ledger.follow import Follower
    from llmtab.live.where import chosen

    path, wanted = args.ledger or default_ledger(), chosen(args.where)
    show = _as_json if args.json else _printer()
    follower = Follower(path) if args.follow else None  # opened first, so that no line falls between the two
    last = _last(path, args.count, wanted if args.where else None, needed=not args.follow)
    if not last and args.count and not args.follow and _is_foreign(path):
        raise ValueError(f"{path}: no line of it is a line of a ledger")
    if args.by_session:
        last = _together(last)
        show = _by_session(show, last)
    _each(last, show)
    if follower is not None:
        shown = {line.get("id") for line in last}
        for line in _new(follower):
            if line.get("id") not in shown and wanted(line):
                _each([line], show)
    return 0


def _each(lines: Iterable[Line], show: Show) -> None:
    """Shows lines; of one that somebody altered, so that its values are not what they should be, it says so."""
    for line in lines:
        try:
            show(line)
        except (ValueError, ArithmeticError, TypeError, AttributeError):
            print("llmtab tail: a line cannot be read; llmtab verify says which", file=sys.stderr)
    sys.stdout.flush()


def _last(path: Path, count: int, wanted: Callable[[Line], bool] | None, *, needed: bool) -> list[Line]:
    """The last lines (that are `wanted`), read from the newest file backwards until there are enough.

    FileNotFoundError where there is no ledger at all, unless it is not `needed`.
    """
    from llmtab.ledger.reader import files, open_file, parse

    found: list[Line] = []
    there = files(path)
    if needed and not there:
        raise FileNotFoundError(f"no ledger at {path}")
    for file in reversed(there):
        left = count - len(found)
        if wanted is None:
            found = [*_ending(file, left), *found]
        else:
            with open_file(file) as opened:
                found = [*deque((line for raw in opened for line in parse(raw) if wanted(line)), maxlen=left), *found]
        if len(found) >= count:
            break
    return found


def _ending(file: Path, count: int) -> list[Line]:
    """The last calls of a file. Only its last lines are parsed: more of them where some turn out to be torn."""
    from llmtab.ledger.reader import open_file, parse

    size = count
    while True:
        with open_file(file) as opened:
            raws = deque(opened, maxlen=size)
        lines = [line for raw in raws for line in parse(raw)]
        if len(lines) >= count or len(raws) < size:
            return lines[len(lines) - count :] if len(lines) > count else lines
        size = max(64, size * 4)


def _is_foreign(path: Path) -> bool:
    """Whether something stands there, and no line of it is one of a ledger."""
    from llmtab.ledger.reader import parse, raw_lines

    written = False
    for _, _, raw in raw_lines(path):
        if parse(raw):
            return False
        written = written or not raw.isspace()
    return written


def _new(follower: "Follower") -> Iterator[Line]:
    """Lines as they come. A ledger that is not there yet is waited for."""
    import time

    while True:
        yield from follower.poll()
        time.sleep(EVERY)


def _as_json(line: Mapping[str, Any]) -> None:
    from llmtab.record import encode

    print(encode(line).decode())


def _printer() -> Show:
    """Columns as wide as the terminal is when a line comes; plain text where there is none."""
    from llmtab.cells import plain, safe
    from llmtab.live import ansi

    if not sys.stdout.isatty():
        return lambda line: print(safe(line.get("time", "-"), 24), plain(line), sep="  ")
    from llmtab.live.grid import CALLS, Grid
    from llmtab.live.rows import call_row

    colour, widths = ansi.wanted(sys.stdout, os.environ), [0]

    def show(line: Mapping[str, Any]) -> None:
        width = max(20, min(shutil.get_terminal_size().columns, WIDEST))
        grid = Grid(CALLS, width)
        if widths[0] != width:
            widths[0] = width
            print(ansi.text(grid.title(), colour=colour))
        print(ansi.text(grid.row(call_row(line, datetime.now().astimezone())), colour=colour))

    return show


def _session(line: Mapping[str, Any]) -> str:
    return str((line.get("labels") or {}).get("session", ""))


def _together(lines: list[Line]) -> list[Line]:
    """Calls of one session behind each other; the session that was busy last comes last."""
    newest = {_session(line): place for place, line in enumerate(lines)}
    return sorted(lines, key=lambda line: newest[_session(line)])


def _by_session(show: Show, last: list[Line]) -> Show:
    """A line with the session's name and what of it was shown, wherever another session goes on.

    `last`: the calls that will be shown at once; their sums stand complete over them.
    """
    from llmtab.cells import label, safe
    from llmtab.live import ansi
    from llmtab.live.grid import Cell
    from llmtab.live.rows import calls, covered, money
    from llmtab.live.totals import Totals

    sums = Totals("session")
    going_on: list[str | None] = [None]
    common: dict[str, Mapping[str, Any]] = {}

    def add(line: Mapping[str, Any]) -> None:
        sums.add(line)
        name, labels = _session(line), line.get("labels") or {}
        common[name] = {key: value for key, value in common.get(name, labels).items() if labels.get(key) == value}

    for line in last:
        with suppress(ValueError, ArithmeticError, TypeError, AttributeError):
            add(line)
    counted = {line.get("id") for line in last}
    colour = ansi.wanted(sys.stdout, os.environ)

    def print_sum(name: str) -> None:
        one = sums.groups[name or "-"]
        spent = money(one) + (f" {covered(one)} on subscription" if one.notional else "")
        said = f"session {safe(name, 64)}" if name else "no session"
        words = [said, label({"labels": common[name]}), calls(one.calls), spent]
        print(ansi.text([Cell("── " + "  ".join(filter(None, words)), "brand")], colour=colour))

    def grouped(line: Mapping[str, Any]) -> None:
        name = _session(line)
        if line.get("id") not in counted:
            add(line)
        if name != going_on[0]:
            going_on[0] = name
            print_sum(name)
        show(line)

    return grouped
