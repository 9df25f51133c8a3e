"""Golden cases: one recorded-looking exchange a file, and the ledger line it must give.

`tests/data/<provider>/<name>.yaml`: `request` (method, url, headers, body), `response` (status, headers, and `body`, or
`events` for an event stream), `expect` (keys of the main line) and `shares` (keys of the sub-lines). `config` is an
llmtab.yaml for this case; `same_usage_as` names the case that is the same call over another framing.
"""

import gzip
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llmtab import config, documents
from llmtab.booking import book
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call, How, Observation
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles

DATA = Path(__file__).parent / "data"
BEGAN, HEAD, ENDED = 1_790_000_000.0, 1_790_000_000.25, 1_790_000_002.0


@dataclass
class Case:
    """One exchange. `body`: the response's bytes before any content coding; `ends`: where each event of it ends."""

    name: str
    method: str
    url: str
    asked: dict[str, str]
    request: bytes
    status: int | None
    headers: dict[str, str]
    body: bytes
    ends: list[int]
    expect: dict[str, Any]
    shares: list[dict[str, Any]]
    profiles: Profiles
    prices: PriceBook
    same_usage_as: str | None
    streamed: bool
    extra: dict[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """All cases as `provider/name`."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/*.yaml"))


def streams() -> list[str]:
    """Those that pass as a stream."""
    return _saying(r"^  (events:|streamed: true)")


def twins() -> list[str]:
    """Those that are the same call as another case."""
    return _saying(r"^same_usage_as:")


def _saying(pattern: str) -> list[str]:
    return [name for name in names() if re.search(pattern, (DATA / f"{name}.yaml").read_text(), re.MULTILINE)]


@cache
def built_in() -> Profiles:
    return Profiles.load()


@cache
def load(name: str) -> Case:
    """One case, read and encoded."""
    data = documents.load(DATA / f"{name}.yaml", cache=False)
    asked, answer = data["request"], data["response"]
    body, ends = encoded(answer)
    found = config.load(None)
    if "config" in data:
        found = own_config(name, data["config"])
    profiles = Profiles.load(extra=found.profile_specs) if found.profile_specs else built_in()
    return Case(
        name, asked.get("method", "POST"), asked["url"],
        {key.lower(): str(value) for key, value in (asked.get("headers") or {}).items()},
        text_of(asked.get("body", {})), answer.get("status", 200),
        {key.lower(): str(value) for key, value in (answer.get("headers") or {}).items()} | media_type(answer),
        body, ends, data["expect"], data.get("shares") or [], profiles,
        PriceBook.load(DATA / "prices.yaml", overrides=found.pricing), data.get("same_usage_as"),
        "events" in answer or bool(answer.get("streamed")),
    )  # fmt: skip


def own_config(name: str, text: str) -> config.Config:
    """The configuration that a case brings, through a file, as a user's would come."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llmtab.yaml"
        path.write_text(text)
        return config.load(path)


def media_type(answer: Mapping[str, Any]) -> dict[str, str]:
    if any(key.lower() == "content-type" for key in answer.get("headers") or {}):
        return {}
    return {"content-type": "text/event-stream" if "events" in answer else "application/json"}


def text_of(value: Any) -> bytes:
    """A JSON value as compact bytes; text stays as it is."""
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, default=float, ensure_ascii=False).encode()


def encoded(answer: Mapping[str, Any]) -> tuple[bytes, list[int]]:
    """(body, where each event ends). An event is a JSON value, text, or `{event: name, data: value}`."""
    if "events" not in answer:
        body = text_of(answer.get("body", ""))
        return body, [len(body)]
    line = answer.get("newline", "\n").encode()
    body, ends = b"", []
    for event in answer["events"]:
        named = isinstance(event, dict) and set(event) == {"event", "data"}
        if named:
            body += b"event: " + event["event"].encode() + line
        body += b"data: " + text_of(event["data"] if named else event) + line + line
        ends.append(len(body))
    return body, ends


def compressed(body: bytes, coding: str) -> bytes:
    """The body under a content coding; compressors are those that mitmproxy brings."""
    from mitmproxy.net import encoding

    if coding in ("", "identity"):
        return body
    if coding == "gzip":
        return gzip.compress(body, mtime=0)
    if coding == "deflate":
        return zlib.compress(body)
    return encoding.encode(body, coding)  # type: ignore[return-value]


def exchange(case: Case, memory: TapMemory | None = None, **headers: str) -> Exchange:
    """The case's exchange after the response's head; `headers` are added to the response's."""
    url = urlsplit(case.url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    path = url.path + (f"?{url.query}" if url.query else "")
    claim = case.profiles.match(url.hostname or "", port, case.method, path)
    assert claim is not None, f"{case.name}: nobody claims {case.method} {case.url}"
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    call = Call(
        f"id-of-{case.name}", url.hostname or "", case.method, path, BEGAN, case.asked, lambda: case.request, query.get,
        request_bytes=len(case.request),
    )  # fmt: skip
    found = Exchange(call, claim, memory or TapMemory())
    added = {key.replace("_", "-"): value for key, value in headers.items()}
    found.answer = Answer(case.status, {**case.headers, **added}, HEAD)
    return found


def whole(case: Case, body: bytes | None = None, how: How = "complete", **headers: str) -> Observation:
    """Observed as a buffered body."""
    seen = exchange(case, **headers).close(how, ENDED, case.body if body is None else body)
    assert seen is not None
    return seen


def dripped(case: Case, chunks: Iterable[bytes], how: How = "complete", **headers: str) -> Observation:
    """Observed as a stream of these chunks, one a millisecond."""
    found = exchange(case, **headers)
    for number, chunk in enumerate(chunks):
        found.feed(chunk, HEAD + number / 1000)
    seen = found.close(how, ENDED)
    assert seen is not None
    return seen


def lines(case: Case, seen: Observation) -> list[dict[str, Any]]:
    return book(seen, case.prices)


def natural(case: Case) -> list[dict[str, Any]]:
    """The lines as the call really passes: an event stream event by event, anything else buffered."""
    return lines(case, dripped(case, cut_at(case.body, case.ends)) if case.streamed else whole(case))


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def cut_at(body: bytes, ends: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for end in ends:
        yield body[start:end]
        start = end
    if start < len(body):
        yield body[start:]


def mismatches(line: Mapping[str, Any], expect: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose value is not the expected one: key -> (got, expected). An expected null is an absent key, except for
    `cost_usd`; money may be written as text."""
    found = {}
    for key, wanted in expect.items():
        got, absent = line.get(key), key not in line
        same = absent if wanted is None and key != "cost_usd" else _same(got, wanted) and not absent
        if not same:
            found[key] = (got, wanted)
    return found


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(got, Decimal) and isinstance(wanted, str):
        return got == Decimal(wanted)
    return type(got) is type(wanted) and bool(got == wanted) if isinstance(wanted, bool) else bool(got == wanted)


def counters(seen: Observation) -> dict[str, Any]:
    return dict(seen.reading.counters)


type Drip = Callable[[Case], Observation]
