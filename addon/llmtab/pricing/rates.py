"""The words of a price file: which key prices which counter, and for how many units vendors print it.

Knows the rate keys, their counters and units, and the absurdity bounds. Must not know models, files or usage values.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

from llmtab.usage import COUNTERS

MILLION: Final = 1_000_000


class RateKey(NamedTuple):
    """`key` in a price file is USD for `per` units of `counter`. A fee is charged for an act (a search, a container):
    tiers, regions and windows never change it, and rows of those need not repeat it."""

    key: str
    counter: str
    per: int
    fee: bool


def _table(rows: list[tuple[str, str, int, bool]]) -> Mapping[str, RateKey]:
    return MappingProxyType({row[0]: RateKey(*row) for row in rows})


RATES: Final = _table(
    [
        ("input", "input_tokens", MILLION, False),
        ("cache_read", "cache_read_input_tokens", MILLION, False),
        ("cache_write", "cache_creation_input_tokens", MILLION, False),
        ("cache_write_1h", "cache_creation_1h_input_tokens", MILLION, False),
        ("cache_write_12h", "cache_creation_12h_input_tokens", MILLION, False),
        ("output", "output_tokens", MILLION, False),
        ("reasoning", "reasoning_output_tokens", MILLION, False),
        ("input_audio", "audio_input_tokens", MILLION, False),
        ("input_image", "image_input_tokens", MILLION, False),
        ("input_video", "video_input_tokens", MILLION, False),
        ("cache_read_audio", "cache_read_audio_input_tokens", MILLION, False),
        ("cache_read_image", "cache_read_image_input_tokens", MILLION, False),
        ("tool_input", "tool_use_input_tokens", MILLION, False),
        ("output_audio", "audio_output_tokens", MILLION, False),
        ("output_image", "image_output_tokens", MILLION, False),
        ("output_video", "video_output_tokens", MILLION, False),
        ("citation", "citation_tokens", MILLION, False),
        ("characters", "input_characters", MILLION, False),
        ("audio_hour", "audio_input_seconds", 3600, False),
        ("audio_output_hour", "audio_output_seconds", 3600, False),
        ("video_second", "video_output_seconds", 1, False),
        ("image", "images", 1, False),
        ("input_image_each", "input_images", 1, False),
        ("pixels", "input_pixels", 1_000_000_000, False),
        ("page", "pages", 1000, False),
        ("annotated_page", "annotated_pages", 1000, False),
        ("search_unit", "search_units", 1000, False),
        ("classification", "classifications", 1000, False),
        ("request", "requests", 1000, True),
        ("web_search", "web_search_requests", 1000, True),
        ("web_search_preview", "web_search_preview_requests", 1000, True),
        ("web_search_unnamed", "web_search_unnamed_requests", 1000, True),
        ("x_search", "x_search_requests", 1000, True),
        ("file_search", "file_search_requests", 1000, True),
        ("grounding", "grounded_requests", 1000, True),
        ("code_execution", "code_execution_requests", 1000, True),
        ("code_session", "code_execution_sessions", 1, True),
        ("connector", "connector_requests", 1000, True),
    ]
)

BY_COUNTER: Final[Mapping[str, RateKey]] = MappingProxyType({row.counter: row for row in RATES.values()})

CACHE_KEYS: Final = tuple(key for key in RATES if key.startswith("cache_"))

HIGHEST_TOKEN_PRICE: Final = Decimal(10_000)
"""USD per million tokens. The dearest list price so far is 600 (o1-pro's output, 2025); a price above this bound was
typed in cents, per billion, or with a slipped point."""

LOWEST_TOKEN_PRICE: Final = Decimal("0.0001")
"""USD per million tokens, where not 0. The cheapest so far is about 0.001 (cached input of small models); a price below
this bound was typed per token or per thousand."""

BEYOND: Final = Decimal(10) ** 15
"""Past this no arithmetic is done on a figure: nothing costs that much, whatever the unit."""

HIGHEST_PIECE_PRICE: Final = Decimal(1_000)
"""USD for one second, page, image, search or call; above it the unit was mistaken."""


def absurd(key: str, price: Decimal, per: Decimal | int) -> str | None:
    """Why `price` USD for `per` units of `key` cannot be meant, or None."""
    if price < 0:
        return f"{price} is negative, expected a price of 0 or more"
    if price > BEYOND:
        return f"{price:.0e} is above {BEYOND} USD, expected USD per {per:,} units"
    if COUNTERS[RATES[key].counter].unit in ("token", "character"):
        million = price * MILLION / per
        if million > HIGHEST_TOKEN_PRICE:
            return f"{price} is above {HIGHEST_TOKEN_PRICE} USD per million, expected USD per {per:,} units"
        if 0 < million < LOWEST_TOKEN_PRICE:
            return f"{price} is below {LOWEST_TOKEN_PRICE} USD per million, expected USD per {per:,}, not per unit"
    elif price / per > HIGHEST_PIECE_PRICE:
        return f"{price} is above {HIGHEST_PIECE_PRICE} USD a piece, expected USD per {per:,}"
    return None
