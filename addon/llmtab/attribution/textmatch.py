"""Globs and regular expressions over text that strangers wrote: no pattern and no text can make them slow.

Knows the two kinds of pattern and their bounds. Must not know what is matched. Regular expressions run in Rust's engine
(it comes with pydantic): linear time whatever the pattern, which Python's own cannot promise. It has no look-around and
no back-references.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

LONGEST_PATTERN: Final = 500
"""Characters of a regular expression."""
LONGEST_TEXT: Final = 4096
"""Characters that are looked at, of any text."""

type Fits = Callable[[str], bool]


def compile_globs(globs: str | Sequence[str]) -> Fits:
    """Whether a text fits one of the globs (`*`, `?`, `[ab]`), in any case. Never raises."""
    alternatives = [globs] if isinstance(globs, str) else globs
    # `translate` makes each star atomic: a glob takes no more than length x stars steps.
    found = re.compile("|".join(fnmatch.translate(glob.lower()) for glob in alternatives)).match
    return lambda text: found(text[:LONGEST_TEXT].lower()) is not None


def compile_pattern(pattern: str) -> Fits:
    """Whether a regular expression is found in the first LONGEST_TEXT characters. Raises ValueError for a bad one."""
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        raise ValueError(f"is no regular expression: {_reason(error)}") from None
    return lambda text: validator.isinstance_python(_clean(text[:LONGEST_TEXT]))


def _clean(text: str) -> str:
    """Half a surrogate pair (some client cut a text in the middle) is no text for the engine."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _reason(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ").removeprefix("SchemaError: ")
