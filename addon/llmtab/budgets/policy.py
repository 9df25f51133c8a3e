"""`budgets:` as it stands in llmtab.yaml, checked, becomes the limits in force.

Knows how tiers, zones and the budget of one run become plain limits. Must not know pydantic or calls.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from fnmatch import fnmatchcase
from typing import Any, Final
from zoneinfo import ZoneInfo

from llmtab.budgets.amounts import amount
from llmtab.budgets.limits import Limit, Limits, limit, slug
from llmtab.budgets.windows import Window

OTHERS: Final = "*"
RUN: Final = "run"

type Header = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Tiers:
    """`by`: what tells a caller's tier: header:NAME, label:NAME, key or address. `names`: in the order of the file."""

    by: str
    names: tuple[str, ...]
    refuses: bool
    """Whether callers of no tier are refused."""

    def of(self, facts: Mapping[str, str], labels: Mapping[str, str], header: Header) -> str | None:
        """The tier of a call; None where none fits."""
        kind, _, name = self.by.partition(":")
        value = header(name) if kind == "header" else labels.get(name) if kind == "label" else facts.get(kind)
        if value is not None:
            if value in self.names and value != OTHERS:
                return value
            for pattern in self.names:
                if pattern != OTHERS and _is_pattern(pattern) and fnmatchcase(value, pattern):
                    return pattern
        return OTHERS if OTHERS in self.names else None


@dataclass(frozen=True, slots=True)
class Policy:
    """All that budgets say. `store`: the plain form of `store:`; None: spending is kept in this process."""

    limits: Limits
    tiers: Tiers | None = None
    store: Mapping[str, Any] | None = None
    headers: bool = False

    def __bool__(self) -> bool:
        return bool(self.limits) or (self.tiers is not None and self.tiers.refuses)


def policy(spec: Mapping[str, Any] | list[Any] | None, zone: tzinfo = UTC, run: str = "", now: float = 0.0) -> Policy:
    """The budgets of a file's checked plain form. `run`: the budget of this process alone (`5 USD`), from `now` on.

    Raises ValueError.
    """
    spec = {"limits": spec} if isinstance(spec, list) else spec or {}
    zone = ZoneInfo(spec["zone"]) if spec.get("zone") else zone
    said, tiers = spec.get("tiers"), None
    specs = [(one, None) for one in spec.get("limits") or ()]
    if said:
        specs += [(one, level) for level, its in said["levels"].items() for one in its]
        tiers = Tiers(said["by"], tuple(said["levels"]), said.get("on_unmatched") == "refuse")
    taken = {one["name"] for one, _ in specs if one.get("name")}
    found = [_limit(one, zone, taken, level) for one, level in specs]
    if run:
        found.append(_of_run(run, now, taken))
    return Policy(Limits(found), tiers, spec.get("store"), bool(spec.get("headers")))


def _limit(spec: Mapping[str, Any], zone: tzinfo, taken: set[str], tier: str | None) -> Limit:
    own = ZoneInfo(spec["zone"]) if spec.get("zone") else zone
    wanted = slug(f"{tier}-{spec['limit']}" if tier and tier != OTHERS else spec["limit"])
    name = spec.get("name") or _free(wanted, taken)
    also = None if tier is None else {"tier": re.sub(r"([*?[])", r"[\1]", tier)}
    return replace(limit(spec, own, also=also), name=name)


def _free(wanted: str, taken: set[str]) -> str:
    """A name that no other limit has: spending is kept by it."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(name)
    return name


def _of_run(text: str, now: float, taken: set[str]) -> Limit:
    amount(text)  # no window: `5 USD per day` is a limit of llmtab.yaml
    made = limit({"limit": text})
    return replace(made, name=_free(RUN, taken), window=Window(RUN), since=now, own=True, usual=True)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
