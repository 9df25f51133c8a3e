"""The gate: may this call go? It reserves the worst case before, settles the true cost after, and waits in between.

Knows calls, limits and stores. Must not know mitmproxy, files or how a refusal looks on the wire. All of it belongs to
the event loop. A call that runs is never cut: what it needs beyond its reservation is reserved on top.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Final, Literal, NamedTuple, cast

from llmtab.budgets.amounts import REQUESTS, WEIGHT, number
from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Need, Needs, charges, counted_at
from llmtab.budgets.limits import WORDS, Limit, facts_with
from llmtab.budgets.needs import needs_of, outgrown, refusing
from llmtab.budgets.notices import Notices
from llmtab.budgets.policy import Header, Policy
from llmtab.budgets.refusal import Refusal, moment, refusal
from llmtab.budgets.store import Denied, Store, Verdict
from llmtab.budgets.windows import EVER, Window
from llmtab.budgets.worst import Worst, look, usual, worst
from llmtab.estimates.asking import is_long
from llmtab.estimates.habits import Habits, kinds
from llmtab.events import request_reader
from llmtab.exchange import Exchange
from llmtab.observation import Call
from llmtab.pricing import PriceBook
from llmtab.profiles import Claim

log = logging.getLogger("llmtab")

RENEWED: Final = 20.0
"""Seconds between two signs of life of a call under way."""
WAITING: Final = 1_000
"""Calls held back at once; one more is refused."""
LOOK: Final = 1.0
"""Seconds after which a call that is held back tries again, whatever happened."""
REMEMBERED: Final = 10_000
"""Callers on a plan."""
LOST: Final = 10.0
"""Seconds after which the reservation of a call that left no line is given back."""

type Gone = Callable[[], bool]
type Came = Callable[[], int | None]
"""Bytes of an answer so far; None when it is not under way, or no more."""
type Again = Literal["again"]
AGAIN: Final[Again] = "again"


@dataclass(slots=True)
class Admission:
    """A call that was let through."""

    needs: Needs
    worst: Worst
    usual: Worst | None
    """What was reserved on limits that reserve what is usual; None: there were none."""
    facts: dict[str, str]
    names: tuple[str, ...]
    at: float
    came: Came | None = None
    """Of an answer that is no exchange of its own."""
    missing: float = 0.0


class Foreseen(NamedTuple):
    """What labels may ask of an answer, before there is one."""

    request_model: str | None
    model: None = None


class Gate:
    """One for each meter. `store` keeps the spending; `notices` are told of soft limits."""

    def __init__(self, policy: Policy, store: Store, notices: Notices | None = None) -> None:
        self.policy = policy
        self.store = store
        self.ready: asyncio.Event | None = None
        """Set when what the ledger says has been counted; None: it has."""
        self.replaced = False
        """Whether other budgets are in force by now."""
        self._notices = notices
        self._habits = Habits()
        self._open: dict[str, Admission] = {}
        self._by_label = not policy.limits.names.issubset(WORDS)
        self._weights: dict[str, int] = {}
        self._unbilled: set[tuple[str | None, str | None]] = set()
        """(provider, key) of callers on a plan."""
        self._changed = asyncio.Event()
        self._waiting = 0
        self._renewed = 0.0

    # -- before the call -----------------------------------------------------------------------------------------------

    async def decide(
        self,
        call: Call,
        claim: Claim,
        length: str,
        prices: PriceBook,
        *,
        header: Header,
        gone: Gone = bool,
        came: Came | None = None,
    ) -> Refusal | Again | None:
        """None where the call may go (its worst case is reserved), else what the client is told; AGAIN where other
        budgets came into force meanwhile, whose business it is.

        `length`: the request's `content-length`; `header(name)`: any header of the request; `gone()`: whether the
        client has left. The call's `budget` says what its line will. A WebSocket asks for each frame that asks, with a
        call of its own; `came()` tells of its answer.
        """
        if self.ready is not None:
            await self.ready.wait()
        if is_long(call.body() or b"", call.headers.get("content-encoding", "")):
            looked = await asyncio.to_thread(look, call, claim, length)
        else:
            looked = look(call, claim, length)
        model = looked.model
        facts = self._facts(call, claim, model)
        tiers = self.policy.tiers
        if tiers is not None:
            tier = tiers.of(facts, call.labels, header)
            if tier is not None:
                facts["tier"] = tier
            elif tiers.refuses:
                return self._refuse(call, claim, _denied("tiers", "tier"), ())
        touched = self.policy.limits.touched(facts)
        if not touched.pairs:
            return None
        names = kinds({"provider": claim.binding.provider, "request_model": model, "labels": call.labels})
        habit = self._habits.of(names)
        case = worst(call, claim, looked, habit, prices, call.began)
        likely = usual(call, claim, case, model, habit, prices, call.began) if touched.usual else None
        unbilled = (facts["provider"], facts.get("key")) in self._unbilled
        needs = needs_of(touched, case, likely, self._weights, unbilled=unbilled)
        if case.usd is None and (against := refusing(touched.kinds, unbilled=unbilled)) is not None:
            return self._refuse(call, claim, _denied(against.name, "unpriced", against), touched.names)
        began = call.began
        verdict = await self.store.reserve(call.id, needs, began)
        if verdict.denied is not None:
            verdict = await self._patiently(call, needs, verdict, gone)
        if self.replaced:
            return AGAIN
        if verdict.denied is not None:
            return self._refuse(call, claim, verdict.denied, touched.names, facts.get("tier"))
        call.budget = self._noted(touched.names, facts, began, verdict.at)
        self._open[call.id] = Admission(needs, case, likely, facts, names, verdict.at, came)
        return None

    def _facts(self, call: Call, claim: Claim, model: str) -> dict[str, str]:
        if self._by_label and call.later is not None:
            call.later(request_reader(call.body, call.headers), cast(Any, Foreseen(model or None)))
        binding, client = claim.binding, call.client
        operation = binding.dialects[0].operation if binding.dialects else None
        facts = {
            "provider": binding.provider, "model": model or None, "host": call.host, "key": client.get("key"),
            "address": client.get("address"), "operation": operation,
        }  # fmt: skip
        return facts_with(call.labels, facts)

    async def _patiently(self, call: Call, needs: Needs, verdict: Verdict, gone: Gone) -> Verdict:
        """Ask again while the limit that refuses wants calls held back; other calls go on meanwhile."""
        since = time()
        while (denied := verdict.denied) is not None and self._waiting < WAITING:
            now = time()
            left = since + denied.need.limit.throttle - now
            helps = denied.why == "busy" or (denied.why == "exceeded" and denied.state.end - now <= left)
            if left <= 0 or not helps or gone():
                break
            self._waiting += 1
            try:
                pause = min(left, LOOK, max(denied.state.end - now, 0.001) if denied.why == "exceeded" else LOOK)
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                pass
            finally:
                self._waiting -= 1
            if self.replaced:
                break
            verdict = await self.store.reserve(call.id, needs, max(time(), call.began))
        return verdict

    def _noted(self, names: tuple[str, ...], facts: Mapping[str, str], began: float, at: float) -> dict[str, Any]:
        """The line's `budget`: the limits touched; the tier; and the moment it counts in, where it had to wait."""
        found: dict[str, Any] = {"limits": [*names]}
        if "tier" in facts:
            found["tier"] = facts["tier"]
        if at != began:
            found["at"] = moment(at)
        return found

    def _refuse(
        self, call: Call, claim: Claim, denied: Denied, names: tuple[str, ...], tier: str | None = None
    ) -> Refusal:
        found = refusal(claim, denied, time())
        call.refused = True
        call.budget = {"limits": [*names]}
        if tier is not None:
            call.budget["tier"] = tier
        call.budget["refused"] = dict(found.facts)
        log.info("%s", found.message)
        if self._notices is not None and denied.why in ("exceeded", "too_large"):
            self._notices.hard(denied, call.began)
        return found

    # -- after it ------------------------------------------------------------------------------------------------------

    def settle(self, lines: Sequence[dict[str, Any]], seq: int = 0) -> None:
        """The lines of a call that is over, just before they are written: its reservation becomes what it cost, and
        the line is marked where a soft limit is reached. `seq`: the number of its first line."""
        line = lines[0]
        admission = self._open.pop(line["id"], None)
        at = counted_at(line)
        spent = charges(self.policy.limits, lines, at)
        self.store.settle(line["id"], spent, at, seq)
        for kind, amount in zip(spent.touched.kinds, spent.amounts, strict=True):
            if kind.unit == WEIGHT and amount:
                self._weights[kind.name] = amount
        for limit, key in spent.touched.soft:
            self._soft(line, limit, key, at)
        if admission is not None:
            self._habits.learn(line, admission.names, admission.worst.request)
        else:
            self._habits.learn(line, kinds(line), None)
        self._learn_billing(line)
        self._wake()

    def _learn_billing(self, line: Mapping[str, Any]) -> None:
        """A key whose last call was covered by a plan spends no money on its next one either, as far as can be told."""
        key, billing = (line.get("client") or {}).get("key"), line.get("billing")
        if key is None or billing is None or line.get("outcome") != "ok":
            return
        whose = line.get("provider"), key
        if billing == "subscription" and len(self._unbilled) < REMEMBERED:
            self._unbilled.add(whose)
        elif billing != "subscription":
            self._unbilled.discard(whose)

    def _soft(self, line: dict[str, Any], limit: Limit, key: str, at: float) -> None:
        state = self.store.state(limit, key, at)
        if limit.soft is not None and state.spent >= limit.soft:
            line["flags"] = [*line.pop("flags", ()), f"soft_limit:{limit.name}"]  # the last key of a line but one
            if self._notices is not None:
                self._notices.soft(limit, key, state, at)

    def _wake(self) -> None:
        """Those who are held back look again."""
        if self._waiting:
            self._changed.set()
            self._changed = asyncio.Event()

    # -- meanwhile -----------------------------------------------------------------------------------------------------

    def tick(self, calls: Mapping[str, Exchange], now: float) -> None:
        """About once a second: streams that outgrow their reservation are followed, calls that left no line are
        forgotten, leases renewed. `calls`: those under way."""
        for ident, admission in list(self._open.items()):
            came = _came(admission, calls.get(ident))
            if came is not None:
                admission.missing = 0.0
                self._follow(ident, admission, came)
            elif not admission.missing:
                admission.missing = now
            elif now - admission.missing > LOST:
                del self._open[ident]
                self.store.release(ident)
                self._wake()
        if abs(now - self._renewed) >= RENEWED:
            self._renewed = now
            self.store.renew(list(self._open), now)
        self.store.tick(now)
        if self._notices is not None:
            self._notices.tick(self.store, now)

    def _follow(self, ident: str, admission: Admission, came: int) -> None:
        case, likely = admission.worst, admission.usual
        if case.bounded and likely is None:
            return
        more, admission.worst, admission.usual = outgrown(admission.needs, case, likely, came)
        if more is not None:
            self.store.extend(ident, more, admission.at)

    def remaining(self, ident: str) -> dict[str, str]:
        """Headers for the answer to a call that was let through: what each limit has left, in its unit."""
        admission = self._open.get(ident)
        found: dict[str, str] = {}
        for limit, key, _ in admission.needs if admission is not None else ():
            state = self.store.state(limit, key, admission.at if admission else 0.0)
            left = max(0, limit.amount - state.spent - state.carried - state.reserved)
            found[f"x-llmtab-budget-remaining-{limit.name.lower()}"] = f"{number(left, limit.unit):f}"
        return found

    def take_over(self, old: "Gate") -> None:
        """The calls that another gate let through are this one's from here on; see `adopt`."""
        self._open, self._unbilled = old._open, old._unbilled
        old._open = {}

    def give_way(self) -> None:
        """Other budgets, or none, are in force from here on: calls that are held back are theirs."""
        self.replaced = True
        self._wake()

    def adopt(self) -> None:
        """What the calls that were taken over may still need is reserved here as well."""
        for ident, admission in self._open.items():
            unbilled = (admission.facts["provider"], admission.facts.get("key")) in self._unbilled
            touched = self.policy.limits.touched(admission.facts)
            cases = admission.worst, admission.usual
            admission.needs = needs_of(touched, *cases, self._weights, unbilled=unbilled)
            self.store.extend(ident, admission.needs, admission.at)

    def forget(self, ident: str) -> None:
        """A call that was taken over ended before its needs were reserved here."""
        self._open.pop(ident, None)

    @property
    def under_way(self) -> int:
        """Calls that hold a reservation."""
        return len(self._open)


def _came(admission: Admission, exchange: Exchange | None) -> int | None:
    if exchange is not None:
        return exchange.progress().bytes
    return admission.came() if admission.came is not None else None


def _denied(name: str, why: Any, limit: Limit | None = None) -> Denied:
    nobody = limit or Limit(name, 0, REQUESTS, Window(""), lambda facts: True)
    return Denied(Need(nobody, "", 0), State(0, 0, 0, 0.0, EVER), why)
