"""What calls of a kind used before: the last few figures of each, and their median and p90.

Knows which keys of a line say so. Must not know requests, prices or files. Bounded: the kinds used last, the calls made
last of each.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmtab.estimates.asking import Asked

KEPT: Final = 64
"""Calls of a kind."""
KINDS: Final = 512
FEWEST: Final = 5
"""Calls before a habit is believed."""
LABELS: Final = ("intent", "agent", "feature", "project", "consumer", "team")
"""Labels that tell calls of one model apart by what they are for; the first of these that a call has counts."""
MOST_PER_BYTE: Final = 1.0
"""Input tokens a byte; more means that not all of the prompt was in the request: a stored conversation, say."""
LEAST_PER_BYTE: Final = 0.02
"""Fewer means that the bytes were a picture's."""

type Line = Mapping[str, Any]


def _few() -> deque[float]:
    return deque(maxlen=KEPT)


@dataclass(slots=True)
class Habit:
    """The last figures of one kind of call. `ratios`: input tokens a byte of text; `read` and `written`: shares of the
    input from and to a prompt cache; `model`, `tier`, `region`: of the last call, as they were priced."""

    ratios: deque[float] = field(default_factory=_few)
    outputs: deque[float] = field(default_factory=_few)
    read: deque[float] = field(default_factory=_few)
    written: deque[float] = field(default_factory=_few)
    model: str | None = None
    tier: str | None = None
    region: str | None = None

    def ratio(self, typical: float, high: float) -> Sequence[float]:
        """(median, p90) of input tokens a byte, or what is given where too few calls were seen."""
        return _ends(self.ratios) or (typical, high)

    def output(self, typical: int, high: int) -> tuple[int, int]:
        """(median, p90) of output tokens, or what is given."""
        found = _ends(self.outputs)
        return (round(found[0]), round(found[1])) if found else (typical, high)

    def shares(self) -> Sequence[tuple[float, float]]:
        """(read, written) of the input: as usual, then as seldom: little read and much written."""
        if len(self.read) < FEWEST:
            return ((0.0, 0.0), (0.0, 0.0))
        read, written = quantile(self.read, 0.5), quantile(self.written, 0.5)
        little, much = quantile(self.read, 0.1), quantile(self.written, 0.9)
        return ((read, min(written, 1 - read)), (little, min(much, 1 - little)))


class Habits:
    """Kinds of calls by name, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, Habit] = OrderedDict()

    def of(self, names: Sequence[str]) -> Habit:
        """The most special of the kinds that was seen often enough; one without figures where none was."""
        for name in names:
            habit = self._kinds.get(name)
            if habit is not None and (len(habit.outputs) >= FEWEST or len(habit.ratios) >= FEWEST):
                return habit
        return next((self._kinds[name] for name in names if name in self._kinds), None) or Habit()

    def learn(self, line: Line, names: Sequence[str], request: Asked | None) -> None:
        """A line whose figures the provider reported. `request`: what the request told, if it was looked at."""
        usage = line.get("usage") or {}
        used, answered = usage.get("input_tokens"), usage.get("output_tokens")
        if line.get("usage_source") != "reported" or not used or not {"parent", "batch"}.isdisjoint(line):
            return
        text = request.text if request is not None else (line.get("bytes") or {}).get("request") or 0
        for name in names:
            habit = self._kind(name)
            if text and not (request and request.blobs) and LEAST_PER_BYTE <= (ratio := used / text) <= MOST_PER_BYTE:
                habit.ratios.append(float(ratio))
            if answered is not None:
                habit.outputs.append(float(answered))
            habit.read.append(float(usage.get("cache_read_input_tokens", 0) / used))
            habit.written.append(float(usage.get("cache_creation_input_tokens", 0) / used))
            habit.model = line.get("response_model")
            habit.tier, habit.region = line.get("pricing_tier"), line.get("region")

    def over(self, newer: "Habits") -> "Habits":
        """These with what `newer` has learnt meanwhile on top. A kind's own newer figures come last."""
        for name, habit in newer._kinds.items():
            mine = self._kind(name)
            for kept, more in zip(_deques(mine), _deques(habit), strict=True):
                kept.extend(more)
            mine.model, mine.tier, mine.region = habit.model, habit.tier, habit.region
        return self

    def _kind(self, name: str) -> Habit:
        habit = self._kinds.setdefault(name, Habit())
        self._kinds.move_to_end(name)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        return habit


def kinds(line: Line) -> tuple[str, ...]:
    """The kinds a call belongs to, the most special first: its model with its most telling label, then its model."""
    name = f"{line.get('provider')} {line.get('request_model') or line.get('response_model') or ''}"
    labels = line.get("labels") or {}
    label = next((f"{key}={labels[key]}" for key in LABELS if key in labels), None)
    return (f"{name} {label}", name) if label else (name,)


def quantile(values: Sequence[float] | deque[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank). At least one value."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _ends(values: deque[float]) -> tuple[float, float] | None:
    return (quantile(values, 0.5), quantile(values, 0.9)) if len(values) >= FEWEST else None


def _deques(habit: Habit) -> tuple[deque[float], ...]:
    return habit.ratios, habit.outputs, habit.read, habit.written
