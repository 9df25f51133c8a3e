"""What a call used: the table of counters and the frozen `Usage` that holds their values.

Knows the words (OpenTelemetry's GenAI terms with underscores), which counter is part of which, and which may be priced
at its parent's rate. Must not know providers, prices, wire formats or files; imports nothing of ours.
"""

# ruff: noqa: E501 - the table reads best with one row a line
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

type Quantity = int | Decimal
"""A count. Always an int where the figure is integral; Decimal only for seconds and the like."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One row of the table.

    `parent` is the counter that contains this one (parents are inclusive). `inherits`: where a price entry has no own
    rate for this counter, its tokens are billed at the parent's rate. `crosses`: this counter is the overlap of two
    parts of the same parent (cached audio: part of the cache read and part of the audio).
    """

    name: str
    unit: str
    parent: str | None
    inherits: bool
    crosses: tuple[str, ...]
    meaning: str


def _table(rows: list[tuple[str, str, str | None, bool, tuple[str, ...], str]]) -> Mapping[str, Counter]:
    return MappingProxyType({row[0]: Counter(*row) for row in rows})


# fmt: off
COUNTERS: Final[Mapping[str, Counter]] = _table([
    # name, unit, parent, inherits the parent's rate, overlap of, meaning
    ("input_tokens", "token", None, False, (), "all prompt tokens: cached, written to cache, audio, image, tool results included"),
    ("cache_read_input_tokens", "token", "input_tokens", False, (), "read from a prompt cache"),
    ("cache_creation_input_tokens", "token", "input_tokens", False, (), "written to a prompt cache, every lifetime"),
    ("cache_creation_1h_input_tokens", "token", "cache_creation_input_tokens", False, (), "written to cache for one hour"),
    ("cache_creation_12h_input_tokens", "token", "cache_creation_input_tokens", False, (), "written to cache for twelve hours"),
    ("audio_input_tokens", "token", "input_tokens", False, (), "audio in the prompt"),
    ("image_input_tokens", "token", "input_tokens", True, (), "images and documents in the prompt"),
    ("video_input_tokens", "token", "input_tokens", True, (), "video in the prompt"),
    ("cache_read_audio_input_tokens", "token", "cache_read_input_tokens", False, ("cache_read_input_tokens", "audio_input_tokens"), "cached audio"),
    ("cache_read_image_input_tokens", "token", "cache_read_input_tokens", False, ("cache_read_input_tokens", "image_input_tokens"), "cached images"),
    ("tool_use_input_tokens", "token", "input_tokens", True, (), "results of server-side tools fed back into the model"),
    ("output_tokens", "token", None, False, (), "all generated tokens: reasoning, audio and images included"),
    ("reasoning_output_tokens", "token", "output_tokens", True, (), "reasoning (thinking) tokens"),
    ("audio_output_tokens", "token", "output_tokens", False, (), "generated audio"),
    ("image_output_tokens", "token", "output_tokens", False, (), "generated images"),
    ("video_output_tokens", "token", "output_tokens", False, (), "generated video"),
    ("total_tokens", "token", None, False, (), "input plus output; ours, never priced"),
    ("reported_total_tokens", "token", None, False, (), "the provider's own total, kept only where it differs; never priced"),
    ("billed_input_tokens", "token", None, False, (), "what the provider bills as input where it differs from what the model saw; priced instead of input_tokens"),
    ("billed_output_tokens", "token", None, False, (), "what the provider bills as output; priced instead of output_tokens"),
    ("citation_tokens", "token", None, False, (), "tokens of cited sources, billed beside input and output"),
    ("web_search_requests", "request", None, False, (), "billable web searches of server-side tools, whichever tool"),
    ("web_search_preview_requests", "request", "web_search_requests", False, (), "those of OpenAI's older tool `web_search_preview`, which has a price of its own"),
    ("web_search_unnamed_requests", "request", "web_search_requests", False, (), "those that may have been either tool's: the call had both, or does not tell"),
    ("x_search_requests", "request", None, False, (), "billable searches of X posts"),
    ("file_search_requests", "request", None, False, (), "billable searches of stored files"),
    ("grounded_requests", "request", None, False, (), "prompts or queries grounded in a search index, as the provider bills them"),
    ("code_execution_requests", "request", None, False, (), "runs of a hosted code interpreter"),
    ("code_execution_sessions", "session", None, False, (), "containers of a hosted code interpreter"),
    ("connector_requests", "request", None, False, (), "calls of hosted connectors"),
    ("requests", "request", None, False, (), "calls that are billed by the piece"),
    ("audio_input_seconds", "second", None, False, (), "audio heard"),
    ("audio_output_seconds", "second", None, False, (), "audio spoken"),
    ("video_output_seconds", "second", None, False, (), "video made"),
    ("input_characters", "character", None, False, (), "characters of text to speak"),
    ("images", "image", None, False, (), "images made"),
    ("input_images", "image", None, False, (), "images embedded or read, where billed by the piece"),
    ("input_pixels", "pixel", None, False, (), "pixels of images embedded"),
    ("search_units", "search unit", None, False, (), "rerank units: one query over up to the provider's number of documents"),
    ("classifications", "classification", None, False, (), "classified inputs"),
    ("pages", "page", None, False, (), "document pages read"),
    ("annotated_pages", "page", None, False, (), "document pages read with annotations"),
    ("weight", "unit", None, False, (), "a unit of the user's own: what the weight of a budget points at; never priced"),
])
# fmt: on

UNPRICED: Final = frozenset({"total_tokens", "reported_total_tokens", "weight"})
"""Counters that are facts about a call but never a quantity on a bill."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of one call. Absent means unknown; 0 means the provider said 0. Parents are inclusive."""

    counters: Mapping[str, Quantity]

    def __bool__(self) -> bool:
        return bool(self.counters)

    def __iter__(self) -> Iterator[str]:
        return iter(self.counters)

    def get(self, name: str) -> Quantity | None:
        """The counter's value, or None where it is unknown."""
        return self.counters.get(name)


_WHOLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {row.name: tuple({row.parent, *row.crosses}) for row in COUNTERS.values() if row.parent is not None}
)


def excesses(counters: Mapping[str, Quantity]) -> list[str]:
    """Names of parts that are greater than their known parent: they happen on the wire and cannot be priced by list."""
    found = []
    for name, value in counters.items():
        if value and name in _WHOLES:
            for whole in _WHOLES[name]:
                limit = counters.get(whole)
                if limit is not None and value > limit:
                    found.append(name)
                    break
    return found
