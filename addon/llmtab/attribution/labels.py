"""Who called, in a client's own words: labels in headers, in the proxy's user, in an option; and the client's name.

Knows the spellings of labels: `x-llmtab-*` headers, `alice+project=web` before the proxy's address,
`project=web,team=x` in an option. Must not know flows, profiles or the ledger; a password is never looked at.
"""

import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

from llmtab.attribution import agents, fingerprints
from llmtab.record import label_text

PREFIX: Final = b"x-llmtab-"
MAX_LABELS: Final = 16
MAX_AGENT: Final = 64

PROXY_USER: Final = b"proxy-authorization"
"""Where a client says who it is to the proxy; like our labels it is for us, and goes no further."""
HEADERS: Final = frozenset(name.encode() for name in (*fingerprints.CREDENTIALS, *agents.HEADERS)) | {PROXY_USER}
"""Lower-case names of all headers that are looked at to tell who calls."""

_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch
_SIGNED: Final = re.compile(rb"^AWS4-[^;]*?SignedHeaders=([^,\s]+)")
_COMMENT: Final = re.compile(r"\([^()]*\)?")
_PRODUCT: Final = re.compile(r"(?<!\S)([\w.!#$%&'*+^`|~-]{1,48}(?:/[\w.!#$%&'*+^`|~-]{1,32})?)(?=[\s/]|$)", re.ASCII)

type Fields = tuple[tuple[bytes, bytes], ...]


def request_labels(fields: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], Fields | None]:
    """Labels of the `x-llmtab-<label>: value` headers, and the header fields without them (None: nothing to take off).

    Headers that AWS's signature covers are read but stay: without them the call would be refused. What is no valid
    label (name `[a-z][a-z0-9_]{0,31}`, value 1 to 128 printable characters, 16 at most) is taken off and not kept.
    `Proxy-Authorization` is taken off as well: it was meant for us.
    """
    fields = tuple(fields)
    if not any(is_ours(name.lower()) for name, _ in fields):
        return {}, None
    signed = _signed_headers(fields)
    labels: dict[str, str] = {}
    kept = []
    for name, value in fields:
        lower = name.lower()
        if lower == PROXY_USER:
            continue
        if not lower.startswith(PREFIX):
            kept.append((name, value))
            continue
        label = lower[len(PREFIX) :].decode("ascii", "replace").replace("-", "_")
        text = label_text(value.decode("utf-8", "replace").strip())
        if text and _LABEL(label) and (label in labels or len(labels) < MAX_LABELS):
            labels[label] = text
        if lower in signed:
            kept.append((name, value))
    return labels, tuple(kept) if len(kept) < len(fields) else None


class Headers(Protocol):
    """A message's headers as mitmproxy keeps them."""

    fields: Fields


def take_labels(headers: Headers) -> dict[str, str]:
    """The labels in a request's headers, which are taken off where that breaks no signature."""
    labels, fields = request_labels(headers.fields)
    if fields is not None:
        headers.fields = fields
    return labels


def is_ours(name: bytes) -> bool:
    """Whether a header (lower-case name) is meant for us: a label, or who the client is to the proxy."""
    return name.startswith(PREFIX) or name == PROXY_USER


def proxy_user(header: str | None) -> str | None:
    """The user of a `Proxy-Authorization: Basic` header; what stands behind its colon is not even decoded to text."""
    scheme, _, coded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, _ = binascii.a2b_base64(coded.strip().encode("ascii", "replace")).partition(b":")
    except binascii.Error:
        return None
    return user.decode("utf-8", "replace") if colon else None


@lru_cache(256)  # asked once a connection, and people have few names
def user_labels(user: str, label: str) -> dict[str, str]:
    """The labels that a proxy user carries: `alice` under `label`; `alice+project=web+team=x` two more, and
    `project=web` no name at all. What is no valid label is left out. Not to be changed by the caller."""
    found: dict[str, str] = {}
    for number, part in enumerate(user.split("+")):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = (label, part) if number == 0 else ("", "")
        if _LABEL(name) and (text := label_text(value.strip())) and len(found) < MAX_LABELS:
            found.setdefault(name, text)
    return found


def stated_labels(text: str) -> dict[str, str]:
    """Labels as an option or the environment states them: `project=web,team=blue team`. Raises ValueError."""
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not _LABEL(name):
            raise ValueError(f"{part!r}, expected labels like project=web,team=x (names: a-z, 0-9 and _)")
        if not label_text(value):
            raise ValueError(f"{part!r}, expected a value of 1 to 128 printable ASCII characters")
        found[name] = value
    if len(found) > MAX_LABELS:
        raise ValueError(f"{len(found)} labels, expected {MAX_LABELS} at most")
    return found


def _signed_headers(fields: Fields) -> frozenset[bytes]:
    for name, value in fields:
        if name.lower() == b"authorization" and (found := _SIGNED.match(value)):
            return frozenset(found[1].lower().split(b";"))
    return frozenset()


@lru_cache(512)  # a machine runs a handful of clients
def agent_text(user_agent: str | None) -> str | None:
    """A user agent cut to its product tokens, joined by commas, 64 characters at most: `OpenAI/Python,3.52.0`.

    Comments, addresses and paths are left out: some clients put a machine's name or a person's e-mail there.
    """
    if not user_agent:
        return None
    text = user_agent[:256]
    while "(" in text and (shorter := _COMMENT.sub(" ", text)) != text:
        text = shorter
    out = ""
    for product in _PRODUCT.findall(text):
        longer = f"{out},{product}" if out else product
        if len(longer) > MAX_AGENT:
            break
        out = longer
    return out or None
