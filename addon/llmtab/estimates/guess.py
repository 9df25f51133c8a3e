"""What a call used whose provider did not say: output from the text that passed, input from the prompt's bytes.

Knows when that may be guessed, what was reported all the same, and how sure each figure is. Must not know mitmproxy,
files or prices. Runs in the thread for large bodies, never on the event loop; learns from this ledger's own lines, from
the first call on that needs it. What it says is always marked: `estimated`, and by which method.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

from llmtab.estimates.asking import Asked, asked
from llmtab.estimates.before import BLOB_TOKENS, BYTES_PER_TOKEN
from llmtab.estimates.habits import Habits, kinds
from llmtab.estimates.passed import Tally, tally
from llmtab.estimates.pieces import Family, family, pieces, tokens
from llmtab.estimates.prompts import counted, sampled
from llmtab.estimates.vocabularies import Vocabularies
from llmtab.events import BIG, request_reader
from llmtab.observation import Observation
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.texts import Texts
from llmtab.usage import Quantity

log = logging.getLogger("llmtab")

OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content"})
"""What answers in text. An embedding's answer has none; pictures and sound are billed by other units."""
ROLES: Final = frozenset({"billed", "by_shape"})
ONE_EACH: Final = 0.85
"""Pieces of a stream, as a share of its counted tokens, from which on it is taken to bring one token a piece."""
AT_MOST, SPARE = 2.5, 4
"""More pieces than that for each token, and these beside: they are cut by something else."""
STORED: Final = ("previous_response_id", "conversation", "thread_id", "cachedContent", "cached_content")
"""Members of a request that stand for a context which is not in it."""

BACKGROUND: Final = b'"background"'

type Line = Mapping[str, Any]


class Guess(NamedTuple):
    """`counters`: all of the call's, reported ones unchanged. `names`: those that are ours. `method`: how, by
    direction. `flags`: what the estimate cannot see."""

    counters: dict[str, Quantity]
    names: list[str]
    method: str
    flags: tuple[str, ...] = ()


def due(seen: Observation) -> bool:
    """Whether a call may need an estimate: one that was answered and is billed by text, and whose figures lack."""
    status = seen.answer.status
    return (
        seen.passed is not None
        and status is not None
        and status < 400
        and seen.reading.dialect.operation in OPERATIONS
        and seen.claim.binding.role in ROLES
        and not (seen.reading.failed or seen.reading.not_billed or seen.tap_error)
    )


