"""An observation becomes lines: outcome, how sure the usage is, what it cost, and the keys of the ledger in their order.

Knows the meaning of the record's fields (section 3 of the design). Must not know bytes, mitmproxy or files.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
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
_ID: Final = re.compile(
    r"^(?:[0-9a-fA-F-]{16,}|\d{5,}|[a-z][a-zA-Z]{0,15}[_-](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{8,}|[A-Za-z0-9_=-]{33,})$"
)


def book(seen: Observation, prices: PriceBook) -> list[dict[str, Any]]:
    """The lines of one call: the main line, then a sub-line for each other model's share; [] where there is nothing to book."""
    reading, binding = seen.reading, seen.claim.binding
    if binding.role == "by_shape" and not (reading.seen and reading.counters):
        return []
    outcome, source, reason = _judge(seen)
    at = datetime.fromtimestamp(seen.ended_at, UTC)
    common = _identity(seen)
    values: dict[str, Any] = {
        **common,
        "outcome": outcome,
        "usage_source": source,
        "usage_reason": reason,
        "usage": reading.counters if source != "none" else None,
        **_observed(seen),
    }
    if outcome == "error" or seen.answer.status is None:
        values["error"] = error_class(seen.answer.status, reading.error_type) if seen.answer.status else "connection"
    flags = list(dict.fromkeys(reading.flags))
    if seen.tap_error:
        flags.append("tap_error")
    _price(values, reading, prices, at, flags)
    values["flags"] = flags or None
    return [in_order(values), *(_share(common, share, seen, prices, at, source, outcome) for share in reading.parts)]


def _judge(seen: Observation) -> tuple[str, str, str | None]:
    """(outcome, usage_source, usage_reason). Completeness is judged by the terminal event seen, not by how the flow ended."""
    reading, status = seen.reading, seen.answer.status
    arrived = seen.how == "complete" and not seen.undecodable and not seen.tap_error
    if seen.streamed:
        announced = bool(reading.dialect.final) or (bool(reading.dialect.end) and not reading.finish_reasons)
        final = reading.final or reading.ended or (arrived and not announced)
    else:
        final = arrived or reading.final
    cut = f"undecodable:{seen.undecodable}" if seen.undecodable else "broken" if arrived else seen.how
    if (status is not None and status >= 400) or reading.failed:
        outcome = "error"
    elif status is None and seen.how != "aborted":
        outcome = "error"
    elif reading.ended or (final and arrived):
        outcome = "ok"
    elif arrived and not reading.seen:
        outcome = "ok"  # a stream that never says its usage nor its end, closed in good order
    else:
        outcome = "aborted" if seen.how == "aborted" and not seen.undecodable else "broken"
    if reading.seen and reading.counters:
        return outcome, *(("reported", None) if final else ("partial", cut))
    if outcome == "error":
        return outcome, "none", "error_response" if status is not None else "broken"
    if outcome in ("aborted", "broken"):
        return outcome, "none", cut
    if seen.transport == "opaque":
        return outcome, "none", "undecodable:" + _opaque_name(seen)
    return outcome, "none", "no_usage_in_stream" if seen.streamed else "no_usage"


def _opaque_name(seen: Observation) -> str:
    kind = seen.answer.headers.get("content-type", "").partition(";")[0].strip()
    return "grpc" if kind.startswith("application/grpc") else (wire_text(kind.replace("/", ".")) or "body")[:40]


def _identity(seen: Observation) -> dict[str, Any]:
    call, reading, binding = seen.call, seen.reading, seen.claim.binding
    return {
        "schema": SCHEMA_VERSION,
        "id": call.id,
        "writer": "",
        "seq": 0,
        "time": _rfc3339(call.began),
        "provider": binding.provider,
        "api": reading.dialect.api,
        "operation": reading.dialect.operation,
        "transport": seen.transport,
        "profile": binding.profile,
        "host": wire_text(call.host),
        "pricing_tier": reading.pricing_tier,
        "region": reading.region,
        "billing": reading.billing or ("unknown" if binding.profile == GUESS else "metered"),
        "labels": _labels(call.labels, reading),
    }


