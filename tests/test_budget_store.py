"""The embedded store: no interleaving of calls spends more than a limit allows, and nothing is lost or left behind."""

import logging
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from budget_helpers import need
from llmtab.budgets import store as stores
from llmtab.budgets.amounts import TOKENS
from llmtab.budgets.charges import Needs
from llmtab.budgets.limits import Limit, Limits, Touched, limit
from llmtab.budgets.store import GRACE, LEASE, Embedded, denies
from llmtab.budgets.windows import EVER

DAY = 86_400.0
NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC


def tokens(text: str = "100 tokens per day", **more: Any) -> Limit:
    return limit({"limit": text, **more})


def ask(store: Embedded, ident: str, amount: int, at: float = NOON, of: Limit | None = None, key: str = "") -> str:
    """Reserves; what the store says, "" for yes."""
    verdict = store.reserve_now(ident, need(amount, of or DAILY, key=key), at)
    return verdict.denied.why if verdict.denied else ""


DAILY = tokens()


def test_what_is_reserved_is_not_given_twice() -> None:
    """A call that fits only what others may give back is told so; one that fits nothing more, or never will, too."""
    store = Embedded()
    assert ask(store, "a", 60) == ""
    assert ask(store, "b", 60) == "busy"
    assert ask(store, "c", 40) == ""
    assert ask(store, "nothing", 0) == "busy"
    store.settle("a", need(30, DAILY), NOON)
    assert ask(store, "d", 30) == ""
    store.settle("c", need(40, DAILY), NOON)
    assert ask(store, "e", 31) == "exceeded"
    assert ask(store, "f", 101) == "too_large"


def test_a_released_reservation_is_free_again() -> None:
    """A call that failed gives back what it held."""
    store = Embedded()
    assert ask(store, "a", 100) == ""
    store.release("a")
    assert store.state(DAILY, "", NOON)[:2] == (0, 0)
    assert ask(store, "b", 100) == ""


def test_all_limits_or_none() -> None:
    """Where one of several limits refuses, nothing is reserved on the others."""
    store, small = Embedded(), tokens("10 tokens per minute")
    verdict = store.reserve_now("a", need(50, DAILY, small), NOON)
    assert verdict.denied is not None and verdict.denied.need.limit is small
    assert store.state(DAILY, "", NOON).reserved == 0


def test_a_call_counts_in_the_window_in_which_it_began() -> None:
    """What is settled after midnight is spent on the day before, and the new day is whole."""
    store, midnight = Embedded(), NOON + DAY / 2
    assert ask(store, "a", 80, midnight - 1) == ""
    assert ask(store, "b", 100, midnight + 1) == ""
    store.settle("a", need(80, DAILY), midnight - 1)
    assert store.state(DAILY, "", midnight - 1)[:2] == (80, 0)
    assert store.state(DAILY, "", midnight + 1)[:2] == (0, 100)


def test_buckets_are_apart() -> None:
    """One caller's spending is not another's."""
    store = Embedded()
    assert ask(store, "a", 100, key="ann") == ""
    assert ask(store, "b", 100, key="bob") == ""
    assert ask(store, "c", 1, key="ann") == "busy"


def test_an_unrenewed_lease_ends() -> None:
    """A call that nobody speaks of any more gives back what it held; one that is renewed keeps it."""
    store = Embedded()
    ask(store, "lost", 40)
    ask(store, "alive", 40)
    store.renew(["alive"], NOON + LEASE)
    store.tick(NOON + LEASE + 1)
    assert store.state(DAILY, "", NOON).reserved == 40


def test_a_running_call_is_extended_whatever_the_limit() -> None:
    """A stream that needs more than was reserved has it; others have less."""
    store = Embedded()
    ask(store, "a", 90)
    store.extend("a", need(30, DAILY), NOON)
    assert store.state(DAILY, "", NOON).reserved == 120
    store.settle("a", need(110, DAILY), NOON)
    assert store.state(DAILY, "", NOON)[:2] == (110, 0)


