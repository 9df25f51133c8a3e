"""What `budgets:` in llmtab.yaml may say, as pydantic models.

Knows the form of every key. Must not know how limits are kept. Imported only when a file is really parsed.
"""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    model_validator,
)

from llmtab.budgets import limits
from llmtab.budgets.weights import is_reference
from llmtab.profiles.terms import Ref
from llmtab.usage import COUNTERS

_REF: Final[TypeAdapter[str]] = TypeAdapter(Ref)
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _shown(value: Any) -> str:
    """What somebody wrote, never what stands further down in it: that may be secret."""
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value)) or f"{value}"[:60]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{_shown(value)}, expected a mapping with {', '.join(cls.model_fields)}")
        return value


def _checked(check: Callable[[str], Any]) -> Any:
    def run(text: str) -> str:
        check(text)
        return text

    return AfterValidator(run)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone, expected an IANA name like Europe/Berlin, or UTC") from None
    return name


def _counter(name: str) -> str:
    if is_reference(name):
        return _REF.validate_python(name)
    if name not in COUNTERS:
        raise ValueError(f"{name!r} is no counter; see `llmtab schema`; known: {', '.join(COUNTERS)}")
    return name


def _tier_key(text: str) -> str:
    kind, colon, name = text.partition(":")
    if text in ("key", "address") or (colon and name and kind in ("header", "label")):
        return text
    raise ValueError(f"{text!r}, expected header:NAME, label:NAME, key or address")


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _share(value: Any) -> Any:
    """A bare number might be meant as either."""
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)}, expected a share like 20%, or an amount in the limit's unit like 5 USD")
    return value


def _limit(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)}, expected an amount and a time like 100 USD per month or 50 requests/minute")
    return value


Share = Annotated[str, BeforeValidator(_share)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=128)]
Fact = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Where = dict[Fact, Text | Annotated[list[Text], Field(min_length=1)]]
Zone = Annotated[str, AfterValidator(_zone)]


class LimitSpec(Strict):
    """One limit. See docs/budgets.md."""

    limit: Annotated[str, BeforeValidator(_limit)]
    name: Annotated[str, Field(pattern=NAME)] | None = None
    match: Where | None = None
    exempt: list[Where] | None = None
    per: list[Fact] | None = None
    window: Literal["fixed", "sliding"] | None = None
    zone: Zone | None = None
    soft: Share | None = None
    hard: bool | None = None
    burst: Share | None = None
    throttle: Annotated[str, BeforeValidator(_text), _checked(limits.seconds)] | None = None
    unpriced: Annotated[str, _checked(limits.unpriced)] | None = None
    billing: Literal["metered", "all"] | None = None
    reserve: Literal["worst", "usual"] | None = None
    weight: Annotated[str, AfterValidator(_counter)] | None = None

    @model_validator(mode="after")
    def _works(self) -> "LimitSpec":
        limits.limit(self.model_dump(exclude_none=True))
        return self


def _long(value: Any) -> Any:
    """A limit in short form is one that says nothing else."""
    return value if isinstance(value, dict) else {"limit": value}


LimitEntry = Annotated[LimitSpec, BeforeValidator(_long)]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _told_apart(found: Iterable[LimitSpec]) -> None:
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise ValueError(f"two limits are named {one.name!r}, expected a name of its own for each")
        names.update([one.name] if one.name else [])


def _levels(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise ValueError("expected at least one tier with its limits, like gold: 100 USD per day")
    return value


class Tiers(Strict):
    """Who gets which limits. `levels`: by the value of `by`, literal or a pattern; `*` is everybody else."""

    by: Annotated[str, AfterValidator(_tier_key)]
    levels: Annotated[dict[Text, Annotated[list[LimitEntry], BeforeValidator(_listed)]], BeforeValidator(_levels)]
    on_unmatched: Literal["allow", "refuse"] = "allow"


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("expected an address like redis://host:6379/0, rediss://host:6379/0 or unix:///path")
    return text


def _allowance(text: str) -> str:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)\s*%", text)
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError(f"{text!r}, expected more than 0% and at most 100% of each limit, like 5%")
    return text


class StoreSpec(Strict):
    """Where several proxies keep their spending together. `on_loss`: what happens while it cannot be reached; open:
    each proxy may spend `allowance` (a share of each limit) on its own; closed: calls are refused."""

    redis: Annotated[str, AfterValidator(_redis_url)]
    prefix: Annotated[str, Field(pattern=NAME)] = "llmtab"
    on_loss: Literal["open", "closed"] = "open"
    allowance: Annotated[str, AfterValidator(_allowance)] = "5%"
    timeout: Annotated[str, BeforeValidator(_text), _checked(limits.seconds)] = "1s"


class Budgets(Strict):
    """The whole of `budgets:`, where there is more to say than limits."""

    limits: list[LimitEntry] = []
    tiers: Tiers | None = None
    store: StoreSpec | None = None
    headers: bool = False
    zone: Zone | None = None

    @model_validator(mode="after")
    def _named_once(self) -> "Budgets":
        levels = self.tiers.levels.values() if self.tiers is not None else ()
        _told_apart([*self.limits, *(one for level in levels for one in level)])
        return self


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "mapping"


def _some(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise ValueError(
            f"{_shown(value)}, expected a list of limits like `- 100 USD per month`, or a mapping with "
            f"{', '.join(Budgets.model_fields)}"
        )
    return value


def _listed_once(found: list[LimitSpec]) -> list[LimitSpec]:
    _told_apart(found)
    return found


BudgetsEntry = Annotated[
    Annotated[list[LimitEntry], AfterValidator(_listed_once), Tag("list")] | Annotated[Budgets, Tag("mapping")],
    Discriminator(_form),
    BeforeValidator(_some),
]
"""A bare list is limits, and nothing else."""
