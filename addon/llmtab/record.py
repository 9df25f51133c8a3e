"""One line of the ledger: its keys in their order, its bytes, and its JSON Schema.

Knows what a line may hold and how it is written and read back. Must not know where lines are kept, how they are
chained, or where their values come from. In memory a line is a plain dict of these keys, absent keys omitted, money
as Decimal.
"""

import json
import random
import time
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from pydantic_core import to_json

SCHEMA_VERSION: Final = 1
MAX_TEXT: Final = 128
"""Characters of any string that comes from the wire."""
_MILLIS: Final = (1 << 48) - 1
_LAST: Final = (1 << 62) - 1


class Note:
    """What a key means, in the unit it is given in: becomes the description in the JSON Schema."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        return {**handler(core_schema), "description": self.text}


class CostLine(TypedDict):
    """One term of the proof of a cost: quantity x rate / per = usd."""

    counter: str
    quantity: int | Decimal
    rate: Annotated[Decimal, Note("USD for `per` units, after `factors`")]
    per: int
    usd: Annotated[Decimal, Note("rounded to 12 places")]
    factors: NotRequired[dict[str, Decimal]]


PriceRef = TypedDict("PriceRef", {"id": str, "from": NotRequired[str], "at": str, "table": str})


class Timing(TypedDict, total=False):
    """Milliseconds since the request began."""

    first_byte_ms: float
    first_token_ms: float
    duration_ms: float


class Bytes(TypedDict, total=False):
    """Body sizes on the wire."""

    request: int
    response: int


class Client(TypedDict, total=False):
    """Who called: the address without port, the user agent cut, the key as a keyed fingerprint."""

    address: str
    agent: str
    key: str
    process: str


class Record(TypedDict, total=False):
    """One line of the ledger. Keys are written in this order; a key that is not known is absent."""

    schema: int
    id: Annotated[str, Note("UUIDv7 of our own")]
    writer: Annotated[str, Note("the writing process: random, new each start")]
    seq: Annotated[int, Note("the writer's counter from 0")]
    time: Annotated[str, Note("RFC 3339 UTC with milliseconds: when the request began")]
    provider: str
    api: Annotated[str, Note("wire shape, e.g. openai.chat")]
    operation: str
    transport: str
    profile: Annotated[str, Note("the profile that claimed the call; openai_compatible is a guess by shape")]
    host: str
    method: str
    path: Annotated[str, Note("without query and without ids of content")]
    status: int
    streamed: bool
    request_model: str
    response_model: str
    response_id: str
    request_id: Annotated[str, Note("the provider's own id of the call, from its header")]
    service_tier: str
    finish_reasons: list[str]
    pricing_tier: str
    region: str
    outcome: Literal["ok", "error", "aborted", "broken", "refused"]
    error: Annotated[str, Note("a class, never a message")]
    usage: dict[str, int | Decimal]
    usage_source: Literal["reported", "partial", "estimated", "none"]
    usage_reason: str
    estimated: list[str]
    estimate_method: str
    cost_usd: Annotated[Decimal | None, Note("null: billed, but the price is unknown")]
    cost_source: Literal["list", "reported", "estimated", "not_billed", "unpriced"]
    cost_reason: str
    cost_partial_usd: Decimal
    cost_lines: list[CostLine]
    cost_list_usd: Decimal
    cost_reported_usd: Decimal
    price: PriceRef
    billing: Literal["metered", "subscription", "subscription_overage", "byok", "free", "unknown"]
    saved_usd: Annotated[Decimal, Note("saved by prompt caching against the uncached price; may be negative")]
    timing: Timing
    bytes: Bytes
    labels: dict[str, str]
    client: Client
    estimate: dict[str, int | Decimal]
    budget: dict[str, Any]
    parent: Annotated[str, Note("this line is another model's share of the line with that id")]
    retry_of: str
    repeat_of: str
    batch: dict[str, str | int]
    flags: list[str]
    chain: Annotated[str, Note("SHA-256 over this writer's previous chain and this line's bytes before this key")]


FIELDS: Final = tuple(Record.__annotations__)
"""The keys in the order they are written in."""

# The encoder (Rust, four times as fast as the standard library's) writes a Decimal as a string. So a mark, with the key
# behind it, stands in for each value that holds one, and its text is put there afterwards. No string can hold the mark:
# wire strings are printable.
_MARK: Final = "\x01"
_MARKED: Final = '"\\u0001'
_MAY_HOLD_MONEY: Final = {
    key: _MARK + key
    for key in (
        "usage", "cost_usd", "cost_partial_usd", "cost_lines", "cost_list_usd", "cost_reported_usd", "saved_usd",
        "timing", "estimate", "budget",
    )
}  # fmt: skip
_NO_MONEY: Final = frozenset({int, float, str, bool})
_TERM: Final = tuple(key for key in CostLine.__annotations__ if key != "factors")
_ENDS_PLAIN: Final = frozenset("123456789")
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def plain(value: Decimal) -> str:
    """A Decimal as JSON text: always a point, never an exponent, no needless zeros (`0.0`, `0.000075`, `12.5`)."""
    text = str(value)
    if "E" in text:
        text = format(value, "f")
    if "." not in text:
        return text + ".0"
    if text[-1] == "0":
        text = text.rstrip("0")
    return text + "0" if text[-1] == "." else text


def encode(line: Mapping[str, Any], over: Mapping[str, Any] = NOTHING) -> bytes:
    """The line as compact JSON without the newline. Keys keep the order they have in `line`; `over` replaces values."""
    marked, texts = {**line, **over}, {}
    for key, mark in _MAY_HOLD_MONEY.items():
        value = marked.get(key)
        if value is not None and (text := _money_text(value)):
            marked[key], texts[key] = mark, text
    found = to_json(marked).decode().split(_MARKED)
    for at in range(1, len(found)):
        key, _, rest = found[at].partition('"')
        found[at] = texts[key] + rest
    return "".join(found).encode()


def _money_text(value: Any) -> str:
    """JSON text of a value that is a Decimal or holds some; "" where it holds none."""
    kind = type(value)
    if kind is Decimal:
        return plain(value)
    if kind is dict:
        return "" if _NO_MONEY.issuperset(map(type, value.values())) else _any_text(value)
    if kind is list or kind is tuple:
        return f"[{','.join(map(_cost_line, value))}]" if value else ""
    return ""


def _cost_line(line: Any) -> str:
    """One term of a cost: most of what has to be written, so it is not walked like any other value."""
    if type(line) is not dict or tuple(line) != _TERM:
        return _any_text(line)
    counter, quantity, rate, per, money = line.values()
    if type(quantity) is not int or not counter.isidentifier():
        return _any_text(line)
    usd = str(money)
    if usd[-1] not in _ENDS_PLAIN or "." not in usd or "E" in usd:
        usd = plain(money)
    rate = _rate_text(rate)
    return f'{{"counter":"{counter}","quantity":{quantity},"rate":{rate},"per":{per},"usd":{usd}}}'


def _any_text(value: Any) -> str:
    kind = type(value)
    if kind is Decimal:
        return plain(value)
    if kind is dict:
        return f"{{{','.join([f'{_json(str(key))}:{_any_text(inside)}' for key, inside in value.items()])}}}"
    if kind is list or kind is tuple:
        return f"[{','.join([_any_text(inside) for inside in value])}]"
    return _json(value)


def _json(value: Any) -> str:
    return to_json(value).decode()


_rate_text: Final = lru_cache(1024)(plain)  # a table has few rates, and each stands on thousands of lines


def decode(data: bytes | str) -> dict[str, Any]:
    """A line read back, numbers with a point as Decimal. Raises ValueError where it is not a JSON object."""
    line = json.loads(data, parse_float=Decimal)
    if not isinstance(line, dict):
        raise ValueError("a ledger line is a JSON object")
    return line


def in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """The known values in the order of the ledger; `None` means unknown and is left out, except for `cost_usd`."""
    return {key: values[key] for key in FIELDS if key in values and (values[key] is not None or key == "cost_usd")}


def wire_text(value: object) -> str | None:
    """A string from the wire if it is one we may keep: 1 to 128 printable ASCII characters without spaces."""
    if (
        type(value) is str
        and 0 < len(value) <= MAX_TEXT
        and value.isascii()
        and value.isprintable()
        and " " not in value
    ):
        return value
    return None


def label_text(value: object) -> str | None:
    """A label's value if it is one we may keep: like `wire_text`, spaces allowed."""
    if type(value) is str and 0 < len(value) <= MAX_TEXT and value.isascii() and value.isprintable():
        return value
    return None


def new_id(now_ns: int | None = None) -> str:
    """A UUIDv7: 48 bits of Unix milliseconds, then random bits, so that ids sort by time."""
    millis = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    # An id has to be unique, not secret: the generator is seeded by the system and needs no call of it for each id.
    tail = random.getrandbits(74)
    text = f"{(millis & _MILLIS) << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & _LAST:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def schema() -> dict[str, Any]:
    """The JSON Schema of a line, generated from `Record`. Readers accept unknown keys."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Record).json_schema(mode="validation")
    found["required"] = ["schema", "id", "writer", "seq", "time", "provider", "outcome", "usage_source", "chain"]
    found["additionalProperties"] = True
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "llmtab ledger line", **found}
