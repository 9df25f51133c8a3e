"""Retries: a call that repeats one that just failed is a call of its own, and says which one it repeats.

Knows keyed digests of requests that failed a moment ago, in memory only. Must not know flows or files; keeps no byte
of a request. While no call fails it costs nothing.
"""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

from llmtab.observation import Call
from llmtab.record import in_order

REMEMBERED: Final = 1000
"""Failed calls; the oldest is forgotten first."""
SECONDS: Final = 600.0
"""A later call is a new one: no client waits longer between two attempts."""
FAILED: Final = frozenset({"error", "broken", "aborted"})
FINAL: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422})
"""What is refused for good is not tried again; the same request later is a person's second try."""
COUNTERS: Final = ("x-stainless-retry-count", "x-goog-retry-count", "amz-sdk-request")
"""Headers in which SDKs count attempts: 0 (or attempt=1) says that this is the first."""
HEADERS: Final = frozenset(name.encode() for name in COUNTERS)


class Retries:
    """Which calls failed lately. One thread."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._failed: dict[bytes, tuple[str, float]] = {}

    def mark(self, line: dict[str, Any], call: Call, ended_at: float) -> dict[str, Any]:
        """The line, with `retry_of` where the call repeats one that had failed before it began. A call that failed
        itself is remembered."""
        failed = line.get("outcome") in FAILED and line.get("status") not in FINAL
        if not failed and not self._failed:
            return line
        digest = self._digest(call)
        earlier = self._failed.pop(digest, None)
        if earlier and 0 <= call.began - earlier[1] <= SECONDS and not _is_first(call.headers):
            line = in_order({**line, "retry_of": earlier[0]})
        if failed:
            self._failed[digest] = call.id, ended_at
            if len(self._failed) > REMEMBERED:
                self._failed.pop(next(iter(self._failed)), None)
        return line

    def _digest(self, call: Call) -> bytes:
        """Of the key's fingerprint, the target and the whole body; the key to it dies with the process."""
        found = hashlib.blake2b(key=self._key, digest_size=16)
        for part in (call.client.get("key", ""), call.client.get("address", ""), call.method, call.host, call.path):
            found.update(part.encode() + b"\n")
        found.update(call.body() or b"")
        return found.digest()


def _is_first(headers: Mapping[str, str]) -> bool:
    """Whether the client itself says that this is its first attempt."""
    said = [headers[name] for name in COUNTERS if name in headers]
    return any(text == "0" or text.startswith("attempt=1;") for text in said)
