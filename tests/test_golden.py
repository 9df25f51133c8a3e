"""Golden cases: whatever the chunks, the coding and the end of a call, its line says what the wire said."""

from itertools import product

import pytest

import llmtab.exchange
from effort import THOROUGH
from golden import (
    ENDED,
    HEAD,
    Case,
    compressed,
    cut_at,
    dripped,
    exchange,
    lines,
    load,
    mismatches,
    names,
    natural,
    pieces,
    streams,
    twins,
    whole,
)
from llmtab.record import FIELDS, decode, encode

CODINGS = ("gzip", "deflate", "br", "zstd")
STEP = 23 if THOROUGH else 97
"""Bytes between two places where bodies are cut."""
VARYING = ("id", "timing", "bytes", "transport", "streamed")


def comparable(found: list[dict]) -> list[dict]:
    """Lines without what differs from one passage of the same call to the next."""
    return [{key: value for key, value in line.items() if key not in VARYING} for line in found]


@pytest.fixture(params=names())
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


@pytest.fixture(params=streams())
def stream(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def test_each_case_gives_its_line(case: Case) -> None:
    """One call is one line (and one for each other model's share), with the figures and the price of the case."""
    main, *shares = natural(case)
    assert mismatches(main, case.expect) == {}
    assert [mismatches(line, expect) for line, expect in zip(shares, case.shares, strict=True)] == [{}] * len(shares)


def test_each_line_is_a_record(case: Case) -> None:
    """Keys come in the ledger's order, and what is written can be read back as it was."""
    for line in natural(case):
        assert list(line) == [key for key in FIELDS if key in line]
        assert encode(decode(encode(line))) == encode(line)


@pytest.mark.parametrize("name", twins())
def test_json_and_stream_of_one_call_agree(name: str) -> None:
    """The same call, buffered or streamed in any framing, has the same usage and the same cost."""
    case = load(name)
    for line, other in zip(natural(case), natural(load(case.same_usage_as or "")), strict=True):
        assert line["usage"] == other["usage"]
        if line["cost_source"] == other["cost_source"]:
            assert line["cost_usd"] == other["cost_usd"]


def test_chunks_do_not_matter(case: Case) -> None:
    """However the body is cut on its way, the line is the same."""
    expected = natural(case) if case.streamed else lines(case, dripped(case, [case.body]))
    for size in (1, 7, 64, 1000, 10**9):
        assert comparable(lines(case, dripped(case, pieces(case.body, size)))) == comparable(expected), size


def test_codings_do_not_matter(case: Case) -> None:
    """A compressed body gives the same line, buffered, in one piece, and byte by byte."""
    expected = comparable(lines(case, dripped(case, [case.body])))
    for coding in CODINGS:
        body = compressed(case.body, coding)
        if not case.streamed:
            buffered = comparable(lines(case, whole(case, body, content_encoding=coding)))
            assert buffered == comparable(natural(case)), coding
        for size in (1, 13, len(body) or 1):
            found = comparable(lines(case, dripped(case, pieces(body, size), content_encoding=coding)))
            assert found == expected, (coding, size)


def test_a_long_stream_reads_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bytes that a tap may keep a stream is read as it passes, and gives the same line."""
    expected = comparable(lines(case, dripped(case, [case.body])))
    for coding, limit, size in product(("", "gzip", "zstd"), (1, 300), (1, 50, 700)):
        monkeypatch.setattr(llmtab.exchange, "TAP_LIMIT", limit)
        body, headers = compressed(case.body, coding), {"content_encoding": coding} if coding else {}
        assert comparable(lines(case, dripped(case, pieces(body, size), **headers))) == expected, (coding, limit, size)


def test_a_long_stream_cut_short_reads_the_same(stream: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is cut, a stream that was read as it passed gives the line that a kept one gives."""
    for coding in ("", "gzip"):
        body, headers = compressed(stream.body, coding), {"content_encoding": coding} if coding else {}
        for end, how in product(range(1, len(body), 41), ("complete", "aborted")):
            cut = list(pieces(body[:end], 64))
            kept = comparable(lines(stream, dripped(stream, cut, how, **headers)))  # type: ignore[arg-type]
            with monkeypatch.context() as patch:
                patch.setattr(llmtab.exchange, "TAP_LIMIT", 64)
                passed = comparable(lines(stream, dripped(stream, cut, how, **headers)))  # type: ignore[arg-type]
            assert passed == kept, (coding, end, how)


def test_a_stream_cut_at_any_event_gives_a_line(stream: Case) -> None:
    """Wherever a stream ends before its end there is one marked line, unless its figures were final by then."""
    for count, how in product(range(len(stream.ends)), ("aborted", "broken")):
        chunks = list(cut_at(stream.body[: stream.ends[count - 1] if count else 0], stream.ends[:count]))
        seen = dripped(stream, chunks, how)  # type: ignore[arg-type]
        found = lines(stream, seen)
        if not found:  # a path that is known by the shape of its answer alone
            assert seen.claim.binding.role == "by_shape"
            continue
        line = found[0]
        assert line["outcome"] in (how, "error", "ok")
        if line["outcome"] == how and not seen.reading.final:
            assert line["usage_source"] in ("partial", "none")
            assert line["usage_reason"] == how


def test_a_body_cut_anywhere_harms_nothing(case: Case) -> None:
    """A body that stops in the middle of a word, an escape or a compressed block gives an observation all the same."""
    for coding, how in product(("", "gzip", "br"), ("aborted", "broken", "complete")):
        body = compressed(case.body, coding)
        for end in range(0, len(body), STEP):
            headers = {"content_encoding": coding} if coding else {}
            lines(case, dripped(case, pieces(body[:end], 60), how, **headers))  # type: ignore[arg-type]
            lines(case, whole(case, body[:end], how, **headers))  # type: ignore[arg-type]


def test_a_call_is_booked_once(case: Case) -> None:
    """However many hooks report the end of a call, the first one books it."""
    found = exchange(case)
    found.feed(case.body, HEAD)
    assert found.close("complete", ENDED) is not None
    assert found.close("aborted", ENDED) is None
