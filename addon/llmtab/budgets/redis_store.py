"""Spending that several proxies share: the store's protocol on Redis or Valkey.

Knows scripts, a connection that may be lost, and what a proxy may spend on its own meanwhile. Must not know calls or
lines. One round trip a decision; the server's clock decides which window it is. What is settled while the server is
away is sent when it is back, each line once.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, Final

from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Need, Needs, calls, charges, counted_at
from llmtab.budgets.limits import REMEMBERED, Limit, Limits, Touched, seconds
from llmtab.budgets.store import LEASE, Denied, Embedded, Verdict, worst_of
from llmtab.budgets.windows import EVER
from llmtab.ledger.reader import recent

log = logging.getLogger("llmtab")

QUEUED: Final = 100_000
BATCH: Final = 64
"""Settlements sent together."""
PAUSE: Final = 1.0
"""Seconds for which a server that did not answer is left alone."""
KNOWN: Final = 50_000
KEPT: Final = 7 * 86_400.0
"""Seconds for which the server keeps at least what one process may spend, after its last call."""
LONGEST: Final = 2**62
_SCRIPTS: Final = ("reserve", "settle", "extend", "renew")

type Job = tuple[str, list[str], list[Need], float]
"""(script, its arguments behind the prefix, the buckets its answer tells of, the moment they are of)."""


class RedisStore:
    """`spec`: the checked plain form of `store:`. `writer`: whose lines these are. All of it belongs to one loop."""

    def __init__(self, spec: Mapping[str, Any], writer: str) -> None:
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError:
            raise ValueError("budgets.store.redis needs the package redis: pip install 'llmtab[redis]'") from None
        patience = seconds(spec.get("timeout") or "1s")
        self.errors: Final = (RedisError, OSError, TimeoutError)
        self._client: Any = redis.Redis.from_url(
            spec["redis"], socket_timeout=patience, socket_connect_timeout=patience, health_check_interval=30
        )
        common = _source("common")
        self._run: Final = {name: self._client.register_script(common + _source(name)) for name in _SCRIPTS}
        self._prefix: Final = f"{{{spec.get('prefix') or 'llmtab'}}}"  # braces: one slot of a cluster
        self._writer: Final = writer
        self._open: Final = spec.get("on_loss", "open") == "open"
        self._share: Final = float(str(spec.get("allowance") or "5%").rstrip("% ")) / 100
        self._alone: Embedded | None = None
        """What this proxy spends on its own; None while the server answers."""
        self._shares: dict[Touched, Touched] = {}
        self._retry_at = 0.0
        self._seen: dict[tuple[str, str], State] = {}
        self._jobs: deque[Job] = deque()
        self._there = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._over: list[str] = []
        self.dropped = 0

    # -- before a call -------------------------------------------------------------------------------------------------

    async def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        if time() < self._retry_at:
            return self._by_itself(ident, needs, at)
        now, wanted = at, [*needs]
        try:
            for _ in range(3):
                text = json.dumps([self._need(need, now) for need in wanted])
                answer = await self._run["reserve"](args=[self._prefix, ident, LEASE, text])
                word, told, states = answer[0].decode(), float(answer[1]), answer[2]
                if word != "clock":
                    break
                now = told
        except self.errors as error:
            self._lost(error)
            return self._by_itself(ident, needs, at)
        self._found()
        found = [_state(raw, need) for need, raw in zip(wanted, states, strict=True)]
        for need, state in zip(wanted, found, strict=True):
            held = need.amount if word == "yes" else 0
            self._remember(need, state._replace(reserved=state.reserved + held))
        return Verdict(told, None if word == "yes" else worst_of(wanted, found))

    def _by_itself(self, ident: str, needs: Needs, at: float) -> Verdict:
        """The server is away: this proxy may spend a share of each limit, or nothing."""
        if not self._open:
            return Verdict(at, Denied(next(iter(needs)), State(0, 0, 0, 0.0, EVER), "store"))
        if self._alone is None:
            self._alone = Embedded()
        denied = self._alone.reserve_now(ident, self._small(needs), at).denied
        return Verdict(at, None if denied is None else denied._replace(why="store"))

    def _small(self, needs: Needs) -> Needs:
        """The same of as much of each limit as this proxy may spend on its own."""
        found = self._shares.get(needs.touched)
        if found is None:
            if len(self._shares) >= REMEMBERED:
                self._shares.clear()
            pairs = [
                (replace(one, amount=int(one.amount * self._share), burst=0), key) for one, key in needs.touched.pairs
            ]
            found = self._shares[needs.touched] = Touched(pairs)
        return Needs(found, needs.amounts)

    # -- after it ------------------------------------------------------------------------------------------------------

    def settle(self, ident: str, spent: Needs, at: float, seq: int = -1) -> None:
        if self._alone is not None:
            self._alone.settle(ident, self._small(spent), at)
        for need in spent:
            known = self.state(need.limit, need.key, at)
            self._remember(need, known._replace(spent=known.spent + need.amount))
        text = json.dumps([self._charge(need, at) for need in spent])
        self._send("settle", [ident, self._writer, str(seq), text], [*spent], at)

    def extend(self, ident: str, needs: Needs, at: float) -> None:
        text = json.dumps([self._charge(need, at) for need in needs if need.amount])
        self._send("extend", [ident, str(LEASE), text], [], at)

    def release(self, ident: str) -> None:
        if self._alone is not None:
            self._alone.release(ident)
        self._over.append(ident)

    def renew(self, idents: Iterable[str], now: float) -> None:
        self._send("renew", [str(LEASE), json.dumps([*idents]), "[]"], [], now)

    def state(self, limit: Limit, key: str, at: float) -> State:
        known = self._seen.get((limit.name, key))
        start, end = limit.window.at(at)
        if known is None or (known.start != start and not limit.window.sliding) or known.end <= at:
            return State(0, 0, 0, start, end)
        return known

    def places(self) -> list[tuple[str, str]]:
        return [*self._seen]

    def tick(self, now: float) -> None:
        if self._over:
            over, self._over = self._over, []
            self._send("renew", [str(LEASE), "[]", json.dumps(over)], [], now)

    def close(self) -> None:
        """What is queued gets a moment where a loop runs; the leases end the rest."""
        if self._worker is not None:
            self._send("", [], [], 0.0)

    async def recover(self, path: Path, limits: Limits) -> None:
        """Lines that a proxy wrote to the ledger at `path` and crashed before it could settle them are settled now."""
        lines = await asyncio.to_thread(lambda: [*recent(path)])
        last: dict[str, int] = {}
        try:
            for writer in {str(line.get("writer")) for line in lines} - {self._writer}:
                last[writer] = int(await self._client.get(f"{self._prefix}:w:{writer}") or LONGEST)
        except self.errors as error:
            self._lost(error)
            return
        for call in calls(lines):
            writer, seq = str(call[0].get("writer")), call[0].get("seq", 0)
            if seq > last.get(writer, LONGEST):
                at = counted_at(call[0])
                text = json.dumps([self._charge(need, at) for need in charges(limits, call, at, own=False)])
                self._send("settle", [str(call[0].get("id")), writer, str(seq), text], [], at)

    # -- for onlookers -------------------------------------------------------------------------------------------------

    async def callers(self, limit: Limit) -> list[str]:
        """The callers of whom the server knows anything."""
        start = f"{self._prefix}:b:{limit.name}:"
        found: set[str] = set()
        async for raw in self._client.scan_iter(match=_literal(start) + "*", count=1000):
            key = raw.decode().removeprefix(start)
            found.add(key if limit.window.sliding else key.rpartition(":")[0])
        return sorted(found)

    async def look(self, limit: Limit, key: str, now: float) -> State:
        """A bucket as the server has it: a need of nothing from a limit that refuses nobody, given back at once."""
        idle = Need(replace(limit, hard=False), key, 0)
        answer = await self._run["reserve"](args=[self._prefix, "", LEASE, json.dumps([self._need(idle, now)])])
        await self._run["renew"](args=[self._prefix, str(LEASE), "[]", '[""]'])
        return _state(answer[2][0], idle)

    async def disconnect(self) -> None:
        await self._client.aclose()

    # -- what scripts are told -----------------------------------------------------------------------------------------

    def _base(self, limit: Limit, key: str) -> str:
        """The key of a bucket; of a limit of this process alone it is nobody else's."""
        return f"{self._prefix}:b:{f'{limit.name}@{self._writer}' if limit.own else limit.name}:{key}"

    def _need(self, need: Need, now: float) -> dict[str, Any]:
        """What a script needs to know of one need; a window's third part is the start of the one before it."""
        limit, window = need.limit, need.limit.window
        found: dict[str, Any] = {
            "base": self._base(limit, need.key), "wants": str(need.amount), "amount": limit.amount,
            "burst": limit.burst, "hard": limit.hard,
        }  # fmt: skip
        if window.sliding:
            return found | {"bin": window.bin, "span": window.seconds}
        start, end = window.at(now)
        if end == EVER:
            return found | {"windows": [[0, now + KEPT if limit.own else 1e15, 0]]}
        before = window.at(start - 1)[0] if limit.burst else start
        return found | {"windows": [[start, end, before], [end, window.at(end)[1], start]]}

    def _charge(self, need: Need, at: float) -> dict[str, Any]:
        window = need.limit.window
        found: dict[str, Any] = {"base": self._base(need.limit, need.key), "amount": str(need.amount)}
        if window.sliding:
            return found | {"bin": window.bin, "span": window.seconds, "at": at // window.bin}
        start, end = window.at(at)
        if end == EVER:
            return found | {"start": start} | ({"till": at + KEPT} if need.limit.own else {})
        return found | {"start": start, "till": end}

    # -- the connection ------------------------------------------------------------------------------------------------

    def _send(self, script: str, arguments: list[str], needs: list[Need], at: float) -> None:
        if len(self._jobs) >= QUEUED:
            self._jobs.popleft()
            self.dropped += 1
        self._jobs.append((script, arguments, needs, at))
        self._there.set()
        if self._worker is None:
            try:
                self._worker = asyncio.get_running_loop().create_task(self._work())
            except RuntimeError:
                return  # no loop runs yet, or any more

    async def _work(self) -> None:
        """Sends what is queued, in order, again and again until the server has it."""
        while True:
            await self._there.wait()
            self._there.clear()
            while self._jobs:
                batch = [self._jobs[place] for place in range(min(BATCH, len(self._jobs)))]
                if batch[0][0] == "":
                    self._jobs.clear()
                    await self._client.aclose()
                    self._worker = None
                    return
                batch = batch[: next((i for i, job in enumerate(batch) if job[0] == ""), len(batch))]
                try:
                    await self._deliver(batch)
                except self.errors as error:
                    self._lost(error)
                    await asyncio.sleep(PAUSE)
                    continue
                self._found()
                for _ in batch:
                    self._jobs.popleft()

    async def _deliver(self, batch: Sequence[Job]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for script, arguments, _, _ in batch:
                await self._run[script](args=[self._prefix, *arguments], client=pipe)
            answers = await pipe.execute()
        for (_, _, needs, at), answer in zip(batch, answers, strict=True):
            for need, (spent, reserved) in zip(needs, answer if needs else (), strict=True):
                start, end = need.limit.window.at(at)
                self._remember(need, State(int(spent), int(reserved), 0, start, end))

    def _remember(self, need: Need, state: State) -> None:
        place = need.limit.name, need.key
        known = self._seen.get(place)
        if known is not None and known.start > state.start:
            return
        if known is None and len(self._seen) >= KNOWN:
            del self._seen[next(iter(self._seen))]
        self._seen[place] = state

    def _lost(self, error: BaseException) -> None:
        if not self._retry_at:
            how = f"spends up to {self._share:.0%} of each limit on its own" if self._open else "refuses calls"
            log.error("llmtab: the budgets' store is lost (%s): this proxy %s", type(error).__name__, how)
        self._retry_at = time() + PAUSE

    def _found(self) -> None:
        if self._retry_at:
            log.warning("llmtab: the budgets' store is back")
            self._retry_at, self._alone = 0.0, None


async def shared(spec: Mapping[str, Any], limits: Limits, now: float) -> list[tuple[Limit, str, State]]:
    """(limit, bucket, state) of all that the server holds now, for onlookers. Raises OSError."""
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


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()


def _literal(text: str) -> str:
    """A name in a pattern of Redis, taken as it is."""
    return "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text)


def _state(raw: Sequence[bytes], need: Need) -> State:
    end = EVER if need.limit.window.seconds == EVER else float(raw[4])
    return State(int(raw[0]), int(raw[1]), int(raw[2]), float(raw[3]), end)
