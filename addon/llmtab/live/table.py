"""The tab in a terminal: the last calls and those in flight, totals by group, what is spent, and what is wrong.

Knows rich, colours, and when a picture is drawn. Must not know where lines come from, nor what a row says (`rows`).
`render` is pure; `LiveTable` draws it when asked to by the caller's tick. Nothing from a line reaches the terminal but
through `cells` and `rich`'s plain segments: no markup is parsed and no control character is passed on.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import IO, Final, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from llmtab import cells
from llmtab.cells import Line, plain
from llmtab.live.days import Recap
from llmtab.live.grid import CALLS, Cell, Grid, Row
from llmtab.live.rows import Flight, Limit, call_row, cut, doubts, flight_row, groups, head, limits, wrapped
from llmtab.live.screen import Screen
from llmtab.live.totals import Totals

__all__ = ["LiveTable", "Picture", "State", "plain", "render", "summary", "svg", "text"]

RECENT: Final = 100
"""Calls kept for the table; a screen seldom has room for more."""
ROWS: Final = 14
"""Calls shown where the height is not known. Each costs a tenth of a millisecond of every stream's time."""
FLIGHTS: Final = 8
"""Calls in flight shown, the oldest ones: those are what a reader waits for."""
GROUP_ROWS: Final = 6
LIMITS: Final = 5
NOTES: Final = 6
"""Sentences at the foot of a screen."""
FOLDS: Final = 3
"""Lines that one of them may take: what helps stands at its end."""
LOW, HIGH = 30, 50
"""A screen of fewer lines than LOW shows half as many groups, one of HIGH lines or more twice as many."""
WIDEST: Final = 160
"""A table wider than this is harder to read, not easier."""
STALE: Final = timedelta(seconds=10)
"""The rates per hour fall by themselves; so often they are looked at although no call came."""
SAID: Final = 50
"""Log lines kept until the next picture."""
LINE: Final = 2_000
"""Characters of a line of a log that are shown."""
_BETWEEN: Final = timedelta(milliseconds=900)  # a tick of one second that comes a little early still draws


@dataclass
class State:
    """What the table shows. Changed through its methods, so that it knows when it was."""

    ledger: str = ""
    totals: Totals = field(default_factory=Totals)
    recent: deque[Line] = field(default_factory=lambda: deque(maxlen=RECENT))
    flights: tuple[Flight, ...] = ()
    """Calls under way, oldest first."""
    recap: Recap | None = None
    limits: tuple[Limit, ...] = ()
    trouble: tuple[int, int, str] = (0, 0, "")
    """Lines waiting, lines dropped, why."""
    notes: tuple[str, ...] = ()
    """What else a reader should know, a sentence each: coverage, a config that did not load."""
    title: str = ""
    """Which calls the sums are of, where that is not all of this proxy's."""
    keys: str = ""
    """Which keys do what, where there are any."""
    version: int = 0

    def add(self, line: Line) -> None:
        self.totals.add(line)
        self.recent.append(line)
        self.version += 1

    def set_trouble(self, waiting: int, dropped: int, why: str) -> None:
        """The state of the ledger, as it says itself."""
        self._set("trouble", (waiting, dropped, why))

    def set_notes(self, notes: Sequence[str]) -> None:
        self._set("notes", tuple(notes))

    def set_flights(self, flights: Sequence[Flight]) -> None:
        """The calls under way as they are now. As long as there are any each picture is a new one."""
        if flights or self.flights:
            self.flights = tuple(flights)
            self.version += 1

    def set_recap(self, recap: Recap | None) -> None:
        """Today against yesterday."""
        self._set("recap", recap)

    def set_limits(self, rows: Sequence[Limit]) -> None:
        """A bar for each limit on spending."""
        self._set("limits", tuple(rows))

    def _set(self, name: str, value: object) -> None:
        if getattr(self, name) != value:
            setattr(self, name, value)
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
    "live": Style(color="blue"),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "brand": Style(color="magenta", bold=True),
}


