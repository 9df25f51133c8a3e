"""A refusal in the provider's own words: the error its SDK turns into its usual rate-limit or quota exception.

Knows the `refusal:` rows of profiles and what makes clients wait, retry or give up. Must not know how the decision
came about beyond its arithmetic.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from llmtab.budgets.amounts import INPUT, number, show
from llmtab.budgets.store import Denied
from llmtab.budgets.windows import EVER
from llmtab.profiles import Claim

PATIENT: Final = 60.0
"""Seconds that SDKs are willing to wait; told of more, they would retry at once and in vain."""
BUSY: Final = 1
SLOT: Final = "{message}"
DEFAULT: Final[Mapping[str, Any]] = {
    "body": {"error": {"message": SLOT, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}},
    "final": {
        "body": {"error": {"message": SLOT, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}
    },
}
"""For wire shapes whose file says nothing: OpenAI's, which most copy."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What goes to the client instead of an answer. `frame`: the same on a WebSocket, None where it has no form of its
    own. `facts`: the arithmetic for the line. `final`: waiting does not help."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    frame: bytes | None
    message: str
    facts: Mapping[str, Any]
    final: bool


def refusal(claim: Claim, denied: Denied, now: float) -> Refusal:
    """The refusal of a call at `now` (epoch seconds), as this claim's provider would say it."""
    wait = waiting(denied, now)
    final = wait is None or wait > PATIENT
    message = told(denied)
    spec = {"status": 429, **_said(claim)}
    if final:
        spec = {**spec, **(spec.get("final") or {})}
    headers = {
        "content-type": "application/json",
        **{name: _filled(value, message) for name, value in (spec.get("headers") or {}).items()},
        "x-should-retry": "false" if final else "true",
    }
    if wait is not None:
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    body, frame = spec.get("body"), spec.get("frame")
    return Refusal(
        int(spec["status"]), headers, _json(body, message), None if frame is None else _json(frame, message),
        message, _facts(denied), final,
    )  # fmt: skip


def waiting(denied: Denied, now: float) -> float | None:
    """Seconds after which the call may fit; None where waiting does not help."""
    if denied.why in ("busy", "store"):
        return float(BUSY)
    if denied.why == "exceeded" and denied.state.end < EVER:
        return max(0.0, denied.state.end - now)
    return None


def _shown(value: int, unit: str) -> str:
    """An amount; what is too little to be rounded is shown as it is."""
    rounded = show(value, unit)
    return f"{number(value, unit):f} {unit}" if value and rounded == show(0, unit) else rounded


def told(denied: Denied) -> str:
    """One sentence with the limit's name and the arithmetic."""
    (limit, key, amount), state, why = denied
    what = f"budget {limit.name}{f' ({key})' if limit.per else ''}"
    if why == "tier":
        return f"llmtab: {what}: no tier of this budget fits this call"
    if why == "unpriced":
        return f"llmtab: {what}: the price of this call is not known, and it refuses such calls"
    if why == "store":
        return f"llmtab: {what}: its store cannot be reached, and what may be spent without it is spent"
    parts = [
        f"limit {_shown(limit.amount, limit.unit)} {limit.window}".rstrip(),
        f"spent {_shown(state.spent, limit.unit)}",
    ]
    if limit.burst:
        parts.insert(1, f"burst {_shown(limit.burst, limit.unit)}")
    if state.carried:
        parts.append(f"overdrawn before {_shown(state.carried, limit.unit)}")
    parts += [f"reserved {_shown(state.reserved, limit.unit)}", f"this call up to {_shown(amount, limit.unit)}"]
    if why == "too_large":
        usual = "" if limit.usual else ", `reserve: usual`"
        less = "a shorter prompt" if limit.unit == INPUT else f"a lower max_tokens{usual}"
        parts.append(f"more than the whole limit: {less} or a higher limit lets it pass")
    elif state.end < EVER:
        parts.append(f"resets at {moment(state.end, limit.window.zone)}")
    return f"llmtab: {what}: {', '.join(parts)}"


def moment(epoch: float, zone: tzinfo = UTC) -> str:
    """RFC 3339 in the zone, with milliseconds where there are any."""
    at = datetime.fromtimestamp(epoch, zone)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _facts(denied: Denied) -> dict[str, Any]:
    """The arithmetic, for the line: amounts in the limit's unit."""
    (limit, key, amount), state, why = denied
    found: dict[str, Any] = {"limit": limit.name}
    if limit.per:
        found["bucket"] = key
    found |= {"why": why, "unit": limit.unit}
    if why not in ("tier", "store"):
        sums = {"amount": limit.amount, "spent": state.spent, "reserved": state.reserved, "call": amount}
        found |= {name: number(value, limit.unit) for name, value in sums.items()}
        if state.end < EVER:
            found["resets_at"] = moment(state.end)
    return found


def _said(claim: Claim) -> Mapping[str, Any]:
    dialects = claim.binding.dialects
    return (dialects[0].refusal if dialects else None) or DEFAULT


def _json(value: Any, message: str) -> bytes:
    if value is None:
        return b""
    return json.dumps(_filled(value, message), ensure_ascii=False).encode()


def _filled(value: Any, message: str) -> Any:
    if isinstance(value, str):
        return value.replace(SLOT, message)
    if isinstance(value, Mapping):
        return {key: _filled(inside, message) for key, inside in value.items()}
    if isinstance(value, list):
        return [_filled(inside, message) for inside in value]
    return value
