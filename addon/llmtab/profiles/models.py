"""The profile language as pydantic models: what a dialect file, a provider file and a surface file may say.

Knows the grammar only. Imported when a file has to be validated (not when a validated form comes out of the cache),
since importing pydantic costs more than reading all profiles. Must not know how a profile is run: `compiled.py` does.
"""

# ruff: noqa: RUF012 - pydantic copies the defaults of its models
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from llmtab.profiles.patterns import compile_host, compile_path
from llmtab.profiles.terms import EachRef, Fact, Name, Ref, RefTerm, Rows, Strict, Where, form_of, known_counters


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


Host = Annotated[str, AfterValidator(_valid_host)]


class Part(Strict):
    """Another model's share of the call: a sub-line for each element."""

    each: EachRef
    where: Where = {}
    model: Ref
    usage: Annotated[Rows, AfterValidator(known_counters)]


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


Text = Annotated[Annotated[Ref, Tag("str")] | Annotated[RefTerm, Tag("RefTerm")], Discriminator(form_of)]
"""Where text stands; `where` is asked of the element that the last `*` stands for, else of the event."""


class Said(Strict):
    """An error as the provider would send it; `{message}` stands for the reason."""

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    headers: dict[str, str] | None = None
    body: Any = None
    frame: Any = None


class Refusal(Said):
    """What a call is told that a budget refuses; `final`: where waiting does not help. `frame`: on a socket."""

    final: Said | None = None


class Meaning(Strict):
    """What a body means: the part that dialects, providers' overrides and single routes share.

    `begin`: tests of an event that opens a new account after an earlier one of the same stream was closed (two answers
    glued together): what was final is open again. `estimate`: rows that we count ourselves where the answer tells no
    usage; a bare pointer points into the event there. `price_model`: the name to price by, where it is neither the
    answer's nor the request's. `pricing_tier`: the word for the price, where it is not the service tier.

    For estimates, where no usage came: `text` of a stream's events (and of those `also`: what a reader does not wait
    for), `thoughts` (which of it is reasoning), `whole` (text of a body that is no stream), `calls` (names of called
    tools), `sealed` (encrypted reasoning), `prompt` (the parts of the request). `include_usage`: a request may ask for
    usage by `stream_options.include_usage`.

    On a socket (a route `WS /path`) `emit` says how many lines there are: one a response (`final`) or one in all
    (`session`). `asks`: a frame of the client that asks for a response. `key`: the id of the response that a frame
    speaks of; without a key there is one response at a time. `lane`: what is asked in one lane is answered in that
    order. `setup`: a frame of either side that speaks of the whole session. There `begin` opens a response too.
    """

    api: Name | None = None
    operation: Name | None = None
    stream: bool | None = None
    unwrap: list[Ref] | None = None
    roots: list[Ref] | None = None
    when: Where | None = None
    snapshot: Where | None = None
    usage: Annotated[Rows, AfterValidator(known_counters)] | None = None
    estimate: Annotated[Rows, AfterValidator(known_counters)] | None = None
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
    also: list[Text] | None = None
    thoughts: list[Text] | None = None
    whole: list[Text] | None = None
    calls: list[Text] | None = None
    sealed: list[Text] | None = None
    prompt: list[Ref] | None = None
    include_usage: bool | None = None
    begin: list[Where] | None = None
    final: list[Where] | None = None
    end: list[Where] | None = None
    error: list[Where] | None = None
    error_type: Fact | None = None
    refusal: Refusal | None = None
    session: Fact | None = None
    emit: Literal["stream", "final", "session"] | None = None
    key: Ref | AnyRef | None = None
    lane: Ref | None = None
    asks: list[Where] | None = None
    setup: list[Where] | None = None


class Dialect(Meaning):
    """One wire shape. `like` names the dialect whose rows it starts from."""

    dialect: Name
    like: Name | None = None
    source: str = Field(min_length=8)


class Batch(Strict):
    """What stands around the answers in a batch result (role `batch`). Pointers go into one item; of several the first
    that has a value counts.

    `results`: tests of which one holds for an item of a batch result, and for no other file. `each`: where the items
    stand in a JSON document; absent: the result is a file of one item a line. `id`: the id they are counted under,
    where it is not the path's `{batch}`. `key`: the client's name of the request. `shapes`: which dialect an item's
    answer speaks (the last one of the route where none fits). `failed`: tests for requests that failed, which cost
    nothing.
    """

    results: list[Where] = Field(min_length=1)
    each: list[EachRef] = []
    id: list[Ref] = []
    key: list[Ref] = []
    shapes: dict[Name, Where] = {}
    status: list[Ref] = []
    request_id: list[Ref] = []
    failed: list[Where] = []
    error_type: list[Ref] = []


class Route(Meaning):
    """What one path of a provider speaks. Several dialects: the first whose root is in the answer."""

    dialect: Name | list[Name] | None = None
    role: Literal["billed", "not_billed", "retrieve", "batch", "by_shape"] = "billed"
    provider: str | None = None
    batch: Batch | None = None

    @model_validator(mode="after")
    def _reads_items(self) -> "Route":
        if (self.role == "batch") != (self.batch is not None) or (self.batch and not self.dialect):
            raise ValueError("`role: batch` goes with a `batch:` block and the dialects of the items' answers")
        return self


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
