"""How a dialect is spoken over a WebSocket: which frame asks, whose response an event is, what is worth parsing.

Knows the words `emit`, `key`, `lane`, `asks` and `setup` of the profile language. Must not know sockets, times or what
becomes of a response: `llmtab.sockets.socket` does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import EACH, Compiler, Scope, Slots, Test, pointer_parts, split_ref, walk

LONGEST: Final = 96
"""Characters of a word worth knowing: the longest names of events have seventy."""
TEXTUAL: Final = frozenset({"chat"})
"""Operations whose answers are text, so that what passed of one tells what it used; sound is billed otherwise."""
SIGNS: Final = frozenset("*?[")
WORDS: Final = frozenset({"present", "absent"})


class Watch:
    """Whether a frame may meet one of some tests, told by the short words in it: values, or names of members.

    Inside a JSON string quotes are escaped, so that no text of a user or a model looks like a word.
    """

    __slots__ = ("_everything", "_words")

    def __init__(self, tests: Iterable[Mapping[str, Any]], names: Iterable[str] = ()) -> None:
        found = [_signs(where) for where in tests]
        self._everything = not all(found)
        self._words = frozenset(word.encode() for words in (*found, names) for word in words)

    def hit(self, words: Iterable[bytes]) -> bool:
        """Whether a frame of these words has to be parsed to know more."""
        return self._everything or not self._words.isdisjoint(words)


def words_of(frame: bytes) -> list[bytes]:
    """What stands between the quotes of a frame, but for long texts and sound: found at the speed of memory, where a
    search for each word in turn would take ten times as long."""
    return [word for word in frame.split(b'"') if len(word) <= LONGEST]


class Rules:
    """One dialect's rules for sockets. `emit`: "final" (a line for each response) or "session" (one for the socket).

    `keyed`: responses have ids; without one there is one response at a time. `laned`: an event without an id belongs to
    the response under way in its lane. `asking`, `answering`: the frames of either side that have to be parsed.
    `telling`: those that bring text, from which an estimate is made where no figures come; None where none is made.
    """

    __slots__ = ("_key", "_lane", "answering", "asking", "asks", "emit", "keyed", "laned", "opens", "setup", "telling")

    def __init__(self, dialect: Dialect) -> None:
        spec = dialect.spec
        compiler = Compiler(Slots(), set())
        self.emit: str = "final" if spec.get("emit") == "final" else "session"
        self._key, self._lane = _pointers(spec.get("key")), _pointers(spec.get("lane"))
        self.keyed, self.laned = bool(self._key), bool(self._lane)
        self.asks: list[Test] = [compiler.test(where) for where in spec.get("asks") or ()]
        self.setup: list[Test] = [compiler.test(where) for where in spec.get("setup") or ()]
        ends = [*dialect.end, *dialect.error] if self.keyed else []
        self.opens: list[Test] = [*dialect.begin, *dialect.final, *ends]
        words = ("begin", "final", "end", "error", "setup")
        said = [where for word in words for where in spec.get(word) or () if "" not in where]  # a frame is an object
        self.asking = Watch([*(spec.get("asks") or ()), *(spec.get("setup") or ())])
        self.answering = Watch(said, dialect.keys)
        self.telling = Watch([], _tellers(spec)) if dialect.operation in TEXTUAL and self.emit == "final" else None

    def key(self, frame: Any) -> str | None:
        """The id of the response that a frame speaks of."""
        return _text(frame, self._key)

    def lane(self, frame: Any) -> str | None:
        """The lane of a frame: what is asked in one lane is answered in that order."""
        return _text(frame, self._lane)


@lru_cache(64)
def rules_of(dialect: Dialect) -> Rules:
    """The rules of a dialect, made when a socket first speaks it."""
    return Rules(dialect)


def holds(tests: Sequence[Test], scope: Scope, frame: Any) -> bool:
    """Whether one of the tests holds for a frame."""
    return any(test(scope, frame) for test in tests)


def _tellers(spec: Mapping[str, Any]) -> Iterator[str]:
    """Words of the frames that bring text: members it stands in, and types of events that bring what is no text. What
    repeats a whole response, as its first and last events do, has none of them: it would be counted as text."""
    entries = [entry for word in ("text", "also", "thoughts", "calls", "sealed") for entry in spec.get(word) or ()]
    for entry in entries:
        if isinstance(entry, Mapping):
            yield from _values(entry["where"])
    yield from (next(_named(ref), "") for ref in spec.get("text") or () if isinstance(ref, str))


def _pointers(ref: Any) -> list[tuple[str, ...]]:
    refs = ref["any"] if isinstance(ref, Mapping) else [ref] if ref else []
    return [pointer_parts(split_ref(text)[1]) for text in refs]


def _text(frame: Any, pointers: Sequence[tuple[str, ...]]) -> str | None:
    for parts in pointers:
        value = walk(frame, parts)
        if type(value) is str and value:
            return value[:256]
    return None


def _signs(where: Mapping[str, Any]) -> Sequence[str]:
    """Words of which one stands in every frame that meets the test: a value rather than a member's name."""
    if values := _values(where):
        return values
    told = (ref for ref, expected in where.items() if expected != "absent" and not isinstance(expected, Mapping))
    return next(([name] for ref in told for name in _named(ref)), [])


def _values(where: Mapping[str, Any]) -> Sequence[str]:
    """The values that a test asks one member for, where they are said letter by letter."""
    for expected in where.values():
        values = expected if isinstance(expected, list) else [expected]
        if all(isinstance(value, str) and not SIGNS & set(value) and value not in WORDS for value in values):
            return [str(value) for value in values]
    return []


def _named(ref: str) -> Iterator[str]:
    kind, rest = split_ref(ref)
    if kind in ("", "event"):
        yield from (part for part in reversed(pointer_parts(rest)) if part != EACH and not part.isdecimal())
