"""Who called: labels, sessions, fingerprints and client names out of a request's headers."""

import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab import attribution
from llmtab.attribution import HEADERS, Fingerprints, agent_text, body_session, request_labels, session_label
from llmtab.record import label_text, wire_text

UUID = "0b1c7f3e-8d52-4c1c-9a45-3c7a1f0e9d11"
PLAIN = ((b"Host", b"api.openai.com"), (b"Authorization", b"Bearer sk-test"), (b"X-Llmtab", b"no label"))


def fields(*extra: tuple[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return (*PLAIN, *((name.encode(), value.encode()) for name, value in extra))


def never() -> NoReturn:
    raise AssertionError("the body was asked for")


# -- labels ------------------------------------------------------------------------------------------------------------


def test_a_request_without_labels_is_not_touched() -> None:
    """Where there is nothing to take off, the header fields are left as they are."""
    assert request_labels(PLAIN) == ({}, None)
    assert request_labels(()) == ({}, None)


def test_labels_are_read_and_taken_off() -> None:
    """`x-llmtab-<label>` headers become labels, whatever their case, and never go upstream."""
    labels, kept = request_labels(fields(("X-LLMTab-Project", "web shop"), ("x-llmtab-end-user", " u-17 "), ("A", "b")))
    assert labels == {"project": "web shop", "end_user": "u-17"}
    assert kept == (*PLAIN, (b"A", b"b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-llmtab-", "x"),
        ("x-llmtab-9lives", "x"),
        ("x-llmtab-a.b", "x"),
        ("x-llmtab-" + "a" * 33, "x"),
        ("x-llmtab-project", ""),
        ("x-llmtab-project", "a" * 129),
        ("x-llmtab-project", "naïve"),
        ("x-llmtab-project", "a\tb"),
    ],
)
def test_what_is_no_label_is_not_kept(name: str, value: str) -> None:
    """A name or value outside the ledger's alphabet gives no label; the header still does not go upstream."""
    assert request_labels(fields((name, value))) == ({}, PLAIN)


def test_sixteen_labels_are_enough() -> None:
    """A client cannot fill the ledger with labels: sixteen are kept, all are taken off."""
    labels, kept = request_labels(fields(*((f"x-llmtab-l{number}", "x") for number in range(40))))
    assert len(labels) == 16
    assert kept == PLAIN


def test_signed_headers_stay() -> None:
    """A label that AWS's signature covers is read but sent on: without it the call would be refused."""
    signature = (
        "AWS4-HMAC-SHA256 Credential=AKIA/20261101/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-llmtab-team, "
    )
    sent = (
        (b"authorization", (signature + "Signature=00").encode()),
        (b"X-Llmtab-Team", b"a"),
        (b"x-llmtab-env", b"b"),
    )
    labels, kept = request_labels(sent)
    assert labels == {"team": "a", "env": "b"}
    assert kept == sent[:2]
    assert request_labels(sent[:2]) == ({"team": "a"}, None)


def test_signed_headers_of_others_mean_nothing() -> None:
    """Only an AWS signature can keep a label header from being taken off."""
    sent = ((b"authorization", b"Bearer SignedHeaders=x-llmtab-team"), (b"x-llmtab-team", b"a"))
    assert request_labels(sent) == ({"team": "a"}, sent[:1])


@given(
    st.lists(
        st.tuples(st.sampled_from([b"x-llmtab-a", b"X-LLMTAB-b", b"x-llmtab-\xff", b"host"]), st.binary(max_size=200))
    )
)
def test_any_header_bytes_are_survived(sent: list[tuple[bytes, bytes]]) -> None:
    """No bytes in a header raise anything; labels are always of the ledger's alphabet."""
    labels, kept = request_labels(tuple(sent))
    assert all(label_text(value) for value in labels.values())
    assert kept is None or all(name == b"host" for name, _ in kept)


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "session"),
    [
        ({"x-claude-code-session-id": UUID}, UUID),
        ({"x-opencode-session": "ses_abc12345"}, "ses_abc12345"),
        ({"x-acme-session-id": UUID}, UUID),
        ({"x-session-id": UUID}, UUID),
        ({"x-session-id": UUID, "x-claude-code-session-id": "explicit-1"}, "explicit-1"),
        ({"x-session-id": UUID, "x-acme-session-id": "vendor-01"}, "vendor-01"),
        ({"session-id": UUID, "user-agent": "codex_exec/0.169.0 (Debian 12)"}, UUID),
        ({"session_id": UUID, "originator": "codex_cli_rs", "user-agent": "x"}, UUID),
        ({"session_id": UUID, "user-agent": "OpenAI/JS 1.0"}, None),
        ({"x-interaction-id": UUID, "copilot-integration-id": "vscode-chat"}, UUID),
        ({"x-interaction-id": UUID}, None),
        ({"x-client-session-id": UUID, "copilot-integration-id": "c", "x-interaction-id": "other-id-1"}, UUID),
        ({"x-session-id": "short"}, None),
        ({"x-session-id": "a" * 65}, None),
        ({"x-session-id": "who are you"}, None),
        ({"x-claude-code-session-id": "no id!", "x-session-id": UUID}, UUID),
        ({}, None),
    ],
)
def test_session_of_headers(headers: dict[str, str], session: str | None) -> None:
    """A session is an id that a known agent or any vendor names as such; what does not look like an id is none."""
    assert session_label(headers) == session


