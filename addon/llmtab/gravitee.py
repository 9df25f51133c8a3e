"""Gravitee's "AI - Prompt Token Tracking" policy: its JSON as it stands, turned into a profile and a price.

Knows the policy's configuration (extraction and pricing), its three spellings of a pointer, and that its prices are
flat: so much for each token in and each token out, whatever the model. Must not know files or the wire. Imported only
when a configuration is really parsed (it needs pydantic).
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from llmtab.hosts import SOURCE, counted, routes_of, slug
from llmtab.pricing.rates import RATES, absurd
from llmtab.profiles.refs import pointer_parts

BUILT_IN: Final[Mapping[str, tuple[str, str, list[str]]]] = {
    "GPT": ("openai", "openai", ["openai.responses", "openai.chat"]),
    "GEMINI": ("google", "gemini", ["gemini.generateContent"]),
    "CLAUDE": ("anthropic", "anthropic", ["anthropic.messages"]),
    "MISTRAL": ("mistral", "openai", ["openai.chat"]),
}
"""Type to our profile, the surface it serves, and the dialects that an answer on any other path may speak."""
TIERS: Final = ("batch", "flex", "priority", "provisioned", "scale")
_KEY: Final = r"""(?:\??\.[A-Za-z_][\w-]*|\[\d+\]|\['[^'\]]+'\]|\["[^"\]]+"\])"""
_EXPRESSION: Final = re.compile(rf"\{{\s*#response\.jsonContent({_KEY}+)\s*\}}")
_DOTTED: Final = re.compile(rf"[A-Za-z_][\w-]*{_KEY}*")
_STEP: Final = re.compile(r"""\['([^']+)'\]|\["([^"]+)"\]|([\w-]+)""")


def pointer_of(text: str) -> str:
    """The RFC 6901 pointer for `/usage/in`, `usage.in` or `{#response.jsonContent.usage.in}`. Raises ValueError."""
    text = text.strip()
    if text.startswith("/"):
        pointer_parts(text)
        return text
    found = _EXPRESSION.fullmatch(text)
    if "{" in text and not found:
        raise ValueError(
            f"the expression {text} is more than a pointer, expected {{#response.jsonContent.some.field}}, "
            "some.field or /some/field"
        )
    if not found and not _DOTTED.fullmatch(text):
        raise ValueError(f"{text!r}, expected a pointer like /usage/prompt_tokens or usage.prompt_tokens")
    steps = ["".join(step) for step in _STEP.findall(found[1] if found else text)]
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _amount(value: Any) -> Any:
    """Gravitee's own examples write numbers as text too."""
    try:
        return Decimal(value) if isinstance(value, str) else value
    except InvalidOperation:
        raise ValueError(f"{value!r}, expected a number above 0") from None


def _positive(value: Decimal) -> Decimal:
    if not value.is_finite() or value <= 0:
        raise ValueError(f"{value}, expected a number above 0")
    return value


def _blank(value: Any) -> Any:
    """Gravitee's form leaves empty text in fields that nobody filled in."""
    return None if isinstance(value, str) and not value.strip() else value


Pointer = Annotated[Annotated[str, AfterValidator(pointer_of)] | None, BeforeValidator(_blank)]
Amount = Annotated[Decimal, BeforeValidator(_amount), AfterValidator(_positive)]
SIDES: Final = ("input", "output")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Extraction(Strict):
    """Where the figures stand. The pointers belong to CUSTOM alone."""

    type: Literal["GPT", "GEMINI", "CLAUDE", "MISTRAL", "CUSTOM"]
    inputTokenPointer: Pointer = None  # noqa: N815
    outputTokenPointer: Pointer = None  # noqa: N815
    modelPointer: Pointer = None  # noqa: N815

    @model_validator(mode="after")
    def _complete(self) -> "Extraction":
        custom = self.type == "CUSTOM"
        for name in ("inputTokenPointer", "outputTokenPointer", "modelPointer"):
            said = getattr(self, name) is not None
            if said and not custom:
                raise ValueError(f"{name} beside type {self.type}, expected it only beside type CUSTOM")
            if not said and custom and name != "modelPointer":
                raise ValueError(f"{name} is missing, expected a pointer: type CUSTOM needs it")
        return self


