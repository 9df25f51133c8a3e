"""Rules of llmtab.yaml, compiled: does this call match, and what labels does it get then.

Knows what a rule may look at, and which of it is known only when the call is over. Must not know flows or files. The
texts that are matched are in memory anyway; nothing of them is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final, NamedTuple

from llmtab.attribution.agents import Agent
from llmtab.attribution.intent import system_text, tool_names
from llmtab.attribution.textmatch import Fits, compile_globs, compile_pattern
from llmtab.observation import Call
from llmtab.profiles.refs import pointer_parts, walk

LATE: Final = frozenset({"model", "body", "system", "tools"})
"""What is known, or cheap to read, only when the call is over."""


LARGEST: Final = 10**18
"""Python refuses to write numbers of thousands of digits."""


class Asked:
    """A call as the ladder sees it. `models` and `request` (the body's JSON) are there when it is over."""

    def __init__(
        self, call: Call, provider: str, user: str | None, agent: Agent | None, key_names: Mapping[str, str]
    ) -> None:
        self.call, self.provider, self.user, self.agent = call, provider, user, agent
        self.models: tuple[str, ...] = ()
        self.request: Callable[[], Any] = lambda: None
        self._key_names = key_names

    @property
    def keys(self) -> tuple[str, ...]:
        """The fingerprint of the call's key, and its name if it has one."""
        key = self.call.client.get("key")
        if key is None:
            return ()
        name = self._key_names.get(key)
        return (key,) if name is None else (key, name)

    @cached_property
    def system(self) -> str:
        return system_text(self.request())

    @cached_property
    def tools(self) -> str:
        return tool_names(self.request())


type Labels = Mapping[str, str]
type Test = Callable[[Asked, Labels], bool]
"""(the call, the labels found higher up) -> whether it fits."""


class Rule(NamedTuple):
    """`late`: it can be judged only when the call is over. `headers`: lower-case names of those it looks at."""

    tests: tuple[Test, ...]
    labels: Labels
    late: bool
    by_label: bool
    headers: frozenset[str]

    def fits(self, asked: Asked, labels: Labels) -> bool:
        """Whether all that the rule says holds."""
        return all(test(asked, labels) for test in self.tests)


def compile_rule(said: Mapping[str, Any]) -> Rule:
    """A rule from its checked, plain form (see `attribution_schema.Rule`)."""
    match = said.get("match") or {}
    tests = [test for word, value in match.items() if value for test in _tests(word, value)]
    late = not LATE.isdisjoint(word for word, value in match.items() if value)
    return Rule(tuple(tests), said["labels"], late, bool(match.get("label")), frozenset(match.get("header") or ()))


def _tests(word: str, value: Any) -> list[Test]:
    if word in ("header", "label", "body"):
        return [_of_mapping(word, name, compile_globs(globs)) for name, globs in value.items()]
    if word == "address":
        return [_in_network(value)]
    if word in ("system", "tools"):
        found = compile_pattern(value)
        return [lambda asked, _: found(getattr(asked, word))]
    return [_of_text(word, compile_globs(value))]


def _of_text(word: str, fits: Fits) -> Test:
    """A test of one text of the call."""
    if word == "host":
        return lambda asked, _: fits(asked.call.host)
    if word == "path":
        return lambda asked, _: fits(asked.call.path)
    if word == "provider":
        return lambda asked, _: fits(asked.provider)
    if word == "agent":
        return lambda asked, _: fits(asked.call.headers.get("user-agent", ""))
    if word == "key":
        return lambda asked, _: any(map(fits, asked.keys))
    return lambda asked, _: any(map(fits, asked.models))


def _of_mapping(word: str, name: str, fits: Fits) -> Test:
    """A test of one header, label or member of the body; what is absent fits nothing, not even `*`."""
    if word == "header":
        return lambda asked, _: name in asked.call.headers and fits(asked.call.headers[name])
    if word == "label":
        return lambda _, labels: name in labels and fits(labels[name])
    parts = pointer_parts(name)
    return lambda asked, _: (text := scalar(walk(asked.request(), parts))) is not None and fits(text)


def _in_network(said: str | Sequence[str]) -> Test:
    networks = [ip_network(text) for text in ([said] if isinstance(said, str) else said)]

    @lru_cache(1024)
    def inside(text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return lambda asked, _: inside(asked.call.client.get("address", ""))


def scalar(value: Any) -> str | None:
    """A text or whole number of a body as text; None for everything else, numbers that nobody means among it."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int and abs(value) < LARGEST else None
