"""The ladder: each rung, its switch, and which rung wins."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.attribution.fingerprints import Fingerprints
from llmtab.attribution.labels import stated_labels
from llmtab.attribution.ladder import Ladder
from llmtab.config import ConfigError, load
from llmtab.extract import Reading
from llmtab.observation import Call
from llmtab.record import label_text

UUID = "0b1c7f3e-8d52-4c1c-9a45-3c7a1f0e9d11"
KEY = "k_0123456789abcdef"
CLAUDE = {"user-agent": "claude-cli/2.1.329 (external, cli)"}

type Climb = Callable[..., dict[str, str]]


@pytest.fixture
def climb(tmp_path: Path) -> Climb:
    """What becomes of a call's labels under an llmtab.yaml. `early=True`: before the call is over."""

    def of(
        yaml: str = "", *, headers: Mapping[str, str] | None = None, body: Any = None, user: str | None = None,
        said: Mapping[str, str] | None = None, stated: str = "", names: Mapping[str, str] | None = None,
        early: bool = False, models: tuple[str | None, str | None] = (None, None), **facts: str,
    ) -> dict[str, str]:  # fmt: skip
        path = tmp_path / "llmtab.yaml"
        path.write_text(yaml)
        ladder = Ladder(load(path).sections, stated_labels(stated), names or {}, Fingerprints(tmp_path / "key"))
        client = {name: facts[name] for name in ("address", "key") if name in facts}
        call = Call(
            "id", facts.get("host", "api.openai.com"), "POST", facts.get("path", "/v1/chat/completions"), 0.0,
            headers or {}, lambda: None, lambda name: None, dict(said or {}), client,
        )  # fmt: skip
        ladder.climb(call, facts.get("provider", "openai"), user)
        if call.later is not None and not early:
            call.later(lambda: body, reading(*models))
        return call.labels

    return of


def reading(asked: str | None, answered: str | None) -> Reading:
    dialect: Any = None  # nobody here asks how the answer was read
    return Reading(dialect, request_model=asked, model=answered)


def rule(match: str, labels: str = "project: web") -> str:
    return f"rules:\n  - match: {{{match}}}\n    labels: {{{labels}}}\n"


# -- the rungs and their switches --------------------------------------------------------------------------------------


def test_without_a_word_of_configuration(climb: Climb) -> None:
    """What is read by default: label headers, the proxy's user, stated labels, ids of agents, OpenAI's project."""
    labels = climb(
        said={"team": "a"}, user="alice+project=web", stated="env=ci",
        headers={**CLAUDE, "x-claude-code-session-id": UUID, "openai-organization": "org-abcdef1"},
    )  # fmt: skip
    assert labels == {
        "team": "a", "consumer": "alice", "project": "web", "env": "ci", "agent": "claude-code", "session": UUID,
        "organization": "org-abcdef1",
    }  # fmt: skip
    assert climb(key=KEY, body={"user": "somebody", "metadata": {"team": "x"}}) == {}


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ({"said": {"project": "up"}}, {"user": "project=down"}),
        ({"user": "project=up"}, {"stated": "project=down"}),
        ({"stated": "project=up"}, {"yaml": rule("", "project: down")}),
        ({"yaml": rule("", "project: up")}, {"headers": {"openai-project": "proj_abcdef"}}),
        ({"headers": {"openai-project": "proj_abcdef"}}, {"yaml": "attribution: {fields: {project: request:/user}}\n"}),
        ({"yaml": "attribution: {fields: {consumer: request:/user}}\n"}, {"names": {KEY: "ci bot"}, "key": KEY}),
    ],
)
def test_the_higher_rung_wins(climb: Climb, above: dict[str, Any], below: dict[str, Any]) -> None:
    """Of two rungs that give a label, the higher one's value is on the line."""
    body = {"user": "somebody"}
    alone, both = climb(**above, body=body), climb(**above, **below, body=body)
    label = "consumer" if "names" in below else "project"
    assert climb(**below, body=body)[label] != alone[label] == both[label]


