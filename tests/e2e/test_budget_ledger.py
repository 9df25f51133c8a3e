"""Budgets at a real mitmdump whose ledger has files that are packed or broken: limits hold all the same."""

import time
from pathlib import Path

import pytest
from proxy import until
from test_budgets import TARGET, URL, Start, answer, asked, config
from upstream import Upstream, reply


def test_a_broken_file_beside_the_ledger_switches_no_limit_off(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    """It is named once in the log; the start does not end, and the limit refuses what it has to."""
    upstream.on(TARGET, reply(answer(0, 1000)))
    options = config(tmp_path, "  - {name: d, limit: 1 requests}\n")
    broken, folder = (tmp_path / f"ledger-2026010{day}T000000000Z.jsonl{end}" for day, end in ((1, ".gz"), (2, "")))
    broken.write_bytes(b"\x1f\x8b\x08\x00")
    folder.mkdir()
    (tmp_path / "ledger.budgets.json").write_text('{"format": 2, "offset": -5}')
    proxy = start(*options)
    assert [proxy.call(URL, asked()).status for _ in range(3)] == [200, 429, 429]
    assert proxy.output().count(f"{broken}: ") == proxy.output().count(f"{folder}: ") == 1
    assert "Traceback" not in proxy.output()
    broken.unlink()
    folder.rmdir()


def test_a_packed_file_counts_after_an_edit(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """The budgets are edited, so the ledger is counted anew: what lies in a packed file is spent."""
    upstream.on(TARGET, reply(answer(0, 1000)))
    proxy = start(*config(tmp_path, "  - {name: d, limit: 2 requests per year}\n"))
    assert [proxy.call(URL, asked()).status for _ in range(3)] == [200, 200, 429]
    proxy.settled(3)
    raw = proxy.ledger.read_bytes()
    name = time.strftime("ledger-%Y%m%dT%H%M%S000Z.jsonl.zst", time.gmtime())
    with pytest.importorskip("zstandard").open(proxy.ledger.with_name(name), "wb") as out:
        out.write(raw)
    config(tmp_path, "  - {name: d, limit: 2 requests per year}\n  - {name: e, limit: 9 requests per year}\n")

    def edited() -> bool:
        assert proxy.call(URL, asked()).status == 429
        time.sleep(0.2)
        return '"limits":["d","e"]' in proxy.ledger.read_text()

    until(edited, "the edited budgets")
    assert "Traceback" not in proxy.output()
