"""Tamper evidence: whatever is done to a ledger afterwards is found and named."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import examples
from llmtab.ledger.chain import Chain
from llmtab.ledger.reader import notes_path
from llmtab.ledger.verify import WINDOW, verify
from llmtab.ledger.writer import Ledger


def sealed(count: int, writer: str = "w", key: bytes | None = None) -> list[bytes]:
    chain = Chain(writer, key)
    return [chain.seal({"schema": 1, "id": f"{writer}-{number}", "cost_usd": number}) for number in range(count)]


def write(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def found(path: Path, key: bytes | None = None) -> list[tuple[str, str]]:
    return [(problem.kind, problem.place) for problem in verify(path, key).problems]


def test_an_untouched_ledger_of_several_writers_is_whole(tmp_path: Path) -> None:
    """Writers may interleave in any way; as long as each one's lines are whole and in order, all is well."""
    queues = [sealed(5, "a"), sealed(7, "b"), sealed(1, "c")]
    chance = random.Random(1)
    mixed = []
    while any(queues):
        mixed.append(chance.choice([queue for queue in queues if queue]).pop(0))
    report = verify(write(tmp_path, mixed))
    assert (report.ok, report.lines, report.writers, report.torn, report.problems) == (True, 13, 3, [], [])


def test_an_altered_line_is_named(tmp_path: Path) -> None:
    """A changed cost shows at its line, and only there."""
    lines = sealed(6)
    lines[3] = lines[3].replace(b'"cost_usd":3', b'"cost_usd":0')
    path = write(tmp_path, lines)
    assert found(path) == [("altered", "ledger.jsonl:4")]
    (problem,) = verify(path).problems
    assert str(problem) == "ledger.jsonl:4: altered: line 3 of writer w does not follow from the one before it"


def test_an_altered_line_with_its_hash_recomputed_shows_at_the_next_one(tmp_path: Path) -> None:
    """Recomputing one line's hash is not enough: the next line does not follow from it."""
    lines = sealed(6)
    chain = Chain("w")
    for number in range(3):
        chain.seal(json.loads(lines[number]) | {})
    chain.last = json.loads(lines[2])["chain"].encode()
    lines[3] = chain.seal({"schema": 1, "id": "w-3", "cost_usd": 0})
    assert found(write(tmp_path, lines)) == [("altered", "ledger.jsonl:5")]


def test_a_removed_line_is_missing(tmp_path: Path) -> None:
    """A deleted line is named by its number, at the line that stands where it should be."""
    lines = sealed(9)
    del lines[3:5]
    (problem,) = verify(write(tmp_path, lines)).problems
    assert (problem.kind, problem.place, problem.text) == (
        "missing",
        "ledger.jsonl:4",
        "lines 3 to 4 of writer w, before this one",
    )


def test_a_removed_first_line_is_missing(tmp_path: Path) -> None:
    """The beginning of a writer's lines cannot be cut off unnoticed."""
    assert found(write(tmp_path, sealed(4)[1:])) == [("missing", "ledger.jsonl:1")]


def test_a_long_ledger_behind_a_gap_is_still_checked(tmp_path: Path) -> None:
    """A removed line does not hide what was done to lines far behind it."""
    lines = sealed(WINDOW * 2 + 500)
    lines[WINDOW * 2] = lines[WINDOW * 2].replace(b"cost_usd", b"cost_eur")
    del lines[10]
    assert found(write(tmp_path, lines)) == [("missing", "ledger.jsonl:11"), ("altered", f"ledger.jsonl:{WINDOW * 2}")]


def test_reordered_lines_are_named(tmp_path: Path) -> None:
    """Two lines that changed places: the one that stands too early is named."""
    lines = sealed(6)
    lines[2], lines[3] = lines[3], lines[2]
    assert found(write(tmp_path, lines)) == [("reordered", "ledger.jsonl:3")]


def test_an_inserted_line_is_named(tmp_path: Path) -> None:
    """A line put between two others is named, whether it pretends to be next, later, or one that was there."""
    forged = Chain("w")
    forged.seq, forged.last = 3, b"0" * 64
    extra = forged.seal({"schema": 1, "id": "forged"})
    later = extra.replace(b'"seq":3', b'"seq":5')
    lines = sealed(6)
    for number, line in [(3, extra), (3, later), (4, lines[1]), (6, extra)]:
        path = write(tmp_path, [*lines[:number], line, *lines[number:]])
        assert found(path) == [("inserted", f"ledger.jsonl:{number + 1}")]


def test_a_line_without_chain_is_an_inserted_one(tmp_path: Path) -> None:
    """A JSON line that no writer sealed would be counted by readers, so it is named."""
    lines = sealed(3)
    path = write(tmp_path, [*lines[:1], b'{"schema":1,"id":"x","cost_usd":1}\n', *lines[1:]])
    assert found(path) == [("inserted", "ledger.jsonl:2")]


def test_a_torn_line_is_no_tampering(tmp_path: Path) -> None:
    """What a crash left of a line is listed, and the line glued to it is checked like any other."""
    lines = sealed(3)
    torn = sealed(2, "dead")
    report = verify(write(tmp_path, [torn[0], torn[1][:40], lines[0], torn[1][:9], b"\n", b"\n", *lines[1:]]))
    assert (report.ok, report.lines, report.torn) == (True, 4, ["ledger.jsonl:2", "ledger.jsonl:3"])