@pytest.mark.parametrize(
    ("off", "asked"),
    [
        ("proxy_user: off", {"user": "alice"}),
        ("proxy_user: false", {"user": "alice+project=web"}),
        ("run: off", {"stated": "project=web"}),
        ("rules: off", {}),
        ("agents: off", {"headers": {**CLAUDE, "x-claude-code-session-id": UUID}}),
        ("openai: off", {"headers": {"openai-project": "proj_abcdef"}}),
        ("keys: off", {"key": KEY, "names": {KEY: "ci bot"}}),
    ],
)
@pytest.mark.parametrize("also", ["", "\n  fields: {x: request_header:x-nobody-sends}"])
def test_each_rung_can_be_switched_off(climb: Climb, off: str, asked: dict[str, Any], also: str) -> None:
    """A rung that is off gives nothing, whether or not anything else is configured."""
    rules = rule("", "intent: y") if off.startswith("rules") else ""
    assert climb(f"{rules}attribution:\n  {off}{also}\n", **asked) == {}
    assert climb(f"{rules}attribution:\n  headers: true{also}\n", **asked) != {}


def test_the_proxy_user_may_be_another_label(climb: Climb) -> None:
    """The name before the proxy's address can be the team, or whatever a house wants."""
    assert climb("attribution: {proxy_user: team}\n", user="blue+env=ci") == {"team": "blue", "env": "ci"}
    assert climb("attribution: {proxy_user: on}\n", user="blue") == {"consumer": "blue"}


def test_sessions_inside_bodies(climb: Climb) -> None:
    """Known agents' sessions are read from bodies, when the call is over, and only where no header says it."""
    body = {"metadata": {"user_id": f'{{"session_id": "{UUID}"}}'}}
    assert climb(headers=CLAUDE, body=body) == {"agent": "claude-code", "session": UUID}
    assert climb(headers=CLAUDE, body=body, early=True) == {"agent": "claude-code"}
    assert climb("attribution: {agents: headers}\n", headers=CLAUDE, body=body) == {"agent": "claude-code"}
    named = {**CLAUDE, "x-claude-code-session-id": "from-header"}
    for yaml in ("", rule("", "project: web")):
        assert climb(yaml, headers=named, body=body)["session"] == "from-header"
        assert climb(yaml, headers=CLAUDE, body=body)["session"] == UUID
    assert "session" not in climb(headers={"user-agent": "curl/8"}, body=body)


@pytest.mark.parametrize(
    ("how", "named", "unnamed"), [("names", "ci bot", None), ("all", "ci bot", KEY), ("off", None, None)]
)
def test_keys_are_the_last_resort(climb: Climb, how: str, named: str | None, unnamed: str | None) -> None:
    """A key's name is the consumer where nobody else is; its bare fingerprint only where that is wanted."""
    yaml = f"attribution: {{keys: {how}}}\n"
    assert climb(yaml, key=KEY, names={KEY: "ci bot"}).get("consumer") == named
    assert climb(yaml, key=KEY).get("consumer") == unnamed
    assert "consumer" not in climb(yaml, names={KEY: "ci bot"})


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "body", "value"),
    [
        ("request:/user", {"user": "u-17"}, "u-17"),
        ("request:/metadata/user_id", {"metadata": {"user_id": 17}}, "17"),
        ("[request:/safety_identifier, request:/user]", {"user": "u-17"}, "u-17"),
        ("[request:/safety_identifier, request:/user]", {"user": "u-17", "safety_identifier": "s"}, "s"),
        ("request_header:X-Team", None, "blue"),
        ("request:/labels/team", {"labels": {"team": "red"}}, "red"),
        ("request:/requestMetadata/team", {"requestMetadata": {"team": "red"}}, "red"),
        ("request:/user", {"user": "somebody\nelse"}, None),
        ("request:/user", {"user": "x" * 129}, None),
        ("request:/user", {"user": {"name": "x"}}, None),
        ("request:/user", {"user": True}, None),
        ("request:/user", {"user": 10**5000}, None),
        ("request:/user", {"user": ""}, None),
        ("request:/user", [], None),
        ("request:/user", None, None),
    ],
)
def test_fields(climb: Climb, field: str, body: Any, value: str | None) -> None:
    """A label is taken from a header or a place in the body only where llmtab.yaml says so, if it can be a label."""
    yaml = f"attribution:\n  fields:\n    end_user: {field}\n"
    assert climb(yaml, headers={"x-team": "blue"}, body=body).get("end_user") == value


def test_fields_can_be_hashed(climb: Climb) -> None:
    """`hash: true` keeps a fingerprint, the same for the same person, of any text."""
    yaml = "attribution:\n  fields:\n    end_user: {take: request:/user, hash: true}\n"
    one, other, long = (
        climb(yaml, body={"user": user})["end_user"] for user in ("jane@x.com", "joe@x.com", "\u00e9" * 999)
    )
    assert len({one, other, long}) == 3
    assert one == climb(yaml, body={"user": "jane@x.com"})["end_user"]
    assert all(name.startswith("u_") and len(name) == 18 for name in (one, other, long))


