"""What `llmtab.yaml` may say, as pydantic models.

Knows the form of every key. Must not know what becomes of it (`config.py`, `hosts.py`). Imported only when a file is
really parsed: a start from the cache needs no pydantic.
"""

from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    create_model,
    model_validator,
)

from llmtab.attribution.schema import Attribution, Rule
from llmtab.budgets.alerts_schema import AlertsSpec
from llmtab.budgets.schema import Budgets, BudgetsEntry
from llmtab.gravitee import Policy
from llmtab.ledger.retention import span
from llmtab.ledger.rotation import rotation
from llmtab.profiles.models import Dialect, Host, Meaning, Provider, RouteKey, Routes, Surface
from llmtab.profiles.terms import AnyTerm, CountTerm, Fact, FoldedRow, Name, OutsideTerm, Ref, RefTerm, SumTerm, Term
from llmtab.usage import COUNTERS, UNPRICED

_FORMS: Final = {
    "terms": "FoldedRow", "any": "AnyTerm", "sum": "SumTerm", "count": "CountTerm", "outside": "OutsideTerm",
}  # fmt: skip
_ROUTE: Final[TypeAdapter[str]] = TypeAdapter(RouteKey)


def _row_form(value: Any) -> str:
    if isinstance(value, BaseModel):
        return type(value).__name__
    if isinstance(value, dict):
        return next((form for key, form in _FORMS.items() if key in value), "RefTerm")
    return "list" if isinstance(value, list) else "str"


CounterRow = Annotated[
    Annotated[Ref, Tag("str")]
    | Annotated[list[Term], Tag("list")]
    | Annotated[FoldedRow, Tag("FoldedRow")]
    | Annotated[AnyTerm, Tag("AnyTerm")]
    | Annotated[RefTerm, Tag("RefTerm")]
    | Annotated[SumTerm, Tag("SumTerm")]
    | Annotated[CountTerm, Tag("CountTerm")]
    | Annotated[OutsideTerm, Tag("OutsideTerm")],
    Discriminator(_row_form),
]
"""A counter of the short form: one pointer, one term, a list of terms, or terms with a fold of their own."""


def _path(text: str) -> str:
    if not text.startswith("/") and " /" not in text:
        raise ValueError(f"{text!r}, expected a path like /v1/chat or POST /v1/chat")
    _ROUTE.validate_python(text if " " in text else f"POST {text}")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone, expected an IANA name like Europe/Berlin, or UTC") from None
    return name


Path = Annotated[str, AfterValidator(_path)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _HostWords(Strict):
    """The words of every form; `_one_form` says which go together."""

    gravitee: Policy | None = None
    profile: Name | None = None
    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")] | None = None
    title: str | None = None
    source: str | None = None
    serves: list[dict[Name, str]] | None = None
    routes: Routes | None = None
    overrides: dict[str, Meaning] | None = None
    path: Path | None = None
    paths: Annotated[list[Path], Field(min_length=1)] | None = None
    root: Ref | None = None
    fold: Literal["last", "max", "sum", "first"] | None = None
    model: Fact | None = None
    request_model: Fact | None = None
    id: Fact | None = None
    operation: Name | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "_HostWords":
        said = self.model_fields_set
        counters = sorted(said & COUNTERS.keys())
        if "gravitee" in said:
            form, allowed = "gravitee", {"gravitee", "path", "paths"}
        elif counters:
            form, allowed = counters[0], {*_SHORT, *counters}
        elif said & _LONG:
            form, allowed = min(said & _LONG), {*_LONG, "provider", "title", "source"}
        else:
            raise ValueError(
                "says nothing to count by, expected `profile: openai`, pointers like `input_tokens: /usage/in`, "
                "`routes:` or `gravitee:`"
            )
        if stray := sorted(said - allowed):
            raise ValueError(f"{stray[0]!r} beside {form!r}, expected one form: {', '.join(sorted(allowed))}")
        return self


_SHORT: Final = frozenset(
    {"provider", "path", "paths", "root", "fold", "model", "request_model", "id", "operation", "stream"}
)
_LONG: Final = frozenset({"profile", "serves", "routes", "overrides"})
_COUNTERS: Final[dict[str, Any]] = {name: (CounterRow, None) for name in COUNTERS if name not in UNPRICED}
HostEntry: Any = create_model("HostEntry", __base__=_HostWords, **_COUNTERS)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "a folder"
    if isinstance(value, BaseModel):
        return f"a {type(value).__name__.lower()}"
    words = ("dialect", "surface", "provider")
    return next((f"a {word}" for word in words if isinstance(value, dict) and word in value), "a provider")


Profile = Annotated[
    Annotated[str, Tag("a folder")]
    | Annotated[Dialect, Tag("a dialect")]
    | Annotated[Surface, Tag("a surface")]
    | Annotated[Provider, Tag("a provider")],
    Discriminator(_kind),
]


def _rotation(text: str) -> str:
    rotation(text)
    return text


def _span(text: str) -> str:
    span(text)
    return text


class Keeping(Strict):
    """When a file of the ledger is finished, and how long finished files stay."""

    rotate: Annotated[str, AfterValidator(_rotation)] = ""
    keep: Annotated[str, AfterValidator(_span)] = ""


class File(Strict):
    """The whole file, a field for each section; `pricing` is a price file's content and is checked there.

    A section of another room: its model stands in that room's `..._schema.py`, its field here, that file's name in
    `config._CODE`; what it said is then in `Config.sections`, as plain values.
    """

    hosts: dict[Host, HostEntry] = Field(
        default={}, description="hosts that speak a known language, or one of their own"
    )
    profiles: list[Profile] = Field(default=[], description="whole profiles, or folders of them")
    pricing: dict[str, Any] | None = Field(default=None, description="prices, in the form of pricing.yaml")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="where a day begins: an IANA name"
    )
    ledger: Keeping = Keeping()
    attribution: Attribution = Attribution()
    budgets: BudgetsEntry = Field(default=Budgets(), description="limits on money, tokens and calls")
    alerts: AlertsSpec = Field(default=AlertsSpec(), description="where warnings go besides the log")
    rules: list[Rule] = Field(default=[], description="labels by what a call is; of two rules that fit the first wins")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of llmtab.yaml, for editors."""
    found = File.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "llmtab.yaml"}
