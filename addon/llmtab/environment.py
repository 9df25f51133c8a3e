"""Options from the environment: `llmtab_ledger` is also `LLMTAB_LEDGER`, and so is every other option.

Knows how an option's value is written in the environment. Must not know which options there are. An option that is
given wins over the environment, and that over the default.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

YES: Final = frozenset({"1", "true", "yes", "on"})
NO: Final = frozenset({"0", "false", "no", "off", ""})

type Option = tuple[str, Any, Any, str]
"""(name, type, default, help)."""


def variable(option: str) -> str:
    """`llmtab_ledger` -> `LLMTAB_LEDGER`."""
    return option.upper()


def stated(option: str, kind: Any, environment: Mapping[str, str]) -> Any:
    """What the environment says of an option, None where it is silent. Raises ValueError for what it cannot be.

    A list is written like PATH, its parts joined by `os.pathsep`.
    """
    name = variable(option)
    text = environment.get(name)
    if text is None or (text == "" and kind is not bool):
        return None
    if kind is bool:
        if text.lower() not in YES | NO:
            raise ValueError(f"{name}: {text!r}, expected true or false")
        return text.lower() in YES
    if kind == Sequence[str]:
        return [part for part in text.split(os.pathsep) if part]
    return text


def defaults(options: Iterable[Option], environment: Mapping[str, str]) -> dict[str, Any]:
    """The default of each option: the environment's, else its own. What is wrong there is left for `check` to name."""
    found = {}
    for name, kind, default, _ in options:
        try:
            said = stated(name, kind, environment)
        except ValueError:
            said = None
        found[name] = ([] if default == () else default) if said is None else said
    return found


def check(options: Iterable[Option], environment: Mapping[str, str]) -> None:
    """Raises ValueError for the first variable that does not fit its option."""
    for name, kind, *_ in options:
        stated(name, kind, environment)


def misspelt(options: Iterable[Option], environment: Mapping[str, str]) -> list[str]:
    """What to say of each variable that looks like an option and is none."""
    from difflib import get_close_matches

    known = [variable(name) for name, *_ in options]
    strangers = sorted(name for name in environment if name.startswith("LLMTAB_") and name not in known)
    close = {name: get_close_matches(name, known, n=1, cutoff=0.9) for name in strangers}
    return [f"{name} is no option, did you mean {found[0]}?" for name, found in close.items() if found]


def meant(name: str, known: Iterable[str]) -> str:
    """What follows "there is no option NAME": the one that was probably meant, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""
