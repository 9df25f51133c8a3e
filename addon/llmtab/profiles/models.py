"""The profile language as pydantic models: what a dialect file, a provider file and a surface file may say.

Knows the grammar only. Imported when a file has to be validated (not when a validated form comes out of the cache),
since importing pydantic costs more than reading all profiles. Must not know how a profile is run: `compiled.py` does.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from llmtab.profiles.patterns import compile_host, compile_path
from llmtab.profiles.refs import EACH, pointer_parts, split_ref
from llmtab.usage import COUNTERS


def _valid_ref(text: str) -> str:
    kind, rest = split_ref(text)
    if kind in ("", "event", "usage", "request"):
        pointer_parts(rest)
    return text


def _with_each(text: str) -> str:
    if EACH not in pointer_parts(split_ref(text)[1]):
        raise ValueError(f"{text!r} has no * segment to go over")
    return text


def _valid_host(text: str) -> str:
    if "/" in text or not text.strip("."):
        raise ValueError(
            f"{text!r}, expected a host like api.example.com, localhost:8080 or *.example.com, no https://"
        )
    compile_host(text)
    return text


def _valid_route(text: str) -> str:
    compile_path(text.partition(" ")[2])
    return text


Ref = Annotated[str, AfterValidator(_valid_ref)]
Host = Annotated[str, AfterValidator(_valid_host)]
EachRef = Annotated[str, AfterValidator(_valid_ref), AfterValidator(_with_each)]
Scalar = str | bool | int | float | None
Where = dict[Ref, Scalar | list[Scalar]]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _form(value: Any) -> str:
    """Which form of a union a value has, so that an error speaks of the form that was meant."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    if isinstance(value, dict):
        forms = {
            "any": "AnyTerm", "sum": "SumTerm", "count": "CountTerm", "length": "LengthTerm", "outside": "OutsideTerm",
            "ref": "RefTerm", "terms": "FoldedRow",
        }  # fmt: skip
        return next((form for key, form in forms.items() if key in value), "RefTerm")
    return "list" if isinstance(value, list) else "none" if value is None else "str"


def _fact_form(value: Any) -> str:
    form = _form(value)
    if form == "AnyTerm":
        return "AnyFact"
    return "FirstFact" if isinstance(value, dict) and "first" in value else form


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnyTerm(Strict):
    """The first of the alternatives that has a value."""

    any: list["Term"] = Field(min_length=1)


class RefTerm(Strict):
    """A reference that counts only where a condition holds."""

    ref: Ref
    where: Where


class FirstFact(Strict):
    """A fact whose first value over the events counts, where a later event says something else."""

    first: Ref


class AnyFact(Strict):
    """The first of the alternatives that has a value which is not empty."""

    any: list["Fact"] = Field(min_length=1)


class SumTerm(Strict):
    """The sum over the elements of a list or object; `where` and `distinct` are asked of each element."""

    sum: EachRef
    where: Where = {}
    distinct: Ref | None = None


class CountTerm(Strict):
    """How many elements there are."""

    count: EachRef
    where: Where = {}
    distinct: Ref | None = None


class LengthTerm(Strict):
    """How many characters (code points) a text has."""

    length: Ref


class OutsideTerm(Strict):
    """Added only if the provider's own total is not reached without it."""

    outside: Ref
    of: Ref


Term = Annotated[
    Annotated[Ref, Tag("str")]
    | Annotated[AnyTerm, Tag("AnyTerm")]
    | Annotated[RefTerm, Tag("RefTerm")]
    | Annotated[SumTerm, Tag("SumTerm")]
    | Annotated[CountTerm, Tag("CountTerm")]
    | Annotated[LengthTerm, Tag("LengthTerm")]
    | Annotated[OutsideTerm, Tag("OutsideTerm")],
    Discriminator(_form),
]


class FoldedRow(Strict):
    """A row with a fold of its own over the events of a stream."""

    terms: list[Term] = Field(min_length=1)
    fold: Literal["last", "max", "sum", "first"] = "last"


Row = Annotated[
    Annotated[list[Term], Tag("list")] | Annotated[FoldedRow, Tag("FoldedRow")] | Annotated[None, Tag("none")],
    Discriminator(_form),
]
Rows = dict[str, Row]
Fact = Annotated[
    Annotated[Ref, Tag("str")]
    | Annotated[RefTerm, Tag("RefTerm")]
    | Annotated[FirstFact, Tag("FirstFact")]
    | Annotated[AnyFact, Tag("AnyFact")],
    Discriminator(_fact_form),
]


def _known_counters(rows: Rows) -> Rows:
    for name in rows:
        if name not in COUNTERS:
            raise ValueError(f"{name} is no counter; see `llmtab schema`; known: {', '.join(COUNTERS)}")
    return rows


class Part(Strict):
    """Another model's share of the call: a sub-line for each element."""

    each: EachRef
    where: Where = {}
    model: Ref
    usage: Annotated[Rows, AfterValidator(_known_counters)]


class AnyRef(Strict):
    """The first of these references that has a value."""

    any: list[Ref] = Field(min_length=1)


