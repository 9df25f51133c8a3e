"""Alerts of limits that several proxies share: whoever is the first to say so to the server sends, others do not.

Knows which messages are the same. Must not know when there is something to tell, or how a message travels.
"""

import asyncio
import json
from typing import Any, Final

from llmtab.budgets.limits import Limits
from llmtab.budgets.notices import Send
from llmtab.budgets.redis_store import RedisStore
from llmtab.budgets.windows import EVER

AGE: Final = 366 * 86_400.0
"""Seconds after which a limit without an end is told of again."""


class Once:
    """A `Send` that passes on what nobody has told yet of this bucket and window; all of it while the server is away.
    A sliding window is told of once in its length."""

    def __init__(self, store: RedisStore, limits: Limits, send: Send) -> None:
        self._store, self._send = store, send
        self._windows: Final = {limit.name: limit.window for limit in limits.all if not limit.own}
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, message: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or message["limit"] not in self._windows:
            self._send(message)
            return
        task = loop.create_task(self._tell(message))
        self._tasks.add(task)  # a loop keeps no task alive
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, message: Any) -> None:
        window = self._windows[message["limit"]]
        names = ("event", "limit", "bucket", "amount", "soft") + (() if window.sliding else ("resets_at",))
        words = json.dumps([message.get(name) for name in names], default=str)
        span = AGE if window.seconds == EVER else window.seconds * (1.0 if window.sliding else 1.2) + 60
        if await self._store.first(words, span=span):
            self._send(message)
