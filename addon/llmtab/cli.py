"""The `llmtab` command: finds the verb, runs it, and turns what goes wrong into one line on stderr.

Knows the list of verbs. Must not know what they do: each lives in a module of its own and imports what it needs
only when it runs, so that `llmtab --help` is quick.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from llmtab import __version__
from llmtab.verbs import Verbs

ROOMS = (
    "verbs.proxy",
    "verbs.run",
    "verbs.env",
    "verbs.demo",
    "verbs.tail",
    "verbs.top",
    "verbs.budget",
    "verbs.price",
    "verbs.reprice",
    "verbs.check",
    "verbs.verify",
    "verbs.prune",
    "verbs.key",
    "verbs.config",
    "verbs.schema",
    "verbs.doctor",
    "verbs.init",
)
"""The modules that declare verbs, in the order of `--help`. One that is not there yet declares nothing."""


class Parser(argparse.ArgumentParser):
    """argparse prints its usage before each error; one line says enough."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0 done, 1 it failed or found something wrong, 2 wrong usage."""
    parser, verbs = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not args.passes_on:
        verbs.choices[args.verb].error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        print(f"llmtab {args.verb}: {_one_line(error)}", file=sys.stderr)
        return 1


def _parser() -> tuple[argparse.ArgumentParser, Verbs]:
    summary = "Every LLM call that leaves this machine, on the tab."
    parser: argparse.ArgumentParser = Parser(prog="llmtab", description=summary, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"llmtab {__version__}")
    parser.set_defaults(passes_on=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for room in ROOMS:
        if find_spec(f"llmtab.{room}"):
            importlib.import_module(f"llmtab.{room}").add_parsers(verbs)
    return parser, verbs


def _one_line(error: Exception) -> str:
    """An OSError without its errno, with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
