"""The bytes of a batch result file: whatever comes in whatever order, each line once and with its number."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llmtab.batches.file import LONGEST_END, LONGEST_LINE, MOST_SPANS, ResultFile

LINES = st.lists(st.text("abc{}", min_size=1, max_size=12).map(str.encode), min_size=1, max_size=15)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"])


def _numbered(found: list) -> list[tuple[int | None, bytes]]:
    return sorted((span.item(number), (line or b"").strip()) for span, number, line in found)


@given(st.data(), LINES, ENDS, st.booleans())
def test_any_ranges_in_any_order(data: st.DataObject, lines: list[bytes], end: bytes, ended: bool) -> None:
    """Overlapping, repeated, shuffled ranges, cut anywhere: each line comes out once, whole, with its place."""
    body = end.join(lines) + (end if ended else b"")
    at = st.integers(0, len(body))
    cuts = sorted({0, len(body), *data.draw(st.lists(at, max_size=6))})
    ranges = list(itertools.pairwise(cuts))
    ranges += [(min(a, b), max(a, b)) for a, b in data.draw(st.lists(st.tuples(at, at), max_size=6))]
    step = data.draw(st.integers(1, 40))
    file, found = ResultFile(), []
    for start, stop in data.draw(st.permutations(ranges)):
        for begin in range(start, stop, step):
            found += file.feed(begin, body[begin : min(begin + step, stop)])
        if stop == len(body):
            found += file.close(stop)
    assert _numbered(found) == list(enumerate(lines))
    assert file.seen == len(body)


def test_what_was_seen_is_not_looked_at_again() -> None:
    """A second download brings no line, not even where its bytes differ."""
    file = ResultFile()
    assert len(file.feed(0, b"one\ntwo\n")) == 2
    assert file.feed(0, b"six\nsix\nthr") == []
    assert _numbered(file.feed(11, b"ee\n")) == [(2, b"three")]


def test_a_lone_range_has_no_numbers_yet() -> None:
    """Lines from the middle are known at once, their numbers when the beginning has come; torn ends wait."""
    file = ResultFile()
    [(span, number, line)] = file.feed(6, b"o\nthree\nfo")
    assert (span.item(number), line) == (None, b"three")
    assert _numbered(file.feed(0, b"one\ntw")) == [(0, b"one"), (1, b"two")]
    assert span.item(number) == 2
    assert _numbered(file.feed(16, b"ur\n")) == [(3, b"four")]


def test_a_line_beyond_all_bounds_is_an_item_without_text() -> None:
    """A line longer than may be kept still counts: its item is there, its text is not, and memory stays bounded."""
    file = ResultFile()
    piece = b"x" * LONGEST_END
    found = [
        line for number in range(LONGEST_LINE // LONGEST_END + 2) for line in file.feed(number * len(piece), piece)
    ]
    at = (LONGEST_LINE // LONGEST_END + 2) * len(piece)
    found += file.feed(at, b"\nnext\n")
    assert [(span.item(number), line) for span, number, line in found] == [(0, None), (1, b"next")]


def test_a_line_torn_between_ranges_beyond_the_bound_is_lost_alone() -> None:
    """Of a range in the middle only so much of a torn line is kept; the items around it keep their places."""
    file, huge = ResultFile(), b"y" * (LONGEST_END + 20)
    body = b"one\n" + huge + b"\nthree\n"
    found = file.feed(10, body[10:])
    found += file.feed(0, body[:10])
    assert [(span.item(n), line) for span, n, line in sorted(found, key=lambda each: each[0].item(each[1]) or 0)] == [
        (0, b"one"), (1, None), (2, b"three"),
    ]  # fmt: skip


def test_only_so_many_separate_stretches() -> None:
    """Ranges that never meet do not fill the memory: past a bound they are not looked at."""
    file = ResultFile()
    for number in range(MOST_SPANS + 10):
        file.feed(10 + number * 100, b"\nline\n")
    assert file.seen == MOST_SPANS * 6
