"""The table as rows of cells: calls, calls in flight, groups, the head over them and the foot below.

Knows what stands in which column and what is said in words. Must not know terminals, colours or when it is drawn.
Nothing from a line gets here but through `cells.safe`.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from llmtab import cells
from llmtab.cells import Line, counted, is_unpriced, model, usd
from llmtab.live.days import Day, Recap
from llmtab.live.grid import TOTALS, Cell, Grid, Row, cells_of
from llmtab.live.totals import Sum, Totals

WINDOWS: Final = (("1 min", timedelta(minutes=1)), ("10 min", timedelta(minutes=10)), ("1 h", timedelta(hours=1)))
BAR: Final = 20
"""Cells of a limit's bar."""
_SELDOM: Final = frozenset({"notional", "saved", "retries"})
"""Columns of the groups that are there only where something stands in them."""
_FAILED: Final = ("error", "broken", "refused")


@dataclass(frozen=True, slots=True)
class Flight:
    """A call under way. `began`: aware; times in milliseconds."""

    began: datetime
    provider: str
    model: str
    label: str = ""
    bytes: int = 0
    chunks: int = 0
    first_ms: float | None = None
    """Until the first text, or the first bytes where the text is not seen as it comes."""
    first_is_token: bool = False


class Limit(NamedTuple):
    """A row of the budgets: what is limited, what of it is spent, and how much it may be, both in `unit`."""

    label: str
    spent: Decimal
    limit: Decimal
    unit: str = "USD"


def call_row(line: Line, now: datetime) -> dict[str, Cell]:
    """A finished call's cells by column. `now` gives the zone of times."""
    usage, timing = line.get("usage") or {}, line.get("timing") or {}
    unsure = is_unpriced(line) or line.get("cost_source") == "estimated"
    style = "warn" if unsure else "money" if line.get("cost_usd") else "dim"
    share = "parent" in line
    return {
        "time": Cell("" if share else cells.clock(line, now.tzinfo), "dim"),
        "provider": Cell(cells.safe(line.get("provider", "-"))),
        "model": Cell(("└ " if share else "") + cells.safe(model(line)), "name"),
        "in": _tokens(usage.get("input_tokens")),
        "cached": _tokens(usage.get("cache_read_input_tokens"), "dim"),
        "out": _tokens(usage.get("output_tokens")),
        "cost": Cell(cells.cost(line), style, cells.cost(line, short=True)),
        "took": Cell("" if share else cells.duration(timing.get("duration_ms")), "dim"),
        "tok/s": Cell(cells.speed(line), "dim"),
        "outcome": Cell(cells.outcome(line), mood(line), cells.outcome(line, short=True)),
        "label": Cell(cells.label(line)),
    }


def flight_row(flight: Flight, now: datetime) -> dict[str, Cell]:
    """The cells of a call under way: how long, and what has come so far."""
    chunks = "1 chunk" if flight.chunks == 1 else f"{flight.chunks:,} chunks"
    first = ""
    if flight.first_ms is not None:
        first = f"{'1st' if flight.first_is_token else 'byte'} {cells.duration(flight.first_ms)}"
    said = ", ".join(filter(None, (first, chunks))) if flight.bytes else "waiting"
    took = (now - flight.began).total_seconds() * 1000
    return {
        "time": Cell(f"{flight.began.astimezone(now.tzinfo):%H:%M:%S}", "dim"),
        "provider": Cell(cells.safe(flight.provider), "live"),
        "model": Cell(cells.safe(flight.model), "live"),
        "in": Cell(""),
        "cached": Cell(""),
        "out": Cell(""),
        "cost": Cell(cells.size(flight.bytes) if flight.bytes else "", "live"),
        "took": Cell(cells.duration(max(0.0, took)), "live"),
        "tok/s": Cell(""),
        "outcome": Cell(said, "live", chunks if flight.bytes else said),
        "label": Cell(cells.safe(flight.label)),
    }


def mood(line: Line) -> str:
    """The style of an outcome."""
    if line.get("outcome") in _FAILED:
        return "bad"
    if line.get("outcome") == "aborted" or is_unpriced(line) or line.get("usage_source") in ("partial", "estimated"):
        return "warn"
    return "good"