def test_burst_is_borrowed_from_the_next_window() -> None:
    """A window may overdraw by the burst; the next one is shorter by as much, the one after it is whole again."""
    store, hourly = Embedded(), tokens("100 tokens per hour", burst="20 tokens")
    assert ask(store, "a", 120, NOON, hourly) == ""
    assert ask(store, "b", 1, NOON, hourly) == "busy"
    store.settle("a", need(120, hourly), NOON)
    assert ask(store, "c", 101, NOON + 3600, hourly) == "exceeded"
    assert ask(store, "d", 80, NOON + 3600, hourly) == ""
    store.settle("d", need(80, hourly), NOON + 3600)
    assert ask(store, "e", 120, NOON + 7200, hourly) == ""


def test_a_sliding_window_frees_bit_by_bit() -> None:
    """What was spent leaves a sliding window a span later, not at midnight."""
    store, sliding = Embedded(), tokens("100 tokens per hour", window="sliding")
    for minute in (0, 30):
        at = NOON + 60 * minute
        assert ask(store, f"{minute}", 50, at, sliding) == ""
        store.settle(f"{minute}", need(50, sliding), at)
    assert ask(store, "x", 1, NOON + 3599, sliding) == "exceeded"
    assert ask(store, "y", 50, NOON + 3600 + 61, sliding) == ""


def test_old_windows_are_forgotten() -> None:
    """Windows that are long over take no memory."""
    store, minutely = Embedded(), tokens("100 tokens per minute")
    for minute in range(100):
        store.charge(need(1, minutely), NOON + 60 * minute)
    store.tick(NOON + 2 * GRACE)
    assert list(store.buckets()) == []


def test_a_bucket_that_was_forgotten_begins_anew() -> None:
    """An empty bucket is swept away; the next call of the same caller is held to its limit all the same."""
    store, sliding = Embedded(), tokens("100 tokens per hour", window="sliding")
    assert ask(store, "a", 60, NOON, sliding) == ""
    store.release("a")
    store.tick(NOON)
    assert list(store.buckets()) == []
    assert ask(store, "b", 60, NOON, sliding) == ""
    assert store.state(sliding, "", NOON).reserved == 60
    assert ask(store, "c", 60, NOON, sliding) == "busy"