def _observed(seen: Observation) -> dict[str, Any]:
    call, reading, answer = seen.call, seen.reading, seen.answer
    return {
        "method": wire_text(call.method),
        "path": wire_text(clean(call.path)),
        "status": answer.status,
        "streamed": seen.streamed,
        "request_model": reading.request_model,
        "response_model": reading.model,
        "response_id": reading.response_id,
        "request_id": reading.request_id,
        "service_tier": reading.service_tier,
        "finish_reasons": reading.finish_reasons or None,
        "timing": _timing(seen),
        "bytes": {"request": call.request_bytes, "response": seen.response_bytes},
        "client": call.client or None,
    }


def _labels(labels: Mapping[str, str], reading: Reading) -> dict[str, str] | None:
    found = {name: value for name, raw in labels.items() if (value := label_text(raw))}
    if reading.session and "session" not in found:
        found["session"] = reading.session
    return dict(list(found.items())[:MAX_LABELS]) or None


def _timing(seen: Observation) -> dict[str, float]:
    began, timing = seen.call.began, {}
    for name, moment in (
        ("first_byte_ms", seen.first_byte_at),
        ("first_token_ms", seen.first_token_at),
        ("duration_ms", seen.ended_at),
    ):
        if moment is not None:
            timing[name] = round(max(0.0, moment - began) * 1000, 2)
    return timing


def _rfc3339(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def clean(path: str) -> str:
    """A path without its query and without segments that name a piece of content (`/v1/responses/{id}`)."""
    path = path.partition("?")[0].partition("#")[0]
    return "/".join("{id}" if _ID.match(part) else part for part in path.split("/"))[:128]


def _price(values: dict[str, Any], reading: Reading, prices: PriceBook, at: datetime, flags: list[str]) -> None:
    """Fill in the money: the list price with its proof, the provider's own figure, and which of them is the cost."""
    counters: Mapping[str, Quantity] = values["usage"] or {}
    if reading.not_billed or (not counters and values["outcome"] in ("error", "refused")):
        values.update(cost_usd=ZERO, cost_source="not_billed")
        return
    found = None
    if counters:
        found = _list_price(values, counters, reading.model or reading.request_model, prices, at)
    else:
        values.update(cost_usd=None, cost_source="unpriced", cost_reason="no_usage")
    if reading.money is not None:
        _reported(values, reading, found, flags)


def _list_price(
    values: dict[str, Any], counters: Mapping[str, Quantity], model: str | None, prices: PriceBook, at: datetime
) -> Decimal | None:
    """Price by our table; the amount, or None where it has none."""
    if model is None:
        values.update(cost_usd=None, cost_source="unpriced", cost_reason="unknown_model")
        return None
    found = prices.price(
        Usage(counters), values["provider"], model, pricing_tier=values["pricing_tier"], region=values["region"], at=at
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


def _reported(values: dict[str, Any], reading: Reading, listed: Decimal | None, flags: list[str]) -> None:
    """The provider's own money beside ours; preferred where the profile trusts it."""
    money = reading.money.quantize(PLACES, ROUND_HALF_EVEN) if reading.money is not None else ZERO
    values["cost_reported_usd"] = money
    if listed is not None:
        values["cost_list_usd"] = listed
        if abs(listed - money) > DIFFERS * max(listed, money):
            flags.append("cost_differs")
    if reading.dialect.trust:
        values.update(cost_usd=money, cost_source="reported")
        for key in ("cost_reason", "cost_partial_usd"):
            values.pop(key, None)


def _share(
    common: Mapping[str, Any],
    share: tuple[str | None, dict[str, Quantity]],
    seen: Observation,
    prices: PriceBook,
    at: datetime,
    source: str,
    outcome: str,
) -> dict[str, Any]:
    """A sub-line: another model's share of the call."""
    model, counters = share
    values: dict[str, Any] = {
        **common,
        "id": new_id(int(seen.call.began * 1e9)),
        "parent": common["id"],
        "outcome": outcome,
        "response_model": model,
        "usage": counters,
        "usage_source": source,
    }
    _list_price(values, counters, model, prices, at)
    return in_order(values)