def head(totals: Totals, recap: Recap | None, title: str, width: int, now: datetime) -> list[Row]:
    """What the calls cost, what is spent per hour, today against yesterday, and what the cache, a subscription and
    errors had to do with it. `title`: which calls these are, "" for those of this proxy."""
    total = totals.total
    counted: Row = [Cell(money(total), "total"), Cell(f" {calls(total.calls)}")]
    name: Row = [Cell("llmtab", "brand"), *([Cell(" " + title, "bold")] if title else [])]
    parts: list[Row] = [name, counted]
    for window, span in WINDOWS:
        billed, notional = totals.rates.per_hour(now, span)
        spent = f"({usd(notional)}/h)" if notional and not billed else f"{usd(billed)}/h"
        parts.append([Cell(spent, "money"), Cell(" " + window, "dim")])
    if recap is not None:
        parts.append(_recap(recap))
    if total.notional:
        parts.append([Cell(covered(total), "money"), Cell(" on subscription", "dim")])
    if total.saved:
        parts.append([Cell(usd(total.saved), "money"), Cell(" saved by caching", "dim")])
    return flow([*parts, *_shares(total)], width)


def _recap(recap: Recap) -> Row:
    """`today $4.12, yesterday $9.80 ($3.20 by now)`."""
    row: Row = [Cell("today ", "dim"), Cell(_day(recap.today), "money")]
    if recap.yesterday != Day():
        row += [Cell(", yesterday ", "dim"), Cell(_day(recap.yesterday), "money")]
        row.append(Cell(f" ({_day(recap.by_now)} by now)", "dim"))
    return row


def _day(day: Day) -> str:
    sure, all_of = ("~" if day.guessed else ""), ("+" if day.unpriced else "")
    if day.notional and not day.billed:
        return f"({sure}{usd(day.notional)}){all_of}"
    return f"{sure}{usd(day.billed)}{all_of}"


def _shares(total: Sum) -> list[Row]:
    """Errors, retries and the cache's part of what was read, where there are any."""
    parts: list[Row] = []
    if total.cached_tokens and total.input_tokens:
        parts.append([Cell(f"{total.cached_tokens / total.input_tokens:.0%}", ""), Cell(" of input cached", "dim")])
    if total.errors:
        share = f" {'error' if total.errors == 1 else 'errors'} ({percent(total.errors, total.calls)})"
        parts.append([Cell(f"{total.errors:,}", "bad"), Cell(share, "dim")])
    if total.retries:
        parts.append([Cell(f"{total.retries:,}", "warn"), Cell(" retry" if total.retries == 1 else " retries", "dim")])
    return parts


def percent(part: int, whole: int) -> str:
    """`12%`, `0.4%`, `<0.1%`: a share is 0 only where there is none."""
    share = min(100.0, 100 * part / whole) if whole else 0.0
    if not part or share >= 9.95:
        return f"{share:.0f}%"
    return f"{share:.1f}%" if share >= 0.1 else "<0.1%"


def flow(parts: Sequence[Row], width: int) -> list[Row]:
    """Parts side by side with a dot between them, on as many lines as they need."""
    rows: list[Row] = [[]]
    for part in parts:
        gap: Row = [Cell(" · ", "dim")] if rows[-1] else []
        if sum(cells_of(cell.text) for cell in rows[-1] + gap + part) > width:
            rows.append(list(part))
        else:
            rows[-1] += gap + part
    return rows


def groups(totals: Totals, width: int, most: int) -> list[Row]:
    """Totals by group, the `most` dearest first, and the sum of all where there are several."""
    ranked = sorted(
        totals.groups.items(), key=lambda item: (item[1].cost + item[1].notional, item[1].calls), reverse=True
    )
    if not ranked:
        return []
    most += len(ranked) == most + 1  # the last one takes no more room than a line that says there is one more
    said = total_row("", totals.total)
    grid = Grid([column for column in TOTALS if column.name not in _SELDOM or said[column.name].text], width)
    rows = [
        grid.title(group=totals.by),
        *(grid.row(total_row(cells.safe(name), one)) for name, one in ranked[:most]),
    ]
    if len(ranked) > most:
        rows.append([Cell(f"… {len(ranked) - most} more", "dim")])
    if len(ranked) > 1:
        rows.append([Cell(cell.text, "bold") for cell in grid.row(total_row("total", totals.total))])
    return rows


