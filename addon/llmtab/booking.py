"""An observation becomes lines: outcome, how sure the usage is, what it cost, and the keys of the ledger in their
order.

Knows the meaning of the record's fields (section 3 of the design). Must not know bytes, mitmproxy or files.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from llmtab.errors import error_class
from llmtab.extract import Reading
from llmtab.observation import Observation
from llmtab.pricing import Cost, PriceBook
from llmtab.profiles import GUESS
from llmtab.record import SCHEMA_VERSION, in_order, label_text, new_id, wire_text
from llmtab.usage import COUNTERS, Quantity, Usage

if TYPE_CHECKING:
    from llmtab.estimates.guess import Guess

type Guessing = Callable[[Observation, str, str], Guess | None]
"""(call, outcome, usage_source) -> what `guess` says of it; None where what is known stands."""
PLACES: Final = Decimal("1e-12")
DIFFERS: Final = Decimal("0.01")
"""A provider's own figure further than this from the list price is named on the line."""
ZERO: Final = Decimal(0)
MAX_LABELS: Final = 16
SHARED: Final = (
    "schema", "id", "writer", "seq", "time", "provider", "api", "operation", "transport", "profile", "host",
    "pricing_tier", "region", "outcome", "usage_source", "usage_reason", "billing", "labels",
)  # fmt: skip
"""What a sub-line has in common with its main line."""


def book(seen: Observation, prices: PriceBook, guess: Guessing | None = None) -> list[dict[str, Any]]:
    """The lines of one call: the main line, then a sub-line for each other model's share; [] where there is
    nothing to book. `guess`: asked for the figures that did not come."""
    reading = seen.reading
    if seen.claim.binding.role == "by_shape" and not (reading.seen and reading.counters):
        return []
    outcome, source, reason = _judge(seen)
    at = datetime.fromtimestamp(seen.ended_at, UTC)
    line, flags = _facts(seen), []
    if reading.flags:
        flags = list(dict.fromkeys(reading.flags))
    line["outcome"] = outcome
    if outcome == "error" or (seen.answer.status is None and outcome == "broken"):
        status = seen.answer.status
        line["error"] = error_class(status, reading.error_type) if status else "connection"
    counted = source == "none" and reading.estimate and _delivered(seen, outcome)
    guessed = guess(seen, outcome, source) if guess is not None and not counted else None
    if guessed is not None:
        line["usage"], line["usage_source"] = guessed.counters, "estimated"
    elif counted:
        line["usage"], line["usage_source"] = reading.estimate, "estimated"
    elif source == "none":
        line["usage_source"] = source
    else:
        line["usage"], line["usage_source"] = reading.counters, source
    if reason is not None:
        line["usage_reason"] = reason
    if counted:
        line["estimated"], line["estimate_method"] = [*reading.estimate], "counted"
    if guessed is not None:
        line["estimated"], line["estimate_method"] = guessed.names, guessed.method
        flags += guessed.flags
    _price(line, seen, prices, at, flags)
    _rest(line, seen)
    if seen.tap_error:
        flags.append("tap_error")
    if seen.call.estimate is not None and seen.call.estimate[1]:
        flags.append("over_warn")
    if flags:
        line["flags"] = flags
    if not reading.parts:
        return [line]
    return [line, *(_share(line, model, counters, prices, at) for model, counters in reading.parts)]


def _judge(seen: Observation) -> tuple[str, str, str | None]:
    """(outcome, usage_source, usage_reason). Completeness is judged by the terminal event seen, not by how the
    flow ended."""
    if seen.call.refused:
        return "refused", "none", "not_billed"
    reading, status = seen.reading, seen.answer.status
    arrived = seen.how == "complete" and not seen.undecodable and not seen.tap_error
    if seen.streamed:
        announced = bool(reading.dialect.final) or (bool(reading.dialect.end) and not reading.finish_reasons)
        # A body that was cut inside a frame had more to say: nobody knows whether that would have been other figures.
        said = (reading.final or reading.ended) and not (seen.torn and seen.how != "complete")
        final = said or (arrived and not announced)
    else:
        final = arrived or reading.final
    undecodable = seen.undecodable
    if undecodable == "json" and seen.how != "complete":
        undecodable = ""  # half a JSON text never parses: the cut is the reason
    cut = f"undecodable:{undecodable}" if undecodable else "broken" if arrived else seen.how
    if (status is not None and status >= 400) or reading.failed:
        outcome = "error"
    elif final and (reading.ended or arrived):
        outcome = "ok"
    elif seen.how == "complete" and seen.undecodable == "limit" and reading.seen:
        outcome = "ok"  # what was too large for us was not for the client
    elif arrived and not reading.seen:
        outcome = "ok"  # a stream that never says its usage nor its end, closed in good order
    else:
        outcome = "aborted" if seen.how == "aborted" else "broken"
    if reading.seen and reading.counters:
        if unread := _unread(reading.flags):
            return outcome, "partial", f"dropped:{unread}"
        return outcome, *(("reported", None) if final else ("partial", cut))
    if outcome == "error":
        return outcome, "none", "error_response"
    if outcome in ("aborted", "broken") or seen.undecodable:
        return outcome, "none", cut
    if seen.transport == "opaque":
        return outcome, "none", "undecodable:" + _opaque_name(seen)
    return outcome, "none", "no_usage_in_stream" if seen.streamed else "no_usage"


