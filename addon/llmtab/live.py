"""The tab in a terminal: the last calls, totals by model, what is spent per hour, and what is wrong.

Knows rich, columns and colours. Must not know where lines come from. `render` is pure; `LiveTable` draws it when asked
to by the caller's tick. Nothing from a line reaches the terminal but through `cells` and `rich`'s plain segments: no
markup is parsed and no control character is passed on.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from llmtab import cells
from llmtab.cells import Line, is_unpriced, model, plain, usd
from llmtab.grid import CALLS, TOTALS, Cell, Grid, Row
from llmtab.totals import Sum, Totals

__all__ = ["LiveTable", "State", "plain", "render", "svg"]

RECENT: Final = 40
"""Calls kept for the table; a screen seldom has room for more."""
ROWS: Final = 14
"""Calls shown where the height is not known. Each costs a tenth of a millisecond of every stream's time."""
GROUP_ROWS: Final = 6
LOW: Final = 30
"""A screen of fewer lines shows half as many groups: the calls matter more."""
WIDEST: Final = 160
"""A table wider than this is harder to read, not easier."""
STALE: Final = timedelta(seconds=10)
"""The rates per hour fall by themselves; so often they are looked at although no call came."""
_BETWEEN: Final = timedelta(milliseconds=900)  # a tick of one second that comes a little early still draws
_WINDOWS: Final = (("1 min", timedelta(minutes=1)), ("10 min", timedelta(minutes=10)), ("1 h", timedelta(hours=1)))


@dataclass
class State:
    """What the table shows. Changed through its methods, so that it knows when it was."""

    ledger: str = ""
    totals: Totals = field(default_factory=Totals)
    recent: deque[Line] = field(default_factory=lambda: deque(maxlen=RECENT))
    trouble: tuple[int, int, str] = (0, 0, "")
    """Lines waiting, lines dropped, why."""
    notes: tuple[str, ...] = ()
    """What else a reader should know, a sentence each: coverage, limits, a config that did not load."""
    version: int = 0

    def add(self, line: Line) -> None:
        self.totals.add(line)
        self.recent.append(line)
        self.version += 1

    def set_trouble(self, waiting: int, dropped: int, why: str) -> None:
        """The state of the ledger, as it says itself."""
        if (waiting, dropped, why) != self.trouble:
            self.trouble = waiting, dropped, why
            self.version += 1

    def set_notes(self, notes: Sequence[str]) -> None:
        if tuple(notes) != self.notes:
            self.notes = tuple(notes)
            self.version += 1


class Picture:
    """Rows of styled text, each exactly one line of the terminal."""

    def __init__(self, rows: Sequence[Row], width: int) -> None:
        self.rows = rows
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for row in self.rows:
            yield from Segment.adjust_line_length(
                [Segment(text, STYLES[style]) for text, style, _ in row], self.width, pad=False
            )
            yield Segment.line()


STYLES: Final = {
    "": Style(),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "money": Style(color="green"),
    "total": Style(color="green", bold=True),
    "name": Style(color="cyan"),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "brand": Style(color="magenta", bold=True),
}


def render(state: State, width: int, now: datetime, height: int | None = None) -> Picture:
    """The whole table for a terminal of `width` columns and `height` lines. `now` is aware; its zone is shown."""
    width = max(20, min(width, WIDEST))
    most = GROUP_ROWS // 2 if height is not None and height < LOW else GROUP_ROWS
    head, groups, foot = _head(state, width, now), _groups(state, width, most), _foot(state, width)
    around = len(head) + len(groups) + len(foot) + len(("rule", "titles", "blank", "blank", "cursor"))
    room = ROWS if height is None else height - around
    calls = list(state.recent)[-max(1, min(room, RECENT)) :]
    grid = Grid(CALLS, width)
    body = [grid.title(), *(grid.row(_call(line, now)) for line in calls)] if calls else [[Cell("no calls yet", "dim")]]
    return Picture(
        [*head, [Cell("─" * width, "dim")], *body, [], *groups, *([[]] if groups and foot else []), *foot], width
    )


def _head(state: State, width: int, now: datetime) -> list[Row]:
    """What the session cost, what is spent per hour, what a subscription covered and what caching saved."""
    total = state.totals.total
    parts: list[Row] = [[Cell("llmtab", "brand")], [Cell(_money(total), "total"), Cell(f" {_calls(total.calls)}")]]
    for name, window in _WINDOWS:
        billed, notional = state.totals.per_hour(now, window)
        spent = f"({usd(notional)}/h)" if notional and not billed else f"{usd(billed)}/h"
        parts.append([Cell(spent, "money"), Cell(" " + name, "dim")])
    if total.notional:
        parts.append([Cell(f"({usd(total.notional)})", "money"), Cell(" on subscription", "dim")])
    if total.saved:
        parts.append([Cell(usd(total.saved), "money"), Cell(" saved by caching", "dim")])
    return _flow(parts, width)


def _flow(parts: Sequence[Row], width: int) -> list[Row]:
    """Parts side by side with a dot between them, on as many lines as they need."""
    rows: list[Row] = [[]]
    for part in parts:
        gap: Row = [Cell(" · ", "dim")] if rows[-1] else []
        if sum(len(cell.text) for cell in rows[-1] + gap + part) > width:
            rows.append(list(part))
        else:
            rows[-1] += gap + part
    return rows


def _money(total: Sum) -> str:
    """A sum with unpriced calls in it is a lower bound, and says so."""
    return usd(total.cost) + ("+" if total.unpriced else "")


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number:,} calls"


def _tokens(number: int | None, style: str = "") -> Cell:
    return Cell(cells.count(number), style, cells.count(number, short=True))


