"""What must hold over a whole price file: one entry for a name at a level, dates that do not collide, sane prices.

Knows the plain form of `schema.validate`. Must not know pydantic. Every finding is a ConfigError with file, line and
key.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from llmtab.documents import ConfigError
from llmtab.pricing.card import BEGINNING, moment
from llmtab.pricing.names import undated
from llmtab.pricing.rates import RATES, absurd

type Loc = tuple[str | int, ...]
type Problem = Callable[[Sequence[str | int], str], ConfigError]


def check_file(plain: dict[str, Any], problem: Problem, *, user: bool) -> None:
    """Raises the first problem found. `user`: patterns are allowed."""
    for name, provider in plain["providers"].items():
        at: Loc = ("providers", name)
        _names(provider, at, user, problem)
        for model, entry in provider["models"].items():
            _entry(entry, (*at, "models", model), problem)


def _names(provider: dict[str, Any], at: Loc, user: bool, problem: Problem) -> None:
    taken: dict[str, Loc] = {}
    for name in provider["models"]:
        if "*" in name and not user:
            raise problem(
                (*at, "models", name), "a pattern, expected one model's id (patterns are for users' own files)"
            )
        _take(taken, name, (*at, "models", name), problem)
    aliases = [(alias, (*at, "models", name, "aliases"))
               for name, entry in provider["models"].items() for alias in entry.get("aliases", ())]  # fmt: skip
    aliases += [(alias, (*at, "aliases", alias)) for alias in provider.get("aliases", {})]
    for alias, loc in aliases:
        _take(taken, alias, loc, problem)
    prefixes: dict[str, str] = {}
    for name in provider["models"]:
        if "*" in name and prefixes.setdefault(prefix := name.lower().split("*")[0], name) != name:
            raise problem((*at, "models", name), f"same beginning as {prefixes[prefix]!r}, expected one pattern for it")


def _take(taken: dict[str, Loc], name: str, loc: Loc, problem: Problem) -> None:
    key = name.strip().lower()
    if not key:
        raise problem(loc, "an empty name, expected a model's id")
    if key in taken:
        raise problem(
            loc, f"{name!r} is already taken by {'.'.join(map(str, taken[key]))}, expected one entry for a name"
        )
    taken[key] = loc


def _entry(entry: dict[str, Any], at: Loc, problem: Problem) -> None:
    if "stray" in entry:
        key = entry["stray"][0]
        raise problem((*at, key), f"both {key!r} and 'prices', expected prices in the list or beside it, not both")
    listed = len(entry["prices"]) > 1 or "from" in entry["prices"][0]
    if "extends" in entry and len(entry["prices"]) > 1:
        raise problem((*at, "prices"), "a list beside 'extends', expected the changes themselves")
    starts: set[datetime] = set()
    for index, period in enumerate(entry["prices"]):
        loc = (*at, "prices", index) if listed else at
        _period(period, entry, loc, problem)
        start = period.get("from", "")
        since = moment(start) if start else BEGINNING
        if since in starts:
            raise problem((*loc, "from"), f"two prices from {start or 'the beginning'}, expected one")
        starts.add(since)
    for rule in entry["dated"] if isinstance(entry.get("dated"), list) else ():
        if undated(f"x-{rule}") is None:
            raise problem((*at, "dated"), f"{rule!r}, expected a date like 2024-08-06, 20240806 or 0613")


def _period(period: dict[str, Any], entry: dict[str, Any], at: Loc, problem: Problem) -> None:
    rates = [key for key in period if key in RATES]
    if period.get("free") and rates:
        raise problem((*at, rates[0]), "a price beside 'free', expected one of them")
    if not rates and not period.get("free") and "extends" not in entry:
        raise problem(at, "no price, expected rates, or 'free: true', or 'extends'")
    for name, tier in period.get("tiers", {}).items():
        if isinstance(tier, Decimal) and not 0 < tier <= 100:
            raise problem((*at, "tiers", name), f"x{tier}, expected a factor above 0 and up to 100")
    for row, loc in _rows(period, at):
        for key, value in row.items():
            if key in RATES:
                _rate(key, value, row, (*loc, key), problem)
    _windows(period.get("windows", []), at, problem)


def _rows(row: dict[str, Any], at: Loc) -> Iterator[tuple[dict[str, Any], Loc]]:
    yield row, at
    for size, step in row.get("above", {}).items():
        yield step, (*at, "above", size)
    for name, tier in row.get("tiers", {}).items():
        if isinstance(tier, dict):
            yield from _rows(tier, (*at, "tiers", name))
    for index, window in enumerate(row.get("windows", [])):
        yield from _rows(window, (*at, "windows", index))


def _rate(key: str, value: Any, row: dict[str, Any], at: Loc, problem: Problem) -> None:
    if value == "input":
        if "input" not in row:
            raise problem(at, "the price of input, expected an 'input' beside it")
        return
    price, per = (value["value"], value["unit"]) if isinstance(value, dict) else (value, RATES[key].per)
    if message := absurd(key, price, per):
        raise problem(at, message)


def _windows(windows: list[dict[str, Any]], at: Loc, problem: Problem) -> None:
    claimed: dict[tuple[int, int], int] = {}
    for index, window in enumerate(windows):
        loc = (*at, "windows", index)
        if ("times" in window) == any(key in RATES for key in window):
            raise problem(loc, "expected 'times' or prices, one of them")
        for span in window["not"]:
            if _date(span[0], (*loc, "not"), problem) > _date(span[1], (*loc, "not"), problem):
                raise problem((*loc, "not"), f"{span[0]} is after {span[1]}, expected the earlier date first")
        for minute in _minutes_of_week(window):
            if claimed.setdefault(minute, index) != index:
                raise problem(loc, f"overlaps window {claimed[minute]}, expected one window at a time")


def _minutes_of_week(window: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Every (weekday, minute) that a window claims; a window over midnight claims minutes of the next day."""
    for start, end in window["utc"]:
        length = (end - start) % 1440 or 1440
        for day in window["days"]:
            for minute in range(start, start + length):
                yield ((day + minute // 1440) % 7, minute % 1440)


def _date(text: str, at: Loc, problem: Problem) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise problem(at, f"{text!r} is no date, expected one like 2026-08-21") from None
