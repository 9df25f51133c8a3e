"""The worst sensible case of a call that is about to leave: what is reserved for it until its bill is known.

Knows what a request tells at a glance, what calls of its kind used before, and the price table. Must not know limits.
Nothing here tokenises: the prompt is reckoned from its bytes, the answer by its bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from llmtab.budgets.amounts import USD, scaled
from llmtab.estimates.asking import COPIES, Asked, asked
from llmtab.estimates.before import BLOB_TOKENS, FEWEST_BYTES_PER_TOKEN, LONG_OUTPUT, LONGEST_LENGTH, OPERATIONS
from llmtab.estimates.habits import FEWEST, Habit
from llmtab.events import request_reader
from llmtab.extract import Fold
from llmtab.observation import Call
from llmtab.pricing import Cost, PriceBook
from llmtab.profiles import Claim
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import Scope, walk
from llmtab.usage import Quantity, Usage

BLOB: Final = 3_000
"""Tokens of one inline picture or document, for the models that count most."""
STREAMED: Final = 40
"""Bytes of a stream that stand for one token at least: every event repeats its frame."""
CACHED: Final = ((b'"cache_control"', b'"1h"'), (b'"cachePoint"', b'"1h"'))
"""(a prompt is to be cached, for an hour): writing costs more than reading."""
ONE: Final[Sequence[Mapping[str, Quantity]]] = ({"requests": 1}, {"search_units": 1})
"""What a call is billed as at least, where it is billed by the piece."""
MANY: Final = (("n",), ("parameters", "n"), ("parameters", "sampleCount"))
"""Where a request says how many images it wants."""
PIECES: Final = 10**6
"""The most pieces that one call is believed to want."""


class Worst(NamedTuple):
    """`usd`: whole numbers of 1e-12 USD, None where there is no price (`reason` says why). `bounded`: whether more
    than `output` tokens cannot come. `request`: what it was reckoned from."""

    input: int
    output: int
    usd: int | None
    reason: str
    bounded: bool
    request: Asked


class Pieces(NamedTuple):
    """What a request tells of a call that is not billed by text: how many of which counters, the name that it is priced
    by where that is no model's, and whether nobody is billed."""

    counters: Mapping[str, Quantity]
    priced_as: str | None
    free: bool


class Looked(NamedTuple):
    """What a request tells. `model`: the one it asks for, "" where it names none; `pieces`: None where it is billed by
    text."""

    request: Asked
    model: str
    pieces: Pieces | None


def look(call: Call, claim: Claim, length: str) -> Looked:
    """What a request tells. `length`: its `content-length`."""
    size = int(length) if length.isdecimal() and len(length) < LONGEST_LENGTH else 0
    request = asked(call.body() or b"", call.headers.get("content-encoding", ""), size, whole=True)
    dialect, captures = _dialect(claim), claim.captures
    model = captures.get("model") or request.model or captures.get("deployment") or call.query("model") or ""
    if dialect is None or (model and dialect.operation in OPERATIONS and _by_model(dialect)):
        return Looked(request, model, None)
    # A form, a word of its own, another kind of call: what its line will say is what the dialect's rules read.
    scope = Scope({}, call.headers, request_reader(call.body, call.headers), captures, call.query)
    told = Fold(dialect, scope).reading()
    if not _by_model(dialect) or not model:
        model = told.request_model or model
    if dialect.operation in OPERATIONS:
        return Looked(request, model, None)
    counters = {name: min(value, PIECES) for name, value in told.estimate.items() if value > 0}
    if dialect.operation == "image":
        counters["images"] = _images(scope.request())
    return Looked(request, model, Pieces(counters, told.price_model, told.not_billed))


@lru_cache(maxsize=512)
def _by_model(dialect: Dialect) -> bool:
    """Whether the model of a call is what its request calls `model`."""
    said = dialect.spec.get("request_model")
    return said is None or "request:/model" in (said.get("any") or () if isinstance(said, Mapping) else (said,))


def _dialect(claim: Claim) -> Dialect | None:
    return claim.binding.dialects[0] if claim.binding.dialects else None


def _images(request: Any) -> int:
    found = [str(walk(request, path)) for path in MANY]
    return max([min(int(text), COPIES) for text in found if text.isdecimal() and len(text) < 9], default=1) or 1


