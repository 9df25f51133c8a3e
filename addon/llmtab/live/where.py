"""Which lines somebody wants to see: `provider=openai`, `model=gpt-*`, `outcome!=ok`.

Knows the words lines can be chosen by: `model`, keys of a line, labels. Must not know files.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from llmtab.cells import Line
from llmtab.live.totals import group_name

_TEST = re.compile(r"([a-z][a-z0-9_]{0,31})(!?=)(.*)", re.S)

type Test = Callable[[Line], bool]


def chosen(tests: Sequence[str]) -> Test:
    """Whether all tests hold for a line. A value may be a glob, or several with commas between, of which one must fit;
    `-` is a line that has none. Raises ValueError where a test is not understood."""
    compiled = [_compiled(test) for test in tests]
    return lambda line: all(holds(line) for holds in compiled)


def _compiled(test: str) -> Test:
    found = _TEST.fullmatch(test)
    if not found:
        raise ValueError(f"--where {test!r}, expected WORD=VALUE or WORD!=VALUE like provider=openai")
    word, sign, said = found.groups()
    patterns, wanted = said.split(","), sign == "="

    def holds(line: Line) -> bool:
        name = group_name(line, word)
        return any(fnmatchcase(name, pattern) for pattern in patterns) == wanted

    return holds
