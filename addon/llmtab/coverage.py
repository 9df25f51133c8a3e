"""What is not seen: LLM traffic that gives no line, or a line without usage, counted by reason and host.

Knows the kinds of blind spots, what helps against each, and how they are noted beside the ledger. Must not know flows
or files' places. Nothing is kept of a request but the host's name, the client's program and its address; the address
stays in memory.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from llmtab.cells import Line, safe
from llmtab.record import wire_text

MOST: Final = 300
"""Blind spots kept apart: hosts and programs are named by clients, so there could be any number."""
EVERY: Final = 60.0
"""Seconds between two notes of a proxy that sees new blind spots."""
OTHER: Final = "(other)"
NOTE: Final = "coverage"
NAMED: Final = 3
"""Hosts named in a sentence."""

REFUSED, TUNNELLED, OPAQUE = "refused_ca", "tunnelled", "opaque_host"
UNKNOWN, NO_USAGE, PATH, AGAIN = "unknown_host", "no_usage", "unknown_path", "read_again"
KINDS: Final = (REFUSED, TUNNELLED, OPAQUE, UNKNOWN, NO_USAGE, PATH, AGAIN)
"""In the order of their weight. `read_again` is no blind spot: a stored answer that was counted before."""

SEALED: Final = {"cursor.sh": "Cursor"}
"""Domains of clients that talk to their maker in an encoding of their own: nobody else can read what they use."""
_EXPECTED: Final = frozenset({"error_response", "not_billed"})
"""Reasons for no usage that leave nothing unseen."""
_SILENT: Final = frozenset({"no_usage", "no_usage_in_stream"})
"""Reasons that say even of an estimated call that nothing was told; of a cut one something may have been."""
_LOOKS: Final = re.compile(
    r"(?:^|[.-])(?:v?llm|litellm|llms|gpt|openai|chatgpt|anthropic|claude|gemini|mistral|ollama|deepseek|qwen|genai|"
    r"inference|openrouter|huggingface|bedrock|copilot|completions?|ai-?gateway)(?:\d*[.-]|$)"
    r"|^(?:api|llm|inference|gateway)[.-](?:[a-z0-9-]+\.)+ai$"
)
_BESIDE: Final = re.compile(
    r"^(?:www|docs?|help|status|support|statsig|telemetry|events?|cdn|static|assets|auth|login|accounts?|console|"
    r"platform|registry|models|browser-intake.*|.*-telemetry|ab)\."
)
"""What stands beside a provider's API and is none."""
_PROGRAM: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,31}")


class Gap(NamedTuple):
    """One blind spot: its kind, the host, and a word more: the reason, the program, or whose host it is."""

    kind: str
    host: str
    detail: str = ""


class Coverage:
    """The blind spots of one process, or of a ledger's notes. Counted in any thread, told in one."""

    def __init__(self) -> None:
        self.gaps: Counter[Gap] = Counter()
        self._addresses: dict[Gap, str] = {}
        self._noted: Counter[Gap] = Counter()
        self._noted_at = float("-inf")

    # -- what happens --------------------------------------------------------------------------------------------------

    def refused_ca(self, host: str, address: str, agent: str) -> str | None:
        """A client broke off the handshake for an LLM host: it does not trust our certificate.

        What to tell the user, the first time that this happens with this host and program.
        """
        gap = Gap(REFUSED, host, program(agent))
        if self._count(gap) != gap:
            return None
        self._addresses[gap] = address
        return self._refusal(gap, 1) if self.gaps[gap] == 1 else None

    def tunnelled(self, host: str) -> None:
        """mitmproxy's own `ignore_hosts` or `allow_hosts` keeps an LLM host from us."""
        self._count(Gap(TUNNELLED, host))

    def passed(self, host: str) -> None:
        """A TLS connection to a host that nobody names went through opaque; most are none of our business."""
        if owner := _owner(host):
            self._count(Gap(OPAQUE, host, owner))
        elif _LOOKS.search(host) and not _BESIDE.match(host):
            self._count(Gap(UNKNOWN, host))

    def unknown_path(self, host: str) -> None:
        """A request on an LLM host at a path that no profile names."""
        self._count(Gap(PATH, host))

    def read_again(self, host: str) -> None:
        """A stored answer was read once more; its call has its line."""
        self._count(Gap(AGAIN, host))

    def line(self, line: Line) -> None:
        """A line of the ledger whose `usage_source` is not `reported`: counted where the provider told no usage,
        even if we made an estimate."""
        reason, source = str(line.get("usage_reason", "no_usage")), line.get("usage_source")
        silent = source == "none" or (source == "estimated" and reason in _SILENT)
        if silent and reason not in _EXPECTED and "parent" not in line and line.get("outcome") != "refused":
            self._count(Gap(NO_USAGE, str(line.get("host", "-")), reason))

    def unread(self, host: str, reason: str) -> None:
        """A download of what may be a batch's results could not be read: its items have no lines."""
        self._count(Gap(NO_USAGE, host, reason))

    def _count(self, gap: Gap, number: int = 1) -> Gap:
        if gap not in self.gaps and len(self.gaps) >= MOST:
            gap = Gap(gap.kind, OTHER)
        self.gaps[gap] += number
        return gap

    # -- what is said of it --------------------------------------------------------------------------------------------

    def sentences(self, *, all_kinds: bool = False) -> list[str]:
        """What a reader should know, the weightiest first, one sentence a kind (of refusals one a program).

        `all_kinds`: also requests at unknown paths, which are mostly a client's telemetry and settings.
        """
        return [sentence for _, sentence in self.told(all_kinds=all_kinds)]

    def told(self, *, all_kinds: bool = False) -> list[tuple[str, str]]:
        """The same, each with its kind."""
        said: list[tuple[str, str]] = []
        ranked = self.gaps.most_common()
        for kind in KINDS if all_kinds else KINDS[: KINDS.index(PATH)]:
            found = [(gap, number) for gap, number in ranked if gap.kind == kind]
            if kind == REFUSED:
                said += [(kind, self._refusal(gap, number)) for gap, number in found[:NAMED]]
            elif found:
                said.append((kind, _sentence(kind, found)))
        return said

    def facts(self) -> list[dict[str, Any]]:
        """The same for a program: kind, host, detail and count each, most frequent first."""
        return [
            {"kind": gap.kind, "host": gap.host, **({"detail": gap.detail} if gap.detail else {}), "count": number}
            for gap, number in self.gaps.most_common()
        ]

    def _refusal(self, gap: Gap, number: int) -> str:
        from llmtab.clients import ca_hint

        who = " at ".join(filter(None, (gap.detail, self._addresses.get(gap, ""))))
        return (
            f"{_times(number, 'connection')} to {safe(gap.host, 60)} refused our CA"
            f"{f' ({safe(who, 60)})' if who else ''}: set {ca_hint(gap.detail)} there (llmtab env prints it)"
        )

    # -- beside the ledger ---------------------------------------------------------------------------------------------

    def note(self, add: Callable[..., None], now: float, *, last: bool = False) -> None:
        """Has what is new since the last note added to the ledger's notes: about once a minute, and at the `last`.

        `add(kind, seen=...)`; `now`: seconds of a clock that never goes back.
        """
        if now - self._noted_at < EVERY and not last:
            return
        seen = self.gaps.copy()
        new = seen - self._noted
        if new:
            self._noted_at, self._noted = now, seen
            add(NOTE, seen=[[*gap, number] for gap, number in new.items()])

    def include(self, note: Mapping[str, Any]) -> None:
        """Adds what a note of any proxy said; anything else is passed over."""
        seen = note.get("seen") if note.get("note") == NOTE else None
        for entry in seen if isinstance(seen, list) else ():
            match entry:
                case [str(kind), str(host), str(detail), int(number)] if kind in KINDS and number > 0:
                    self._count(Gap(kind, wire_text(host) or OTHER, detail if wire_text(detail) else ""), number)


