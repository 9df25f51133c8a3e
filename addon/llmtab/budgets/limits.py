"""Limits: how much of what, over which window, for whom; and which of them a call touches.

Knows the facts of a call that limits are chosen by. Must not know what a call costs, or where spending is kept.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from fnmatch import translate
from typing import Any, Final

from llmtab.budgets.amounts import INPUT, OUTPUT, TOKENS, USD, WEIGHT, Amount, amount
from llmtab.budgets.weights import COUNTER, is_reference
from llmtab.budgets.windows import Window, window

METERED: Final = frozenset({"metered", "subscription_overage"})
WORDS: Final = frozenset({"provider", "model", "host", "key", "address", "operation", "tier"})
"""Facts that are no labels; any other key of `match` or `per` is one. A label of such a name is none of theirs."""
REMEMBERED: Final = 4096
"""Combinations of facts whose limits, and buckets, are remembered: a caller's next call is much like its last one."""
NOBODY: Final = "-"
"""The bucket of calls that do not say what `per` asks for."""
_PARTS: Final = str.maketrans({"%": "%25", "|": "%7C"})

type Facts = Mapping[str, str]
type Fits = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. Amounts are whole numbers of its unit's scale.

    `hard`: calls beyond `amount` are refused. `soft`: from here on they are marked (None: never). `burst`: what a
    window may overdraw; the next one is shorter by as much. `throttle`: seconds a call may be held back instead of
    being refused. `unpriced`: of a call without a price "allow", "refuse", or what is charged. `counts`: the counter a
    weight is read from. `tier`: whom it holds for, None: everybody.
    """

    name: str
    amount: int
    unit: str
    window: Window
    fits: Fits
    per: tuple[str, ...] = ()
    soft: int | None = None
    hard: bool = True
    burst: int = 0
    throttle: float = 0.0
    unpriced: str | int = "allow"
    counts: str = ""
    all_billing: bool = False
    since: float = 0.0
    """Calls before this moment are none of its business (a budget of one run)."""
    own: bool = False
    """Only calls of this process count."""
    usual: bool = False
    """Reserves what nine of ten such calls stay below instead of the most that a call may cost."""
    by: frozenset[str] = frozenset()
    """Facts that `fits` looks at."""
    digest: str = ""
    """What decides how lines are counted: where it has changed, they are counted anew."""

    kind: str = field(init=False)
    """Limits of one kind take the same from every call."""

    def __post_init__(self) -> None:
        weighed = self.name if self.unit == WEIGHT else ""
        kind = self.unit, self.counts, self.usual, self.all_billing, self.unpriced, weighed
        object.__setattr__(self, "kind", repr(kind))

    def key(self, facts: Facts) -> str:
        """The bucket of a call: the values of `per`, spelt so that no other values make the same one."""
        return "|".join([_part(facts.get(name)) for name in self.per])


class Touched:
    """The limits that a call counts against, each with its bucket's key. Told apart by identity, not by what is in it:
    stores remember the buckets by it.

    `kinds`: of the limits of one kind the first; `places`: for each pair the place of its limit's kind in `kinds`.
    `soft`: the pairs with a soft limit. `usual`: whether one of them reserves what is usual. `others`: the same without
    the limits of this process alone; `since`: the moment from which those count, None where there are none.
    """

    __slots__ = ("kinds", "names", "others", "pairs", "places", "since", "soft", "usual")

    def __init__(self, pairs: Iterable[tuple[Limit, str]]) -> None:
        self.pairs: Final = tuple(pairs)
        self.names: Final = tuple([limit.name for limit, _ in self.pairs])
        found: dict[str, int] = {}
        kinds: list[Limit] = []
        places: list[int] = []
        for limit, _ in self.pairs:
            place = found.setdefault(limit.kind, len(kinds))
            if place == len(kinds):
                kinds.append(limit)
            places.append(place)
        self.kinds: Final = tuple(kinds)
        self.places: Final = tuple(places)
        self.soft: Final = tuple([pair for pair in self.pairs if pair[0].soft is not None])
        self.usual: Final = any(limit.usual for limit in kinds)
        self.since: Final = max([limit.since for limit, _ in self.pairs if limit.own], default=None)
        self.others: Final[Touched] = (
            self if self.since is None else Touched(pair for pair in self.pairs if not pair[0].own)
        )


class Limits:
    """All limits in force, in their order."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self.all: Final = tuple(limits)
        self.names: Final = frozenset(name for limit in self.all for name in (*limit.per, *limit.by))
        """Facts that tell which limits a call touches."""
        self._asked: Final = tuple(self.names)
        self._found: dict[tuple[str | None, ...], Touched] = {}

    def __bool__(self) -> bool:
        return bool(self.all)

    def touched(self, facts: Facts) -> Touched:
        """The limits of a call with these facts."""
        key = tuple(map(facts.get, self._asked))
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = self._found[key] = Touched((limit, limit.key(facts)) for limit in self.all if limit.fits(facts))
        return found


def facts_with(labels: Mapping[str, str], facts: Mapping[str, str | None]) -> dict[str, str]:
    """What limits are chosen by: what is known of a call, and its labels. A client writes labels, and facts are what
    holds it: no label stands for one, not even for one that is absent."""
    found = {name: value for name, value in labels.items() if name not in WORDS}
    return found | {name: value for name, value in facts.items() if value}


def _part(value: str | None) -> str:
    if not value:
        return NOBODY
    return value.translate(_PARTS) if value != NOBODY else "%2D"


