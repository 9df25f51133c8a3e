"""The ladder: whose call it is. From the top down each rung may give labels, and the first to give one wins.

Knows the order of the rungs and which of them is switched on; a set-up compiles it once. Must not know flows, files or
the ledger. What needs a body is done when the call is over, never before: see `finish`.

    1  x-llmtab-<label> headers              5  ids that known agents send, OpenAI's project and organisation
    2  the user of HTTPS_PROXY               6  fields: what llmtab.yaml takes from headers and bodies
    3  llmtab_labels                         7  the key's name
    4  rules of llmtab.yaml, in their order
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from llmtab.attribution.agents import Agent, Wanted, body_session, by_user_agent, header_ids
from llmtab.attribution.fingerprints import Fingerprints
from llmtab.attribution.labels import MAX_LABELS, agent_text, user_labels
from llmtab.attribution.rules import Asked, Labels, Rule, compile_rule, scalar
from llmtab.extract import Reading
from llmtab.observation import Call
from llmtab.profiles.refs import pointer_parts, split_ref, walk
from llmtab.record import label_text

type Give = Callable[[Asked, Labels], Labels | None]
"""(the call, the labels found so far) -> labels this rung gives, if any."""

RULES_BEGIN: Final = 10
"""Rank of the first rule; the rungs above it have lower numbers, those below follow the last rule."""


class Rung(NamedTuple):
    rank: int
    give: Give


@lru_cache(512)  # a machine runs a handful of clients
def client_of(user_agent: str | None) -> tuple[str | None, Agent | None]:
    """What the ledger says of a User-Agent, and the known agent that has it."""
    return agent_text(user_agent), by_user_agent(user_agent or "")


class Ladder:
    """One for each set-up. `sections`: of llmtab.yaml; `stated`: the labels of `llmtab_labels`.

    `headers`: lower-case names of further headers that rules and fields look at. `proxied`: whether the proxy's user is
    of interest.
    """

    def __init__(
        self, sections: Mapping[str, Any], stated: Labels, key_names: Mapping[str, str], fingerprints: Fingerprints
    ) -> None:
        said = sections.get("attribution") or {}
        self._said: Final = said
        self._fingerprints: Final = fingerprints
        self._key_names: Final = key_names
        self.believes_headers: Final[bool] = said.get("headers", True)
        self._user_label: Final[str] = said.get("proxy_user", "consumer") or ""
        self._stated: Final = stated if said.get("run", True) else {}
        agents = said.get("agents", True)
        self._wanted: Final = Wanted(bool(agents), said.get("openai", True))
        self._reads_bodies: Final = agents is True
        rules = [compile_rule(rule) for rule in sections.get("rules") or ()] if said.get("rules", True) else []
        self._early, self._late = self._rungs(rules)
        self._plain: Final = not rules and not said.get("fields") and not self._names_keys
        names = {name for rule in rules for name in rule.headers} | self._field_headers()
        self.headers: Final = frozenset(name.encode() for name in names)

    # -- when a call begins --------------------------------------------------------------------------------------------

    def climb(self, call: Call, provider: str, user: str | None) -> None:
        """Adds to `call.labels` (those of its own headers are there) and `call.client` all that is known before the
        call is over. `user`: who the client is to the proxy."""
        text, agent = client_of(call.headers.get("user-agent"))
        if text is not None:
            call.client["agent"] = text
        if not self._plain:
            self._climb_all(call, provider, user, agent)
            return
        labels = call.labels
        if user is not None and self._user_label:
            _add(labels, user_labels(user, self._user_label))
        if self._stated:
            _add(labels, self._stated)
        if ids := header_ids(call.headers, agent, self._wanted):
            _add(labels, ids)
        if agent is not None and agent.body is not None and self._reads_bodies and "session" not in labels:
            call.later = partial(_add_session, call, agent)

    def _climb_all(self, call: Call, provider: str, user: str | None, agent: Agent | None) -> None:
        asked = Asked(call, provider, user, agent, self._key_names)
        ranks = dict.fromkeys(call.labels, 0)
        for rung in self._early:
            _give(call.labels, ranks, rung, asked)
        if self._late:
            call.later = partial(self._finish, asked, ranks)

    # -- when it is over -----------------------------------------------------------------------------------------------

    def _finish(self, asked: Asked, ranks: dict[str, int], request: Callable[[], Any], reading: Reading) -> None:
        """The rungs that need the body or the models. `request` gives the body's JSON, parsed by whoever asks first."""
        asked.request = request
        asked.models = tuple(model for model in (reading.request_model, reading.model) if model)
        for rung in self._late:
            _give(asked.call.labels, ranks, rung, asked)

    # -- compiling -----------------------------------------------------------------------------------------------------

    @property
    def _names_keys(self) -> bool:
        how = self._said.get("keys", "names")
        return how == "all" or (how == "names" and bool(self._key_names))

    def _rungs(self, rules: Sequence[Rule]) -> tuple[list[Rung], list[Rung]]:
        """Those for the beginning of a call and those for its end, each in order."""
        early = [Rung(1, self._of_user), Rung(2, lambda asked, labels: self._stated)]
        late: list[Rung] = []
        after_late = False
        for number, rule in enumerate(rules):
            waits = rule.late or (after_late and rule.by_label)  # it may look at a label that a late rule gives
            after_late |= waits
            (late if waits else early).append(Rung(RULES_BEGIN + number, partial(_of_rule, rule)))
        below = RULES_BEGIN + len(rules)
        early.append(Rung(below, self._of_agent))
        if self._reads_bodies:
            late.append(Rung(below, _of_body))
        for number, (label, field) in enumerate((self._said.get("fields") or {}).items(), 1):
            refs, hashed = _field(field)
            waits = any(kind == "request" for kind, _ in refs)
            give = partial(_of_field, label, refs, self._fingerprints if hashed else None)
            (late if waits else early).append(Rung(below + number, give))
        if self._names_keys:
            early.append(Rung(below + len(self._said.get("fields") or {}) + 1, self._of_key))
        return early, late

    def _field_headers(self) -> set[str]:
        fields = (self._said.get("fields") or {}).values()
        return {name for field in fields for kind, name in _field(field)[0] if kind == "request_header"}

    # -- rungs ---------------------------------------------------------------------------------------------------------

    def _of_user(self, asked: Asked, _: Labels) -> Labels | None:
        return user_labels(asked.user, self._user_label) if asked.user is not None and self._user_label else None

    def _of_agent(self, asked: Asked, _: Labels) -> Labels | None:
        return header_ids(asked.call.headers, asked.agent, self._wanted)

    def _of_key(self, asked: Asked, _: Labels) -> Labels | None:
        keys = asked.keys
        return {"consumer": keys[-1]} if len(keys) > (1 if self._said.get("keys", "names") == "names" else 0) else None


