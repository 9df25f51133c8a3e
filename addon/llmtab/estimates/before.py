"""What a call will cost, said before it leaves: tokens from bytes, output from bounds and habit, money from the prices.

Knows how much a request tells at a glance, what calls of its kind used before, and how far off estimates were. Must not
know mitmproxy, sockets or files. Nothing here tokenises, and nothing it says is ever booked as usage: the bill is made
from what the provider reports.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from threading import Thread
from typing import Any, Final, NamedTuple

from llmtab.cells import safe, usd
from llmtab.estimates.asking import Asked, asked
from llmtab.estimates.habits import Habit, Habits, kinds
from llmtab.observation import Call
from llmtab.pricing import Cost, PriceBook
from llmtab.profiles import Claim
from llmtab.usage import Usage

log = logging.getLogger("llmtab")

OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
"""What is billed by tokens of text; pictures, sound and pages are not foreseen."""
ROLES: Final = frozenset({"billed", "by_shape"})
BYTES_PER_TOKEN: Final = 3.5
"""Of a request's JSON, until the model's own calls have told: 2.1 (newest Claude) to 4.8 (GPT) by vocabulary, for
English, code and JSON; 3.5 is their middle."""
FEWEST_BYTES_PER_TOKEN: Final = 2.1
"""The same for the dear end (p90)."""
BLOB_TOKENS: Final = 1_000
"""Of one inline picture or document: what providers count for a screenful; 85 to 3,000 by model and size."""
OUTPUT: Final = 500
"""Tokens of an ordinary answer, until the model's own calls have told."""
LONG_OUTPUT: Final = 8_000
"""Tokens of a long one, where neither request nor table nor history say more."""
PLACES: Final = Decimal("1e-12")
LONGEST_LENGTH: Final = 16
OPEN: Final = 10_000
"""Calls under way whose estimate waits for its answer; past it the oldest are forgotten (they teach nothing)."""

type Line = Mapping[str, Any]


class Estimate(NamedTuple):
    """`figures`: the line's `estimate`: `input_tokens` and `output_tokens` (median), and where there is a price
    `cost_usd` (median) and `cost_p90_usd`, in USD. `over`: the p90 is above what the user wants to be warned of."""

    figures: dict[str, int | Decimal]
    over: bool


class Estimator:
    """Estimates calls and learns from their lines. `warn`: USD above which a call's p90 is logged and marked.

    Belongs to one thread (the event loop), but for `seed`, which reads old lines in a thread of its own.
    """

    def __init__(self, warn: Decimal | None = None) -> None:
        self.warn = warn
        self._habits = Habits()
        self._old: Habits | None = None  # from old lines, handed over by the thread that read them
        self._open: dict[str, tuple[tuple[str, ...], Asked]] = {}

    def seed(self, read: Callable[[], Iterable[Line]]) -> Thread:
        """Learn from old lines without holding anybody up; what was learnt holds once all of it is read."""

        def run() -> None:
            found = Habits()
            try:
                for line in read():
                    found.learn(line, kinds(line), None)
            except (OSError, ValueError, TypeError, ArithmeticError) as error:  # a ledger that others wrote to as well
                log.info("llmtab: estimates begin with what could be read of the ledger: %s", error)
            self._old = found

        thread = Thread(target=run, name="llmtab-history", daemon=True)
        thread.start()
        return thread

    def before(self, call: Call, claim: Claim, length: str, prices: PriceBook, at: float) -> Estimate | None:
        """The estimate of a call that is about to leave at `at` (epoch seconds); None where none can be made.

        `length`: the request's `content-length`, "" where it has none: all that is known of a body that streams.
        """
        dialect = claim.binding.dialects[0] if claim.binding.dialects else None
        if dialect is None or dialect.operation not in OPERATIONS or claim.binding.role not in ROLES:
            return None
        size = int(length) if length.isdecimal() and len(length) < LONGEST_LENGTH else 0
        request = asked(call.body() or b"", call.headers.get("content-encoding", ""), size)
        if not request.text and not request.blobs:
            return None
        model = claim.captures.get("model") or request.model or claim.captures.get("deployment") or ""
        names = kinds({"provider": claim.binding.provider, "request_model": model, "labels": call.labels})
        self._remember(call.id, names, request)
        habit = self._known().of(names)
        place = claim.binding.provider, model, request.tier or habit.tier, claim.captures.get("region") or habit.region
        when = datetime.fromtimestamp(at, UTC)
        found = _estimated(request, habit, place, prices, when, silent=dialect.operation == "embeddings")
        figures = {name: value for name, value in found.items() if value is not None}
        high = found["cost_p90_usd"]
        over = self.warn is not None and high is not None and high > self.warn
        if over:
            _warn(call, place[:2], figures, self.warn or Decimal(0))
        return Estimate(figures, over)

    def learn(self, line: Line) -> None:
        """A finished call's line: what it really used."""
        names, request = self._open.pop(line.get("id", ""), (None, None))
        self._known().learn(line, names or kinds(line), request)

    def _known(self) -> Habits:
        """All that was learnt, old lines below what came since."""
        if self._old is not None:
            self._habits, self._old = self._old.over(self._habits), None
        return self._habits

    def _remember(self, ident: str, names: tuple[str, ...], request: Asked) -> None:
        self._open[ident] = names, request
        if len(self._open) > OPEN:
            del self._open[next(iter(self._open))]