class Guesser:
    """Fills in what providers did not say. `history`: gives the ledger's recent lines, read when first needed.

    `learn` belongs to the event loop, `guess` to one thread.
    """

    def __init__(self, history: Callable[[], Iterable[Line]]) -> None:
        self._history: Callable[[], Iterable[Line]] | None = history
        self._habits = Habits()
        self._lock = Lock()
        self._texts: dict[int, tuple[Dialect, Texts]] = {}
        self._vocabularies = Vocabularies()

    def learn(self, line: Line) -> None:
        """A finished call's line: what its prompt's bytes really were."""
        with self._lock:
            self._habits.learn(line, kinds(line), None)

    def guess(self, seen: Observation, outcome: str, source: str) -> Guess | None:
        """The figures of a call, if they can be had; None where the reported ones stand (or none can be had).

        Errors and refusals are never estimated, nor is a call whose figures are final.
        """
        if not due(seen) or source == "reported" or outcome not in ("ok", "aborted", "broken"):
            return None
        if any(flag.startswith("dropped:") for flag in seen.reading.flags) and source == "partial":
            return None  # a figure came that is no number: what it was nobody knows
        texts = self._words(seen)
        request, passed = _request(seen), seen.passed
        if _goes_on(seen, request):
            return None
        found = tally(passed, texts, [words.scope(request) for words in texts]) if passed else Tally()
        if not seen.streamed and not found:
            return None  # a whole answer without text: a queued job, numbers, a file
        if seen.streamed and not found.events and not seen.reading.counters:
            return None
        kin = family(_model(seen))
        counters, names, how = dict(seen.reading.counters), [], []
        said = self._output(found, kin, counters)
        if said:
            names.append("output_tokens")
            how.append(f"output:{said}")
        if "input_tokens" not in counters and (came := self._input(seen, texts, kin, request)):
            counters["input_tokens"], said = came
            names.insert(0, "input_tokens")
            how.insert(0, f"input:{said}")
        if not names:
            return None
        if "input_tokens" in counters and "output_tokens" in counters:
            counters["total_tokens"] = counters["input_tokens"] + counters["output_tokens"]
            names.append("total_tokens")
        flags = ("context_unseen",) if "input_tokens" in names and _has_stored(seen, request) else ()
        return Guess(counters, names, ",".join(how), flags)

    def _words(self, seen: Observation) -> list[Texts]:
        found = []
        for dialect in seen.claim.binding.dialects:
            kept = self._texts.get(id(dialect))
            if kept is None or kept[0] is not dialect:
                kept = self._texts[id(dialect)] = dialect, Texts(dialect)
            found.append(kept[1])
        return found

    def _output(self, found: Tally, kin: Family, counters: dict[str, Quantity]) -> str:
        """Puts the output in; how it was counted, "" where the reported figure (or nothing) stands."""
        if not found:
            return ""
        count, how = self._vocabularies.of(kin)
        shown, thought = "".join(found.text), "".join(found.thoughts)
        counts = tokens(shown, count), tokens(thought, count)
        density = kin.density if count is pieces else 1.0
        frame, size = kin.seal
        sealed = sum(max(0, length - frame) for length in found.sealed) / size
        sealed = max(0.0, sealed - counts[1] * density)  # thoughts that are shown are sealed as well
        total = _by_deltas(found.deltas, sum(counts), density)
        if total == found.deltas and total:
            how = "deltas"
        called = tokens(" ".join(found.calls), count) * density + len(found.calls) * kin.call
        total = (total + sealed + called) * found.scale + kin.end
        told = int(counters.get("output_tokens", 0))
        ours = told + round(total) - kin.end if found.covered else max(told, round(total))
        if ours <= told:
            return ""
        counters["output_tokens"] = ours
        return how + ("+sealed" if sealed else "")

    def _input(
        self, seen: Observation, texts: Sequence[Texts], kin: Family, request: Callable[[], Any]
    ) -> tuple[int, str] | None:
        """(tokens of the prompt, how they were counted); None where the request is not at hand."""
        body, coding = seen.call.body() or b"", seen.call.headers.get("content-encoding", "")
        framed = seen.passed.asked if seen.passed is not None else None
        told = framed or asked(body, coding)
        if not body or not (told.text or told.blobs):
            return None
        ratio = self._ratio(seen, told)
        files = told.blobs * BLOB_TOKENS
        if ratio:
            return round(told.text * ratio) + files, "learned"
        if framed is not None:
            return round(told.text / BYTES_PER_TOKEN) + files, "bytes"
        count, how = self._vocabularies.of(kin)
        density = kin.density if count is pieces else 1.0
        if not any(words.prompt for words in texts):
            return None
        if len(body) <= BIG:
            scope = texts[0].scope(request)
            found = [ref(scope, None) for words in texts for ref in words.prompt]
            parts = {id(part): part for part in found if part is not None}  # several dialects may name the same part
            if not parts:
                return None
            return round(counted([*parts.values()], lambda text: count(text) * density, kin)) + files, how
        return round(sampled(body, count) * density * told.text / len(body)) + files, how

    def _ratio(self, seen: Observation, told: Asked) -> float:
        """Input tokens a byte of such requests, 0.0 where too few were seen."""
        reading, call = seen.reading, seen.call
        line = {
            "provider": seen.claim.binding.provider,
            "request_model": reading.request_model or told.model,
            "response_model": reading.model,
            "labels": call.labels,
        }
        self._seed()
        with self._lock:
            return self._habits.of(kinds(line)).ratio(0.0, 0.0)[0]

    def _seed(self) -> None:
        """Learn from the ledger's lines, once. A ledger that others wrote to as well is read as far as it goes."""
        history, self._history = self._history, None
        if history is None:
            return
        old = Habits()
        try:
            for line in history():
                old.learn(line, kinds(line), None)
        except (OSError, ValueError, TypeError, ArithmeticError) as error:
            log.info("llmtab: estimates begin with what could be read of the ledger: %s", error)
        with self._lock:
            self._habits = old.over(self._habits)


def _by_deltas(deltas: int, counted: float, density: float) -> float:
    """Tokens of what came in so many pieces: most servers send one token a piece, and then the pieces are the count."""
    if ONE_EACH * counted <= deltas <= AT_MOST * counted + SPARE:
        return float(deltas) if density <= 1.1 else max(deltas, counted * density)
    return counted * density


def _model(seen: Observation) -> str:
    reading = seen.reading
    name = reading.model or reading.request_model or seen.claim.captures.get("model") or ""
    return name if family(name).names.pattern else f"{name} {seen.claim.binding.provider}"


def _request(seen: Observation) -> Callable[[], Any]:
    """What gives the request's JSON; of a socket's frame that is what was kept of it."""
    passed = seen.passed
    if passed is None or passed.asked is None:
        return request_reader(seen.call.body, seen.call.headers)
    return lambda: passed.request


def _goes_on(seen: Observation, request: Callable[[], Any]) -> bool:
    """Whether the provider goes on without this connection: the figures come when the answer is fetched, and that line
    is the call's cost. An estimate beside it would count the call twice."""
    framed = seen.passed is not None and seen.passed.asked is not None
    if not framed and not seen.call.headers.get("content-encoding") and BACKGROUND not in (seen.call.body() or b""):
        return False
    found = request()
    return isinstance(found, dict) and found.get("background") is True


def _has_stored(seen: Observation, request: Callable[[], Any]) -> bool:
    """Whether the prompt goes on from something that the provider keeps: its tokens are not in the request."""
    body = seen.call.body() or b""
    if len(body) > BIG:
        return False
    found = request()
    return isinstance(found, dict) and any(found.get(name) for name in STORED)