def _unread(flags: Sequence[str]) -> str | None:
    """The first counter whose figure on the wire was no number (or `parts`: there were too many, or one had none)."""
    names = (flag.removeprefix("dropped:") for flag in flags if flag.startswith("dropped:"))
    return next((name for name in names if name in COUNTERS or name == "parts"), None)


def incomplete(
    counters: Mapping[str, Quantity], flags: Sequence[str], source: str | None, cost: Decimal | None
) -> str | None:
    """Why what the counters come to is not the cost of the call: a figure was no number, or only the answer could be
    counted (half a cost is none). None where it is. `cost`: what they come to."""
    unread = _unread(flags) if flags else None
    if unread in COUNTERS and (cost or not any(counters.values())):
        return f"inconsistent:{unread}"
    if "output_tokens" in counters and "input_tokens" not in counters and source == "estimated":
        return "no_usage"
    return None


def _delivered(seen: Observation, outcome: str) -> bool:
    """Whether units that we count ourselves were used: a sound that the client stopped hearing was made all the
    same."""
    return outcome == "ok" or (outcome in ("aborted", "broken") and not seen.streamed and seen.response_bytes > 0)


def _opaque_name(seen: Observation) -> str:
    kind = seen.answer.headers.get("content-type", "").partition(";")[0].strip()
    return "grpc" if kind.startswith("application/grpc") else (wire_text(kind.replace("/", ".")) or "body")[:40]


def _facts(seen: Observation) -> dict[str, Any]:
    """What is known of the call up to its outcome. Lines are built in the ledger's order, without what is not known:
    one that is rearranged afterwards costs every call more than all the rest of its booking."""
    call, reading, claim = seen.call, seen.reading, seen.claim
    binding, dialect = claim.binding, reading.dialect
    line: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "id": call.id,
        "writer": "",
        "seq": 0,
        "time": _rfc3339(call.began),
        "provider": binding.provider,
        "api": dialect.api,
        "operation": dialect.operation,
        "transport": seen.transport,
        "profile": binding.profile,
    }
    if host := wire_text(call.host):
        line["host"] = host
    line["method"], line["path"] = call.method, claim.path
    if seen.answer.status is not None:
        line["status"] = seen.answer.status
    line["streamed"] = seen.streamed
    if reading.request_model is not None:
        line["request_model"] = reading.request_model
    if reading.model is not None:
        line["response_model"] = reading.model
    if reading.response_id is not None:
        line["response_id"] = reading.response_id
    if reading.request_id is not None:
        line["request_id"] = reading.request_id
    if reading.service_tier is not None:
        line["service_tier"] = reading.service_tier
    if reading.finish_reasons:
        line["finish_reasons"] = reading.finish_reasons
    if reading.pricing_tier is not None:
        line["pricing_tier"] = reading.pricing_tier
    if reading.region is not None:
        line["region"] = reading.region
    return line


def _rest(line: dict[str, Any], seen: Observation) -> None:
    """Times, sizes and who called."""
    call = seen.call
    line["timing"] = _timing(seen)
    line["bytes"] = {"request": call.request_bytes, "response": seen.response_bytes}
    if (call.labels or seen.reading.session) and (labels := _labels(call.labels, seen.reading)):
        line["labels"] = labels
    if call.client:
        line["client"] = call.client
    if call.estimate is not None:
        line["estimate"] = call.estimate[0]
    if call.budget is not None:
        line["budget"] = call.budget


def _labels(labels: Mapping[str, str], reading: Reading) -> dict[str, str] | None:
    found = {name: value for name, raw in labels.items() if (value := label_text(raw))}
    if reading.session and "session" not in found:
        found["session"] = reading.session
    return dict(list(found.items())[:MAX_LABELS]) or None


def _timing(seen: Observation) -> dict[str, float]:
    began, timing = seen.call.began, {}
    if seen.first_byte_at is not None:
        timing["first_byte_ms"] = _ms(seen.first_byte_at - began)
    if seen.first_token_at is not None:
        timing["first_token_ms"] = _ms(seen.first_token_at - began)
    timing["duration_ms"] = _ms(seen.ended_at - began)
    return timing


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2) if seconds > 0 else 0.0


