"""How a model's name on the wire becomes names to look up, and which dated names an undated entry covers.

Knows spellings only. Must not know prices. There is no prefix matching: a name is an entry's id, its alias, its id
with a snapshot date where the entry says so, or a pattern that the user wrote.
"""

import re
from datetime import date
from typing import Any, Final

OLDEST: Final = date(2020, 1, 1)
"""No snapshot that anybody sells is older: such a date is a misspelt name."""

_WRAPPED: Final = re.compile(r"(?:^|/)(?:publishers/[^/]+/models|accounts/[^/]+/models|models)/([^/]+)$")
_PROFILE_ARN: Final = re.compile(r"^arn:[^:]*:bedrock:[^/]*:(?:inference-profile|foundation-model)/(.+)$")
_DATED: Final = re.compile(r"^(.+?)(?:-(\d{4})-(\d\d)-(\d\d)|[-@](\d{4})(\d\d)(\d\d)|[-@](\d{4}))$")


def spellings(model: str) -> tuple[str, ...]:
    """The name as it stands in lower case, then without what cloud and SDK paths put around it."""
    raw = model.strip().lower()
    bare = raw
    if (found := _WRAPPED.search(raw)) or (found := _PROFILE_ARN.match(raw)):
        bare = found[1]
    elif raw.startswith("ft:") and raw.count(":") > 1:
        bare = ":".join(raw.split(":")[:2])  # ft:BASE:organisation:name:id
    return (raw,) if bare == raw else (raw, bare)


def undated(name: str) -> tuple[str, str] | None:
    """The name without its snapshot date, and the date as YYYY-MM-DD or MMDD; None where it ends in no real date."""
    found = _DATED.match(name)
    if not found:
        return None
    base, *parts, short = found.groups()
    if short:
        return (base, short) if _is_date("2024", short[:2], short[2:]) else None
    year, month, day = parts[:3] if parts[0] else parts[3:]
    return (base, f"{year}-{month}-{day}") if _is_date(year, month, day) else None


def covers(rule: Any, snapshot: str, today: str) -> bool:
    """Whether an entry's `dated` covers a snapshot: `true` covers every full date up to `today` (a snapshot from the
    future is a misspelt name), a list the dates it names, in any spelling."""
    if rule is True:
        return len(snapshot) == 10 and snapshot <= today
    return isinstance(rule, list) and snapshot.replace("-", "") in {text.replace("-", "") for text in rule}


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        return date(int(year), int(month), int(day)) >= OLDEST
    except ValueError:
        return False
