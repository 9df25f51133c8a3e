"""`llmtab config`: what holds and who said so, or whether it could hold at all.

Knows how to print it. Must not know what a value means (`origins`, `setup`).
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from llmtab.verbs import Verbs, add_verb

DETAILS = """An option (--set NAME=VALUE) wins over mitmproxy's config.yaml, that over the
environment (llmtab_ledger is LLMTAB_LEDGER), that over llmtab.yaml, that over the default. Values that look
like secrets are not shown."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "config",
        run,
        summary="show what is configured and where each value comes from, or check it",
        details=DETAILS,
        example="llmtab config --check && llmtab config --show",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--show", action="store_true", help="every value with its origin (the default)")
    how.add_argument(
        "--check", action="store_true", help="read everything a start would read; status 1 if it would fail"
    )
    parser.add_argument(
        "--set", dest="given", metavar="NAME=VALUE", action="append", default=[], help="as for mitmdump"
    )
    parser.add_argument("--config", metavar="FILE", default="", help="an llmtab.yaml; default: the usual one")
    parser.add_argument("--json", action="store_true", help="one JSON object a value")


def run(args: argparse.Namespace) -> int:
    """Prints values, or what is wrong with them."""
    from llmtab import environment, origins
    from llmtab.setup import OPTIONS

    given = origins.given(OPTIONS, args.given) | ({"llmtab_config": args.config} if args.config else {})
    values = list(origins.options(OPTIONS, given, os.environ))
    path = origins.config_path(str(next(value.value for value in values if value.name == "llmtab_config")))
    for said in environment.misspelt(OPTIONS, os.environ):
        print(f"llmtab config: {said}", file=sys.stderr)
    if args.check:
        print(_checked({value.name: value.value for value in values}, path))
        return 0
    values += origins.file_values(path)
    _print(values, args.json)
    return 0


def _checked(options: dict[str, Any], path: Path | None) -> str:
    """One line on what was read. Raises ConfigError, ValueError or OSError as a start would."""
    from argparse import Namespace

    from llmtab.setup import held

    config = held(Namespace(**options))
    parts = [f"{len(config.profile_specs)} profiles", f"{len(config.key_names)} named keys"]
    parts += [f"{len(said)} {name}" if isinstance(said, list) else name for name, said in config.sections.items()]
    parts += ["prices"] if config.pricing else []
    return f"{path or 'no llmtab.yaml, defaults hold'}: ok ({', '.join(parts)})"


def _print(values: list[Any], as_json: bool) -> None:
    import json

    if as_json:
        for value in values:
            print(json.dumps(value._asdict(), default=str))
        return
    wide = max(len(value.name) for value in values)
    for value in values:
        text = value.value if isinstance(value.value, str) and value.value else json.dumps(value.value, default=str)
        print(f"{value.name:<{wide}}  {text}  [{value.origin}]")
