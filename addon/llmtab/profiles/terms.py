"""The small words of the profile language: references, conditions, terms, rows and facts, as pydantic types.

Knows the grammar of one row only. Must not know dialects, providers or files: `models.py` puts them together.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

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


Ref = Annotated[str, AfterValidator(_valid_ref)]
EachRef = Annotated[str, AfterValidator(_valid_ref), AfterValidator(_with_each)]
Scalar = str | bool | int | float | None
Expected = Scalar | list[Scalar]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Elements(Strict):
    """What a reference with `*` must meet at least once (`some`) and never (`none`): a condition on a whole list."""

    some: Expected = None
    none: Expected = None


Where = dict[Ref, Expected | Elements]


def form_of(value: Any) -> str:
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
    form = form_of(value)
    if form == "AnyTerm":
        return "AnyFact"
    return "FirstFact" if isinstance(value, dict) and "first" in value else form


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
    Discriminator(form_of),
]


class Kind(Strict):
    """The part of a counter that its whole figure is (or the counter itself: no part), where the conditions hold."""

    is_: str = Field(alias="is")
    where: Where = {}


class FoldedRow(Strict):
    """A row with a fold of its own over the events of a stream. `rise`: a running total of a socket's whole session, of
    which a response has what it rose by. `kinds`: the first of them that holds counts."""

    terms: list[Term] = Field(min_length=1)
    fold: Literal["last", "max", "sum", "first", "rise"] = "last"
    kinds: list[Kind] = []


Row = Annotated[
    Annotated[list[Term], Tag("list")] | Annotated[FoldedRow, Tag("FoldedRow")] | Annotated[None, Tag("none")],
    Discriminator(form_of),
]
Rows = dict[str, Row]
Fact = Annotated[
    Annotated[Ref, Tag("str")]
    | Annotated[RefTerm, Tag("RefTerm")]
    | Annotated[FirstFact, Tag("FirstFact")]
    | Annotated[AnyFact, Tag("AnyFact")],
    Discriminator(_fact_form),
]


def known_counters(rows: Rows) -> Rows:
    """Rows whose names and kinds are counters. Raises ValueError."""
    for name, row in rows.items():
        if name not in COUNTERS:
            raise ValueError(f"{name} is no counter; see `llmtab schema`; known: {', '.join(COUNTERS)}")
        for kind in row.kinds if isinstance(row, FoldedRow) else ():
            if kind.is_ != name and (kind.is_ not in COUNTERS or COUNTERS[kind.is_].parent != name):
                raise ValueError(f"kinds: {kind.is_} is neither {name} nor a part of it")
    return rows