@lru_cache(maxsize=8)
def _second(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")[:-6]


def _rfc3339(epoch: float) -> str:
    millis = int(epoch * 1000)
    return f"{_second(millis // 1000)}.{millis % 1000:03d}Z"


def _price(line: dict[str, Any], seen: Observation, prices: PriceBook, at: datetime, flags: list[str]) -> None:
    """Add the money: the list price with its proof, the provider's own figure, and which of them is the cost."""
    reading = seen.reading
    counters: Mapping[str, Quantity] = line.get("usage") or {}
    billing = reading.billing or ("unknown" if seen.claim.binding.profile == GUESS else "metered")
    if reading.not_billed or (not counters and (seen.unsent or line["outcome"] in ("error", "refused"))):
        line["cost_usd"], line["cost_source"], line["billing"] = ZERO, "not_billed", billing
        return
    money: dict[str, Any]
    saved = None
    if counters:
        model = reading.price_model or reading.model or reading.request_model
        money, saved = _list_price(line, counters, model, prices, at)
        if lacking := incomplete(counters, reading.flags, line["usage_source"], money["cost_usd"]):
            money, saved = _without_sum(money, lacking), None
    else:
        money = {"cost_usd": None, "cost_source": "unpriced", "cost_reason": "no_usage"}
    if reading.money is not None:
        _report(money, reading, reading.money, flags, cut=_is_cut(line))
        line.update(in_order(money))
    else:
        line.update(money)
    line["billing"] = billing
    if saved is not None:
        line["saved_usd"] = saved


def _is_cut(line: Mapping[str, Any]) -> bool:
    """Whether money that the provider named may be a running sum."""
    return line["usage_source"] == "partial" or (
        line["usage_source"] == "estimated" and line["outcome"] in ("aborted", "broken")
    )


def _without_sum(money: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The cost of a call of which one figure is not known: nobody knows the sum, only a part of it."""
    part = money["cost_usd"] if money["cost_usd"] is not None else money.get("cost_partial_usd")
    told = {"cost_usd": None, "cost_source": "unpriced", "cost_reason": money.get("cost_reason") or reason}
    return in_order({**money, **told, "cost_partial_usd": part})


def _list_price(
    line: Mapping[str, Any], counters: Mapping[str, Quantity], model: str | None, prices: PriceBook, at: datetime
) -> tuple[dict[str, Any], Decimal | None]:
    """The keys of a cost by our table, and what caching saved. A call without a model fits only a user's pattern
    `*`."""
    found = prices.price(
        Usage(counters),
        line["provider"],
        model or "",
        pricing_tier=line.get("pricing_tier"),
        region=line.get("region"),
        at=at,
    )
    money: dict[str, Any]
    saved = None
    if isinstance(found, Cost):
        source = "estimated" if line["usage_source"] in ("partial", "estimated") else "list"
        money, saved = {"cost_usd": found.usd, "cost_source": source}, found.saved_usd
    else:
        money = {"cost_usd": None, "cost_source": "unpriced", "cost_reason": found.reason}
        if found.partial_usd is not None:
            money["cost_partial_usd"] = found.partial_usd
    if found.lines:
        money["cost_lines"] = [*found.lines]
    if found.price:
        money["price"] = {**found.price, "at": _rfc3339(at.timestamp())}
    return money, saved


def _report(money: dict[str, Any], reading: Reading, said: Decimal, flags: list[str], cut: bool) -> None:
    """The provider's own money beside ours; preferred where the profile trusts it. Of a cut stream it is a running
    sum."""
    money["cost_reported_usd"] = said.quantize(PLACES, ROUND_HALF_EVEN)
    whole = (said + reading.beside if reading.beside is not None else said).quantize(PLACES, ROUND_HALF_EVEN)
    listed = money["cost_usd"]
    if listed is not None:
        money["cost_list_usd"] = listed
        if abs(listed - whole) > DIFFERS * max(listed, whole):
            flags.append("cost_differs")
    if reading.dialect.trust:
        source = "estimated" if cut else "reported"
        money.update(cost_usd=whole, cost_source=source, cost_reason=None, cost_partial_usd=None)


def _share(
    main: Mapping[str, Any], model: str | None, counters: dict[str, Quantity], prices: PriceBook, at: datetime
) -> dict[str, Any]:
    """A sub-line: another model's share of the call; no call of its own, so no status, timing or bytes."""
    line = {key: main[key] for key in SHARED if key in main}
    line.update(id=new_id(int(at.timestamp() * 1e9)), parent=main["id"], response_model=model, usage=counters)
    money, saved = _list_price(line, counters, model, prices, at)
    return in_order({**line, **money, "saved_usd": saved})
