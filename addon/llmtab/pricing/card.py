"""A rate card: every price that holds for one model, tier and region at one moment, factors already applied.

Knows how periods, windows, tiers, long-context steps, regions and discounts of an entry combine, and from when to
when the answer stays the same. Must not know usage values, files or how the entry was found.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from llmtab.pricing.plan import Plan
from llmtab.pricing.rates import RATES

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
END: Final = datetime.max.replace(tzinfo=UTC)
STANDARD: Final = frozenset({None, "", "standard", "default"})
PLACES: Final = 12
"""After the point, of money on a line."""
EXACT: Final = Context(prec=50)
"""Products of published prices and factors never need more digits: every rate is exact."""


class Rate(NamedTuple):
    """USD for `per` units, after `factors` (None where there are none); `each` is USD for one unit, `whole` whether it
    is so exactly (USD per hour in seconds often is not), `fine` whether it has more than 12 places."""

    rate: Decimal
    per: int
    each: Decimal
    factors: Mapping[str, Decimal] | None
    whole: bool
    fine: bool

    def times(self, quantity: int | Decimal) -> Decimal:
        """USD for so many units, not yet rounded."""
        if self.whole:
            return EXACT.multiply(self.each, quantity)
        return EXACT.divide(EXACT.multiply(self.rate, quantity), self.per)


type Rates = Mapping[str, Rate]
"""By counter."""


class Card(NamedTuple):
    """`steps`: (prompt tokens above which it holds, rates), highest first, the last one above -1; rates are None
    where the tier is not offered for such prompts. `free`: everything is 0, said by the table. `plans`: for `charge`,
    which keeps there how calls of one shape are billed."""

    steps: Sequence[tuple[int, Rates | None]]
    price: dict[str, str]
    free: bool
    tier: str | None
    plans: dict[tuple[Any, ...], Plan | tuple[()]]

    def at(self, prompt_tokens: int | Decimal) -> Rates | None:
        """The rates for a prompt of this size, cached and written tokens included."""
        for above, rates in self.steps:
            if prompt_tokens > above:
                return rates
        return self.steps[-1][1]


class Terms(NamedTuple):
    """What stands around an entry: the provider's regions, the discount, and since when its tier prices are known."""

    regions: Mapping[str, Decimal]
    discount: str | Mapping[str, str] | None
    tiers_from: str | None


type Span = tuple[datetime, datetime]
"""From (inclusive), until (exclusive)."""


def period_at(periods: Sequence[dict[str, Any]], at: datetime) -> tuple[dict[str, Any] | None, Span]:
    """The dated prices that hold at `at` (None: none yet), and from when to when."""
    found, since, until = None, BEGINNING, END
    for period in periods:
        start = moment(period["from"]) if "from" in period else BEGINNING
        if start > at:
            until = start
            break
        found, since = period, start
    return found, (since, until)


