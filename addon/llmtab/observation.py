"""What is known of a call: the request's side, the answer's side, and all of it together once the call is over.

Knows which facts there are and in which units. Must not know where they come from, nor what becomes of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmtab.estimates.passed import Passed
from llmtab.extract import Reading
from llmtab.profiles import Claim

type How = Literal["complete", "aborted", "broken"]


@dataclass(slots=True)
class Call:
    """The request's side, as the shell saw it. `began`: epoch seconds. `headers`: lower-case names, only those
    wanted."""

    id: str
    host: str
    method: str
    path: str
    began: float
    headers: Mapping[str, str]
    body: Callable[[], bytes | None]
    query: Callable[[str], str | None]
    labels: dict[str, str] = field(default_factory=dict)
    client: dict[str, str] = field(default_factory=dict)
    request_bytes: int = 0
    follows: bool = False
    """Whether this is what came behind the last event of a call: a call only if it tells a usage of its own."""
    estimate: tuple[dict[str, Any], bool] | None = None
    """What was expected of the call before it left, and whether that is more than the user wants to be warned of."""
    budget: dict[str, Any] | None = None
    """What its line says of the limits it touches; None while there are none."""
    refused: bool = False
    """Whether a budget said no: the answer is ours, and nobody was asked."""
    server: tuple[str, int] = ("", 0)
    """Where the request goes, as the proxy names it."""
    later: Callable[[Callable[[], Any], Reading], None] | None = None
    """Adds the labels that only the request's JSON or what was read tells; None where there are none to be had."""


@dataclass(slots=True)
class Answer:
    """The response's side. `status` is None where no response came; `head_at` is when its head came (epoch seconds)."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    head_at: float | None = None


@dataclass(slots=True)
class Observation:
    """What is known of a call when it is over: everything the line is made from."""

    call: Call
    claim: Claim
    answer: Answer
    reading: Reading
    how: How
    ended_at: float
    transport: str
    streamed: bool
    undecodable: str = ""
    torn: bool = False
    """The body ends inside a frame."""
    unsent: bool = False
    """No connection to the upstream was ever made."""
    first_byte_at: float | None = None
    first_token_at: float | None = None
    response_bytes: int = 0
    tap_error: bool = False
    passed: Passed | None = None
    """The answer's bytes, for an estimate, where not all figures came."""
