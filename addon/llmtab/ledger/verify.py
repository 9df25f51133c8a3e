"""Was a ledger altered? Walks each writer's chain and names what does not fit.

Knows chains, numbers and the notes' checkpoints. Must not know what a line means: a line that follows its predecessor
is hashed, not parsed. Plain hashes show a change by somebody who does not recompute them all; a key (HMAC) shows any.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from llmtab.ledger.chain import HEAD, KEY, TAIL, Link, link, numbering, split, unglue
from llmtab.ledger.reader import notes_path, parse, raw_lines, read, rotated

WINDOW: Final = 1000
"""How many lines of a writer are kept to tell a line that stands elsewhere (reordered) from one that is gone."""
KEPT: Final = 1000
"""How many problems and torn lines are listed; all are counted."""
BEGINNING: Final = b'{"schema":'
CUT: Final = re.compile(rb'\{"schema":\d+(?:,(?:"[^\n]*)?)?')
"""What is left of a line that was cut behind its BEGINNING."""
UNREADABLE: Final = "unreadable"


@dataclass
class Problem:
    """One place where the ledger is not what its writer wrote."""

    kind: str
    """`altered`, `missing`, `inserted`, `reordered` or `unreadable`."""
    place: str
    """`file:line` where it shows, or the file for what is missing at its end."""
    text: str
    order: int = 0

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.text}"


@dataclass
class Report:
    """What a walk over a ledger found."""

    lines: int = 0
    writers: int = 0
    torn: list[str] = field(default_factory=list)
    """Places of lines that a crash or a full disk left unfinished; none of them counts as a call."""
    dropped: int = 0
    """Lines that never reached the disk, as the notes say."""
    count: int = 0
    """Problems in all."""
    problems: list[Problem] = field(default_factory=list)
    """In the order of the ledger."""

    @property
    def ok(self) -> bool:
        return not self.count

    def add(self, kind: str, line: "_Line", text: str) -> Problem:
        problem = Problem(kind, line.place, text, line.order)
        self.count += 1
        if len(self.problems) < KEPT:
            self.problems.append(problem)
        return problem

    def instead(self, of: Collection[Problem], number: int, problem: Problem) -> None:
        """One problem that says what `number` others come from; `of`: those of them that are listed."""
        gone = set(map(id, of))
        self.problems = [one for one in self.problems if id(one) not in gone] + [problem]
        self.count += 1 - number


class _Line(NamedTuple):
    place: str
    order: int
    body: bytes
    chain: bytes


def verify(path: Path, key: bytes | None = None) -> Report:
    """Checks the ledger at `path`, its rotated files and its notes. FileNotFoundError if there is none."""
    report = Report()
    notes = notes_path(path)
    noted, walk = _Walk(report, link(key)), _Walk(report, link(key))
    if notes.exists():
        noted.run(notes)
        walk.believe(read(notes), rotated(path).keys())
    report.lines = 0
    walk.run(path)
    _say_once(report, [*noted.strangers(), *walk.strangers()], path, keyed=key is not None)
    report.problems.sort(key=lambda problem: problem.order)
    return report


def _say_once(report: Report, strangers: "list[_Writer]", path: Path, *, keyed: bool) -> None:
    """One sentence in place of a problem a line, where all of them have one cause."""
    if strangers:
        number, wrong = sum(writer.wrong for writer in strangers), [one for its in strangers for one in its.problems]
        names = {writer.name for writer in strangers}
        whose = f"writer {min(names)}" if len(names) == 1 else f"{len(names)} writers"
        cause = "another key than this one" if keyed else "a key: give it with --key"
        text = f"every line of {whose}, from the first one on: the ledger seems to be chained with {cause}"
        report.instead(wrong, number, Problem("altered", wrong[0].place if wrong else path.name, text))
    foreign = [problem for problem in report.problems if problem.kind == UNREADABLE]
    if foreign and not report.lines and len(foreign) == len(report.problems):
        report.instead(foreign, report.count, Problem(UNREADABLE, path.name, "no line of it is a line of a ledger"))


def is_cut(piece: bytes) -> bool:
    """Whether bytes can be what a crash left of a line: its beginning, and zeros where the disk had not caught up."""
    left = piece.rstrip(b"\0")
    return BEGINNING.startswith(left) or CUT.fullmatch(left) is not None


class _Walk:
    """All writers of one ledger, line after line."""

    def __init__(self, report: Report, compute: Link) -> None:
        self.report = report
        self._compute = compute
        self._writers: dict[bytes, _Writer] = {}

    def believe(self, notes: Iterator[dict[str, Any]], there: Collection[str]) -> None:
        """Takes from the notes what was pruned, what was dropped and how far a writer had come.

        `there`: the finished files; a note of a deletion that was then not done says nothing.
        """
        for note in notes:
            match note:
                case {"note": "dropped", "lines": int(lines)}:
                    self.report.dropped += lines
                case {"note": "checkpoint", "writer": str(writer), "lines": int(lines), "last": str(last)}:
                    self._writer(writer.encode()).expect(lines - 1, last.encode())
                case {"note": "pruned", "writers": dict(pruned)} if note.get("file") not in there:
                    for name, (lines, last) in pruned.items():
                        state = self._writer(name.encode())
                        state.next, state.last, state.unjudged = lines, last.encode(), lines

    def run(self, path: Path) -> None:
        writers, compute = self._writers, self._compute
        order, last = 0, path
        for order, (last, number, raw) in enumerate(raw_lines(path)):
            # The fast path, a few microseconds: the line continues its writer's chain and is not parsed.
            head = HEAD.match(raw)
            writer = writers.get(head[1]) if head else None
            if (
                head
                and writer
                and int(head[2]) == writer.next != writer.check
                and not writer.ahead
                and raw.startswith(KEY, -TAIL - 1)
                and raw.endswith(b'"}\n')
                and compute(writer.last, raw[: -TAIL - 1]) == raw[-67:-3]
            ):
                writer.next += 1
                writer.last = raw[-67:-3]
                self.report.lines += 1
            else:
                self._look(raw, f"{last.name}:{number}", order)
        for writer in writers.values():
            writer.finish(_Line(last.name, order + 1, b"", b""))
        self.report.writers = len(writers)

    def strangers(self) -> "list[_Writer]":
        """Writers of whom no line fits; of one line alone nobody can say why, unless no other line fits either."""
        found = [writer for writer in self._writers.values() if writer.is_strange]
        return found if len(found) == len(self._writers) else [writer for writer in found if writer.wrong > 1]

    def _writer(self, name: bytes) -> "_Writer":
        if name not in self._writers:
            self._writers[name] = _Writer(name, self.report, self._compute)
        return self._writers[name]

    def _look(self, raw: bytes, place: str, order: int) -> None:
        """A line off the fast path: a writer's first, one with trouble, several glued together, torn, or foreign."""
        if raw.isspace():
            return
        for piece in unglue(raw.removesuffix(b"\n")):
            sealed, number = split(piece), numbering(piece)
            if sealed and number:
                self.report.lines += 1
                self._writer(number[0]).accept(number[1], _Line(place, order, *sealed))
            elif parse(piece + b"\n"):
                self.report.lines += 1
                self.report.add("inserted", _Line(place, order, b"", b""), "a line without a writer's number and chain")
            elif not is_cut(piece):
                text = "neither a line of a ledger nor the beginning of one"
                self.report.add(UNREADABLE, _Line(place, order, b"", b""), text)
            elif len(self.report.torn) < KEPT:
                self.report.torn.append(place)


