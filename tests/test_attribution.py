"""Who called, in a client's own words: labels in headers, in the proxy's user and in options; user agents."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.attribution.labels import HEADERS, agent_text, proxy_user, request_labels, stated_labels, user_labels
from llmtab.record import label_text, wire_text

PLAIN = ((b"Host", b"api.openai.com"), (b"Authorization", b"Bearer sk-test"), (b"X-Llmtab", b"no label"))


def fields(*extra: tuple[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return (*PLAIN, *((name.encode(), value.encode()) for name, value in extra))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


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


def test_the_proxy_user_goes_no_further() -> None:
    """`Proxy-Authorization` was meant for this proxy: the provider never sees it, nor its password."""
    sent = fields(("Proxy-Authorization", basic("alice:secret")), ("x-llmtab-team", "a"))
    assert request_labels(sent) == ({"team": "a"}, PLAIN)
    assert request_labels(fields(("proxy-authorization", "Bearer x"))) == ({}, PLAIN)


# -- the proxy's user --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "user"),
    [
        (basic("alice:x"), "alice"),
        (basic("alice:"), "alice"),
        (basic("alice:a:b"), "alice"),
        (basic(":x"), ""),
        ("basic " + basic("alice:x")[6:], "alice"),
        (basic("no colon"), None),
        ("Basic !", None),
        ("Basic YQ", None),
        ("Bearer abc", None),
        ("Basic", None),
        ("", None),
        (None, None),
        ("Basic \udcff", None),
    ],
)
def test_who_a_proxy_user_is(header: str | None, user: str | None) -> None:
    """The user of `HTTPS_PROXY=http://alice:x@...` is read; the password is not, and no header raises anything."""
    assert proxy_user(header) == user


@pytest.mark.parametrize(
    ("user", "labels"),
    [
        ("alice", {"consumer": "alice"}),
        ("alice+project=web", {"consumer": "alice", "project": "web"}),
        ("alice+project=web+team=blue team", {"consumer": "alice", "project": "web", "team": "blue team"}),
        ("project=web", {"project": "web"}),
        ("alice@example.com", {"consumer": "alice@example.com"}),
        ("alice+consumer=bob", {"consumer": "alice"}),
        ("+project=web", {"project": "web"}),
        ("alice+nonsense+Bad=x+9=x+team=", {"consumer": "alice"}),
        ("b\u00e9atrice+project=web", {"project": "web"}),
        ("a\x00b", {}),
        ("a" * 129, {}),
        ("", {}),
    ],
)
def test_labels_of_a_proxy_user(user: str, labels: dict[str, str]) -> None:
    """`alice+project=web` is a name and labels; what is no valid label is left out, the rest holds."""
    assert user_labels(user, "consumer") == labels


def test_a_proxy_user_cannot_fill_the_ledger() -> None:
    """Sixteen labels are enough here as well."""
    assert len(user_labels("+".join(f"l{number}=x" for number in range(40)), "consumer")) == 16


# -- labels in an option -----------------------------------------------------------------------------------------------


def test_labels_of_an_option() -> None:
    """`llmtab_labels` states labels with commas between; spaces around them do not matter."""
    assert stated_labels("project=web, team = blue team,") == {"project": "web", "team": "blue team"}
    assert stated_labels("") == {}
    assert stated_labels("url=a=b") == {"url": "a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("project", "expected labels like project=web"),
        ("Project=web", "expected labels like project=web"),
        ("project=", "expected a value"),
        ("project=\u00fc", "expected a value"),
        ("project=" + "x" * 129, "expected a value"),
        (",".join(f"l{number}=x" for number in range(17)), "17 labels, expected 16 at most"),
    ],
)
def test_labels_that_cannot_hold(text: str, message: str) -> None:
    """A mistake in labels that somebody configured is an error, not a label that is missing later."""
    with pytest.raises(ValueError, match=message):
        stated_labels(text)


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
