"""A line's figures as short text for people: safe to print, short enough for a column, never a guessed number.

Knows how money, tokens, time and outcomes are shown. Must not know terminals, colours or widths of a screen.
"""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any, Final

UNKNOWN: Final = "-"
_LABELS: Final = ("project", "team", "consumer", "agent", "env", "intent", "end_user")
"""Which labels tell most about a call, in this order; a session's id says little to a reader."""
_FAST: Final = 100
"""Milliseconds under which a rate in tokens per second means nothing: the text came in one piece."""

_SAID: Final = {"cost_differs": "cost differs", "over_warn": "over warn"}
"""Flags that are about money, in words."""

type Line = Mapping[str, Any]


def safe(value: object, limit: int = 128) -> str:
    """Text that a terminal only shows: control characters, escapes and direction marks become `?`; cut at `limit`."""
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def is_unpriced(line: Line) -> bool:
    """Billed at a price that nobody knows: null, which is not the same as absent."""
    return "cost_usd" in line and line["cost_usd"] is None


def model(line: Line) -> str:
    """The model that served, else the one that was asked for, else `-`."""
    return str(line.get("response_model") or line.get("request_model") or "-")


def usd(amount: Decimal, *, short: bool = False) -> str:
    """Dollars: two places from 1 on, four from a cent on, below that four significant digits; `$0` for nothing.

    `short`: nine characters at most, or ten with a sign; small sums have an exponent then.
    """
    size = abs(amount)
    sign = "-" if amount < 0 else ""
    if not size:
        return "$0"
    if size >= (Decimal("9999.995") if short else Decimal("999999.995")):  # what rounds to one more digit is longer
        return f"{sign}${count(size, short=True)}"
    if size >= Decimal("0.99995"):
        return f"{sign}${size:,.2f}"
    if size >= Decimal("0.01"):
        return f"{sign}${size:.4f}"
    if size < Decimal("0.001" if short else "0.000001"):
        mantissa, _, exponent = f"{size:.3e}".partition("e")
        return f"{sign}${mantissa.rstrip('0').rstrip('.')}e{exponent}"
    return f"{sign}${size:.{3 - size.adjusted()}f}".rstrip("0")


def cost(line: Line, *, short: bool = False) -> str:
    """What the call cost: `~` for an estimate, in brackets where a subscription covers it, `unpriced` where unknown."""
    if "cost_usd" not in line:
        return UNKNOWN
    if is_unpriced(line):
        return "unpriced"
    text = usd(Decimal(line["cost_usd"]), short=short)
    if line.get("cost_source") == "estimated":
        text = "~" + text
    return f"({text})" if line["cost_usd"] and line.get("billing") == "subscription" else text


def count(number: int | Decimal | None, *, short: bool = False) -> str:
    """Tokens: `12,345`, or `12.3k` where `short` or too long for a column; `-` for unknown, which is not 0."""
    if number is None:
        return UNKNOWN
    if number < (10_000 if short else 10_000_000):
        return f"{int(number):,}" if not short else str(int(number))
    for unit, size in (("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)):
        scaled = number / size
        if scaled < Decimal("999.5") or unit == "G":
            return f"{scaled:.1f}{unit}" if scaled < Decimal("99.95") else f"{scaled:.0f}{unit}"
    return UNKNOWN


def counted(number: int, what: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(milliseconds: float | None) -> str:
    """`340ms`, `1.2s`, `2m05s`, `1h02m`."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def size(number: int) -> str:
    """Bytes: `312 B`, `12.3 kB`, `4.5 MB`."""
    if number < 1000:
        return f"{number} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if number < scale * 999.5 or unit == "GB":
            return f"{number / scale:.1f} {unit}" if number < scale * 99.95 else f"{number / scale:.0f} {unit}"
    return UNKNOWN


def speed(line: Line) -> str:
    """Output tokens per second, from the first token on where it was seen, else over the whole call."""
    timing, tokens = line.get("timing") or {}, (line.get("usage") or {}).get("output_tokens")
    if not tokens or "duration_ms" not in timing:
        return ""
    spent = float(timing["duration_ms"]) - float(timing.get("first_token_ms", 0))
    if spent < _FAST:
        return ""
    rate = float(tokens) * 1000 / spent
    return f"{rate:.0f}" if rate >= 99.95 else f"{rate:.1f}"


def outcome(line: Line, *, short: bool = False) -> str:
    """How it ended and what is unsure about it: `ok`, `error rate_limited`, `aborted, partial`, `ok, unknown_model`,
    `ok, cost differs` (from the list price, by the provider's own account).

    `short`: one word, the error's class where there is one.
    """
    if short:
        return safe(line.get("error", line.get("outcome", UNKNOWN)), 24)
    words = [safe(line.get("outcome", UNKNOWN), 16)]
    if "error" in line:
        words = [f"{words[0]} {safe(line['error'], 24)}"]
    if line.get("usage_source") in ("partial", "estimated"):
        words.append(line["usage_source"])
    if is_unpriced(line):
        words.append(safe(line.get("cost_reason", "no price"), 40))
    words += [_SAID[flag] for flag in line.get("flags") or () if flag in _SAID]
    return ", ".join(words)


def label(line: Line) -> str:
    """The one or two labels that tell most about the call."""
    labels = line.get("labels") or {}
    return "/".join([safe(labels[name], 40) for name in _LABELS if name in labels][:2])


def clock(line: Line, zone: tzinfo | None) -> str:
    """When the call began, `HH:MM:SS` in `zone`."""
    try:
        return f"{datetime.fromisoformat(line['time']).astimezone(zone):%H:%M:%S}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return UNKNOWN


def plain(line: Line) -> str:
    """One line of a log for one line of the ledger: no colour, nothing a terminal would obey."""
    usage, timing = line.get("usage") or {}, line.get("timing") or {}
    tokens = f"in {count(usage.get('input_tokens'))}"
    if usage.get("cache_read_input_tokens"):
        tokens += f" ({count(usage['cache_read_input_tokens'])} cached)"
    words = [
        safe(line.get("provider", UNKNOWN), 24),
        ("└ " if "parent" in line else "") + safe(model(line), 64),
        f"{tokens} out {count(usage.get('output_tokens'))}",
        cost(line),
        duration(timing["duration_ms"]) if "duration_ms" in timing else "",
        outcome(line),
        " ".join(f"{safe(name, 32)}={safe(value)}" for name, value in (line.get("labels") or {}).items()),
    ]
    return "  ".join(word for word in words if word)
