"""`llmtab top`: the live table in another terminal, from the ledger alone.

Knows the arguments, when to draw, and what is printed where there is no terminal. Must not know what the table shows.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmtab.verbs import Verbs, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.budgets.bars import Bar
    from llmtab.live.keys import Keys
    from llmtab.live.top import Top

EVERY: Final = 1.0
"""Seconds between two pictures."""
WIDTH: Final = 120
"""Columns where nobody says how many there are."""
DETAILS: Final = """Reads only: the proxy may run or not, and several ledgers may be watched at once.
Keys: g and G (or left and right) change the grouping, w and W (or up and down) or 1 to 5 the window, q quits.
Without a terminal it prints one picture and ends."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "top",
        run,
        summary="watch what is spent, live, from any terminal",
        details=DETAILS,
        example="llmtab top --by project --window '1 h' team.jsonl",
    )
    parser.add_argument("ledgers", metavar="LEDGER", nargs="*", type=Path, help="default: the usual ledger")
    parser.add_argument(
        "--by", metavar="WORD", type=_word, default="model", help="model (default), provider, or any label"
    )
    parser.add_argument(
        "--window", type=_window, default="today", help="'10 min', '1 h', today (default), yesterday or '7 days'"
    )
    parser.add_argument("--once", action="store_true", help="print one picture and end")
    parser.add_argument("--json", action="store_true", help="print the sums once, for a program")


def _word(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", text):
        raise argparse.ArgumentTypeError(f"{text!r}, expected model, provider or a label's name (a-z, 0-9 and _)")
    return text


def _window(text: str) -> str:
    from llmtab.live.windows import WINDOWS

    short = {name.replace(" ", ""): name for name in WINDOWS}
    if text.replace(" ", "") not in short:
        raise argparse.ArgumentTypeError(f"{text!r}, expected one of {', '.join(WINDOWS)}")
    return short[text.replace(" ", "")]


def run(args: argparse.Namespace) -> int:
    """Draws until told to stop."""
    from llmtab.ledger.reader import files
    from llmtab.live.top import Top

    ledgers = args.ledgers or [default_ledger()]
    once = args.json or args.once or not (sys.stdin.isatty() and sys.stdout.isatty())
    for path in args.ledgers:
        if not (files(path) if once else path.parent.is_dir()):  # one that comes later is waited for
            raise FileNotFoundError(f"{path}: no such ledger")
    top = Top(ledgers, _now(), by=args.by, window=args.window, zone=_zone(), budgets=_budgets(ledgers))
    try:
        if once:
            while not top.read(_now()):
                pass
            _print(top, as_json=args.json)
        else:
            from llmtab.live.keys import screen

            with screen() as keys:
                _watch(top, keys)
    finally:
        top.close()
    return 0


def _watch(top: "Top", keys: "Keys") -> None:
    """Reads and draws once a second, and at once when a key is pressed."""
    from llmtab.live.keys import HOME, REST_OF_LINE, REST_OF_SCREEN, put
    from llmtab.live.table import text

    while True:
        whole, now = top.read(_now()), _now()
        drawn = text(top.look(now), now).rstrip("\n").replace("\n", REST_OF_LINE + "\n")
        put(HOME + drawn + REST_OF_LINE + REST_OF_SCREEN)
        for key in keys.wait(EVERY if whole else 0):
            if not top.press(key):
                return


def _print(top: "Top", *, as_json: bool) -> None:
    state = top.look(_now())
    if as_json:
        print(top.as_json(_now()))
        return
    from llmtab.live.table import text

    state.keys = ""
    print(text(state, _now(), None if sys.stdout.isatty() else WIDTH), end="")


def _now() -> datetime:
    return datetime.now().astimezone()


def _budgets(ledgers: Sequence[Path]) -> "Callable[[], Sequence[Bar]] | None":
    """What tells how full the budgets of the usual llmtab.yaml are; None where there are none, or several ledgers."""
    from llmtab.config import load
    from llmtab.home import config_file

    config = load(config_file())
    if not config.sections.get("budgets") or len(ledgers) > 1:
        return None
    from llmtab.budgets.onlooker import Onlooker
    from llmtab.budgets.policy import policy

    return Onlooker(policy(config.sections["budgets"], config.timezone), ledgers[0]).bars


def _zone() -> tzinfo:
    """The zone of the usual llmtab.yaml, as the proxy counts its days."""
    from llmtab.config import load
    from llmtab.home import config_file

    return load(config_file()).timezone