# -- rules -------------------------------------------------------------------------------------------------------------

SUPPORT = {"messages": [{"role": "system", "content": "You are customer support."}], "tools": [{"name": "refund"}]}


@pytest.mark.parametrize(
    ("match", "asked", "fits"),
    [
        ("", {}, True),
        ("host: api.openai.com", {}, True),
        ("host: '*.anthropic.com'", {}, False),
        ("host: ['*.anthropic.com', API.openai.com]", {}, True),
        ("path: /v1/*", {}, True),
        ("path: /v1/embeddings", {}, False),
        ("provider: openai", {}, True),
        ("provider: azure", {}, False),
        ("model: gpt-5*", {"models": ("gpt-5-mini", None)}, True),
        ("model: gpt-5*", {"models": ("prod", "gpt-5-mini")}, True),
        ("model: gpt-5*", {"models": (None, None)}, False),
        ("agent: curl/*", {"headers": {"user-agent": "curl/8.5 (x)"}}, True),
        ("agent: curl/*", {}, False),
        (f"key: {KEY}", {"key": KEY}, True),
        ("key: ci bot", {"key": KEY, "names": {KEY: "ci bot"}}, True),
        ("key: ci bot", {"key": KEY}, False),
        ("key: '*'", {}, False),
        ("address: 10.1.0.0/16", {"address": "10.1.2.3"}, True),
        ("address: 10.1.0.0/16", {"address": "::ffff:10.1.2.3"}, True),
        ("address: [10.2.0.0/16, 'fd00::/8']", {"address": "fd00::1%eth0"}, True),
        ("address: 10.1.0.0/16", {"address": "10.2.2.3"}, False),
        ("address: 10.1.2.3", {}, False),
        ("header: {X-Team: b*}", {"headers": {"x-team": "blue"}}, True),
        ("header: {x-team: '*'}", {}, False),
        ("label: {consumer: alice}", {"user": "alice"}, True),
        ("label: {consumer: [bob, alice]}", {"user": "alice"}, True),
        ("label: {consumer: '*'}", {}, False),
        ("label: {session: '*'}", {"headers": {"x-session-id": UUID}}, False),
        ("body: {/metadata/team: blue*}", {"body": {"metadata": {"team": "blue team"}}}, True),
        ("body: {/metadata/team: '*'}", {"body": {"metadata": {}}}, False),
        ("body: {/n: '7'}", {"body": {"n": 7}}, True),
        ("system: '(?i)CUSTOMER support'", {"body": SUPPORT}, True),
        ("system: sales", {"body": SUPPORT}, False),
        ("system: x", {"body": None}, False),
        ("tools: ^refund$", {"body": SUPPORT}, True),
        ("tools: ^fund", {"body": SUPPORT}, False),
        ("host: api.openai.com, path: /v2/*", {}, False),
        ("host: api.openai.com, system: support", {"body": SUPPORT}, True),
    ],
)
def test_rules(climb: Climb, match: str, asked: dict[str, Any], fits: bool) -> None:
    """A rule gives its labels to a call where all that it says holds."""
    assert (climb(rule(match), **asked).get("project") == "web") is fits


def test_the_first_rule_wins(climb: Climb) -> None:
    """Of two rules that fit the first one's label holds, also where it is known only when the call is over."""
    late, early = "  - match: {model: gpt-5*}\n    labels: {project: late}\n", "  - labels: {project: early, env: ci}\n"
    models = ("gpt-5", None)
    assert climb(f"rules:\n{late}{early}", models=models) == {"project": "late", "env": "ci"}
    assert climb(f"rules:\n{early}{late}", models=models) == {"project": "early", "env": "ci"}
    assert climb(f"rules:\n{late}{early}", models=models, early=True) == {"project": "early", "env": "ci"}
    assert climb(f"rules:\n{late}{early}", models=("o3", None)) == {"project": "early", "env": "ci"}


def test_rules_build_on_each_other(climb: Climb) -> None:
    """A rule may look at labels that rungs above it gave, a late rule's among them, and at no others."""
    yaml = (
        "rules:\n  - match: {model: gpt-5*}\n    labels: {intent: thinking}\n"
        "  - match: {label: {intent: thinking}}\n    labels: {team: research}\n"
        "  - match: {label: {consumer: ci bot}}\n    labels: {env: ci}\n"
    )
    assert climb(yaml, models=("gpt-5", None)) == {"intent": "thinking", "team": "research"}
    assert climb(yaml, key=KEY, names={KEY: "ci bot"}) == {"consumer": "ci bot"}


