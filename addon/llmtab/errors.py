"""Classes of failure: one short word for what went wrong, never a provider's message.

Knows status codes and the words providers use for their errors. Must not know bodies.
"""

from collections.abc import Mapping
from typing import Final

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "rate_limited": (
        "rate_limit",
        "ratelimit",
        "too_many",
        "throttl",
        "resource_exhausted",
        "tokens_per",
        "requests_per",
    ),
    "quota": ("quota", "billing", "credit", "usage_limit", "usage_not_included", "payment"),
    "overloaded": ("overload", "capacity", "unavailable", "slow_down", "notready"),
    "auth": ("auth", "api_key", "apikey", "unrecognizedclient", "signature", "expiredtoken"),
    "permission": ("permission", "accessdenied", "forbidden"),
    "not_found": ("not_found", "notfound", "model_not", "unknown_model"),
    "context_length": ("context_length", "context_window", "too_long", "max_tokens", "string_above_max"),
    "content_filter": ("content_filter", "content_policy", "safety", "moderation", "responsibleai"),
    "timeout": ("timeout", "timed_out", "deadline"),
    "invalid_request": (
        "invalid",
        "validation",
        "bad_request",
        "unsupported",
        "missing",
        "unprocessable",
        "failed_precondition",
    ),
    "cancelled": ("cancel",),  # of a batch: by its owner, or because its day was over
    "expired": ("expired",),
    "server": ("server", "internal", "api_error", "modelstream", "bad_gateway"),
}
_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request", 401: "auth", 402: "quota", 403: "permission", 404: "not_found", 408: "timeout",
    409: "invalid_request",
    413: "invalid_request", 415: "invalid_request", 422: "invalid_request", 424: "server", 429: "rate_limited",
    498: "overloaded",
    503: "overloaded", 504: "timeout", 524: "timeout", 529: "overloaded",
}  # fmt: skip


def error_class(status: int | None, wire_type: str | None) -> str:
    """The class for a status and the provider's own error word, e.g. (429, "insufficient_quota") -> "quota"."""
    word = (wire_type or "").lower()
    for name, signs in _WORDS.items():
        if any(sign in word for sign in signs):
            return name
    if status is None or status < 400:
        return "server"
    return _STATUS.get(status, "server" if status >= 500 else "invalid_request")
