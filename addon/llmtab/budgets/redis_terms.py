"""What the scripts on Redis are told of limits, buckets and amounts, and how their answers are read.

Knows the plain forms that the scripts take. Must not know connections, or who asks.
"""

import json
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Need
from llmtab.budgets.limits import Limit
from llmtab.budgets.redis_feed import Sum
from llmtab.budgets.windows import EVER

KEPT: Final = 7 * 86_400.0
"""Seconds for which the server keeps at least what one process may spend, after its last call."""
LARGEST: Final = 2**63 - 1
"""The server's numbers end here."""
_AMOUNT: Final = re.compile(r"\('limit', '[^']*'\)")


class Terms:
    """`prefix`: what all keys begin with. `writer`: whose limits those of one process alone are."""

    def __init__(self, prefix: str, writer: str) -> None:
        self.prefix: Final = f"{{{prefix}}}"  # braces: one slot of a cluster
        self._writer: Final = writer
        self._names: Final[dict[str, str]] = {}

    def key(self, *words: str) -> str:
        """A key on the server."""
        return ":".join((self.prefix, *words))

    def name(self, limit: Limit) -> str:
        """A limit's name on the server. One that counts other calls, or over other windows, is another limit, and
        counts anew; with another amount it is the same one."""
        found = self._names.get(limit.name)
        if found is None:
            counts = f"{limit.unit} {limit.window} {limit.window.zone} {_AMOUNT.sub('', limit.digest)}"
            found = f"{limit.name}@{self._writer}" if limit.own else limit.name
            found += f"~{blake2b(counts.encode(), digest_size=4).hexdigest()}"
            self._names[limit.name] = found
        return found

    def needs(self, needs: Iterable[Need], now: float) -> str:
        return json.dumps([self._need(need, now) for need in needs])

    def charges(self, needs: Iterable[Need], at: float) -> str:
        return json.dumps([self._charge(need, at) for need in needs])

    def sums(self, sums: Iterable[Sum]) -> str:
        return json.dumps([
            {
                "limit": self.name(one.limit), "writer": one.writer, "last": str(one.last), "seq": str(one.seq),
                "charges": [self._charge(Need(one.limit, key, amount), at) for (key, at), amount in one.spent.items()],
            }
            for one in sums
        ])  # fmt: skip

    def _base(self, limit: Limit, key: str) -> str:
        return self.key("b", self.name(limit), key)

    def _need(self, need: Need, now: float) -> dict[str, Any]:
        """What a script needs to know of one need; a window's third part is the start of the one before it."""
        limit, window = need.limit, need.limit.window
        found: dict[str, Any] = {
            "base": self._base(limit, need.key), "wants": _amount(need), "amount": limit.amount, "burst": limit.burst,
            "hard": limit.hard,
        }  # fmt: skip
        if window.sliding:
            return found | {"bin": window.bin, "span": window.seconds}
        start, end = window.at(now)
        if end == EVER:
            return found | {"windows": [[0, now + KEPT if limit.own else 1e15, 0]]}
        before = window.at(start - 1)[0] if limit.burst else start
        return found | {"windows": [[start, end, before], [end, window.at(end)[1], start]]}

    def _charge(self, need: Need, at: float) -> dict[str, Any]:
        limit, window = need.limit, need.limit.window
        found: dict[str, Any] = {"base": self._base(limit, need.key), "amount": _amount(need)}
        found["limit"] = self.name(limit)
        if window.sliding:
            return found | {"bin": window.bin, "span": window.seconds, "at": at // window.bin}
        start, end = window.at(at)
        if end == EVER:
            return found | {"start": start} | ({"till": at + KEPT, "length": KEPT} if limit.own else {})
        return found | {"start": start, "till": end, "length": end - start}


def state_of(raw: Sequence[bytes], need: Need) -> State:
    """A bucket, as a script tells it."""
    end = EVER if need.limit.window.seconds == EVER else float(raw[4])
    return State(int(raw[0]), int(raw[1]), int(raw[2]), float(raw[3]), end)


def literal(text: str) -> str:
    """A name in a pattern of Redis, taken as it is."""
    return "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text)


def _amount(need: Need) -> str:
    return str(min(need.amount, LARGEST))