class _Writer:
    """One writer's chain: what comes next, and the lines that stand too early."""

    def __init__(self, name: bytes, report: Report, compute: Link) -> None:
        self.name = name.decode(errors="replace")
        self.next = 0
        self.last = name
        self.check = -1
        """The number of the next line whose chain the notes know."""
        self.ahead: dict[int, _Line] = {}
        self._expected: dict[int, bytes] = {}
        self._report = report
        self._compute = compute
        self._doubt: tuple[int, bytes, Problem] | None = None
        self.unjudged = 0
        """Numbers whose lines could not be held against the one before: pruned, or behind a gap."""
        self.wrong = 0
        """Lines that did not follow from the one before them."""
        self.problems: list[Problem] = []
        """Those of them that the report lists."""

    @property
    def is_strange(self) -> bool:
        """Whether not a single line fits, from the first one on."""
        return 0 < self.wrong == self.next - self.unjudged

    def expect(self, seq: int, chain: bytes) -> None:
        self._expected[seq] = chain
        self.check = min(self._expected)

    def accept(self, seq: int, line: _Line) -> None:
        if seq == self.next:
            self._step(seq, line)
            while self.next in self.ahead:
                self._belated(self.next, self.ahead.pop(self.next))
        elif seq < self.next:
            self._again(seq, line)
        elif seq in self.ahead:
            self._report.add("inserted", line, f"line {seq} of writer {self.name} stands here again")
        else:
            self.ahead[seq] = line
            if len(self.ahead) > WINDOW:
                self._give_up_waiting()

    def finish(self, end: _Line) -> None:
        """No more lines come."""
        self._give_up_waiting()
        if self._expected and (expected := max(self._expected)) >= self.next:
            self._report.add(
                "missing", end, f"{_numbers(self.next, expected)} of writer {self.name}, the last it wrote"
            )

    def _follows(self, line: _Line) -> bool:
        return self._compute(self.last, line.body) == line.chain

    def _step(self, seq: int, line: _Line) -> None:
        """The next line by number; whether its chain fits or not, what follows is judged by it."""
        if not self._follows(line):
            text = f"line {seq} of writer {self.name} does not follow from the one before it"
            problem = self._report.add("altered", line, text)
            self._doubt = (seq, self.last, problem)
            self.wrong += 1
            if self._report.problems[-1] is problem:
                self.problems.append(problem)
        elif self._expected.get(seq, line.chain) != line.chain:
            self._report.add(
                "altered", line, f"line {seq} of writer {self.name} is not the one that its checkpoint names"
            )
        if seq == self.check:
            del self._expected[seq]
            self.check = min(self._expected, default=-1)
        self.next, self.last = seq + 1, line.chain

    def _belated(self, seq: int, line: _Line) -> None:
        """A line that stood too early: out of place if it fits the chain here, else one that nobody wrote."""
        if not self._follows(line):
            self._report.add("inserted", line, f"line {seq} of writer {self.name} fits nowhere in its chain")
            return
        self._report.add("reordered", line, f"line {seq} of writer {self.name} stands before line {seq - 1}")
        self._step(seq, line)

    def _again(self, seq: int, line: _Line) -> None:
        """A number that was there already. If this line fits, the earlier one with that number was the extra one."""
        if self._doubt and seq == self._doubt[0] and self._compute(self._doubt[1], line.body) == line.chain:
            self._doubt[2].kind = "inserted"
            if self.next == seq + 1:
                self.last = line.chain
            self._doubt = None
        else:
            self._report.add("inserted", line, f"line {seq} of writer {self.name} stands here again")

    def _give_up_waiting(self) -> None:
        """What was waited for is gone; the chain goes on at the lines that stand ahead."""
        ahead, self.ahead = sorted(self.ahead.items()), {}
        for seq, line in ahead:
            if seq > self.next:
                self._report.add(
                    "missing", line, f"{_numbers(self.next, seq - 1)} of writer {self.name}, before this one"
                )
                self.unjudged += seq + 1 - self.next
                self.next, self.last = seq + 1, line.chain
            else:
                self._step(seq, line)


def _numbers(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"