class Pricing(Strict):
    """USD for so many tokens. Without `type` it is a price, as in the first example of Gravitee's documentation."""

    type: Literal["none", "pricing"] | None = None
    inputPriceValue: Amount | None = None  # noqa: N815
    inputPriceUnit: Amount | None = None  # noqa: N815
    outputPriceValue: Amount | None = None  # noqa: N815
    outputPriceUnit: Amount | None = None  # noqa: N815

    @model_validator(mode="after")
    def _complete(self) -> "Pricing":
        for name in (f"{side}Price{part}" for side in SIDES for part in ("Value", "Unit")):
            said = getattr(self, name) is not None
            if said and self.type == "none":
                raise ValueError(f"{name} beside type none, expected no prices there")
            if not said and self.type != "none":
                raise ValueError(f"{name} is missing, expected a number above 0 (or type none: usage without cost)")
        for side in SIDES if self.type != "none" else ():
            pair = self.pair(side)
            if message := absurd(side, pair["value"], pair["unit"]):
                raise ValueError(f"{side}PriceValue: {message}")
        return self

    def pair(self, side: str) -> dict[str, Any]:
        """`{value, unit}` of a price file, whose units are whole."""
        value, unit = getattr(self, f"{side}PriceValue"), getattr(self, f"{side}PriceUnit")
        while unit != int(unit):
            value, unit = value * 10, unit * 10
        return {"value": value, "unit": int(unit)}


class Policy(Strict):
    """The configuration of the policy."""

    extraction: Extraction
    pricing: Pricing | None = None


def expand(host: str, policy: Policy, entry: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The profiles that do what the policy says on a host, and its price as an entry of a price file (None: no cost).

    The price list is the host's own: neither our table nor another host's price applies. As in Gravitee no `pricing`
    at all is usage without cost.
    """
    kind, name = policy.extraction.type, slug(host)
    spec: dict[str, Any] = {"provider": name, "name": name, "hosts": [host], "source": SOURCE}
    specs = [spec]
    if kind == "CUSTOM":
        spec["routes"] = dict.fromkeys(routes_of(entry), _custom(policy.extraction))
    else:
        like, surface, dialects = BUILT_IN[kind]
        rest = f"gravitee.{kind}"
        spec |= {"like": like, "serves": [{surface: "/**"}, {rest: ""}]}
        if kind == "MISTRAL":
            spec["routes"] = {"POST /**/fim/completions": {"dialect": "openai.chat", "api": "mistral.fim"}}
        routes = {path: {"dialect": dialects, "role": "by_shape"} for path in routes_of(entry)}
        specs.insert(0, {"surface": rest, "routes": routes, "source": SOURCE})
    pricing = policy.pricing
    return specs, None if pricing is None or pricing.type == "none" else {name: _prices(pricing)}


def _custom(extraction: Extraction) -> dict[str, Any]:
    rows = {"input_tokens": extraction.inputTokenPointer, "output_tokens": extraction.outputTokenPointer}
    return counted(rows, {"model": extraction.modelPointer} if extraction.modelPointer else {})


def _prices(pricing: Pricing) -> dict[str, Any]:
    """Every token costs the same, cached, spoken or drawn: each rate that has to be named is named."""
    pairs = {side: pricing.pair(side) for side in SIDES}
    rates: dict[str, Any] = {
        key: "input" if key.startswith("cache_") else pairs[_side(row.counter)]
        for key, row in RATES.items()
        if row.counter.endswith(("input_tokens", "output_tokens"))
    }
    return {"models": {"*": {**rates, "tiers": dict.fromkeys(TIERS, "x1")}}}


def _side(counter: str) -> str:
    return "output" if counter.endswith("output_tokens") else "input"