CLAUDE = {"user-agent": "claude-cli/2.1.329 (external, cli)"}
OLD = f"user_{'a' * 64}_account_{UUID}_session_{UUID}"


@pytest.mark.parametrize(
    ("headers", "request_body", "session"),
    [
        (
            CLAUDE,
            {"metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "a", "session_id": UUID})}},
            UUID,
        ),
        (CLAUDE, {"metadata": {"user_id": OLD}}, UUID),
        (CLAUDE, {"metadata": {"user_id": "somebody@example.com"}}, None),
        (CLAUDE, {"metadata": {"user_id": '{"session_id": ["x"]}'}}, None),
        (CLAUDE, {"metadata": {"user_id": '{"session_id": '}}, None),
        (CLAUDE, {"metadata": {"user_id": "{" * 4000}}, None),
        (CLAUDE, {"metadata": None}, None),
        (CLAUDE, [1], None),
        (CLAUDE, None, None),
        ({"user-agent": "GeminiCLI-tui/0.61.0/m (linux)"}, {"request": {"session_id": UUID}}, UUID),
        ({"user-agent": "GeminiCLI/0.61.0"}, {"session_id": UUID}, None),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, {"metadata": {"sessionId": UUID}}, UUID),
    ],
)
def test_session_of_a_body(headers: dict[str, str], request_body: Any, session: str | None) -> None:
    """Known agents write their session into the request; nothing else is taken from there, and only if it is an id."""
    assert body_session(headers, lambda: request_body) == session


@pytest.mark.parametrize("agent", ["OpenAI/Python 3.52.0", "curl/8", ""])
def test_other_bodies_are_not_read(agent: str) -> None:
    """The body of anybody but a known agent is not even asked for."""
    assert body_session({"user-agent": agent}, never) is None


def test_headers_lists_what_is_looked_at() -> None:
    """The shell copies only these headers, and they are all that the functions need."""
    assert {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"user-agent"} <= HEADERS
    assert {b"x-claude-code-session-id", b"session-id", b"x-session-id", b"originator"} <= HEADERS
    assert all(name == name.lower() for name in HEADERS)


# -- user agents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("claude-cli/2.1.329 (external, sdk-cli)", "claude-cli/2.1.329"),
        ("OpenAI/Python 3.52.0", "OpenAI/Python,3.52.0"),
        ("GeminiCLI-tui/0.61.0/gemini-x (linux; x64)", "GeminiCLI-tui/0.61.0"),
        ("codex_exec/0.169.0 (Debian 12; (nested) x86) vscode", "codex_exec/0.169.0,vscode"),
        ("tool/1 (jane@example.com) /srv/jane/tool jane@example.com mailto:j", "tool/1"),
        ("tool/1 (never closed", "tool/1"),
        ("(only a comment)", None),
        ("", None),
        (None, None),
        ("été/1 ok/2", "ok/2"),
    ],
)
def test_agents_are_cut_to_their_products(sent: str | None, text: str | None) -> None:
    """Of a user agent only products and versions are kept: comments, addresses and paths may name a person."""
    assert agent_text(sent) == text


