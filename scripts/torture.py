"""The numbers of the ledger, measured: see scripts/torture. Exit status 1 if a promise is broken."""

import argparse
import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

from load import Seen, account, answers, load, strike
from proxy import Proxy, until
from upstream import Upstream

from ledger_helpers import Disk
from llmtab.ledger.reader import Skipped, read
from llmtab.ledger.verify import verify
from llmtab.ledger.writer import Ledger

LINE = {
    "schema": 1, "id": "0199c0de-0000-7000-8000-000000000000", "writer": "", "seq": 0,
    "time": "2026-07-28T10:11:12.345Z",
    "provider": "openai", "api": "openai.chat", "operation": "chat", "transport": "sse", "profile": "openai",
    "host": "api.openai.com", "method": "POST", "path": "/v1/chat/completions", "status": 200, "streamed": True,
    "usage": {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}, "usage_source": "reported",
    "cost_usd": 0.0001,
}  # fmt: skip
PRICED = LINE | {
    "request_model": "gpt-4o-mini", "response_model": "gpt-4o-mini-2024-07-18", "response_id": "chatcmpl-9x8y7z",
    "request_id": "req_123", "service_tier": "default", "finish_reasons": ["stop"], "pricing_tier": "standard",
    "outcome": "ok",
    "usage": {
        "input_tokens": 256, "cache_read_input_tokens": 128, "audio_input_tokens": 0, "output_tokens": 300,
        "reasoning_output_tokens": 0, "audio_output_tokens": 0, "total_tokens": 556,
    },
    "cost_usd": Decimal("0.0002088"), "cost_source": "list",
    "cost_lines": [
        {"counter": name, "quantity": count, "rate": Decimal(rate), "per": 10**6, "usd": Decimal(usd)}
        for name, count, rate, usd in (
            ("input_tokens", 128, "0.15", "0.0000192"), ("cache_read_input_tokens", 128, "0.075", "0.0000096"),
            ("output_tokens", 300, "0.60", "0.00018"),
        )
    ],
    "price": {
        "id": "openai/gpt-4o-mini", "from": "2024-07-18", "table": "f81bea1293ff", "at": "2026-07-28T10:11:12.345Z",
    },
    "billing": "metered", "saved_usd": Decimal("0.0000096"),
    "timing": {"first_byte_ms": 12.25, "duration_ms": 13.5}, "bytes": {"request": 1050, "response": 2100},
    "client": {"address": "127.0.0.1", "agent": "OpenAI/Python,1.99.0", "key": "k_0123456789abcdef"},
}  # fmt: skip
WRITERS, LINES = 8, 100_000
CALLS = 5_000


def crashes(folder: Path, how: signal.Signals, rounds: int) -> bool:
    """Proxies that end at random moments, all on one ledger."""
    seen, chance = Seen(), random.Random()
    (folder / "upstream").mkdir()
    with Upstream(folder / "upstream") as upstream:
        answers(upstream, 0.004 if how is signal.SIGKILL else 0.03)
        for number in range(rounds):
            strike(upstream, folder, folder / "conf", seen, how, chance)
            print(f"\r{number + 1} of {rounds}, {len(seen.finished)} calls", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found, report = account(folder / "ledger.jsonl", seen), verify(folder / "ledger.jsonl")
    print(f"{how.name} x {rounds}: {asdict(found)}, chains whole: {report.ok}")
    lost = found.unfinished_missing if how is not signal.SIGKILL else 0
    return report.ok and not (found.missing or found.doubled or found.unreadable or lost)


def writers(folder: Path) -> bool:
    """Many processes, one file."""
    program = (
        "import sys; from pathlib import Path; from llmtab.ledger.writer import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.open()\n"
        f"for n in range({LINES}):\n"
        "    ledger.append([{'schema': 1, 'id': f'{sys.argv[2]}-{n}', 'text': 'x' * (n % 600)}])\n"
        "    if n % 1000 == 0: ledger.tick()\n"
        "ledger.close()\n"
    )
    path, start = folder / "ledger.jsonl", time.perf_counter()
    started = [subprocess.Popen([sys.executable, "-c", program, str(path), str(name)]) for name in range(WRITERS)]
    ended = [one.wait() for one in started]
    seconds, skipped = time.perf_counter() - start, Skipped()
    ids = {line["id"] for line in read(path, skipped)}
    start = time.perf_counter()
    report = verify(path)
    walked = time.perf_counter() - start
    print(
        f"{WRITERS} processes x {LINES} lines in {seconds:.1f} s: {len(ids)} lines, {skipped.lines} unreadable, chains "
        f"whole: {report.ok}, verified at {report.lines / walked:,.0f} lines/s"
    )
    return not any(ended) and len(ids) == WRITERS * LINES and not skipped.lines and report.ok


def disk(folder: Path) -> bool:
    """A real proxy on a disk that is full, then has room again; where that cannot be mounted, a write that fails."""
    with _small_disk(folder / "disk") as small:
        return _full_disk(folder, small) if small else _failing_write(folder)


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[Path | None]:
    place.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", place], capture_output=True, check=False
    ).returncode  # fmt: skip
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", place], check=False)


