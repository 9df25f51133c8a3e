"""What a price file may hold, as pydantic models, and its plain validated form.

Knows the form of every key. Must not know prices, lookup or usage. Imported only when a file is really read (a start
from the cache needs no pydantic). Checks that need the whole file are in `checks.py`.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from llmtab.documents import check, fail
from llmtab.pricing.checks import check_file
from llmtab.pricing.rates import CACHE_KEYS, RATES

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _matching(pattern: str, expected: str, parse: Callable[[str], object] = str) -> Any:
    def validate(value: Any) -> Any:
        if isinstance(value, dict | list):
            return value  # another branch of a union
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r}, expected {expected}")
        try:
            parse(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date, expected {expected}") from None
        return value

    return BeforeValidator(validate)


Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Day = Annotated[str, _matching(r"\d{4}-\d\d-\d\d", "a date like 2026-08-21", date.fromisoformat)]
MOMENT = r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?"
Moment = Annotated[str, _matching(MOMENT, "2026-08-21 or 2026-08-21T16:00Z (UTC)", datetime.fromisoformat)]
Span = Annotated[str, _matching(r"\d{4}-\d\d-\d\d(\.\.\d{4}-\d\d-\d\d)?", "2026-10-01 or 2026-10-01..2026-10-07")]
Hours = Annotated[str, _matching(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", "UTC hours like 01:00-04:00")]
Factor = Annotated[str, _matching(r"x\d+(\.\d+)?", "a factor like x0.5, or a row of prices")]
Percent = Annotated[str, _matching(r"\d{1,2}(\.\d+)?%", "a percentage off the list price, like 15%")]
Weekdays = Annotated[str, _matching(f"({'|'.join(DAYS)})(-({'|'.join(DAYS)}))?", "days like mon-fri or sat")]
TIER = r"(?!(?:standard|default)$)[^\sA-Z]+"  # as calls are marked with it; the usual one is the entry itself
Tier = Annotated[str, _matching(TIER, "a tier in lower case, not the standard one (that is the entry itself)")]
Multiplier = Annotated[Decimal, Field(gt=0, le=100)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pair(Strict):
    """A price as value and unit: `{value: 0.006, unit: 60}` is 0.006 USD for 60 of them."""

    value: Decimal
    unit: Annotated[int, Field(gt=0)]


def _rate_fields() -> dict[str, Any]:
    own = Decimal | Pair | None
    cache = Decimal | Pair | Literal["input"] | None
    return {key: (cache if key in CACHE_KEYS else own, None) for key in RATES}


Rates: Any = create_model("Rates", __base__=Strict, **_rate_fields())


class Row(Rates):  # type: ignore[misc]
    """Prices of one case. Gravitee's pairs are another spelling of `input` and `output`."""

    @model_validator(mode="before")
    @classmethod
    def _gravitee(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for side in ("input", "output"):
            value, unit = data.pop(f"{side}PriceValue", None), data.pop(f"{side}PriceUnit", None)
            if value is None and unit is None:
                continue
            if value is None or unit is None or side in data:
                raise ValueError(f"{side}PriceValue and {side}PriceUnit, expected both of them and no {side!r}")
            if type(unit) is not int or unit <= 0 or not isinstance(value, int | Decimal):
                raise ValueError(f"{side}PriceValue {value} for {side}PriceUnit {unit}, expected two numbers above 0")
            data[side] = {"value": value, "unit": unit}
        return data


class Step(Row):
    """A row that may hold its own long-context steps."""

    above: dict[Annotated[int, Field(gt=0)], Row] | None = None


class Window(Step):
    """Hours of the day (UTC) with prices of their own, or `times` the usual ones."""

    utc: Hours | list[Hours]
    days: Weekdays | list[Weekdays] | None = None
    not_: Annotated[list[Span] | Span | None, Field(alias="not")] = None
    times: Multiplier | None = None


class Period(Step):
    """All prices from one moment on."""

    from_: Annotated[Moment | None, Field(alias="from")] = None
    free: Literal[True] | None = None
    tiers: dict[Tier, Factor | Step] | None = None
    windows: list[Window] | None = None
    regions: dict[Text, Multiplier] | None = None


class Model(Period):
    """One model: its names, and one price or a list of dated ones."""

    prices: Annotated[list[Period] | None, Field(min_length=1)] = None
    aliases: list[Text] | None = None
    dated: bool | list[Text] | None = None
    extends: Text | None = None
    discount: Percent | dict[Day, Percent] | None = None
    max_output: Annotated[int | None, Field(gt=0)] = None
    by: Literal["hand"] | None = None
    source: str | None = None
    note: str | None = None


class Provider(Strict):
    source: str | None = None
    checked: Day | None = None
    note: str | None = None
    digest: Text | None = None
    models_of: str | None = None
    tiers_from: Day | None = None
    regions: dict[Text, Multiplier] | None = None
    discount: Percent | dict[Day, Percent] | None = None
    aliases: dict[Text, Text] | None = None
    models: dict[Text, Model] | None = None


class PriceFile(Strict):
    version: Literal[1] = 1
    currency: str = "USD"
    unit: Literal[1000000] = 1000000
    as_of: Day | None = None
    generated_from: str | None = None
    providers: dict[Annotated[str, _matching(r"[a-z][a-z0-9_.-]*", "a provider's name in lower case")], Provider] = {}

    @model_validator(mode="after")
    def _currency(self) -> "PriceFile":
        if self.currency != "USD":
            raise ValueError(f"currency {self.currency!r}, expected USD: other currencies are not converted, ever")
        return self


def validate(data: Any, path: Path | str, *, user: bool, inside: Sequence[str | int] = ()) -> dict[str, Any]:
    """The plain form of a price file: dicts, lists, str, Decimal. Raises ConfigError.

    `user`: patterns are allowed. `inside`: where in the file the prices stand, if they are not the whole of it.
    """
    if data is not None and not isinstance(data, dict):
        raise fail(path, inside, "no price file, expected 'providers:' and their models")
    model: PriceFile = check(PriceFile, {} if data is None else data, path, inside=inside)
    plain = model.model_dump(by_alias=True, exclude_none=True)
    for provider in plain["providers"].values():
        provider["models"] = {name: _model(entry) for name, entry in provider.get("models", {}).items()}
    check_file(plain, lambda loc, message: fail(path, (*inside, *loc), message), user=user)
    for provider in plain["providers"].values():
        for entry in provider["models"].values():
            entry["prices"].sort(key=lambda period: period.get("from", ""))
    return plain


def _model(entry: dict[str, Any]) -> dict[str, Any]:
    """One spelling for one thing: prices are always a list, steps text-keyed, windows in minutes of the day."""
    names = ("aliases", "dated", "extends", "discount", "max_output", "by", "source", "note")
    kept = {key: entry[key] for key in names if key in entry}
    rest = {key: value for key, value in entry.items() if key not in (*names, "prices")}
    regions = rest.pop("regions", None) if "prices" in entry else None
    if regions is not None:
        kept["regions"] = regions
    kept["prices"] = [_period(period) for period in entry.get("prices", [rest])]
    if "prices" in entry and rest:
        kept["stray"] = sorted(rest)
    return kept


def _period(period: dict[str, Any]) -> dict[str, Any]:
    plain = _step(period)
    if "tiers" in plain:
        tiers = plain["tiers"].items()
        plain["tiers"] = {name: Decimal(row[1:]) if isinstance(row, str) else _step(row) for name, row in tiers}
    if "windows" in plain:
        plain["windows"] = [_window(window) for window in plain["windows"]]
    return plain


def _step(row: dict[str, Any]) -> dict[str, Any]:
    plain = dict(row)
    if "above" in plain:
        plain["above"] = {str(size): dict(plain["above"][size]) for size in sorted(plain["above"])}
    return plain


def _window(window: dict[str, Any]) -> dict[str, Any]:
    plain = _step(window)
    hours = [window["utc"]] if isinstance(window["utc"], str) else window["utc"]
    plain["utc"] = [[_minutes(text[:5]), _minutes(text[6:])] for text in hours]
    days = window.get("days", "mon-sun")
    plain["days"] = sorted({day for text in ([days] if isinstance(days, str) else days) for day in _weekdays(text)})
    spans = window.get("not", [])
    plain["not"] = [_span(text) for text in ([spans] if isinstance(spans, str) else spans)]
    return plain


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _weekdays(text: str) -> list[int]:
    first, _, last = text.partition("-")
    start, end = DAYS.index(first), DAYS.index(last or first)
    return [day % 7 for day in range(start, end + 1 if end >= start else end + 8)]


def _span(text: str) -> list[str]:
    first, _, last = text.partition("..")
    return [first, last or first]