@given(st.text(max_size=600))
def test_agents_are_always_printable(sent: str) -> None:
    """Whatever a client calls itself, what is kept is at most 64 characters of the ledger's alphabet."""
    text = agent_text(sent)
    assert text is None or (wire_text(text) == text and len(text) <= 64 and "@" not in text)


# -- fingerprints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "key"


def test_one_key_has_one_name(key_file: Path) -> None:
    """The same credential gives the same fingerprint however it is sent, and after a restart too."""
    first, second = Fingerprints(key_file), Fingerprints(key_file)
    name = first.of({"authorization": "Bearer sk-test-1"})
    assert name is not None
    assert name.startswith("k_")
    assert len(name) >= 14
    for headers in (
        {"x-api-key": "sk-test-1"},
        {"api-key": "sk-test-1"},
        {"x-goog-api-key": "sk-test-1"},
        {"authorization": "bearer  sk-test-1"},
        {"authorization": "", "x-api-key": " sk-test-1 "},
    ):
        assert second.of(headers) == name
    assert second.of({}, "sk-test-1") == name
    assert second.of({"x-api-key": "sk-test-2"}) != name


def test_no_credential_has_no_name(key_file: Path) -> None:
    """A call without a credential has no fingerprint, and makes no key file."""
    assert Fingerprints(key_file).of({"user-agent": "x", "authorization": "Bearer "}) is None
    assert not key_file.parent.exists()


def test_an_aws_signature_is_its_access_key(key_file: Path) -> None:
    """Signatures differ from call to call; the access key's id is what stays."""
    signature = (
        "AWS4-HMAC-SHA256 Credential=AKIATEST/2026{}/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={}"
    )
    names = {Fingerprints(key_file).of({"authorization": signature.format(day, day * 8)}) for day in ("1101", "1102")}
    assert len(names) == 1
    assert names == {Fingerprints(key_file).of({"x-api-key": "AKIATEST"})}


def test_fingerprints_do_not_hold_the_key(key_file: Path) -> None:
    """Another machine gives the same credential another name: nobody can test guesses against a ledger."""
    headers = {"x-api-key": "sk-test-1"}
    assert Fingerprints(key_file).of(headers) != Fingerprints(key_file.with_name("other")).of(headers)


def test_the_key_file_is_private(key_file: Path) -> None:
    """The random key is readable by its owner alone, in a folder that is too."""
    Fingerprints(key_file).of({"x-api-key": "x"})
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["key"]
    assert len(key_file.read_bytes()) == 32


def test_a_folder_that_refuses_costs_only_constancy(tmp_path: Path) -> None:
    """Where the key cannot be kept there are fingerprints all the same, for as long as the process lives."""
    (tmp_path / "file").write_text("not a folder")
    found = Fingerprints(tmp_path / "file" / "key")
    assert found.of({"x-api-key": "x"}) == found.of({"x-api-key": "x"}) != None  # noqa: E711


def test_an_empty_key_file_is_replaced(key_file: Path) -> None:
    """What a crash left of the key file is no key."""
    key_file.parent.mkdir()
    key_file.write_bytes(b"")
    assert Fingerprints(key_file).of({"x-api-key": "x"}) == Fingerprints(key_file).of({"x-api-key": "x"})
    assert len(key_file.read_bytes()) == 32


def test_processes_that_start_together_agree(key_file: Path) -> None:
    """Two proxies that start at the same moment end up with the same key."""
    gate, names = threading.Barrier(8), []

    def start() -> None:
        gate.wait()
        names.append(Fingerprints(key_file).of({"x-api-key": "x"}))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 1


def test_no_hard_links(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links keeps the key as well."""

    def refuse(*_: Any) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(attribution.os, "link", refuse)
    test_the_key_file_is_private(key_file)


def test_strange_credentials(key_file: Path) -> None:
    """No bytes in a credential raise anything."""
    of: Callable[..., str | None] = Fingerprints(key_file).of
    assert of({"authorization": "\udcff\x00"}) is not None
    assert of({"authorization": "AWS4-HMAC-SHA256"}) is not None