def _estimated(
    request: Asked,
    habit: Habit,
    place: tuple[str, str, str | None, str | None],
    prices: PriceBook,
    at: datetime,
    *,
    silent: bool,
) -> dict[str, Any]:
    """Median and p90, each from its own end of the habit: a call that is long in every way at once."""
    bound = _bound(request, habit, place, prices, at)
    inputs = [_input(request, ratio) for ratio in habit.ratio(1 / BYTES_PER_TOKEN, 1 / FEWEST_BYTES_PER_TOKEN)]
    outputs = [0, 0] if silent else _outputs(habit, bound)
    costs = []
    for prompt, answer, (read, written) in zip(inputs, outputs, habit.shares(), strict=True):
        counters = {"input_tokens": prompt, "output_tokens": answer}
        cached = {"cache_read_input_tokens": int(prompt * read), "cache_creation_input_tokens": int(prompt * written)}
        costs.append(
            _cost({**counters, **cached}, habit, place, prices, at) or _cost(counters, habit, place, prices, at)
        )
    typical, high = costs
    return {
        "input_tokens": inputs[0], "output_tokens": outputs[0], "cost_usd": typical,
        "cost_p90_usd": high if high is None or typical is None else max(typical, high),
    }  # fmt: skip


def _input(request: Asked, tokens_per_byte: float) -> int:
    return round(request.text * tokens_per_byte) + request.blobs * BLOB_TOKENS


def _outputs(habit: Habit, bound: int | None) -> list[int]:
    """What such calls answer, no more than the bound; without history the bound itself is the dear end."""
    typical, high = habit.output(min(OUTPUT, bound or OUTPUT), bound or LONG_OUTPUT)
    return [min(typical, bound or typical), min(high, bound or high)]


def _bound(request: Asked, habit: Habit, place: tuple[Any, ...], prices: PriceBook, at: datetime) -> int | None:
    """The most the answer may have: the request's own limit, else the model's in the price table."""
    if request.bound is not None:
        return request.bound
    provider, model = place[:2]
    match = prices.find(provider, model, at) or (prices.find(provider, habit.model, at) if habit.model else None)
    found: int | None = match.entry.get("max_output") if match else None
    return found


def _cost(
    counters: Mapping[str, int], habit: Habit, place: tuple[Any, ...], prices: PriceBook, at: datetime
) -> Decimal | None:
    """USD by the price of the model asked for, else of the one that served such calls; None where neither has one."""
    provider, model, tier, region = place
    for name in dict.fromkeys([model, habit.model]):
        if name:
            usage = Usage({key: value for key, value in counters.items() if value})
            found = prices.price(usage, provider, name, pricing_tier=tier, region=region, at=at)
            if isinstance(found, Cost):
                return found.usd.quantize(PLACES, ROUND_HALF_EVEN)
    return None


def _warn(call: Call, place: tuple[str, str], figures: Mapping[str, Any], limit: Decimal) -> None:
    said = "llmtab: %s/%s may cost %s (p90; %s expected), above llmtab_warn_usd %s: about %d tokens in, %d out%s"
    labels = "".join(f", {name} {safe(value, 40)}" for name, value in call.labels.items())
    high, typical = usd(figures["cost_p90_usd"]), usd(figures["cost_usd"])
    tokens = figures["input_tokens"], figures["output_tokens"]
    log.warning(said, place[0], safe(place[1], 64), high, typical, limit, *tokens, labels)


# -- how good they were ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Accuracy:
    """Estimates of one model beside what came: estimate / actual, call by call."""

    calls: int
    over: int
    """Calls marked `over_warn`."""
    within: int
    """Calls that cost no more than their p90 said."""
    ratios: dict[str, list[float]]

    def summary(self) -> dict[str, Any]:
        """`median`: of estimate / actual, 1 is exact. `p90_factor`: nine calls of ten were off by no more than that."""
        found: dict[str, Any] = {"calls": self.calls, "over_warn": self.over, "within_p90": self.within}
        for name, ratios in self.ratios.items():
            if ratios:
                factors = sorted(max(ratio, 1 / ratio) for ratio in ratios)
                middle = sorted(ratios)[len(ratios) // 2]
                p90 = factors[min(len(factors) - 1, int(len(factors) * 0.9))]
                found[name] = {"calls": len(ratios), "median": round(middle, 3), "p90_factor": round(p90, 3)}
        return found


def accuracy(lines: Iterable[Line]) -> dict[str, Accuracy]:
    """How good the estimates of a ledger's lines were, by `provider/model`: only calls whose real figures came."""
    found: dict[str, Accuracy] = {}
    for line in lines:
        said = line.get("estimate")
        if not said or line.get("usage_source") != "reported":
            continue
        name = f"{line.get('provider')}/{line.get('response_model') or line.get('request_model')}"
        one = found.setdefault(name, Accuracy(0, 0, 0, {"input_tokens": [], "output_tokens": [], "cost_usd": []}))
        actual = {**(line.get("usage") or {}), "cost_usd": line.get("cost_usd")}
        one.calls += 1
        one.over += "over_warn" in (line.get("flags") or ())
        if actual["cost_usd"] is not None and "cost_p90_usd" in said:
            one.within += actual["cost_usd"] <= said["cost_p90_usd"]
        for key, ratios in one.ratios.items():
            if said.get(key) and actual.get(key):
                ratios.append(float(said[key] / actual[key]))
    return found
