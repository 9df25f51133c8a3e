"""A proxy that is killed in the middle of its work. `scripts/torture` does the same at full size."""

import random
import signal
from pathlib import Path

from load import Seen, account, answers, strike
from upstream import Upstream

from llmtab.ledger.verify import verify


def test_a_killed_proxy_has_every_finished_call(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """Kill -9 at random moments under 50 calls at a time: every call that a client saw finished is there, once."""
    answers(upstream)
    seen, chance = Seen(), random.Random(5)
    for _ in range(4):
        strike(upstream, tmp_path, conf, seen, signal.SIGKILL, chance)
    found = account(tmp_path / "ledger.jsonl", seen)
    assert found.finished > 100
    assert (found.missing, found.doubled, found.unreadable) == (0, 0, 0)
    assert verify(tmp_path / "ledger.jsonl").ok


def test_a_terminated_proxy_has_every_open_call(upstream: Upstream, conf: Path, tmp_path: Path) -> None:
    """SIGTERM under load: every call whose answer had begun has exactly one line, finished or not."""
    answers(upstream, pause=0.05)
    seen, chance = Seen(), random.Random(6)
    for _ in range(2):
        strike(upstream, tmp_path, conf, seen, signal.SIGTERM, chance)
    found = account(tmp_path / "ledger.jsonl", seen)
    assert len(seen.begun) > len(seen.finished)
    assert (found.missing, found.doubled, found.unreadable, found.unfinished_missing) == (0, 0, 0, 0)
    assert verify(tmp_path / "ledger.jsonl").ok
