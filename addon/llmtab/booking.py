"""An observation becomes lines: outcome, how sure the usage is, what it cost, and the keys of the ledger in their order.

Knows the meaning of the record's fields (section 3 of the design). Must not know bytes, mitmproxy or files.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any, Final

from llmtab.errors import error_class
from llmtab.exchange import Observation
from llmtab.extract import Reading
from llmtab.pricing import Cost, PriceBook
from llmtab.profiles import GUESS
from llmtab.record import SCHEMA_VERSION, in_order, label_text, new_id, wire_text
from llmtab.usage import Quantity, Usage

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


def book(seen: Observation, prices: PriceBook) -> list[dict[str, Any]]:
    """The lines of one call: the main line, then a sub-line for each other model's share; [] where there is nothing to book."""
    reading = seen.reading
    if seen.claim.binding.role == "by_shape" and not (reading.seen and reading.counters):
        return []
    outcome, source, reason = _judge(seen)
    at = datetime.fromtimestamp(seen.ended_at, UTC)
    line = _facts(seen)
    line["outcome"], line["usage_source"], line["usage_reason"] = outcome, source, reason
    line["usage"] = reading.counters if source != "none" else None
    status = seen.answer.status
    if source == "none" and reading.estimate and _delivered(seen, outcome):
        line.update(usage=reading.estimate, usage_source="estimated")
        line.update(estimated=[*reading.estimate], estimate_method="counted")
    if outcome == "error" or (status is None and outcome == "broken"):
        line["error"] = error_class(status, reading.error_type) if status else "connection"
    flags = list(dict.fromkeys(reading.flags)) if reading.flags else []
    if seen.tap_error:
        flags.append("tap_error")
    _price(line, seen, prices, at, flags)
    if flags:
        line["flags"] = flags
    lines = [_known(line)]
    for model, counters in reading.parts:
        lines.append(_share(lines[0], model, counters, prices, at))
    return lines