def _usd(amount: Decimal, style: str, mark: str = "{}") -> Cell:
    """An amount, nothing where it is 0."""
    if not amount:
        return Cell("")
    return Cell(mark.format(usd(amount)), style, mark.format(usd(amount, short=True)))


def _call(line: Line, now: datetime) -> dict[str, Cell]:
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
        "outcome": Cell(cells.outcome(line), _mood(line), cells.outcome(line, short=True)),
        "label": Cell(cells.label(line)),
    }


def _mood(line: Line) -> str:
    if line.get("outcome") in ("error", "broken", "refused"):
        return "bad"
    if line.get("outcome") == "aborted" or is_unpriced(line) or line.get("usage_source") in ("partial", "estimated"):
        return "warn"
    return "good"


def _groups(state: State, width: int, most: int) -> list[Row]:
    """Totals by group, the `most` dearest first, and the sum of all where there are several."""
    totals = state.totals
    ranked = sorted(
        totals.groups.items(), key=lambda item: (item[1].cost + item[1].notional, item[1].calls), reverse=True
    )
    if not ranked:
        return []
    grid = Grid(TOTALS, width)
    rows = [
        grid.title(group=totals.by),
        *(grid.row(_total(cells.safe(name), one)) for name, one in ranked[:most]),
    ]
    if len(ranked) > most:
        rows.append([Cell(f"… {len(ranked) - most} more", "dim")])
    if len(ranked) > 1:
        rows.append([Cell(cell.text, "bold") for cell in grid.row(_total("total", totals.total))])
    return rows


def _total(name: str, one: Sum) -> dict[str, Cell]:
    share = f"{one.cached_tokens / one.input_tokens:.0%}" if one.input_tokens and one.cached_tokens else ""
    return {
        "group": Cell(name, "name"),
        "calls": Cell(f"{one.calls:,}", "", cells.count(one.calls, short=True)),
        "in": _tokens(one.input_tokens),
        "cached": _tokens(one.cached_tokens, "dim") if one.cached_tokens else Cell(""),
        "share": Cell(share, "dim"),
        "out": _tokens(one.output_tokens),
        "cost": Cell(_money(one), "warn" if one.unpriced else "money" if one.cost else "dim"),
        "notional": _usd(one.notional, "money", "({})"),
        "saved": _usd(one.saved, "dim"),
        "errors": Cell(f"{one.errors:,}" if one.errors else "", "bad", cells.count(one.errors, short=True)),
    }


def _foot(state: State, width: int) -> list[Row]:
    """What is unsure, what is wrong, and where the ledger is: a line each."""
    total, rows = state.totals.total, []
    if total.unpriced:
        named = ", ".join(
            f"{number}x {cells.safe(name, 40)} ({cells.safe(reason, 40)})"
            for (reason, name), number in state.totals.unpriced.most_common(4)
        )
        rows.append(f"{total.unpriced:,} unpriced, not in the sums marked +: {named}")
    unsure = [
        (total.estimated, "estimated, marked ~"),
        (total.partial, "partial: cut short before the final figures"),
        (total.differs, "cost otherwise than the list price, by more than 1 %: the provider says so (cost differs)"),
    ]
    rows += [f"{number:,} {word}" for number, word in unsure if number]
    rows += [cells.safe(note, 400) for note in state.notes]
    shown = [[Cell(_cut(text, width), "warn")] for text in rows]
    waiting, dropped, why = state.trouble
    if waiting or dropped:
        text = f"ledger: {waiting:,} lines wait, {dropped:,} dropped" + (f" ({cells.safe(why, 60)})" if why else "")
        shown.append([Cell(_cut(text, width), "bad")])
    elif state.ledger:
        shown.append([Cell(_cut(f"ledger {cells.safe(at_home(state.ledger), 400)}", width), "dim")])
    return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class LiveTable:
    """Draws a state on a console (standard output if None): at most once a second, only if something changed.

    `now` is aware; times are shown in its zone, so a caller gives local time.
    """

    def __init__(self, console: Console | None, state: State) -> None:
        self.console = console or Console()
        self.state = state
        self._live: Live | None = None
        self._drawn: tuple[object, ...] = ()
        self._at = datetime.min.replace(tzinfo=UTC)

    def start(self, now: datetime) -> None:
        self._live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._draw(self._live, now)

    def update(self, now: datetime) -> bool:
        """Draws if the state, the terminal's size or the rates changed and the last picture is a second old.

        Returns whether it drew.
        """
        if not self._live or now - self._at < _BETWEEN:
            return False
        falling = now - self._at >= STALE and any(self.state.totals.per_hour(now, timedelta(hours=1)))
        if (self.state.version, self.console.size) == self._drawn and not falling:
            return False
        self._draw(self._live, now)
        return True

    def stop(self, now: datetime) -> None:
        """Leaves the last picture on the screen."""
        if self._live:
            self._draw(self._live, now)
            self._live.stop()
            self._live = None

    def _draw(self, live: Live, now: datetime) -> None:
        size = self.console.size
        self._drawn, self._at = (self.state.version, size), now
        live.update(render(self.state, size.width, now, size.height), refresh=True)


def at_home(path: Path | str) -> str:
    """A path as people write it, `~` for the home folder."""
    home = str(Path.home())
    return "~" + str(path)[len(home) :] if str(path).startswith(home + "/") else str(path)


def svg(lines: Iterable[Line], path: Path, width: int, now: datetime, ledger: str = "") -> None:
    """Writes the picture of a session made of these lines as SVG; the same lines give the same file."""
    state = State(ledger=ledger)
    for line in lines:
        state.add(line)
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(state, width, now), end="")
    path.write_text(console.export_svg(title="llmtab", unique_id="llmtab"), encoding="utf-8")
