"""What a shared store holds, for those who only look.

Knows which buckets to ask for. Must not know terminals.
"""

from collections.abc import Mapping
from typing import Any

from llmtab.budgets.buckets import State
from llmtab.budgets.limits import Limit, Limits
from llmtab.budgets.redis_store import RedisStore


async def shared(spec: Mapping[str, Any], limits: Limits, now: float) -> list[tuple[Limit, str, State]]:
    """(limit, bucket, state) of all that the server holds now. Raises OSError."""
    store = RedisStore(spec, "")
    found: list[tuple[Limit, str, State]] = []
    try:
        for limit in limits.all:
            keys = await store.callers(limit) if limit.per else [""]
            for key in keys:
                state = await store.look(limit, key, now)
                if state.spent or state.reserved or not limit.per:
                    found.append((limit, key, state))
    except store.errors as error:
        raise OSError(f"the budgets' store cannot be read: {error}") from None
    finally:
        await store.disconnect()
    return found
