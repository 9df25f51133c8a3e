"""The budgets of one meter: set up, switched over when llmtab.yaml is edited, looked after once a second, put away.

Knows set-ups, and which parts budgets are made of. Must not know mitmproxy or how a decision is made. While there are
no budgets there is no guard.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any, Final

from llmtab.budgets.alerts import Alerts
from llmtab.budgets.bars import Bar, bars
from llmtab.budgets.buckets import State
from llmtab.budgets.charges import Need, calls
from llmtab.budgets.gate import AGAIN, Again, Came, Gate, Gone
from llmtab.budgets.keeper import NONE, Keeper
from llmtab.budgets.notices import Notices
from llmtab.budgets.policy import Header, Policy, policy
from llmtab.budgets.refusal import Refusal, refusal
from llmtab.budgets.store import Denied, Store
from llmtab.budgets.windows import EVER
from llmtab.exchange import Exchange
from llmtab.observation import Call
from llmtab.profiles import Claim
from llmtab.setup import Setup

log = logging.getLogger("llmtab")

ROLES: Final = frozenset({"billed", "by_shape"})
SOCKET: Final = "WS "
FEW: Final = 50

type Lines = list[dict[str, Any]]


def guard_for(setup: Setup, old: "Guard | None" = None) -> "Guard | None":
    """What guards the calls under this set-up: the old guard where nothing has changed, None without budgets.

    Raises ValueError where budgets do not make sense.
    """
    spec = setup.config.sections.get("budgets"), setup.config.sections.get("alerts"), setup.budget
    ledger = setup.ledger
    if old is not None and old.made_of == (*spec, ledger.path, setup.config.timezone):
        old.setup = setup
        return old
    began = old.began if old is not None else time()
    said = policy(spec[0], setup.config.timezone, spec[2], began)
    made = Guard(setup, said, (*spec, ledger.path, setup.config.timezone), began, old) if said else None
    if old is not None:
        old.give_way(made)
    return made


class Guard:
    """One set of budgets in force. `made_of`: what it was read from. `began`: when this process's own budget began.
    `old`: whose place it takes."""

    def __init__(
        self, setup: Setup, said: Policy, made_of: tuple[Any, ...], began: float, old: "Guard | None" = None
    ) -> None:
        self.setup = setup
        self.made_of = made_of
        self.began = began
        self._alerts = Alerts(setup.config.sections.get("alerts") or {})
        self._notices = Notices(self._alerts.send)
        self._keeper: Keeper | None = None
        store: Store
        if said.store is not None:
            from llmtab.budgets import redis_notices, redis_store  # the extra `redis`

            store = redis_store.RedisStore(said.store, setup.ledger.writer, setup.ledger.path, said.limits)
            self._notices = Notices(redis_notices.Once(store, said.limits, self._alerts.send))
        else:
            self._keeper = self._counting(said, old)
            store = self._keeper.store
        self._bars: Sequence[Bar] = ()
        self._next: Guard | None = None
        self._look_at = 0.0
        self._failed: set[str] = set()
        """What has raised, and was said to."""
        self.gate = Gate(said, store, self._notices)

    def _counting(self, said: Policy, old: "Guard | None", *, anew: bool = False) -> Keeper:
        """A keeper that has begun to count. Of the budget of this run it goes on from where the one of `old` is."""
        ledger, own = self.setup.ledger, NONE
        kinds = {limit.kind for limit in said.limits.all if limit.own}
        if old is not None and kinds:
            own = old._keeper.own(ledger.seq) if old._keeper is not None else NONE
            if not kinds.issubset(own.spent):
                own, anew = NONE, True  # all that this process wrote has to be read
        made = Keeper(ledger.path, ledger.writer, said.limits, self._notices.memory, own, anew=anew)
        made.start()
        return made

    def install(self, meter: Any, *tools: Any) -> None:
        """The hooks of budgets on a meter, with what they need of the shell: see `hooks.install`."""
        from llmtab.budgets.hooks import install

        install(meter, self, *tools)

    @property
    def shows_headers(self) -> bool:
        """Whether answers say what is left."""
        return self.gate.policy.headers

    async def refuses(self, exchange: Exchange, length: str, header: Header, gone: Gone) -> Refusal | None:
        """What a client is told whose call must not go; None where it may. `length`: the request's content-length."""
        binding = exchange.claim.binding
        if binding.role not in ROLES or binding.route.startswith(SOCKET):
            return None
        return await self.decide(exchange.call, exchange.claim, header, length=length, gone=gone)

    async def decide(
        self, call: Call, claim: Claim, header: Header, *, length: str = "", gone: Gone = bool, came: Came | None = None
    ) -> Refusal | None:
        """The same for a call that is no request of its own, such as a socket's frame that asks for a response.

        `call.body` gives the frame, `call.id` is the id of the line to come: writing that line settles what is reserved
        here. A refusal's `frame` goes back in the frame's place; `came()` tells how much of its answer has come.
        """
        try:
            return await self._decide(call, claim, header, length, gone, came)
        except Exception:
            self._trouble("decide on a call: calls are refused")
            return self._refused(call, claim)

    async def _decide(
        self, call: Call, claim: Claim, header: Header, length: str, gone: Gone, came: Came | None
    ) -> Refusal | None:
        await self._ready()
        found: Refusal | Again | None = AGAIN
        if not self.gate.replaced:
            found = await self.gate.decide(call, claim, length, self.setup.prices, header=header, gone=gone, came=came)
        if found != AGAIN:
            return found
        if self._next is None:
            return None
        return await self._next.decide(call, claim, header, length=length, gone=gone, came=came)

    def _refused(self, call: Call, claim: Claim) -> Refusal | None:
        """What is said where no decision could be made: a hard limit that nobody looks at is none."""
        hard = next((limit for limit in self.gate.policy.limits.all if limit.hard), None)
        if hard is None:
            return None
        state = State(0, 0, 0, 0.0, EVER)
        found = refusal(claim, Denied(Need(hard, "", 0), state, "store"), time())
        call.refused, call.budget = True, {"limits": [], "refused": dict(found.facts)}
        return found

    def _trouble(self, what: str) -> None:
        """An error that must not stop anything: said once, with where it came from."""
        if what not in self._failed:
            self._failed.add(what)
            log.warning("llmtab: the budgets could not %s", what, exc_info=True)

    def _survived(self, what: str, part: Callable[[], None]) -> bool:
        """Whether a part of the work went well."""
        try:
            part()
        except Exception:
            self._trouble(what)
            return False
        return True

    async def frame(self, call: Call, claim: Claim, header: Header, gone: Gone, came: Came) -> Refusal | None:
        """`decide`, of a socket's frame: one of a route that costs nothing passes."""
        return await self.decide(call, claim, header, gone=gone, came=came) if claim.binding.role in ROLES else None

    async def _ready(self) -> None:
        if self._keeper is not None and self._keeper.is_behind(time()):
            self._recount(self._keeper)
        while (keeper := self._keeper) is not None and not keeper.open and not self.gate.replaced:
            await keeper.ready()
            if keeper is self._keeper and not self.gate.replaced:
                self._opened()

    def settle(self, lines: Lines) -> None:
        """Lines that are about to be written: what they spent is counted, soft limits are marked on them."""
        seq = self.setup.ledger.seq
        for call in calls(lines):
            if self._keeper is None or self._keeper.open:
                try:
                    self.gate.settle(call, seq)
                except Exception:  # its line is written all the same
                    self._trouble("count a call")
                if self._keeper is not None:
                    self._keeper.made(seq, len(call))
            else:
                self.gate.forget(call[0]["id"])  # the ledger will tell
            seq += len(call)

    def tick(self, running: Mapping[str, Exchange]) -> None:
        """About once a second. `running`: calls under way, by id."""
        now, keeper = time(), self._keeper
        if keeper is not None:
            if keeper.is_behind(now):
                self._recount(keeper)
                return
            if not keeper.open:
                if not keeper.counted:
                    return
                self._opened()
            self._survived("follow the ledger", lambda: keeper.tick(now, busy=self.gate.under_way > 0))
        if not self._survived("look after the calls under way", lambda: self.gate.tick(running, now)):
            self._survived("keep what is reserved", lambda: self.gate.store.renew([*running], now))
            self._survived("forget what is over", lambda: self.gate.store.tick(now))

    def _recount(self, keeper: Keeper) -> None:
        """The clock was ahead and is right again: windows that seemed over may be open, so all is counted anew."""
        log.warning("llmtab: the clock was set back: the ledger is counted again for the budgets")
        self._keeper = self._counting(self.gate.policy, self, anew=True)
        keeper.close(keep=False)

    def _opened(self) -> None:
        """The ledger is counted: from here on decisions hold."""
        if self._keeper is not None and not self._keeper.open:
            self._keeper.finish()
            self.gate.store = self._keeper.store
            self._notices.remember(self._keeper.place.told, self.gate.policy.limits.all)
            self.gate.adopt()

    def remaining(self, ident: str) -> dict[str, str]:
        """Headers for the answer to a call, see `Gate.remaining`; none while the ledger is counted: nothing else may
        make a bucket meanwhile."""
        return self.gate.remaining(ident) if self._keeper is None or self._keeper.open else {}

    def bars(self) -> Sequence[Bar]:
        """Of every limit and every caller, fullest first."""
        now = time()
        if (self._keeper is None or self._keeper.open) and now >= self._look_at:
            self._bars = bars(self.gate.policy.limits, self.gate.store, now)
            self._look_at = now + (1 if len(self._bars) < FEW else 10)  # many callers take milliseconds
        return self._bars

    def give_way(self, new: "Guard | None") -> None:
        """Another guard takes over: calls under way are its business from here on."""
        if new is not None:
            new.gate.take_over(self.gate)
            if new._keeper is None:
                new.gate.adopt()
            else:
                new._notices.remember(self._notices.memory(), new.gate.policy.limits.all)
        self._next = new
        self.gate.give_way()
        self.close()

    def close(self) -> None:
        """Everything is put away; what is spent is kept for the next start."""
        if self._keeper is not None:
            self._keeper.close()
        self.gate.store.close()
        self._alerts.close()