def _known(line: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that are not known; `cost_usd: null` is a statement and stays."""
    return {key: value for key, value in line.items() if value is not None or key == "cost_usd"}


def _judge(seen: Observation) -> tuple[str, str, str | None]:
    """(outcome, usage_source, usage_reason). Completeness is judged by the terminal event seen, not by how the flow ended."""
    reading, status = seen.reading, seen.answer.status
    arrived = seen.how == "complete" and not seen.undecodable and not seen.tap_error
    if seen.streamed:
        announced = bool(reading.dialect.final) or (bool(reading.dialect.end) and not reading.finish_reasons)
        # A body that was cut inside a frame had more to say: nobody knows whether that would have been other figures.
        said = (reading.final or reading.ended) and not (seen.torn and seen.how != "complete")
        final = said or (arrived and not announced)
    else:
        final = arrived or reading.final
    cut = f"undecodable:{seen.undecodable}" if seen.undecodable else "broken" if arrived else seen.how
    if (status is not None and status >= 400) or reading.failed:
        outcome = "error"
    elif final and (reading.ended or arrived):
        outcome = "ok"
    elif arrived and not reading.seen:
        outcome = "ok"  # a stream that never says its usage nor its end, closed in good order
    else:
        outcome = "aborted" if seen.how == "aborted" and not seen.undecodable else "broken"
    if reading.seen and reading.counters:
        return outcome, *(("reported", None) if final else ("partial", cut))
    if outcome == "error":
        return outcome, "none", "error_response"
    if outcome in ("aborted", "broken"):
        return outcome, "none", cut
    if seen.transport == "opaque":
        return outcome, "none", "undecodable:" + _opaque_name(seen)
    return outcome, "none", "no_usage_in_stream" if seen.streamed else "no_usage"


def _delivered(seen: Observation, outcome: str) -> bool:
    """Whether units that we count ourselves were used: a sound that the client stopped hearing was made all the same."""
    return outcome == "ok" or (outcome in ("aborted", "broken") and not seen.streamed and seen.response_bytes > 0)


def _opaque_name(seen: Observation) -> str:
    kind = seen.answer.headers.get("content-type", "").partition(";")[0].strip()
    return "grpc" if kind.startswith("application/grpc") else (wire_text(kind.replace("/", ".")) or "body")[:40]


def _facts(seen: Observation) -> dict[str, Any]:
    """Every key of a line in the ledger's order, None where not known (yet)."""
    call, reading, answer, claim = seen.call, seen.reading, seen.answer, seen.claim
    binding, dialect = claim.binding, reading.dialect
    return {
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
        "host": wire_text(call.host),
        "method": call.method,
        "path": claim.path,
        "status": answer.status,
        "streamed": seen.streamed,
        "request_model": reading.request_model,
        "response_model": reading.model,
        "response_id": reading.response_id,
        "request_id": reading.request_id,
        "service_tier": reading.service_tier,
        "finish_reasons": reading.finish_reasons or None,
        "pricing_tier": reading.pricing_tier,
        "region": reading.region,
        "outcome": None,
        "error": None,
        "usage": None,
        "usage_source": None,
        "usage_reason": None,
        "estimated": None,
        "estimate_method": None,
        "cost_usd": None,
        "cost_source": None,
        "cost_reason": None,
        "cost_partial_usd": None,
        "cost_lines": None,
        "cost_list_usd": None,
        "cost_reported_usd": None,
        "price": None,
        "billing": reading.billing or ("unknown" if binding.profile == GUESS else "metered"),
        "saved_usd": None,
        "timing": _timing(seen),
        "bytes": {"request": call.request_bytes, "response": seen.response_bytes},
        "labels": _labels(call.labels, reading) if call.labels or reading.session else None,
        "client": call.client or None,
    }


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


def _price(values: dict[str, Any], seen: Observation, prices: PriceBook, at: datetime, flags: list[str]) -> None:
    """Fill in the money: the list price with its proof, the provider's own figure, and which of them is the cost."""
    reading = seen.reading
    counters: Mapping[str, Quantity] = values["usage"] or {}
    if reading.not_billed or (not counters and (seen.unsent or values["outcome"] in ("error", "refused"))):
        values.update(cost_usd=ZERO, cost_source="not_billed")
        return
    found = None
    if counters:
        found = _list_price(values, counters, reading.price_model or reading.model or reading.request_model, prices, at)
    else:
        values.update(cost_usd=None, cost_source="unpriced", cost_reason="no_usage")
    if found is None and reading.billing == "free":  # said by the profile; a price the user gave was found above
        values.update(cost_usd=ZERO, cost_source="not_billed", cost_reason=None, cost_partial_usd=None)
    if reading.money is not None:
        _reported(values, reading, reading.money, found, flags)


def _list_price(
    values: dict[str, Any], counters: Mapping[str, Quantity], model: str | None, prices: PriceBook, at: datetime
) -> Decimal | None:
    """Price by our table; the amount, or None where it has none. A call without a model fits only a user's pattern `*`."""
    found = prices.price(
        Usage(counters),
        values["provider"],
        model or "",
        pricing_tier=values["pricing_tier"],
        region=values["region"],
        at=at,
    )
    if found.price:
        values["price"] = {**found.price, "at": _rfc3339(at.timestamp())}
    values["cost_lines"] = [*found.lines] or None
    if isinstance(found, Cost):
        source = "estimated" if values["usage_source"] in ("partial", "estimated") else "list"
        values.update(cost_usd=found.usd, cost_source=source, saved_usd=found.saved_usd)
        return found.usd
    values.update(cost_usd=None, cost_source="unpriced", cost_reason=found.reason, cost_partial_usd=found.partial_usd)
    return None


def _reported(
    values: dict[str, Any], reading: Reading, money: Decimal, listed: Decimal | None, flags: list[str]
) -> None:
    """The provider's own money beside ours; preferred where the profile trusts it."""
    values["cost_reported_usd"] = money.quantize(PLACES, ROUND_HALF_EVEN)
    whole = (money + reading.beside if reading.beside is not None else money).quantize(PLACES, ROUND_HALF_EVEN)
    if listed is not None:
        values["cost_list_usd"] = listed
        if abs(listed - whole) > DIFFERS * max(listed, whole):
            flags.append("cost_differs")
    if reading.dialect.trust:
        source = "reported" if values["usage_source"] == "reported" else "estimated"
        values.update(cost_usd=whole, cost_source=source, cost_reason=None, cost_partial_usd=None)


def _share(
    main: Mapping[str, Any], model: str | None, counters: dict[str, Quantity], prices: PriceBook, at: datetime
) -> dict[str, Any]:
    """A sub-line: another model's share of the call; no call of its own, so no status, timing or bytes."""
    line = {key: main[key] for key in SHARED if key in main}
    line.update(id=new_id(int(at.timestamp() * 1e9)), parent=main["id"], response_model=model, usage=counters)
    line.setdefault("pricing_tier", None)
    line.setdefault("region", None)
    _list_price(line, counters, model, prices, at)
    return in_order(line)
