"""Stored answers: the first that brings figures is booked, no later one, also by another process."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llmtab import repeats
from llmtab.repeats import Repeats


def line(ident: str | None = "r", host: str = "h", source: str = "reported") -> dict[str, Any]:
    found = {"host": host, "response_id": ident, "usage": {"input_tokens": 1}, "usage_source": source}
    return {key: value for key, value in found.items() if value is not None}


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_bytes(b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in lines))


def test_only_what_is_read_again_is_ever_a_repeat() -> None:
    """The same id on two calls is two calls; a stored answer of either is none."""
    known = Repeats()
    assert not known.seen(False, line())
    assert not known.seen(False, line())
    assert known.seen(True, line())
    assert not known.seen(True, line(host="other"))


def test_a_poll_without_figures_leaves_no_line() -> None:
    """Until the figures are there a stored answer says nothing, and does not stand in the way of the one that does."""
    known = Repeats()
    assert known.seen(True, line(source="none"))
    assert known.seen(True, line(ident=None))
    assert not known.seen(True, line())
    assert known.seen(True, line())


def test_an_estimate_is_no_figure() -> None:
    """What we guessed of the call does not hide what the provider says later."""
    known = Repeats()
    assert not known.seen(False, line(source="estimated"))
    assert not known.seen(True, line())


def test_the_ledger_is_remembered(tmp_path: Path) -> None:
    """Answers booked by an earlier process are found, in rotated files as well; items of batches are none of them."""
    ledger = tmp_path / "ledger.jsonl"
    write(ledger, line("new"), line("guess", source="estimated"), line("item") | {"batch": {"id": "f", "item": 1}})
    with ledger.open("ab") as file:
        file.write(b'{"torn')
    old = json.dumps(line("old"), separators=(",", ":")).encode() + b"\n"
    (tmp_path / "ledger-20260101T000000000Z.jsonl.gz").write_bytes(gzip.compress(old))
    older = json.dumps(line("older"), separators=(",", ":")).encode() + b"\n"
    zstandard = pytest.importorskip("zstandard", reason="no zstd module to make a test file with")
    (tmp_path / "ledger-20250601T000000000Z.jsonl.zst").write_bytes(zstandard.compress(older))
    (tmp_path / "ledger-20250101T000000000Z.jsonl.gz").write_bytes(b"broken")
    known = Repeats()
    assert known.needs_thread
    assert [known.seen(True, line(name), ledger) for name in ("new", "old", "older", "guess", "item")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not known.needs_thread


def test_only_the_newest_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, in this process and for what is read back."""
    monkeypatch.setattr(repeats, "REMEMBERED", 2)
    monkeypatch.setattr(repeats, "READ_BACK", 300)
    ledger = tmp_path / "ledger.jsonl"
    write(ledger, *[line(f"l{number}") for number in range(100)])
    known = Repeats()
    assert [known.seen(True, line(name), ledger) for name in ("l99", "l0")] == [True, False]
    for name in ("a", "b", "c"):
        known.seen(False, line(name))
    assert [known.seen(True, line(name)) for name in ("c", "a")] == [True, False]