def test_a_cut_off_end_is_missing_where_a_checkpoint_knows_it(tmp_path: Path) -> None:
    """Lines removed from the end of a ledger that was closed are named by the checkpoint in the notes."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, writer="w")
    for number in range(4):
        ledger.append([{"schema": 1, "id": str(number)}])
    ledger.close()
    assert verify(path).ok
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    (problem,) = verify(path).problems
    assert (problem.kind, problem.text) == ("missing", "lines 2 to 3 of writer w, the last it wrote")


def test_a_chain_recomputed_from_end_to_end_contradicts_the_checkpoint(tmp_path: Path) -> None:
    """Rewriting a whole ledger needs its notes rewritten too."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, writer="w")
    ledger.append([{"schema": 1, "id": "0"}])
    ledger.close()
    path.write_bytes(sealed(1)[0])
    assert found(path) == [("altered", "ledger.jsonl:1")]


def test_altered_notes_are_named(tmp_path: Path) -> None:
    """The notes are chained like the ledger."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, writer="w")
    ledger.append([{"schema": 1, "id": "0"}])
    ledger.note("dropped", lines=7)
    ledger.close()
    notes = notes_path(path)
    notes.write_bytes(notes.read_bytes().replace(b'"lines":7', b'"lines":0'))
    assert found(path) == [("altered", "ledger.notes.jsonl:1")]


def test_with_a_key_nobody_else_can_rewrite_the_ledger(tmp_path: Path) -> None:
    """With HMAC a ledger verifies only with the key it was written with."""
    path = write(tmp_path, sealed(3, key=b"secret"))
    assert found(path, b"secret") == []
    (without,), (other,) = verify(path).problems, verify(path, b"other").problems
    assert (without.kind, without.place) == (other.kind, other.place) == ("altered", "ledger.jsonl:1")
    assert without.text.endswith("the ledger seems to be chained with a key: give it with --key")
    assert other.text.endswith("chained with another key than this one")


def test_a_missing_key_is_said_once_whatever_else_is_wrong(tmp_path: Path) -> None:
    """Writers with a key beside one without: one sentence for all; gaps and single altered lines keep theirs."""
    key = b"secret"
    lines = sealed(4, "a", key)
    path = write(tmp_path, [*lines[:1], *lines[2:], *sealed(3, "b", key), *sealed(3, "c")])
    report = verify(path)
    assert [problem.kind for problem in report.problems] == ["altered", "missing"]
    assert report.problems[0].text.startswith("every line of 2 writers") and report.count == 2
    one = sealed(1, "d")[0].replace(b'"cost_usd":0', b'"cost_usd":1')
    (problem,) = verify(write(tmp_path, [*sealed(3, "c"), one])).problems
    assert problem.text == "line 0 of writer d does not follow from the one before it"


@pytest.mark.parametrize("text", [b"root:x:0:0:root:/root:/bin/bash\n" * 25, b"no newline", b"# a\n\n# b\n"])
def test_a_file_that_is_no_ledger_is_not_whole(text: bytes, tmp_path: Path) -> None:
    """It is said once, not a line each."""
    report = verify(write(tmp_path, [text]))
    assert [str(problem) for problem in report.problems] == [
        "ledger.jsonl: unreadable: no line of it is a line of a ledger"
    ]
    assert (report.ok, report.count, report.torn) == (False, 1, [])


def test_what_nobody_can_read_is_a_problem(tmp_path: Path) -> None:
    """Lines that no crash leaves behind are named; zeros and the beginning of a line are what a crash leaves."""
    lines = sealed(3)
    assert found(write(tmp_path, [lines[0], b"# who wrote this?\n", *lines[1:]])) == [("unreadable", "ledger.jsonl:2")]
    left = [
        b'{"sch\n',
        b'{"schema":1\n',
        b'{"schema":1,"\n',
        b"\0\0\0\n",
        b'{"schema":1,"id":"w\0\0\n',
        b'{"schema":1,"wri',
    ]
    report = verify(write(tmp_path, [*lines, *left]))
    assert report.ok and len(report.torn) == 6


def test_no_ledger_is_an_error(tmp_path: Path) -> None:
    """A path without a ledger is not a whole ledger."""
    with pytest.raises(FileNotFoundError, match="no ledger at"):
        verify(tmp_path / "ledger.jsonl")


LINES = sealed(12)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_no_single_change_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Any byte changed, any line removed, doubled or moved, except at the open end: the walk reports a problem."""
    lines = list(LINES)
    number = data.draw(st.integers(0, 10))
    change = data.draw(st.sampled_from(["byte", "remove", "double", "move"]))
    if change == "byte":
        at = data.draw(st.integers(0, len(lines[number]) - 2))
        byte = data.draw(st.integers(32, 126).filter(lambda value: value != lines[number][at]))
        lines[number] = lines[number][:at] + bytes([byte]) + lines[number][at + 1 :]
    elif change == "remove":
        del lines[number]
    elif change == "double":
        lines.insert(data.draw(st.integers(number, 12)), lines[number])
    else:
        lines.insert(data.draw(st.integers(0, 11).filter(lambda place: place != number)), lines.pop(number))
    assert not verify(write(tmp_path_factory.mktemp("ledger"), lines)).ok