def _of_rule(rule: Rule, asked: Asked, labels: Labels) -> Labels | None:
    return rule.labels if rule.fits(asked, labels) else None


def _of_body(asked: Asked, _: Labels) -> Labels | None:
    agent = asked.agent
    if agent is None or agent.body is None or "session" in asked.call.labels:
        return None
    session = body_session(agent, asked.request())
    return {"session": session} if session else None


def _of_field(
    label: str, refs: Sequence[tuple[str, Any]], fingerprints: Fingerprints | None, asked: Asked, _: Labels
) -> Labels | None:
    """The first of the places that has a value we may keep."""
    for kind, place in refs:
        found = asked.call.headers.get(place) if kind == "request_header" else scalar(walk(asked.request(), place))
        if found and fingerprints is not None:
            return {label: fingerprints.of_person(found)}
        if found and (text := label_text(found)):
            return {label: text}
    return None


def _field(said: Any) -> tuple[list[tuple[str, Any]], bool]:
    """The places of a field, (kind, header name or pointer's parts), and whether its value is hashed."""
    take, hashed = (said["take"], said.get("hash", False)) if isinstance(said, dict) else (said, False)
    split = [split_ref(ref) for ref in ([take] if isinstance(take, str) else take)]
    return [(kind, rest.lower() if kind == "request_header" else pointer_parts(rest)) for kind, rest in split], hashed


def _add_session(call: Call, agent: Agent, request: Callable[[], Any], reading: Reading) -> None:
    session = body_session(agent, request())
    if session:
        _add(call.labels, {"session": session})


def _add(labels: dict[str, str], given: Labels) -> None:
    for name, value in given.items():
        if len(labels) < MAX_LABELS:
            labels.setdefault(name, value)


def _give(labels: dict[str, str], ranks: dict[str, int], rung: Rung, asked: Asked) -> None:
    """What a rung gives, where no higher one gave that label. A rule sees the labels found higher up, no others."""
    above = {name: value for name, value in labels.items() if ranks[name] < rung.rank}
    given = rung.give(asked, above)
    for name, value in (given or {}).items():
        if ranks.get(name, rung.rank + 1) > rung.rank and (name in labels or len(labels) < MAX_LABELS):
            labels[name], ranks[name] = value, rung.rank
