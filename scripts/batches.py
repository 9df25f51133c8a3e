"""Batch results at full size, measured: see scripts/batches. Exit status 1 if an item is missing or there twice."""

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from batch_files import chat, jsonl, part, whole
from proxy import Proxy
from upstream import Upstream, reply

from llmtab.ledger.reader import read
from llmtab.ledger.verify import verify

FILE = "https://api.openai.com/v1/files/file-large/content"
TARGET = "GET api.openai.com/v1/files/file-large/content"
CALL = "https://api.openai.com/v1/embeddings"
RANGES = 40
PATIENCE = 10.0


class Watch:
    """What the proxy's memory is, and how long a small call takes, until the block ends."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.over = proxy, threading.Event()
        self.memory: list[int] = []
        self.calls: list[float] = []

    def __enter__(self) -> "Watch":
        self.threads = [threading.Thread(target=each) for each in (self._memory, self._calls)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _memory(self) -> None:
        status = Path(f"/proc/{self.proxy.process.pid}/status")
        while not self.over.wait(0.2):
            self.memory.append(int(status.read_text().split("VmRSS:")[1].split()[0]) // 1024)

    def _calls(self) -> None:
        while not self.over.wait(0.25):
            began = time.perf_counter()
            self.proxy.call(CALL, {"model": "text-embedding-3-small", "input": "x"})
            self.calls.append(time.perf_counter() - began)


def lines(proxy: Proxy) -> int:
    """Lines of the ledger that are items."""
    return proxy.ledger.read_bytes().count(b'"batch":{"id":"file-large"') if proxy.ledger.exists() else 0


def settle(proxy: Proxy, wanted: int) -> None:
    """Returns when so many items are booked, or none came for a while."""
    newest, at = -1, time.monotonic()
    while newest < wanted and time.monotonic() - at < PATIENCE:
        time.sleep(0.2)
        if (now := lines(proxy)) != newest:
            newest, at = now, time.monotonic()


def run(name: str, proxy: Proxy, items: int, data: bytes, parts: list[tuple[int, int]], upstream: Upstream) -> bool:
    """One way to fetch the file; whether the ledger holds each item once afterwards."""
    began = time.perf_counter()
    with Watch(proxy) as watch:
        same = True
        for start, end in parts or [(0, len(data))]:
            upstream.on(TARGET, part(data, start, end) if parts else whole(data))
            same = same and proxy.call(FILE, method="GET").body == data[start:end]
        fetched = time.perf_counter() - began
        settle(proxy, items)
    booked = time.perf_counter() - began
    waits = sorted(each * 1e3 for each in watch.calls) or [0.0]
    print(
        f"{name:18} fetched in {fetched:5.1f} s, booked after {booked:5.1f} s, {lines(proxy):,} lines, "
        f"memory {min(watch.memory)} to {max(watch.memory)} MiB, a call meanwhile {statistics.median(waits):.1f} ms "
        f"(worst {waits[-1]:.0f} ms)", flush=True,
    )  # fmt: skip
    return same and lines(proxy) == items


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/batches --items 20000")
    parser.add_argument("--items", type=int, default=100_000)
    asked = parser.parse_args()
    data = jsonl(chat(number, "word " * (number % 200)) for number in range(asked.items))
    random.seed(1)
    cuts = sorted({0, len(data), *random.sample(range(len(data)), RANGES - 1)})
    parts = list(itertools.pairwise(cuts))
    random.shuffle(parts)
    print(f"{asked.items:,} items, {len(data) / 2**20:.0f} MiB, {len(parts)} ranges")
    good = True
    for first in ("whole", "ranges"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "upstream").mkdir()
            with Upstream(folder / "upstream") as upstream, Proxy(upstream, folder) as proxy:
                upstream.on("POST api.openai.com/v1/embeddings", reply({"model": "m", "usage": {"prompt_tokens": 1}}))
                ways = {"whole": [], "whole again": [], "ranges": parts}
                for way in ways if first == "whole" else ["ranges", "whole again"]:
                    good = run(way, proxy, asked.items, data, ways[way], upstream) and good
            places = Counter(line["batch"].get("item") for line in read(folder / "ledger.jsonl") if "batch" in line)
            exact = places == Counter(range(asked.items))
            sound = verify(folder / "ledger.jsonl").ok
            print(f"every item once, with its number: {exact}; chain whole: {sound}")
            good = good and exact and sound
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