def _full_disk(folder: Path, small: Path) -> bool:
    seen, ballast = Seen(), small / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    (folder / "upstream").mkdir()
    with Upstream(folder / "upstream") as upstream:
        answers(upstream, 0)
        # Its log is elsewhere: mitmproxy ends itself where it cannot print.
        ledger = small / "ledger.jsonl"
        proxy = Proxy(upstream, folder, conf=folder / "conf")
        proxy.command = [word.replace(str(proxy.ledger), str(ledger)) for word in proxy.command]
        with proxy:
            with load(proxy, seen):
                until(
                    lambda: len(seen.finished) >= 300, "calls"
                )  # the disk is full by now: 200 KB hold about 200 lines
                deadline = time.monotonic() + 300
                while len(seen.finished) < CALLS and time.monotonic() < deadline:
                    time.sleep(0.1)
            written = sum(1 for _ in read(ledger))
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
            time.sleep(2.5)
            proxy.stop()
    found, report = account(ledger, seen), verify(ledger)
    print(f"full disk: {written} lines fitted while {len(seen.finished)} calls were answered; after: {asdict(found)}, "
          f"chains whole: {report.ok}")  # fmt: skip
    return report.ok and len(seen.finished) >= CALLS > written and not (found.missing or found.doubled)


def _failing_write(folder: Path) -> bool:
    path, small = folder / "ledger.jsonl", Disk(quota=200_000, error=errno.ENOSPC)
    ledger = Ledger(path, write=small)
    for _ in range(CALLS):
        ledger.append([LINE])
    waiting, small.quota = ledger.waiting, None
    ledger.tick()
    report = verify(path)
    print(f"failing write: {waiting} of {CALLS} lines waited; after: {report.lines} lines, chains whole: {report.ok}")
    return waiting > 0 and report.lines == CALLS and report.ok


def speed(folder: Path) -> bool:
    """A line, chained, one write each: with everything that a priced call has, and without a price."""
    ledger = Ledger(folder / "ledger.jsonl", fsync="off")
    best = float("inf")
    for what, line in (("without a price", LINE), ("with everything", PRICED)):
        best = float("inf")
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(2_000):
                ledger.append([line])
            best = min(best, (time.perf_counter() - start) / 2_000)
        print(f"append, a line {what}: {best * 1e6:.1f} us, {1 / best:,.0f} lines/s")
    return best < 15e-6


def main() -> int:
    tests = {
        "kill": lambda folder, rounds: crashes(folder, signal.SIGKILL, rounds or 200),
        "term": lambda folder, rounds: crashes(folder, signal.SIGTERM, rounds or 50),
        "writers": lambda folder, _: writers(folder),
        "disk": lambda folder, _: disk(folder),
        "speed": lambda folder, _: speed(folder),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=[*tests, "all"])
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    good = True
    for name in tests if args.what == "all" else [args.what]:
        with tempfile.TemporaryDirectory(prefix="llmtab-torture-") as folder:
            good &= tests[name](Path(folder), args.rounds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