def render(state: State, width: int, now: datetime, height: int | None = None) -> Picture:
    """The whole table for a terminal of `width` columns and `height` lines. `now` is aware; its zone is shown."""
    width = max(20, min(width, WIDEST))
    size = LOW if height is None else height
    most = GROUP_ROWS // 2 if size < LOW else GROUP_ROWS if size < HIGH else 2 * GROUP_ROWS
    top = [*head(state.totals, state.recap, state.title, width, now), [Cell("─" * width, "dim")]]
    below = [
        groups(state.totals, width, most),
        limits(state.limits[:LIMITS], width),
        _foot(state, width, max(1, size // 3)),
    ]
    rest = [row for part in below if part for row in ([], *part)]
    room = ROWS + len(state.flights) if height is None else height - len(top) - len(rest) - len(("titles", "cursor"))
    return Picture([*top, *_calls(state, width, now, max(1, room)), *rest], width)


def _calls(state: State, width: int, now: datetime, room: int) -> list[Row]:
    """The newest calls, and below them those under way."""
    grid = Grid(CALLS, width)
    flying = state.flights[: min(FLIGHTS, max(1, room // 2))]
    rows = [grid.row(flight_row(flight, now)) for flight in flying]
    if len(state.flights) > len(flying):
        rows.append([Cell(f"… {len(state.flights) - len(flying):,} more in flight", "live")])
    left = room - len(rows)
    done = list(state.recent)[-left:] if left > 0 else []
    rows = [*(grid.row(call_row(line, now)) for line in done), *rows]
    return [grid.title(), *rows] if rows else [[Cell("no calls yet", "dim")]]


def _foot(state: State, width: int, most: int = FOLDS * NOTES) -> list[Row]:
    """What is unsure, what is wrong, what was not seen, and where the ledger is: each sentence whole, unless they take
    more than `most` lines."""
    said = [*doubts(state.totals), *(cells.safe(note, 400) for note in state.notes)]
    if len(said) > NOTES:
        said[NOTES - 1 :] = [f"… {len(said) - NOTES + 1} more to know: llmtab doctor"]
    for folds in range(FOLDS, 0, -1):
        lines = [line for text in said for line in wrapped(text, width, folds)]
        if len(lines) <= most:
            break
    rows: list[Row] = [[Cell(line, "warn")] for line in lines]
    waiting, dropped, why = state.trouble
    if waiting or dropped:
        text = f"ledger: {waiting:,} {'line waits' if waiting == 1 else 'lines wait'}, {dropped:,} dropped"
        text += f" ({cells.safe(why, 60)})" if why else ""
        rows += [[Cell(line, "bad")] for line in wrapped(text, width, FOLDS)]
    elif state.ledger:
        rows.append([Cell(cut(f"ledger {cells.safe(at_home(state.ledger), 400)}", width), "dim")])
    if state.keys:
        rows.append([Cell(cut(state.keys, width), "dim")])
    return rows


def summary(state: State, width: int, now: datetime) -> list[str]:
    """The sums of a state as plain lines of text."""
    rows = [
        *head(state.totals, state.recap, state.title, width, now),
        *groups(state.totals, width, GROUP_ROWS),
        *limits(state.limits, width),
        *_foot(state, width),
    ]
    return ["".join(cell.text for cell in row).rstrip() for row in rows]


def text(state: State, now: datetime, width: int | None = None) -> str:
    """The picture as text for standard output: of the terminal's size, with colours where they are wanted there;
    `width`: how wide it is where there is no terminal."""
    console = Console()
    size = console.size
    wide, high = (size.width, size.height) if console.is_terminal and width is None else (width or size.width, None)
    console.width = wide
    with console.capture() as drawn:
        console.print(render(state, wide, now, high), end="")
    return drawn.get()


class LiveTable:
    """Draws a state on a console (standard output if None): at most once a second, only if something changed.

    `now` is aware; times are shown in its zone, so a caller gives local time. A terminal that takes nothing more (a
    stopped one, a slow line) makes pictures fall out, and never makes the caller wait.
    """

    def __init__(self, console: Console | None, state: State) -> None:
        self._screen = None if console else Screen()
        self.console = console or Console(file=cast("IO[str]", self._screen))
        self.state = state
        self._live: Live | None = None
        self._said: deque[Text] = deque(maxlen=SAID)
        self._drawn: tuple[object, ...] = ()
        self._at = datetime.min.replace(tzinfo=UTC)

    def start(self, now: datetime) -> None:
        self._live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._draw(self._live, now)

    def say(self, text: str, style: str = "") -> None:
        """Text that stands above the table from the next picture on, whole, however wide it is. From any thread."""
        shown = "\n".join(cells.safe(line, LINE) for line in text.splitlines())
        self._said.append(Text(shown, STYLES[style], overflow="fold"))

    def due(self, now: datetime) -> bool:
        """Whether a second has gone by since the last picture, and the terminal has taken it."""
        return self._live is not None and now - self._at >= _BETWEEN and not (self._screen and self._screen.busy)

    def update(self, now: datetime) -> bool:
        """Draws if the state, the terminal's size or the rates changed, or something was said, and the last picture is
        a second old.

        Returns whether it drew.
        """
        if not self._live or not self.due(now):
            return False
        falling = now - self._at >= STALE and any(self.state.totals.rates.per_hour(now, timedelta(hours=1)))
        if (self.state.version, self.console.size) == self._drawn and not falling and not self._said:
            return False
        self._draw(self._live, now)
        return True

    def stop(self, now: datetime) -> None:
        """Leaves the last picture on the screen."""
        if self._live:
            self._draw(self._live, now)
            self._live.stop()
            self._live = None
            if self._screen:
                self._screen.close()

    def _draw(self, live: Live, now: datetime) -> None:
        size = self.console.size
        if self._drawn and self._drawn[1] != size:
            # How a terminal folds the rows of the last picture to its new width nobody knows, so neither where it is.
            self.console.clear()
        self._drawn, self._at = (self.state.version, size), now
        live.update(render(self.state, size.width, now, size.height), refresh=True)
        if said := [self._said.popleft() for _ in range(len(self._said))]:
            self.console.print(Text("\n").join(said), highlight=False)


def at_home(path: Path | str) -> str:
    """A path as people write it, `~` for the home folder."""
    home = str(Path.home())
    return "~" + str(path)[len(home) :] if str(path).startswith(home + "/") else str(path)


def svg(state: State, path: Path, width: int, now: datetime, height: int | None = None, title: str = "llmtab") -> None:
    """Writes the picture of a state as SVG; the same state gives the same file."""
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(state, width, now, height), end="")
    drawn = console.export_svg(title=title, unique_id="llmtab")
    # Not every reader of SVG keeps spaces at the beginning of a text by itself, and the columns hang on them.
    path.write_text(drawn.replace("<text ", '<text xml:space="preserve" '), encoding="utf-8")


def filled(lines: Iterable[Line], ledger: str = "", by: str = "model") -> State:
    """The state of a session made of these lines."""
    state = State(ledger=ledger, totals=Totals(by))
    for line in lines:
        state.add(line)
    return state
