"""The budgets of one meter: set up, switched over when llmtab.yaml is edited, looked after once a second, put away.

Knows set-ups, and which parts budgets are made of. Must not know mitmproxy or how a decision is made. While there are
no budgets there is no guard.
"""

import logging
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any, Final

from llmtab.budgets.alerts import Alerts
from llmtab.budgets.bars import Bar, bars
from llmtab.budgets.charges import calls
from llmtab.budgets.gate import Gate, Gone
from llmtab.budgets.keeper import Keeper
from llmtab.budgets.notices import Notices
from llmtab.budgets.policy import Header, Policy, policy
from llmtab.budgets.rebuild import MALFORMED
from llmtab.budgets.refusal import Refusal
from llmtab.budgets.store import Store
from llmtab.exchange import Exchange
from llmtab.observation import Call
from llmtab.profiles import Claim
from llmtab.setup import Setup

if TYPE_CHECKING:
    from llmtab.budgets.redis_store import RedisStore

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
    made = Guard(setup, said, (*spec, ledger.path, setup.config.timezone), began) if said else None
    if old is not None:
        old.give_way(made)
    return made


class Guard:
    """One set of budgets in force. `made_of`: what it was read from. `began`: when this process's own budget began."""

    def __init__(self, setup: Setup, said: Policy, made_of: tuple[Any, ...], began: float) -> None:
        self.setup = setup
        self.made_of = made_of
        self.began = began
        self._alerts = Alerts(setup.config.sections.get("alerts") or {})
        self._notices = Notices(self._alerts.send)
        self._keeper: Keeper | None = None
        self._shared: RedisStore | None = None
        store: Store
        if said.store is not None:
            from llmtab.budgets import redis_store  # the extra `redis`

            store = self._shared = redis_store.RedisStore(said.store, setup.ledger.writer)
        else:
            self._keeper = Keeper(setup.ledger.path, setup.ledger.writer, said.limits, self._notices.memory)
            self._keeper.start()
            store = self._keeper.store
        self._bars: Sequence[Bar] = ()
        self._look_at = 0.0
        self.gate = Gate(said, store, self._notices)

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
        self, call: Call, claim: Claim, header: Header, *, length: str = "", gone: Gone = bool
    ) -> Refusal | None:
        """The same for a call that is no request of its own, such as a socket's frame that asks for a response.

        `call.body` gives the frame, `call.id` is the id of the line to come: writing that line settles what is reserved
        here. A refusal's `frame` goes back in the frame's place.
        """
        await self._ready()
        return await self.gate.decide(call, claim, length, self.setup.prices, header=header, gone=gone)

    async def frame(self, call: Call, claim: Claim, header: Header, gone: Gone) -> Refusal | None:
        """`decide`, of a socket's frame: one of a route that costs nothing passes."""
        return await self.decide(call, claim, header, gone=gone) if claim.binding.role in ROLES else None

    async def _ready(self) -> None:
        if self._keeper is not None and not self._keeper.open:
            await self._keeper.ready()
            self._opened()
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await shared.recover(self.setup.ledger.path, self.gate.policy.limits)

    def settle(self, lines: Lines) -> None:
        """Lines that are about to be written: what they spent is counted, soft limits are marked on them."""
        seq = self.setup.ledger.seq
        for call in calls(lines):
            if self._keeper is None or self._keeper.open:
                try:
                    self.gate.settle(call, seq)
                except MALFORMED:
                    log.warning("llmtab: a call could not be counted against the budgets", exc_info=True)
                if self._keeper is not None:
                    self._keeper.made(seq, len(call))
            else:
                self.gate.forget(call[0]["id"])  # the ledger will tell
            seq += len(call)

    def tick(self, running: Mapping[str, Exchange]) -> None:
        """About once a second. `running`: calls under way, by id."""
        now = time()
        if self._keeper is not None:
            if not self._keeper.open:
                if not self._keeper.counted:
                    return
                self._opened()
            self._keeper.tick(now, busy=self.gate.under_way > 0)
        self.gate.tick(running, now)

    def _opened(self) -> None:
        """The ledger is counted: from here on decisions hold."""
        if self._keeper is not None and not self._keeper.open:
            self._keeper.finish()
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
        self.close()

    def close(self) -> None:
        """Everything is put away; what is spent is kept for the next start."""
        if self._keeper is not None:
            self._keeper.close()
        self.gate.store.close()
        self._alerts.close()