def test_a_body_is_not_read_for_nothing(climb: Climb, tmp_path: Path) -> None:
    """Where no rule or field looks into bodies, and no known agent asks, nobody parses the request."""

    def never() -> Any:
        raise AssertionError("the body was asked for")

    for yaml in ("", rule("model: x")):
        (tmp_path / "llmtab.yaml").write_text(yaml)
        ladder = Ladder(load(tmp_path / "llmtab.yaml").sections, {}, {}, Fingerprints(tmp_path / "key"))
        call = Call("id", "h", "POST", "/", 0.0, {"user-agent": "curl/8"}, never, lambda name: None)
        ladder.climb(call, "openai", None)
        if call.later is not None:
            call.later(never, reading("y", None))
        assert (call.later is None) is (yaml == "")


def test_sixteen_labels_are_enough(climb: Climb) -> None:
    """However many rungs give labels, sixteen are kept, the higher rungs' first."""
    many = ", ".join(f"l{number}: x" for number in range(20))
    labels = climb(rule("", many), said={"project": "web"}, stated="team=x", headers=CLAUDE)
    assert len(labels) == 16
    assert {"project", "team"} <= labels.keys()


@pytest.mark.parametrize(
    ("yaml", "line", "key", "message"),
    [
        (rule("hots: x"), 2, "rules.0.match.hots", "expected 'host'"),
        (rule("system: '(a'"), 2, "rules.0.match.system", "no regular expression: unclosed group"),
        (rule("address: 10.0.0.300"), 2, "rules.0.match.address", "expected an address like 10.0.0.7"),
        (rule("body: {metadata: x}"), 2, "rules.0.match.body.metadata", "expected a JSON pointer"),
        (rule("", "Project: x"), 3, "rules.0.labels.Project", "pattern"),
        ("rules:\n  - match: {host: x}\n", 2, "rules.0.labels", "is missing"),
        ("attribution: {heders: true}\n", 1, "attribution.heders", "expected 'headers'"),
        ("attribution: {agents: maybe}\n", 1, "attribution.agents", "expected"),
        ("attribution:\n  fields:\n    end_user: /user\n", 3, "attribution.fields.end_user", "expected request:/a/"),
        ("attribution:\n  fields:\n    end_user: {hash: true}\n", 3, "attribution.fields.end_user.take", "is missing"),
    ],
)  # fmt: skip
def test_mistakes_are_named(climb: Climb, yaml: str, line: int, key: str, message: str) -> None:
    """A mistake in rules or rungs stops the start, with its line and what was expected."""
    with pytest.raises(ConfigError) as error:
        climb(yaml)
    assert (error.value.line, error.value.key) == (line, key), str(error.value)
    assert message in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inside: st.lists(inside) | st.dictionaries(st.sampled_from(["user", "metadata", "system", "tools"]), inside),
)


@given(st.dictionaries(st.sampled_from(["user-agent", "x-team", "x-a-session-id"]), st.text()), JSON, st.text())
def test_any_call_is_survived(
    tmp_path_factory: pytest.TempPathFactory, headers: dict[str, str], body: Any, user: str
) -> None:
    """Whatever a call holds, no rung raises anything, and every label is one the ledger takes."""
    match = {"system": "a", "tools": "b", "body": {"/user": "*"}, "header": {"x-team": "*"}, "address": "10.0.0.0/8"}
    rules = [
        {"match": {word: value}, "labels": {f"l{number}": "x"}} for number, (word, value) in enumerate(match.items())
    ]
    fields = {
        "end_user": "request:/user",
        "team": "request_header:x-team",
        "feature": {"take": "request:/user", "hash": True},
    }
    key = Fingerprints(tmp_path_factory.getbasetemp() / "key")
    ladder = Ladder({"rules": rules, "attribution": {"fields": fields, "keys": "all"}}, {}, {}, key)
    call = Call("id", "h", "POST", "/", 0.0, headers, lambda: None, lambda name: None, {}, {"address": user})
    ladder.climb(call, "openai", user)
    assert call.later is not None
    call.later(lambda: body, reading(user, None))
    assert all(label_text(value) for value in call.labels.values())
    assert len(call.labels) <= 16