def limit(
    spec: Mapping[str, Any], zone: tzinfo = UTC, *, name: str = "", also: Mapping[str, str] | None = None
) -> Limit:
    """A limit from its checked plain form (see `schema`). `also`: facts that must hold besides. Raises ValueError."""
    size, over = parse(spec["limit"], zone, sliding=spec.get("window") == "sliding", unit=_weighted(spec))
    burst = share(spec["burst"], size) if spec.get("burst") else 0
    if burst and (over.sliding or burst > size.value):
        raise ValueError("burst: expected a fixed window, and no more than the limit itself")
    exempt = [matcher(where) for where in spec.get("exempt") or ()]
    match = matcher({**(spec.get("match") or {}), **(also or {})})
    return Limit(
        name=spec.get("name") or name or slug(spec["limit"]),
        amount=size.value, unit=size.unit, window=over,
        fits=_but(match, exempt),
        per=tuple(spec.get("per") or ()),
        soft=_soft(spec["soft"], size) if spec.get("soft") else None if spec.get("hard", True) else size.value,
        hard=bool(spec.get("hard", True)),
        burst=burst,
        throttle=seconds(spec["throttle"]) if spec.get("throttle") else 0.0,
        unpriced=unpriced(spec.get("unpriced") or "allow"),
        counts=_counter(spec, size.unit),
        all_billing=spec.get("billing") == "all",
        usual=spec.get("reserve") == "usual",
        by=frozenset(
            name for where in (spec.get("match") or {}, also or {}, *(spec.get("exempt") or ())) for name in where
        ),
        digest=repr(sorted((key, value) for key, value in spec.items() if key in _COUNTED)) + repr(also) + str(zone),
    )  # fmt: skip


_COUNTED: Final = frozenset({"limit", "window", "match", "per", "exempt", "unpriced", "billing", "weight"})


def parse(text: str, zone: tzinfo, *, sliding: bool = False, unit: str | None = None) -> tuple[Amount, Window]:
    """`100 USD per month`, `50 requests/minute`, `5 USD` (for ever). Raises ValueError."""
    size, _, period = re.sub(r"\s*/\s*", " per ", text.strip(), count=1).partition(" per ")
    return amount(size, unit), window(period, zone, sliding=sliding)


def _soft(text: str, of: Amount) -> int:
    found = share(text, of)
    if not 0 < found <= of.value:
        raise ValueError(f"soft: {text!r}, expected more than nothing of the limit and at most the whole of it ({of})")
    return found


def share(text: str, of: Amount) -> int:
    """`80%` of an amount, or an amount of the same unit."""
    found = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,3})?)\s*%\s*", text)
    if found:
        return int(of.value * float(found[1]) / 100)
    said = amount(text, of.unit)
    if said.unit != of.unit:
        raise ValueError(f"{text!r}, expected a share like 80% or an amount in {of.unit}")
    return said.value


def seconds(text: str) -> float:
    """`20s`, `1 minute`. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*([a-z]*?)s?\s*", text.lower())
    per = {"": 1, "second": 1, "sec": 1, "minute": 60, "min": 60, "m": 60}.get(found[2]) if found else None
    if found is None or per is None or not 0 < float(found[1]) * per <= 600:
        raise ValueError(f"{text!r}, expected a time up to ten minutes, like 20s")
    return float(found[1]) * per


def unpriced(text: str) -> str | int:
    """`allow`, `refuse` or `charge 0.05 USD`. Raises ValueError."""
    if text in ("allow", "refuse"):
        return text
    word, _, rest = text.partition(" ")
    try:
        said = amount(rest, USD)
    except ValueError:
        said = None
    if word != "charge" or said is None or said.unit != USD:
        raise ValueError(f"{text!r}, expected allow, refuse, or an amount like charge 0.05 USD")
    return said.value


def matcher(where: Mapping[str, Any]) -> Fits:
    """A function that says whether all of `{fact: value | [values] | glob}` hold."""
    tests = [(key, _fits(value if isinstance(value, list) else [value])) for key, value in where.items()]
    if not tests:
        return lambda facts: True
    if len(tests) == 1:
        [(name, test)] = tests
        return lambda facts: (value := facts.get(name)) is not None and test(value)
    return lambda facts: all((value := facts.get(name)) is not None and test(value) for name, test in tests)


def _fits(values: Sequence[Any]) -> Callable[[str], bool]:
    plain = frozenset(str(value) for value in values if not _is_glob(str(value)))
    globs = [re.compile(translate(str(value))).match for value in values if _is_glob(str(value))]
    if not globs:
        return lambda value: value in plain
    return lambda value: value in plain or any(glob(value) for glob in globs)


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _but(match: Fits, exempt: Sequence[Fits]) -> Fits:
    if not exempt:
        return match
    return lambda facts: match(facts) and not any(one(facts) for one in exempt)


def _weighted(spec: Mapping[str, Any]) -> str | None:
    return WEIGHT if spec.get("weight") else None


def _counter(spec: Mapping[str, Any], unit: str) -> str:
    """The counter of a line that the limit sums; "" where it is money or calls."""
    if spec.get("weight"):
        if unit != WEIGHT:
            raise ValueError(f"{spec['limit']!r}: a weight is counted in units, expected e.g. 500 units per day")
        return COUNTER if is_reference(spec["weight"]) else str(spec["weight"])
    if unit == WEIGHT:
        raise ValueError(f"{spec['limit']!r}: units of what? expected weight: with a counter, e.g. weight: images")
    return {TOKENS: "total_tokens", INPUT: "input_tokens", OUTPUT: "output_tokens"}.get(unit, "")


def slug(text: str) -> str:
    """A name for a limit that has none: `100-USD-per-month`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:48] or "limit"