def test_a_soft_limit_refuses_nothing() -> None:
    """`hard: false` counts and never refuses."""
    store, soft = Embedded(), tokens(hard=False)
    assert ask(store, "a", 1000, NOON, soft) == ""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A store that keeps no more buckets than this."""
    monkeypatch.setattr(stores, "MOST_BUCKETS", 100)
    return 100


EACH = tokens("100 tokens per day", name="each", per=["session"])


def test_refused_calls_of_invented_callers_push_nothing_out(small: int) -> None:
    """Whoever invents labels makes buckets that hold nothing: they go first, and what is spent stays."""
    store = Embedded()
    store.charge(need(100, DAILY), NOON)
    store.charge(need(7, EACH, key="ann"), NOON)
    for number in range(small * 2):
        verdict = store.reserve_now(f"{number}", Needs(Touched([(DAILY, ""), (EACH, f"s{number}")]), [1]), NOON)
        assert verdict.denied is not None
    store.tick(NOON + 1)
    assert len(store.places()) <= 2
    assert store.state(DAILY, "", NOON).spent == 100 and store.state(EACH, "ann", NOON).spent == 7


def test_callers_that_spend_push_out_those_who_spent_least(small: int, caplog: pytest.LogCaptureFixture) -> None:
    """Of the limit that has most of them; limits of few callers lose none, nor do calls under way. It is said once."""
    store, other = Embedded(), tokens("9 tokens per day", name="few", per=["project"])
    store.charge(need(1, DAILY), NOON)
    for project in range(5):
        store.charge(need(1, other, key=f"p{project}"), NOON)
    assert ask(store, "way", 1, of=EACH, key="way") == ""
    for number in range(small * 2):
        store.charge(need(2 + number, EACH, key=f"s{number}"), NOON)
        store.tick(NOON + 1)
    kept = store.places()
    assert small * 0.8 <= len(kept) <= small
    assert [store.state(other, f"p{project}", NOON).spent for project in range(5)] == [1] * 5
    assert store.state(DAILY, "", NOON).spent == 1
    assert store.state(EACH, "way", NOON).reserved == 1
    assert store.state(EACH, f"s{small * 2 - 1}", NOON).spent == small * 2 + 1
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


def test_windows_that_are_over_have_a_bound_as_well(small: int) -> None:
    """The oldest go first, and of the limit that has most."""
    store, minutely = Embedded(), tokens("100 tokens per minute", name="m", per=["session"])
    store.charge(need(3, DAILY), NOON - DAY)
    store.charge(need(3, DAILY), NOON)
    for number in range(small * 2):
        store.charge(need(1, minutely, key=f"{number % 50}"), NOON + 60 * (number // 50))
    for number in range(small * 2):
        store.charge(need(1, minutely, key=f"{number % 50}"), NOON + 60 * (10 + number // 50))
    store.tick(NOON + 900)
    assert len([*store.buckets()]) <= small * 2
    assert store.state(DAILY, "", NOON - DAY).spent == 3


def test_a_sliding_window_is_not_moved_on_by_what_lies_ahead() -> None:
    """A line of a clock that was ahead counts, and what was spent before it still does."""
    store, sliding = Embedded(), tokens("100 tokens per hour", window="sliding")
    store.clock = lambda: NOON + 60
    store.charge(need(60, sliding), NOON)
    store.charge(need(5, sliding), NOON + 40 * DAY)
    store.charge(need(7, sliding), NOON + 30)
    assert store.state(sliding, "", NOON + 60).spent == 72


AMOUNTS = st.integers(0, 60)
CALLERS = st.sampled_from([{"consumer": who, "project": what} for who in ("ann", "bob") for what in ("web", "api")])
LIMITS = Limits([
    tokens(), tokens("70 tokens per hour", name="hourly", match={"project": "web"}),
    tokens("50 tokens per hour", window="sliding", name="slides"),
    tokens("60 tokens per hour", burst="30 tokens", name="bursts"), tokens("120 tokens", per=["consumer"], name="ever"),
    tokens("40 tokens per hour", hard=False, name="soft"), tokens("9 requests per hour", per=["project"], name="calls"),
])  # fmt: skip

type Parts = list[tuple[Needs, float]]
"""What was reserved or spent, and when."""


class Race(RuleBasedStateMachine):
    """Calls that come, grow, end, fail and are lost in any order, while clocks jump and windows end."""

    @initialize()
    def begin(self) -> None:
        self.store = Embedded()
        self.now = self.latest = NOON + DAY / 2 - 1800
        self.open: dict[str, Parts] = {}
        self.ledger: Parts = []
        self.count = 0
        self.outgrown = False

    def needs(self, caller: dict[str, str], amount: int) -> Needs:
        found = LIMITS.touched(caller)
        return Needs(found, [amount if kind.unit == TOKENS else 1 for kind in found.kinds])

    @property
    def held(self) -> Parts:
        return [part for parts in self.open.values() for part in parts]

    def total(self, parts: Parts, limit: Limit, key: str, start: float = -EVER, end: float = EVER) -> int:
        """The plain way: what all of the parts take from a bucket, one after the other."""
        mine = [(one.amount, at) for needs, at in parts for one in needs if one.limit is limit and one.key == key]
        return sum(amount for amount, at in mine if start <= at < end)

    @rule(caller=CALLERS, amount=AMOUNTS)
    def call(self, caller: dict[str, str], amount: int) -> None:
        """A call goes if, and only if, no limit it touches refuses it, looked at one by one."""
        self.count += 1
        needs, ident = self.needs(caller, amount), f"c{self.count}"
        verdict = self.store.reserve_now(ident, needs, self.now)
        refused = False
        for one in needs:
            state = self.store.state(one.limit, one.key, self.now)
            before = state._replace(reserved=state.reserved - (one.amount if verdict.denied is None else 0))
            if not one.limit.window.sliding:
                span = one.limit.window.at(self.now)
                assert before[:2] == tuple(self.total(parts, *one[:2], *span) for parts in (self.ledger, self.held))
            refused |= denies(one, before) is not None
        assert (verdict.denied is not None) == refused
        if verdict.denied is None:
            self.open[ident] = [(needs, self.now)]

    @precondition(lambda self: self.open)
    @rule(which=st.randoms(use_true_random=False), amount=AMOUNTS)
    def grow(self, which: random.Random, amount: int) -> None:
        """A running call needs more than was reserved for it."""
        ident = which.choice(sorted(self.open))
        needs, at = self.open[ident][0]
        more = Needs(needs.touched, [amount if kind.unit == TOKENS else 0 for kind in needs.touched.kinds])
        self.store.extend(ident, more, at)
        self.open[ident].append((more, at))
        self.outgrown = True

    @precondition(lambda self: self.open)
    @rule(which=st.randoms(use_true_random=False), share=st.floats(0, 1))
    def end(self, which: random.Random, share: float) -> None:
        ident = which.choice(sorted(self.open))
        needs, at = self.open.pop(ident)[0]
        spent = Needs(needs.touched, [int(amount * share) for amount in needs.amounts])
        self.store.settle(ident, spent, at)
        self.ledger.append((spent, at))

    @precondition(lambda self: self.open)
    @rule(which=st.randoms(use_true_random=False))
    def fail(self, which: random.Random) -> None:
        ident = which.choice(sorted(self.open))
        del self.open[ident]
        self.store.release(ident)

    @rule(seconds=st.sampled_from([1.0, 59.0, 600.0, 3600.0, 5000.0, -1.0, -300.0]))
    def clock(self, seconds: float) -> None:
        self.now = max(self.now + seconds, self.latest - 1800)
        self.latest = max(self.now, self.latest)
        self.store.renew(list(self.open), self.now)
        self.store.tick(self.now)

    @rule()
    def crash(self) -> None:
        """A kill -9: reservations are gone with the process, what is on the ledger is counted again."""
        self.open.clear()
        self.store = Embedded()
        for spent, at in self.ledger:
            self.store.charge(spent, at)
        for one in LIMITS.all:
            if one.window.sliding:  # what had left it before a clock was set back has left it
                self.store.state(one, "", self.latest)

    @invariant()
    def holds(self) -> None:
        """Spent and reserved together never exceed limit and burst, but for what running calls needed more."""
        for bucket in self.store.buckets():
            assert bucket.spent >= 0 and bucket.reserved >= 0
            if bucket.limit.hard and not self.outgrown:
                assert bucket.spent + bucket.reserved <= bucket.limit.amount + bucket.limit.burst

    @invariant()
    def agrees(self) -> None:
        """What is spent in each window is the ledger's sum, exactly; what is reserved is that of the open calls."""
        for bucket in self.store.buckets():
            if bucket.bins is not None:
                assert bucket.spent == sum(bucket.bins.values())
                assert bucket.reserved == self.total(self.held, bucket.limit, bucket.key)
            elif bucket.end + 3600 > self.latest:  # later it may be forgotten
                for held, parts in ((bucket.spent, self.ledger), (bucket.reserved, self.held)):
                    assert held == self.total(parts, bucket.limit, bucket.key, bucket.start, bucket.end)


TestRace = Race.TestCase
TestRace.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
