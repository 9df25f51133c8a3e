"""`llmtab budget`: how full each budget is, and what an old ledger would have been under new ones.

Knows how it looks. Must not know how spending is counted: `budgets` does.
"""

import argparse
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtab.verbs import Verbs, add_verb, default_ledger

if TYPE_CHECKING:
    from llmtab.budgets.policy import Policy

DETAILS = """Each bucket with what is spent, reserved by calls under way, its limit, and what will be spent when its
window ends if it goes on like that. `simulate` lets the calls of an old ledger happen again under the budgets of a
file: what would have been warned of, held back and refused, and what that would have saved.
Exit status 1 where a hard limit is reached."""
HEADS = ("limit", "bucket", "spent", "reserved", "of", "full", "forecast", "resets")


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "budget",
        run,
        summary="show budgets, or try new ones on an old ledger",
        details=DETAILS,
        example="llmtab budget\n  llmtab budget simulate --config new.yaml ledger.jsonl",
        passes_on=True,  # words behind an option, which argparse would not give to a list of words
    )
    parser.add_argument("words", metavar="[simulate] [LEDGER]", nargs="*", help="default: the usual ledger")
    parser.add_argument("--config", metavar="FILE", type=Path, help="default: llmtab.yaml in $LLMTAB_HOME")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Shows or simulates."""
    from llmtab.budgets.policy import policy
    from llmtab.config import load
    from llmtab.home import home

    words = [*args.words, *args.rest]
    if stray := next((word for word in words if word.startswith("-")), None):
        raise ValueError(f"{stray!r} is not known, see llmtab budget --help")
    simulates = words[:1] == ["simulate"]
    del words[: int(simulates)]
    if len(words) > 1:
        raise ValueError(f"{words[1]!r}: expected one ledger at most")
    ledger = Path(words[0]) if words else default_ledger()
    file = args.config or home() / "llmtab.yaml"
    config = load(file)
    said = policy(config.sections.get("budgets"), config.timezone)
    if not said:
        raise ValueError(f"{file}: there are no budgets, expected e.g. budgets: [100 USD per month]")
    return _simulate(said, ledger, args.json) if simulates else _show(said, ledger, args.json)


def _show(said: "Policy", ledger: Path, as_json: bool) -> int:
    from time import time

    from llmtab.budgets.bars import line, row
    from llmtab.budgets.onlooker import Onlooker

    rows, now = Onlooker(said, ledger).rows(), time()
    reached = [
        limit for limit, _, state in rows if limit.hard and state.spent + state.carried >= limit.amount + limit.burst
    ]
    if as_json:
        print(_json({"budgets": [row(limit, key, state, now) for limit, key, state in rows]}))
    else:
        _table([HEADS, *(line(limit, key, state, now) for limit, key, state in rows)])
    return 1 if reached else 0


def _simulate(said: "Policy", ledger: Path, as_json: bool) -> int:
    from llmtab.budgets.simulate import Simulation
    from llmtab.ledger.reader import read

    simulation = Simulation(said)
    simulation.add(read(ledger))
    simulation.run()
    found = simulation.report()
    if as_json:
        print(_json(found))
        return 0
    cells = [("limit", "calls", "warned", "held back", "refused", "saved")]
    for one in found["limits"]:
        counts = [str(one[name]) for name in ("limit", "calls", "warned", "throttled", "refused")]
        cells.append((*counts, _usd(one["saved_usd"])))  # type: ignore[arg-type]
    _table(cells)
    share = f"{found['refused']} of {found['calls']} calls would have been refused"
    print(f"{share}, {_usd(found['saved_usd'])} of {_usd(found['cost_usd'])} saved.")
    if found["unknown_tiers"]:
        print(
            f"Of {found['unknown_tiers']} calls the tier is not known: a header tells it, and a ledger holds none. "
            "They are counted without one."
        )
    return 0


def _usd(amount: Decimal) -> str:
    from llmtab.budgets.amounts import USD, scaled, show

    return show(scaled(amount, USD), USD)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _json(value: Any) -> str:
    import json

    return json.dumps(value, default=lambda one: float(one) if isinstance(one, Decimal) else str(one))
