"""What a request tells at a glance of the call to come: its bytes of text, its model, tier and the bound of its answer.

Knows the words of the request bodies for those. Must not know prices or history. Bounded work: a body above 256 KiB is
not parsed, only its two ends are searched, and what is compressed is unpacked only where that is little. Who must not
be deceived asks for the whole: members that stand deeper, or twice, can pose as others in a search.
"""

import re
from typing import Any, Final, NamedTuple

from llmtab.events import BIG, parse
from llmtab.profiles.refs import walk
from llmtab.record import wire_text
from llmtab.wire.decoding import decode_all

ENDS: Final = 16 * 1024
"""Bytes at each end of a large body that are searched: SDKs put their limits before or after the messages."""
PACKED: Final = 64 * 1024
"""A compressed body up to here is unpacked."""
SHRINK: Final = 4
"""A larger one is taken for so many times its size: JSON shrinks about that much."""
UNPACKED: Final = 32 * 1024 * 1024
"""Bytes that a compressed body may become where the whole of it is asked for: more than providers take."""
SCANNED: Final = 512 * 1024
"""Bytes of text that are searched for inline pictures: about half a millisecond."""
SMALL_BLOB: Final = 512
"""A shorter `data` member is text."""
BOUNDS: Final = (
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens",),
    ("generationConfig", "maxOutputTokens"),
    ("generation_config", "max_output_tokens"),
    ("request", "generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
    ("max_tokens_to_sample",),
    ("max_gen_len",),
    ("options", "num_predict"),
)
MOST: Final = 10**8
COPIES: Final = 128
"""The most answers to one prompt (`n`) that any provider makes."""
ORDINARY: Final = frozenset({"auto", "default", "standard", "standard_only", "on_demand"})
"""Words for no tier of its own, or for a wish."""
_BOUND: Final = re.compile(
    rb'"(?:max_completion_tokens|max_output_tokens|max_tokens|maxOutputTokens|maxTokens)"\s*:\s*([0-9]{1,8})(?![0-9])'
)
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([!#-\[\]-~]{1,128})"')
_TIER: Final = re.compile(rb'"(?:service_tier|serviceTier)"\s*:\s*"([a-z_]{1,32})"')
_BLOBS: Final = (b"base64,", b'"data":"', b'"data": "')


class Asked(NamedTuple):
    """`text`: bytes of the body without inline files; `blobs`: how many of those; `bound`: the most output tokens."""

    text: int
    blobs: int = 0
    model: str | None = None
    bound: int | None = None
    tier: str | None = None


def asked(body: bytes, coding: str = "", size: int = 0, *, whole: bool = False) -> Asked:
    """What a request's body tells. `size`: its bytes where it is not at hand. `whole`: nothing of it is left out, which
    takes milliseconds where `is_long`. Never raises."""
    if not body:
        return Asked(size)
    if coding and coding != "identity":
        if len(body) > PACKED and not whole:
            return Asked(len(body) * SHRINK)
        found = decode_all([body], coding, UNPACKED if whole else BIG)
        if found.broken:
            return Asked(max(len(found.data), len(body) * SHRINK))
        body = found.data
    text, blobs = _without_blobs(body)
    if len(body) > BIG and not whole:
        return Asked(text, blobs, *_searched(body[:ENDS] + b"\n" + body[-ENDS:]))
    return Asked(text, blobs, *_read(parse(body)))


def is_long(body: bytes, coding: str) -> bool:
    """Whether the whole of a body is too much for the event loop."""
    return len(body) > BIG or coding not in ("", "identity")


def _read(request: Any) -> tuple[str | None, int | None, str | None]:
    """Model, bound and tier of a parsed body. Which of several bounds a provider heeds is its own affair: the highest
    counts, and one that is no number of tokens bounds nothing."""
    if type(request) is not dict:
        return None, None, None
    said = [value for path in BOUNDS if path[0] in request and (value := walk(request, path)) is not None]
    bounds = [bound for value in said if (bound := count(value)) is not None]
    bound = max(bounds) if bounds and len(bounds) == len(said) else None
    copies = count(walk(request, ("n",))) or 1
    tier = wire_text(walk(request, ("service_tier",)) or walk(request, ("serviceTier",)))
    return (
        wire_text(walk(request, ("model",))),
        None if bound is None else bound * min(copies, COPIES),
        None if tier is None or tier.lower() in ORDINARY else tier.lower(),
    )


def _searched(ends: bytes) -> tuple[str | None, int | None, str | None]:
    """The same, found in the two ends of a large body.

    A quote inside a text is escaped, so no message can pose as a key. Of several limits the highest counts: a tool may
    have one of its own.
    """
    model, tier = _MODEL.search(ends), _TIER.search(ends)
    named = tier[1].decode() if tier else None
    bounds = [int(found) for found in _BOUND.findall(ends) if int(found)]
    return (
        model[1].decode() if model else None,
        max(bounds, default=None),
        None if named in ORDINARY else named,
    )


def measured(frame: bytes) -> Asked:
    """The same of a frame that somebody else parses: its bytes alone. Bounded: at most a millisecond."""
    return Asked(*_without_blobs(frame))


def _without_blobs(body: bytes) -> tuple[int, int]:
    """(bytes of text, inline files): base64 of pictures and documents is not paid by its length."""
    spans: list[tuple[int, int]] = []
    for needle in _BLOBS:
        at, searched = 0, 0
        while searched < SCANNED:
            found = body.find(needle, at, at + SCANNED - searched)
            if found < 0:
                break
            begin = found + len(needle)
            end = body.find(b'"', begin)
            end = len(body) if end < 0 else end
            searched += begin - at
            at = end
            if end - begin > SMALL_BLOB and b" " not in body[begin : begin + SMALL_BLOB]:
                spans.append((begin, end))
    distinct = {end: begin for begin, end in sorted(spans, reverse=True)}  # one blob may follow two of the needles
    return len(body) - sum(end - begin for end, begin in distinct.items()), len(distinct)


def count(value: Any) -> int | None:
    """A number of tokens above 0, or None."""
    return value if type(value) is int and 0 < value <= MOST else None
