"""Where the text of an answer and of a prompt stands: the words of a profile that only an estimate needs.

Knows `thoughts`, `text`, `also`, `whole`, `calls`, `sealed`, `prompt` and where a running figure stands. Compiled when
a call first needs an estimate, so that all others pay nothing for it. Must not know tokens, bytes or streams.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import Compiler, Scope, Slots, walk

type Finder = Callable[[Scope, Any], Iterator[Any]]
"""The values of one reference in one event."""


class Texts:
    """One dialect's references to text.

    `thoughts`: reasoning that is shown; `text`: everything else of a stream's events, `text:` and `also:` of the
    profile (what `thoughts` finds in an event is not found again); `whole`: the same in a body that is no stream;
    `calls`: names of tools that are called; `sealed`: reasoning that is sent encrypted; `prompt`: the parts of the
    request.
    """

    __slots__ = ("_dialect", "_output", "calls", "prompt", "sealed", "text", "thoughts", "whole")

    def __init__(self, dialect: Dialect) -> None:
        compiler, spec = Compiler(Slots(), set()), dialect.spec
        self._dialect = dialect
        self._output = next((row for row in dialect.rows if row.name == "output_tokens"), None)
        self.thoughts = _finders(compiler, spec, "thoughts")
        self.text = [*_finders(compiler, spec, "text"), *_finders(compiler, spec, "also")]
        self.whole = _finders(compiler, spec, "whole")
        self.calls = _finders(compiler, spec, "calls")
        self.sealed = _finders(compiler, spec, "sealed")
        self.prompt = [compiler.ref(ref) for ref in spec.get("prompt") or ()]

    def running(self, scope: Scope, event: Any) -> bool:
        """Whether an event says how many tokens were generated so far."""
        dialect, row = self._dialect, self._output
        if row is None:
            return False
        for parts in dialect.unwrap:
            event = walk(event, parts) or event
        for in_event, root in dialect.roots:
            found = root(scope, event) if in_event else None
            if type(found) is dict:
                return bool(row.plain(scope, found))
        return False

    def scope(self, request: Callable[[], Any]) -> Scope:
        """What the references may look at: the event they are given, and the request's JSON."""
        found = Scope({}, {}, request, {}, lambda name: None)
        found.slots = [None] * self._dialect.slot_count
        return found


def _finders(compiler: Compiler, spec: Mapping[str, Any], word: str) -> list[Finder]:
    return [_finder(compiler, entry) for entry in spec.get(word) or ()]


def _finder(compiler: Compiler, entry: Any) -> Finder:
    """A reference, or one whose `where` is asked of the element (of the event, where there is no `*`)."""
    if isinstance(entry, str):
        each = compiler.each(entry)
        return lambda scope, event: (value for _, value in each(scope, event))
    found, where = compiler.each(entry["ref"]), compiler.test(entry["where"])
    return lambda scope, event: (value for element, value in found(scope, event) if where(scope, element))