class Money(Strict):
    """Money on the wire. `scale` turns the figure into USD; `zero: unknown` says that 0 is a placeholder.

    `beside: true`: somebody else charges it (a gateway's upstream under the customer's own key). It is part of the
    cost, but not of what this provider says that it charges.
    """

    ref: Ref | AnyRef
    scale: str = "1"
    where: Where = {}
    zero: Literal["unknown", "real"] = "real"
    beside: bool = False

    @field_validator("scale", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> str:
        text = str(value)
        if not 0 < float(text) <= 1:
            raise ValueError("expected a factor above 0 and up to 1, e.g. 1e-10")
        return text


class Billing(Strict):
    """The basis of the bill where the conditions hold; the first that holds counts."""

    is_: Literal["metered", "subscription", "subscription_overage", "byok", "free", "unknown"] = Field(alias="is")
    where: Where = {}


class Meaning(Strict):
    """What a body means: the part that dialects, providers' overrides and single routes share.

    `begin`: tests of an event that opens a new account after an earlier one of the same stream was closed (two answers
    glued together): what was final is open again. `estimate`: rows that we count ourselves where the answer tells no
    usage; a bare pointer points into the event there. `price_model`: the name to price by, where it is neither the
    answer's nor the request's. `pricing_tier`: the word for the price, where it is not the service tier.
    """

    api: Name | None = None
    operation: Name | None = None
    stream: bool | None = None
    unwrap: list[Ref] | None = None
    roots: list[Ref] | None = None
    when: Where | None = None
    snapshot: Where | None = None
    usage: Annotated[Rows, AfterValidator(_known_counters)] | None = None
    estimate: Annotated[Rows, AfterValidator(_known_counters)] | None = None
    total: Ref | None = None
    parts: list[Part] | None = None
    money: list[Money] | None = None
    trust: bool | None = None
    model: Fact | None = None
    request_model: Fact | None = None
    price_model: Fact | None = None
    id: Fact | None = None
    request_id: Fact | None = None
    tier: Fact | None = None
    tiers: dict[str, str] | None = None
    pricing_tier: Fact | None = None
    region: Fact | None = None
    regions: dict[str, str] | None = None
    finish: list[Fact] | None = None
    billing: list[Billing] | None = None
    not_billed: list[Where] | None = None
    text: list[Ref] | None = None
    begin: list[Where] | None = None
    final: list[Where] | None = None
    end: list[Where] | None = None
    error: list[Where] | None = None
    error_type: Fact | None = None
    session: Fact | None = None


class Dialect(Meaning):
    """One wire shape. `like` names the dialect whose rows it starts from."""

    dialect: Name
    like: Name | None = None
    source: str = Field(min_length=8)


class Route(Meaning):
    """What one path of a provider speaks. Several dialects: the first whose root is in the answer."""

    dialect: Name | list[Name] | None = None
    role: Literal["billed", "not_billed", "retrieve", "batch", "by_shape"] = "billed"
    provider: str | None = None


RouteSpec = Name | Route
RouteKey = Annotated[str, Field(pattern=r"^(\*|[A-Z]+(\|[A-Z]+)*) /"), AfterValidator(_valid_route)]
Routes = dict[RouteKey, RouteSpec]


class Surface(Strict):
    """A set of routes that many providers serve under some base path."""

    surface: Name
    routes: Routes
    source: str = Field(min_length=8)


class Provider(Strict):
    """Hosts, and what their paths speak. `name` is the profile's name where it differs from the key of the price table.

    `like` names a provider, loaded before, whose routes, surfaces and overrides this one starts from; under the same
    name (or with none of its own) it adds its hosts to that provider.
    """

    provider: Name | None = None
    like: Name | None = None
    name: Name | None = None
    title: str | None = None
    hosts: list[Host] = []
    serves: list[dict[Name, str]] = []
    routes: Routes = {}
    overrides: dict[str, Meaning] = {}
    source: str = Field("", min_length=8)

    @model_validator(mode="after")
    def _serves_something(self) -> "Provider":
        if not self.provider and not self.like:
            raise ValueError("a provider needs `provider:`, the key of its prices, or `like:`, another provider's name")
        if not self.serves and not self.routes and not self.like:
            raise ValueError("a provider needs `serves:` or `routes:`")
        if not self.source and not self.like:
            raise ValueError("a provider needs `source:`, the page of its vendor that says what its answers mean")
        for entry in self.serves:
            if len(entry) != 1:
                raise ValueError("`serves:` is a list of `surface: base path` pairs")
        return self


KINDS: dict[str, type[Strict]] = {"dialect": Dialect, "surface": Surface, "provider": Provider}


def kind_of(data: Any) -> type[Strict]:
    """The model for a profile file, by its first word. Raises ValueError."""
    for kind, model in KINDS.items():
        if isinstance(data, dict) and kind in data:
            return model
    if isinstance(data, dict) and "like" in data:
        return Provider
    raise ValueError("expected a profile: a file that says `dialect:`, `provider:` or `surface:`")