def noted(ledger: Path, since: datetime | None = None) -> Coverage:
    """The blind spots that the notes beside a ledger tell of, all of them or those noted `since` then (aware)."""
    from llmtab.ledger.follow import Follower
    from llmtab.ledger.reader import notes_path

    coverage = Coverage()
    follower = Follower(notes_path(ledger), from_start=since is None, since=since)
    for note in follower.poll():
        coverage.include(note)
    follower.close()
    return coverage


def exempted(ignore: Sequence[str], allow: Sequence[str]) -> Callable[[str], bool] | None:
    """Whether mitmproxy leaves a `host:port` alone, by its options `ignore_hosts` and `allow_hosts`; None: it decides
    of none. What is no expression is mitmproxy's to complain of."""
    try:
        ignored, allowed = ([re.compile(each, re.I) for each in some] for some in (ignore, allow))
    except re.error:
        return None
    if not ignored and not allowed:
        return None

    def exempt(place: str) -> bool:
        return any(each.search(place) for each in ignored) or (
            bool(allowed) and not any(each.search(place) for each in allowed)
        )

    return exempt


def program(agent: str) -> str:
    """The program's name at the head of a user agent, without its version; "" where there is none."""
    found = _PROGRAM.match(agent)
    return found[0] if found else ""


def _owner(host: str) -> str | None:
    """Whose sealed host this is: a look-up of its last two labels."""
    return SEALED.get(".".join(host.rsplit(".", 2)[-2:]))


def _sentence(kind: str, found: list[tuple[Gap, int]]) -> str:
    number = sum(count for _, count in found)
    names = _named(found)
    if kind == TUNNELLED:
        return f"{_times(number, 'connection')} to LLM hosts tunnelled by ignore_hosts or allow_hosts: {names}"
    if kind == OPAQUE:
        return f"{_times(number, 'connection')} to hosts whose encoding nobody else can read: {names}"
    if kind == UNKNOWN:
        how = "name it under hosts: in llmtab.yaml to meter it"
        return f"{_times(number, 'connection')} to unknown hosts that look like LLM providers: {names}; {how}"
    if kind == NO_USAGE:
        how = "; ask for stream_options.include_usage" if any("in_stream" in gap.detail for gap, _ in found) else ""
        return f"{_times(number, 'call')} told no usage: {names}{how}"
    if kind == PATH:
        return f"{_times(number, 'request')} to LLM hosts at paths that no profile names: {names}"
    return f"{_times(number, 'stored answer')} read again, counted once: {names}"


def _named(found: Iterable[tuple[Gap, int]]) -> str:
    """`5x api.openai.com (no_usage_in_stream), 2x host, …`."""
    found = list(found)
    words = [
        f"{number}x {safe(gap.host, 60)}" + (f" ({safe(gap.detail, 40)})" if gap.detail else "")
        for gap, number in found[:NAMED]
    ]
    return ", ".join([*words, *(["…"] if len(found) > NAMED else [])])


def _times(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