def worst(call: Call, claim: Claim, looked: Looked, habit: Habit, prices: PriceBook, now: float) -> Worst:
    """The most that a call may sensibly use and cost; what cannot be foreseen (pictures, sound) is none of it."""
    dialect, (request, model, pieces) = _dialect(claim), looked
    if dialect is None:
        return Worst(0, 0, 0, "", True, request)
    at = datetime.fromtimestamp(now, UTC)
    if pieces is not None:
        usd, reason = (0, "") if pieces.free else _by_piece(claim, dialect, looked, pieces, habit, prices, at)
        return Worst(0, 0, usd, reason, True, request)
    bound = request.bound
    if dialect.operation == "embeddings":
        bound = 0
    elif bound is None:
        provider = claim.binding.provider
        match = prices.find(provider, model, at) or (prices.find(provider, habit.model, at) if habit.model else None)
        bound = match.entry.get("max_output") if match else None
    ratio = max(habit.ratios) if len(habit.ratios) >= FEWEST else 1 / FEWEST_BYTES_PER_TOKEN
    prompt = round(request.text * ratio) + request.blobs * BLOB
    answer = LONG_OUTPUT if bound is None else bound
    plain = {"input_tokens": prompt, "output_tokens": answer}
    written = _written(call, prompt)
    usages = ({**plain, **written}, plain) if written else (plain,)
    usd, reason = _price(claim, request, (model, habit), usages, prices, at)
    return Worst(prompt, answer, usd, reason, bound is not None, request)


def usual(call: Call, claim: Claim, most: Worst, model: str, habit: Habit, prices: PriceBook, now: float) -> Worst:
    """What nine of ten such calls stay below, by those before it; never above `most`, its worst case.

    Before the first few calls have told, a long answer and a prompt that no cache holds yet.
    """
    request = most.request
    ratio = habit.ratio(0.0, 1 / FEWEST_BYTES_PER_TOKEN)[1]
    prompt = min(most.input, round(request.text * ratio) + request.blobs * BLOB_TOKENS)
    answer = min(most.output, habit.output(0, LONG_OUTPUT)[1])
    if most.usd is None or not (prompt or answer):
        return most._replace(input=prompt, output=answer)
    plain = {"input_tokens": prompt, "output_tokens": answer}
    cached = _written(call, prompt)
    if len(habit.read) >= FEWEST:
        read, written = habit.shares()[1]
        cached = {"cache_read_input_tokens": int(prompt * read), **_written(call, int(prompt * written))}
    at = datetime.fromtimestamp(now, UTC)
    usd, _ = _price(claim, request, (model, habit), ({**plain, **cached}, plain), prices, at)
    return most._replace(input=prompt, output=answer, usd=most.usd if usd is None else min(usd, most.usd))


def _by_piece(
    claim: Claim, dialect: Dialect, looked: Looked, pieces: Pieces, habit: Habit, prices: PriceBook, at: datetime
) -> tuple[int | None, str]:
    """The same of what is not billed by text: the price of its pieces, 0 where those have none but the model has one,
    None where the model has none either."""
    names = pieces.priced_as or looked.model, habit
    usd, reason = _price(claim, looked.request, names, (pieces.counters, *ONE), prices, at)
    told_later = dialect.trust and not looked.model  # the answer names its price, and no model that could have one
    if usd is None and (told_later or reason.startswith("unpriced:")):
        return 0, ""
    return usd, reason


def _price(
    claim: Claim,
    request: Asked,
    names: tuple[str, Habit],
    usages: Sequence[Mapping[str, Quantity]],
    prices: PriceBook,
    at: datetime,
) -> tuple[int | None, str]:
    """(USD in whole numbers, "") or (None, why not): of the model asked for, else of the one that served such calls;
    by the first of the `usages` that has a price."""
    model, habit = names
    provider, reason = claim.binding.provider, "unknown_model"
    tier, region = request.tier or habit.tier, claim.captures.get("region") or habit.region
    ways: Iterable[tuple[str | None, str | None]] = ((None, None),)
    if tier or region:
        ways = dict.fromkeys([(tier, region), (None, region), (None, None)])
    for name in (model,) if habit.model in (None, model) else (model, habit.model):
        if not name:
            continue
        for called, place in ways:
            for usage in usages:
                found = prices.price(Usage(usage), provider, name, pricing_tier=called, region=place, at=at)
                if isinstance(found, Cost):
                    return scaled(found.usd, USD), ""
                reason = found.reason
    return None, reason


def _written(call: Call, prompt: int) -> Mapping[str, int]:
    """The cache counters of a prompt that is to be cached whole."""
    body = call.body() or b""
    for asks, hour in CACHED:
        if asks in body:
            found = {"cache_creation_input_tokens": prompt}
            return {**found, "cache_creation_1h_input_tokens": prompt} if hour in body else found
    return {}


def beyond(worst: Worst, received: int) -> tuple[int, int]:
    """(more output tokens, more USD) than was reserved, for a stream that has brought `received` bytes so far."""
    tokens = received // STREAMED
    if tokens <= worst.output:
        return 0, 0
    whole = worst.input + worst.output
    share = Decimal(tokens - worst.output) / whole if whole else Decimal(0)
    return tokens - worst.output, int((worst.usd or 0) * share)


def towards(held: Worst, most: Worst, received: int) -> tuple[int, int]:
    """The same where less than the worst case was reserved: the more of an answer has come, the nearer to it."""
    room = most.output - held.output
    tokens = min(received // STREAMED - held.output, room)
    if tokens <= 0:
        return 0, 0
    return tokens, ((most.usd or 0) - (held.usd or 0)) * tokens // room
