"""Was a ledger altered? Walks each writer's chain and names what does not fit.

Knows chains, numbers and the notes' checkpoints. Must not know what a line means: a line that follows its predecessor
is hashed, not parsed. Plain hashes show a change by somebody who does not recompute them all; a key (HMAC) shows any.
"""

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


@dataclass
class Problem:
    """One place where the ledger is not what its writer wrote."""

    kind: str
    """`altered`, `missing`, `inserted` or `reordered`."""
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


class _Line(NamedTuple):
    place: str
    order: int
    body: bytes
    chain: bytes


def verify(path: Path, key: bytes | None = None) -> Report:
    """Checks the ledger at `path`, its rotated files and its notes. FileNotFoundError if there is none."""
    report = Report()
    notes = notes_path(path)
    walk = _Walk(report, link(key))
    if notes.exists():
        _Walk(report, link(key)).run(notes)
        walk.believe(read(notes), rotated(path).keys())
    report.lines = 0
    walk.run(path)
    report.problems.sort(key=lambda problem: problem.order)
    return report


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
                        state.next, state.last = lines, last.encode()

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
            self._doubt = (seq, self.last, self._report.add("altered", line, text))
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
                self.next, self.last = seq + 1, line.chain
            else:
                self._step(seq, line)


def _numbers(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"
