"""Golden sockets: the frames of one WebSocket a file, and the lines they must give.

`tests/data/<provider>/sockets/<name>.yaml`: `request` (url, headers), `frames` (`client:` or `server:` a JSON value,
one a second), `close` (`by`, `code`) and `expect` (keys of each line in the order they are written; `time` and
`first_token` are numbers of frames, from 1). `config`: an llmtab.yaml for this case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from golden import BEGAN, DATA, built_in, mismatches, own_config, text_of
from llmtab import documents
from llmtab.booking import Guessing, book
from llmtab.observation import Answer, Call, Observation
from llmtab.pricing import PriceBook
from llmtab.profiles import SOCKET, Profiles
from llmtab.sockets.socket import Socket

ORDERLY = {1000, 1001}


@dataclass
class Frame:
    """One message, at so many seconds after the upgrade."""

    data: bytes
    from_client: bool
    at: float


@dataclass
class Case:
    """One socket."""

    name: str
    url: str
    headers: dict[str, str]
    frames: list[Frame]
    by_client: bool
    orderly: bool
    expect: list[dict[str, Any]]
    profiles: Profiles
    prices: PriceBook


def names() -> list[str]:
    """All cases as `provider/sockets/name`."""
    return sorted(str(path.relative_to(DATA).with_suffix("")) for path in DATA.glob("*/sockets/*.yaml"))


@cache
def load(name: str) -> Case:
    data = documents.load(DATA / f"{name}.yaml", cache=False)
    frames = [
        Frame(text_of(value), who == "client", BEGAN + number)
        for number, frame in enumerate(data["frames"], 1)
        for who, value in frame.items()
    ]
    found = own_config(name, data["config"]) if "config" in data else None
    profiles = Profiles.load(extra=found.profile_specs) if found else built_in()
    end = data["close"]
    return Case(
        name, data["request"]["url"], {k.lower(): v for k, v in (data["request"].get("headers") or {}).items()}, frames,
        end["by"] == "client", end["code"] in ORDERLY, data["expect"], profiles, PriceBook.load(DATA / "prices.yaml"),
    )  # fmt: skip


def socket(case: Case) -> Socket:
    """The case's socket after its upgrade."""
    url = urlsplit(case.url)
    claim = case.profiles.match(url.hostname or "", url.port or 443, SOCKET, f"{url.path}?{url.query}")
    assert claim is not None, f"{case.name}: nobody claims {case.url}"
    assert claim.binding.socket
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    call = Call("id", url.hostname or "", "GET", claim.path, BEGAN, case.headers, lambda: None, query.get)
    return Socket(call, claim, Answer(101, {}, BEGAN), {}, lambda call: None)


def play(case: Case, frames: Sequence[Frame] | None = None, *, close: bool = True) -> Iterator[Observation]:
    """The responses that are over, as they are."""
    found = socket(case)
    frames = case.frames if frames is None else frames
    for frame in frames:
        yield from found.feed(frame.data, frame.at, from_client=frame.from_client)
    if close:
        how = "aborted" if case.by_client else "broken"
        end = frames[-1].at + 1 if frames else BEGAN
        yield from found.close(how, end, orderly=case.orderly)


def lines(case: Case, seen: Iterator[Observation], guess: Guessing | None = None) -> list[dict[str, Any]]:
    return [line for one in seen for line in book(one, case.prices, guess)]


def differences(line: dict[str, Any], expect: dict[str, Any]) -> dict[str, Any]:
    """Keys whose value is not the expected one; `time` and `first_token` are numbers of frames."""
    wanted = {key: value for key, value in expect.items() if key not in ("time", "first_token")}
    if "usage" in wanted:
        wanted["usage"] = {k: Decimal(v) if isinstance(v, str) else v for k, v in wanted["usage"].items()}
    found = mismatches(line, wanted)
    began = _seconds(line["time"])
    if "time" in expect and began != expect["time"]:
        found["time"] = (began, expect["time"])
    if "first_token" in expect:
        got = line["timing"].get("first_token_ms")
        if got is None or began + got / 1000 != expect["first_token"]:
            found["first_token"] = (got, expect["first_token"])
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() - BEGAN
