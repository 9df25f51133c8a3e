"""Spending that several proxies share: the store's protocol on Redis or Valkey.

Knows scripts, a connection that may be lost, and a server that may lose what it was told. Must not know calls or lines.
One round trip a decision; the server's clock decides which window it is. What is spent stays a sum over the ledgers:
before its first decision, after the server was emptied, and once in a while, each proxy tells it what its ledger has
and the server has not counted. What is settled while the server is away is sent when it is back. Each line counts once.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import time
from typing import Any, Final

from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Need, Needs
from llmtab.budgets.limits import Limit, Limits, seconds
from llmtab.budgets.rebuild import Place
from llmtab.budgets.redis_alone import Alone, refused
from llmtab.budgets.redis_feed import Feed, Told, sums
from llmtab.budgets.redis_terms import Terms, literal, state_of
from llmtab.budgets.store import LEASE, Denied, Verdict, worst_of
from llmtab.budgets.windows import EVER

log = logging.getLogger("llmtab")

QUEUED: Final = 100_000
BATCH: Final = 64
"""Settlements sent together."""
CHUNK: Final = 1_000
"""Calls of the ledger that are read before they are sent."""
PAUSE: Final = 1.0
"""Seconds for which a server that did not answer is left alone."""
LOOK: Final = 30.0
"""Seconds between two looks for lines whose proxy died before it could settle them."""
KNOWN: Final = 50_000
TRIES: Final = 50
"""Looks at lines that others count at the same time; in each of them somebody gets on."""
_SCRIPTS: Final = ("reserve", "settle", "extend", "renew", "tell")

type Job = tuple[str, list[str], list[Need], float]
"""(script, its arguments between prefix and epoch, the buckets its answer tells of, the moment they are of)."""


class RedisStore:
    """`spec`: the checked plain form of `store:`. `writer`: whose lines these are. `ledger`: the path they go to;
    without it the server is told of no ledger. All of it belongs to one loop. Raises ValueError."""

    def __init__(
        self, spec: Mapping[str, Any], writer: str, ledger: Path | None = None, limits: Limits | None = None
    ) -> None:
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
        self._terms: Final = Terms(spec.get("prefix") or "llmtab", writer)
        self._writer: Final = writer
        self._open: Final = spec.get("on_loss", "open") == "open"
        self._alone: Final = Alone(float(str(spec.get("allowance") or "5%").rstrip("% ")) / 100)
        self._feed: Final = Feed(ledger, limits, writer) if ledger is not None and limits is not None else None
        self._names: Final = {self._terms.name(limit) for limit in (limits.all if limits else ()) if not limit.own}
        self._epoch: str | None = None
        """The server that knows the ledger up to `_place`; None: it is yet to be told."""
        self._place = Place()
        self._telling: asyncio.Task[None] | None = None
        self._look_at = 0.0
        self._retry_at = 0.0
        self._seen: dict[tuple[str, str], State] = {}
        self._jobs: deque[Job] = deque()
        self._there = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._over: list[str] = []
        self.dropped = 0
        """How often so much was queued that the older half was given up."""

    # -- before a call -------------------------------------------------------------------------------------------------

    async def reserve(self, ident: str, needs: Needs, at: float) -> Verdict:
        if time() < self._retry_at:
            return self._by_itself(ident, needs, at)
        wanted = [*needs]
        try:
            word, told, states = await self._ask(ident, wanted, at)
        except self.errors as error:
            self._lost(error)
            return self._by_itself(ident, needs, at)
        self._found()
        found = [state_of(raw, need) for need, raw in zip(wanted, states, strict=True)]
        for need, state in zip(wanted, found, strict=True):
            held = need.amount if word == "yes" else 0
            self._remember(need, state._replace(reserved=state.reserved + held))
        return Verdict(told, None if word == "yes" else worst_of(wanted, found))

    async def _ask(self, ident: str, wanted: list[Need], now: float) -> tuple[str, float, Any]:
        """(yes or no, the server's time, the buckets). One round trip, where neither clocks nor data were lost."""
        for _ in range(4):
            epoch = await self._told()
            text = self._terms.needs(wanted, now)
            answer = await self._run["reserve"](args=[self._terms.prefix, ident, LEASE, text, epoch])
            word, told, states = answer[0].decode(), float(answer[1]), answer[2]
            if word in ("yes", "no"):
                return word, told, states
            if word == "emptied":
                self._epoch = None
            else:
                now = told
        raise ConnectionError("no decision")

    def _by_itself(self, ident: str, needs: Needs, at: float) -> Verdict:
        """The server is away: this proxy may spend a share of each limit, or nothing."""
        if not self._open:
            return Verdict(at, Denied(next(iter(needs)), State(0, 0, 0, 0.0, EVER), "store"))
        denied = refused(needs, [self.state(need.limit, need.key, at) for need in needs])
        return Verdict(at, denied) if denied is not None else self._alone.reserve(ident, needs, at)

    # -- after it ------------------------------------------------------------------------------------------------------

    def settle(self, ident: str, spent: Needs, at: float, seq: int = -1) -> None:
        self._alone.settle(ident, spent, at)
        for need in spent:
            known = self.state(need.limit, need.key, at)
            self._remember(need, known._replace(spent=known.spent + need.amount))
        self._send("settle", [ident, self._writer, str(seq), self._terms.charges(spent, at)], [*spent], at)

    def extend(self, ident: str, needs: Needs, at: float) -> None:
        text = self._terms.charges([need for need in needs if need.amount], at)
        self._send("extend", [ident, str(LEASE), text], [], at)

    def release(self, ident: str) -> None:
        self._alone.release(ident)
        self._over.append(ident)

    def renew(self, idents: Iterable[str], now: float) -> None:
        idents = [*idents]
        self._alone.renew(idents, now)
        self._send("renew", [str(LEASE), json.dumps(idents), "[]"], [], now)

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
        self._alone.tick(now)
        if self._feed is not None and time() >= max(self._look_at, self._retry_at):
            with contextlib.suppress(RuntimeError):  # no loop runs
                self._tell()

    def close(self) -> None:
        """What is queued gets a moment where a loop runs; the leases end the rest."""
        if self._worker is not None or self._telling is not None:
            self._send("", [], [], 0.0)

    # -- the ledger ----------------------------------------------------------------------------------------------------

    async def _told(self) -> str:
        """The server's epoch, once it knows the ledger. Raises OSError where it cannot be told."""
        if self._feed is None:
            return ""
        if self._epoch is None:
            await asyncio.shield(self._tell())
        if self._epoch is None:
            raise ConnectionError("the server is away")
        return self._epoch

    def _tell(self) -> asyncio.Task[None]:
        if self._telling is None or self._telling.done():
            loop = asyncio.get_running_loop()
            self._look_at = time() + LOOK
            self._telling = loop.create_task(self._bring())
        return self._telling

    async def _bring(self) -> None:
        """Tells the server the lines that it has not counted, of all writers of this ledger."""
        assert self._feed is not None
        dropped = self.dropped
        try:
            await self._client.set(self._terms.key("epoch"), secrets.token_hex(8), nx=True)
            if (raw := await self._client.get(self._terms.key("epoch"))) is None:
                raise ConnectionError("emptied meanwhile")
            epoch = raw.decode()
            known = self._place if epoch == self._epoch else self._feed.load(epoch, self._names)
            place = replace(known)
            chunks = self._feed.chunks(place, time(), CHUNK)
            while chunk := await asyncio.to_thread(next, chunks, None):
                await self._count(chunk, epoch)
        except self.errors as error:
            self._epoch = None
            self._lost(error)
            return
        self._found()
        if dropped == self.dropped:
            self._epoch, self._place = epoch, place
        if (place.head, place.offset) != (known.head, known.offset):
            await asyncio.to_thread(self._feed.save, place, epoch, self._names)

    async def _count(self, chunk: list[Told], epoch: str) -> None:
        """Most of what a server is told it knows: only what is new is sent. Where others count the same lines, they are
        looked at again."""
        pairs = [*{(need.limit.name, call.writer): need.limit for call in chunk for need in call.needs}.items()]
        keys = [self._terms.key("w", self._terms.name(limit), writer) for (_, writer), limit in pairs]
        for _ in range(TRIES):
            marks = [int(mark or -1) for mark in await self._client.mget(keys)]
            new = sums(chunk, {pair: mark for (pair, _), mark in zip(pairs, marks, strict=True)})
            told = self._terms.sums(new)
            left = await self._run["tell"](args=[self._terms.prefix, told, epoch]) if new else 0
            if left == 0:
                return
            if left == b"emptied":
                break
        else:
            raise ConnectionError("others count without end")
        raise ConnectionError("emptied meanwhile")

    # -- what alerts need ----------------------------------------------------------------------------------------------

    async def first(self, *words: str, span: float) -> bool:
        """Whether nobody has said these words to the server in this many seconds; True where it is away."""
        try:
            return bool(await self._client.set(self._terms.key("t", *words), "1", nx=True, ex=max(1, int(span))))
        except self.errors:
            return True

    # -- for onlookers -------------------------------------------------------------------------------------------------

    async def callers(self, limit: Limit) -> list[str]:
        """The callers of whom the server knows anything."""
        start = self._terms.key("b", self._terms.name(limit), "")
        found: set[str] = set()
        async for raw in self._client.scan_iter(match=literal(start) + "*", count=1000):
            key = raw.decode().removeprefix(start)
            found.add(key if limit.window.sliding else key.rpartition(":")[0])
        return sorted(found)

    async def look(self, limit: Limit, key: str, now: float) -> State:
        """A bucket as the server has it: a need of nothing from a limit that refuses nobody, given back at once."""
        idle = Need(replace(limit, hard=False), key, 0)
        answer = await self._run["reserve"](args=[self._terms.prefix, "", LEASE, self._terms.needs([idle], now), ""])
        await self._run["renew"](args=[self._terms.prefix, str(LEASE), "[]", '[""]'])
        return state_of(answer[2][0], idle)

    async def disconnect(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        await self._client.aclose()

    # -- the connection ------------------------------------------------------------------------------------------------

    def _send(self, script: str, arguments: list[str], needs: list[Need], at: float) -> None:
        if len(self._jobs) >= QUEUED:
            for _ in range(QUEUED // 2):
                self._jobs.popleft()
            self.dropped += 1
            self._epoch = None  # what is dropped stands in the ledger, and has to come before what is sent next
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
                batch = [*islice(self._jobs, BATCH)]
                if batch[0][0] == "":
                    self._jobs.clear()
                    self._worker = None
                    await self.disconnect()
                    return
                batch = batch[: next((i for i, job in enumerate(batch) if job[0] == ""), len(batch))]
                try:
                    if not await self._deliver(batch, await self._told()):
                        self._epoch = None
                        continue
                except self.errors as error:
                    self._lost(error)
                    await asyncio.sleep(PAUSE)
                    continue
                self._found()
                for job in batch:  # some may have been given up meanwhile
                    if self._jobs and self._jobs[0] is job:
                        self._jobs.popleft()

    async def _deliver(self, batch: Sequence[Job], epoch: str) -> bool:
        """False where the server was emptied: then it has counted none of it."""
        async with self._client.pipeline(transaction=False) as pipe:
            for script, arguments, _, _ in batch:
                await self._run[script](args=[self._terms.prefix, *arguments, epoch], client=pipe)
            answers = await pipe.execute()
        if b"emptied" in answers:
            return False
        for (_, _, needs, at), answer in zip(batch, answers, strict=True):
            for need, (spent, reserved) in zip(needs, answer if needs else (), strict=True):
                start, end = need.limit.window.at(at)
                self._remember(need, State(int(spent), int(reserved), 0, start, end))
        return True

    def _remember(self, need: Need, state: State) -> None:
        place = need.limit.name, need.key
        known = self._seen.get(place)
        if known is not None and known.start > state.start and not need.limit.window.sliding:
            return
        if known is None and len(self._seen) >= KNOWN:
            del self._seen[next(iter(self._seen))]
        self._seen[place] = state

    def _lost(self, error: BaseException) -> None:
        if not self._retry_at:
            how = f"spends up to {self._alone.share:.0%} of each limit on its own" if self._open else "refuses calls"
            log.error("llmtab: the budgets' store is lost (%s): this proxy %s", type(error).__name__, how)
        self._retry_at = time() + PAUSE

    def _found(self) -> None:
        if self._retry_at:
            log.warning("llmtab: the budgets' store is back")
            self._retry_at = 0.0


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()
