"""What `budgets:` in llmtab.yaml may say, as pydantic models.

Knows the form of every key. Must not know how limits are kept. Imported only when a file is really parsed.
"""

from collections.abc import Callable
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


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=128)]
Fact = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Where = dict[Fact, Text | Annotated[list[Text], Field(min_length=1)]]
Zone = Annotated[str, AfterValidator(_zone)]


class LimitSpec(Strict):
    """One limit. See docs/budgets.md."""

    limit: str
    name: Annotated[str, Field(pattern=NAME)] | None = None
    match: Where | None = None
    exempt: list[Where] | None = None
    per: list[Fact] | None = None
    window: Literal["fixed", "sliding"] | None = None
    zone: Zone | None = None
    soft: str | None = None
    hard: bool | None = None
    burst: str | None = None
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
    return {"limit": value} if isinstance(value, str) else value


LimitEntry = Annotated[LimitSpec, BeforeValidator(_long)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


class Tiers(Strict):
    """Who gets which limits. `levels`: by the value of `by`, literal or a pattern; `*` is everybody else."""

    by: Annotated[str, AfterValidator(_tier_key)]
    levels: dict[Text, Annotated[list[LimitEntry], BeforeValidator(_listed)]]
    on_unmatched: Literal["allow", "refuse"] = "allow"


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("expected an address like redis://host:6379/0, rediss://host:6379/0 or unix:///path")
    return text


class StoreSpec(Strict):
    """Where several proxies keep their spending together. `on_loss`: what happens while it cannot be reached; open:
    each proxy may spend `allowance` (a share of each limit) on its own; closed: calls are refused."""

    redis: Annotated[str, AfterValidator(_redis_url)]
    prefix: Annotated[str, Field(pattern=NAME)] = "llmtab"
    on_loss: Literal["open", "closed"] = "open"
    allowance: Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,3})?\s*%$")] = "5%"
    timeout: Annotated[str, BeforeValidator(_text), _checked(limits.seconds)] = "1s"


class Budgets(Strict):
    """The whole of `budgets:`, where there is more to say than limits."""

    limits: list[LimitEntry] = []
    tiers: Tiers | None = None
    store: StoreSpec | None = None
    headers: bool = False
    zone: Zone | None = None


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "mapping"


BudgetsEntry = Annotated[
    Annotated[list[LimitEntry], Tag("list")] | Annotated[Budgets, Tag("mapping")], Discriminator(_form)
]
"""A bare list is limits, and nothing else."""