def moment(text: str) -> datetime:
    """A date or UTC time of a price file."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def build(
    period: dict[str, Any], terms: Terms, tier: str | None, region: str | None, at: datetime, price: dict[str, str]
) -> tuple[Card | str, Span]:
    """The card of a period, or the reason why there is none, and how long that answer holds."""
    if period.get("free"):
        return Card([(-1, {})], price, True, None, {}), (BEGINNING, END)
    named = None if tier in STANDARD else tier
    window, span = _window_at(period.get("windows", ()), at)
    factors: dict[str, Decimal] = {}
    row, base = period, period
    if window is not None:
        if "times" in window:
            factors["window"] = window["times"]
        else:
            row = base = window
    if named is not None:
        if terms.tiers_from and at < moment(terms.tiers_from):
            return f"unknown_tier:{named}", _overlap(span, (BEGINNING, moment(terms.tiers_from)))
        offered = base.get("tiers", {}).get(named)
        if offered is None:
            return f"unknown_tier:{named}", span
        if isinstance(offered, Decimal):
            factors[f"tier:{named}"] = offered
        else:
            row = offered
    regions = period.get("regions", terms.regions)
    if region is not None and (times := regions.get(region, regions.get("*", 1))) != 1:
        factors[f"region:{region}"] = times
    discount, fixed = _discount_at(terms.discount, at)
    steps = _steps(row, base, factors, discount)
    since = moment(terms.tiers_from) if named and terms.tiers_from else BEGINNING
    return Card(steps, price, False, named, {}), _overlap(span, fixed, (since, END))


def _steps(
    row: dict[str, Any], base: dict[str, Any], factors: dict[str, Decimal], discount: Decimal | None
) -> list[tuple[int, Rates | None]]:
    fees = {key: value for key, value in base.items() if key in RATES and RATES[key].fee}
    steps: list[tuple[int, Rates | None]] = [(-1, _rates(fees | row, factors, discount))]
    above = row.get("above")
    if above is None and "above" in base:
        # A tier printed without long-context prices is not offered beyond the base's first step.
        return [(min(map(int, base["above"])), None), *steps]
    for size, step in sorted((above or {}).items(), key=lambda item: int(item[0])):
        own_fees = fees | {key: value for key, value in row.items() if key in RATES and RATES[key].fee}
        steps.insert(0, (int(size), _rates(own_fees | step, factors, discount)))
    return steps


def _rates(row: Mapping[str, Any], factors: dict[str, Decimal], discount: Decimal | None) -> Rates:
    metered = factors | ({} if discount is None else {"discount": discount})
    fees = {} if discount is None else {"discount": discount}
    found = {}
    for key, value in row.items():
        known = RATES.get(key)
        if known is None:
            continue
        if value == "input":
            value, per = _priced(row["input"], RATES["input"].per)
        else:
            value, per = _priced(value, known.per)
        applied = fees if known.fee else metered
        for factor in applied.values():
            value = EXACT.multiply(value, factor)
        value = EXACT.plus(value)
        each = EXACT.divide(value, per)
        whole = EXACT.multiply(each, per) == value
        found[known.counter] = Rate(value, per, each, applied or None, whole, not whole or _places(each) > PLACES)
    return found


def _places(value: Decimal) -> int:
    exponent = value.normalize(EXACT).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _priced(value: Any, per: int) -> tuple[Decimal, int]:
    return (value["value"], value["unit"]) if isinstance(value, dict) else (value, per)


def _discount_at(discount: str | Mapping[str, str] | None, at: datetime) -> tuple[Decimal | None, Span]:
    if discount is None:
        return None, (BEGINNING, END)
    dated = {"0001-01-01": discount} if isinstance(discount, str) else discount
    found, span = period_at([{"from": day, "off": dated[day]} for day in sorted(dated)], at)
    if found is None:
        return None, span
    return 1 - EXACT.divide(Decimal(found["off"].rstrip("%")), Decimal(100)), span


def _window_at(windows: Sequence[dict[str, Any]], at: datetime) -> tuple[dict[str, Any] | None, Span]:
    """The window that `at` lies in, and until the next boundary of any window (or midnight)."""
    if not windows:
        return None, (BEGINNING, END)
    now = at.astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    edges = sorted({0, 1440, *(edge for window in windows for hours in window["utc"] for edge in hours)})
    minute = now.hour * 60 + now.minute
    start = max(edge for edge in edges if edge <= minute)
    end = min(edge for edge in edges if edge > minute)
    span = (midnight + timedelta(minutes=start), midnight + timedelta(minutes=end))
    for window in windows:
        if any(_open(window, day) for day in _beginnings(window, now.date(), minute)):
            return window, span
    return None, span


def _beginnings(window: dict[str, Any], today: date, minute: int) -> Iterator[date]:
    """The day on which the window that is open now began: days and exceptions are those of its beginning."""
    for start, end in window["utc"]:
        if start < end:
            if start <= minute < end:
                yield today
        elif minute >= start:
            yield today
        elif minute < end:
            yield today - timedelta(days=1)


def _open(window: dict[str, Any], day: date) -> bool:
    text = day.isoformat()
    return day.weekday() in window["days"] and not any(first <= text <= last for first, last in window["not"])


def _overlap(*spans: Span) -> Span:
    return max(span[0] for span in spans), min(span[1] for span in spans)