def total_row(name: str, one: Sum) -> dict[str, Cell]:
    """The cells of a group's sum."""
    share = f"{one.cached_tokens / one.input_tokens:.0%}" if one.input_tokens and one.cached_tokens else ""
    return {
        "group": Cell(name, "name"),
        "calls": Cell(f"{one.calls:,}", "", cells.count(one.calls, short=True)),
        "in": _told(one.input_tokens, one.with_input, one.without_input),
        "cached": _tokens(one.cached_tokens, "dim") if one.cached_tokens else Cell(""),
        "share": Cell(share, "dim"),
        "out": _told(one.output_tokens, one.with_output, one.without_output),
        "cost": _cost(one),
        "notional": Cell(covered(one), "money", covered(one, short=True)) if one.notional else Cell(""),
        "saved": _usd(one.saved, "dim"),
        "errors": Cell(f"{one.errors:,}" if one.errors else "", "bad", cells.count(one.errors, short=True)),
        "retries": Cell(f"{one.retries:,}" if one.retries else "", "warn", cells.count(one.retries, short=True)),
    }


def limits(rows: Sequence[Limit], width: int) -> list[Row]:
    """A bar for each limit: how much of it is spent. Past the limit the bar is full and the figures say by how much."""
    shown = []
    for label, spent, limit, unit in rows:
        share = spent / limit if limit else Decimal(1)
        filled = min(BAR, int(share * BAR))
        style = "bad" if share >= 1 else "warn" if share >= Decimal("0.8") else "good"
        amounts = f"{usd(spent)} of {usd(limit)}" if unit == "USD" else f"{_many(spent)} of {_many(limit)} {unit}"
        figures = f" {amounts} ({min(share, Decimal(99)):.0%})"
        name = cut(cells.safe(label, 60), max(8, width - BAR - len(figures) - 1))
        shown.append([Cell(name + " "), Cell("█" * filled, style), Cell("░" * (BAR - filled), "dim"), Cell(figures)])
    return shown


def _many(amount: Decimal) -> str:
    """Of a unit that is no money: whole numbers as they are, a large one in short."""
    return cells.count(int(amount), short=amount >= 100_000) if amount == int(amount) else f"{amount:,.2f}"


def doubts(totals: Totals) -> list[str]:
    """What is unsure in the sums, a sentence each."""
    total, said = totals.total, []
    if total.unpriced:
        named = ", ".join(
            f"{number}x {cells.safe(name, 40)} ({cells.safe(reason, 40)})"
            for (reason, name), number in totals.unpriced.most_common(4)
        )
        share = percent(total.unpriced, total.calls)
        said.append(f"{total.unpriced:,} unpriced ({share}), not in the sums marked +: {named}")
    unsure = [
        (total.estimated, "estimated{share}, marked ~"),
        (total.partial, "partial{share}: cut short before the final figures"),
        (total.differs, "cost otherwise than the list price, by more than 1%: the provider says so (cost differs)"),
    ]
    said += [f"{one:,} {word.format(share=f' ({percent(one, total.calls)})')}" for one, word in unsure if one]
    return said


def money(total: Sum, *, short: bool = False) -> str:
    """A sum with unpriced calls in it is a lower bound, one with estimates is no exact one, and both say so."""
    return ("~" if total.guessed else "") + usd(total.cost, short=short) + ("+" if total.unpriced else "")


def covered(total: Sum, *, short: bool = False) -> str:
    """What a subscription covers, in brackets."""
    return f"({'~' if total.guessed_notional else ''}{usd(total.notional, short=short)})"


def calls(number: int) -> str:
    return counted(number, "call")


def wrapped(text: str, width: int, most: int) -> list[str]:
    """A sentence on as many lines as it needs, `most` at most, cut there."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    if any(cells_of(line) > width for line in lines):
        lines = textwrap.wrap(text, max(1, width // 2), break_on_hyphens=False)  # wide characters take two cells
    if len(lines) > most:
        lines[most - 1 :] = [cut(" ".join(lines[most - 1 :]), width)]
    return lines


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _tokens(number: int | None, style: str = "") -> Cell:
    return Cell(cells.count(number), style, cells.count(number, short=True))


def _told(number: int, told: int, untold: int) -> Cell:
    """A sum of tokens: `-` where no line tells any, a `+` where some do and others do not."""
    if not told:
        return Cell(cells.UNKNOWN)
    mark = "+" if untold else ""
    return Cell(cells.count(number) + mark, "", cells.count(number, short=True) + mark)


def _usd(amount: Decimal, style: str) -> Cell:
    """An amount, nothing where it is 0."""
    return Cell(usd(amount), style, usd(amount, short=True)) if amount else Cell("")


def _cost(one: Sum) -> Cell:
    """What a group cost; where no price at all is known it is no 0."""
    if one.unpriced and not one.cost:
        return Cell("unpriced", "warn")
    style = "warn" if one.unpriced or one.guessed else "money" if one.cost else "dim"
    return Cell(money(one), style, money(one, short=True))
