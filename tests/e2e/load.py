"""Load on a proxy that is killed under it: many calls at a time, and what their clients saw of each."""

import http.client
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from proxy import PATIENCE, Proxy, until
from upstream import Answer, Step, Upstream, event, reply

from llmtab.ledger.reader import Skipped, read

URL = "http://api.openai.com/v1/chat/completions"
"""Plain, so that the load is of calls and not of handshakes."""
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
DONE = b"data: [DONE]\n\n"


def answers(upstream: Upstream, pause: float = 0.004) -> None:
    """From now on every chat is a short stream whose events come `pause` seconds apart."""
    head = {"id": "chatcmpl-L1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
    pieces = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in "abcd"]
    steps: list[Step] = []
    for piece in pieces:
        steps += [event({**head, "choices": [piece], "usage": None}), pause]
    steps += [event({**head, "choices": [], "usage": USAGE}), DONE, pause]
    stream = Answer(steps, headers=[("content-type", "text/event-stream")], framing="chunked")
    upstream.on("POST api.openai.com/v1/chat/completions", stream)
    whole = {
        "id": "cmpl-L2",
        "object": "text_completion",
        "model": "gpt-3.5-turbo-instruct",
        "choices": [],
        "usage": USAGE,
    }
    upstream.on("POST api.openai.com/v1/completions", reply(whole))


@dataclass
class Seen:
    """What the clients saw, by the label `case` of each call."""

    begun: set[str] = field(default_factory=set)
    """The head of the answer came."""
    finished: set[str] = field(default_factory=set)
    """The last event of the stream, or the whole body, came."""


@contextmanager
def load(proxy: Proxy, seen: Seen, calls: int = 50) -> Iterator[None]:
    """So many clients, each with one call after the other, until the block ends or the proxy is gone."""
    over = threading.Event()
    run = token_hex(4)  # not the proxy's port: of two hundred proxies two may well have the same
    names = (f"{run}-{number}" for number in itertools.count())
    threads = [threading.Thread(target=_client, args=[proxy.port, names, seen, over]) for _ in range(calls)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)


LOCK = threading.Lock()


def _client(port: int, names: Iterator[str], seen: Seen, over: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        while not over.is_set():
            with LOCK:
                name = next(names)
            _one_call(connection, name, seen)
    except (OSError, http.client.HTTPException):
        pass  # the proxy is gone
    finally:
        connection.close()


def _one_call(connection: http.client.HTTPConnection, name: str, seen: Seen) -> None:
    streamed = hash(name) % 4 != 0
    body = json.dumps({"model": "gpt-4o-mini", "stream": streamed, "messages": []})
    url = URL if streamed else URL.replace("chat/", "")
    connection.request("POST", url, body, {"content-type": "application/json", "x-llmtab-case": name})
    response = connection.getresponse()
    seen.begun.add(name)
    text = b""
    while piece := response.read1():
        text += piece
        if text.endswith(DONE):
            seen.finished.add(name)
    if not streamed and text.endswith(b"}"):
        seen.finished.add(name)


def strike(
    upstream: Upstream,
    folder: Path,
    conf: Path,
    seen: Seen,
    how: signal.Signals,
    chance: random.Random,
    calls: int = 50,
) -> None:
    """One proxy on the ledger in `folder`, loaded, and ended by the signal at a random moment."""
    with Proxy(upstream, folder, conf=conf) as proxy:
        before = len(seen.begun)
        with load(proxy, seen, calls):
            until(lambda: len(seen.begun) > before, "the first answer")
            time.sleep(chance.uniform(0, 0.6))
            proxy.process.send_signal(how)
            proxy.process.wait(PATIENCE)


@dataclass
class Account:
    """The ledger held against what the clients saw. All but `lines` and `finished` should be 0."""

    lines: int
    finished: int
    missing: int
    """Finished calls that are not in the ledger."""
    doubled: int
    unreadable: int
    unfinished_missing: int
    """Calls whose answer had begun, and that are not in the ledger: 0 wherever the proxy could still act."""


def account(ledger: Path, seen: Seen) -> Account:
    """Reads the whole ledger."""
    skipped = Skipped()
    cases = Counter(line["labels"]["case"] for line in read(ledger, skipped))
    return Account(
        lines=cases.total(),
        finished=len(seen.finished),
        missing=len(seen.finished - cases.keys()),
        doubled=sum(count - 1 for count in cases.values()),
        unreadable=skipped.lines,
        unfinished_missing=len(seen.begun - seen.finished - cases.keys()),
    )
