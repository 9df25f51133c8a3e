"""The doors of a proxy: what each mode is good for, in one line."""

import pytest

from llmtab.run.doors import BASES, doors, how, reverse_modes


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("regular", 'http://127.0.0.1:8080  any client: eval "$(llmtab env)"'),
        ("regular@8081", 'http://127.0.0.1:8081  any client: eval "$(llmtab env --proxy http://127.0.0.1:8081)"'),
        (
            "reverse:https://api.openai.com@8082",
            "http://127.0.0.1:8082  instead of https://api.openai.com, no CA needed: "
            "export OPENAI_BASE_URL=http://127.0.0.1:8082/v1",
        ),
        (
            "reverse:https://api.anthropic.com",
            "http://127.0.0.1:8080  instead of https://api.anthropic.com, no CA needed: "
            "export ANTHROPIC_BASE_URL=http://127.0.0.1:8080",
        ),
        (
            "reverse:https://llm.example.com@0.0.0.0:9000",
            "http://THIS-MACHINE:9000  instead of https://llm.example.com, no CA needed: base URL "
            "http://THIS-MACHINE:9000",
        ),
        (
            "upstream:http://corp:3128",
            'http://127.0.0.1:8080  any client, on through http://corp:3128: eval "$(llmtab env)"',
        ),
        ("socks5@1080", "socks5h://127.0.0.1:1080  for clients that know SOCKS: export ALL_PROXY=..."),
    ],
)
def test_each_mode_says_how_to_use_it(mode: str, said: str) -> None:
    """The address, and what to do with it."""
    [door] = doors([mode], "127.0.0.1", 8080)
    assert how(door) == said


def test_a_port_that_is_not_known_yet() -> None:
    """Port 0 is any free one: mitmproxy says which."""
    [door] = doors(["regular"], "127.0.0.1", 0)
    assert how(door) == ""


def test_modes_that_no_client_is_told_of() -> None:
    """Transparent and local modes work without a client's doing."""
    assert doors(["transparent", "local:claude"], "127.0.0.1", 8080) == []


def test_a_bad_mode() -> None:
    """One line with the mode."""
    with pytest.raises(ValueError, match="--mode nope: "):
        doors(["nope"], "127.0.0.1", 8080)


def test_reverse_modes() -> None:
    """Names and URLs, each on the next port unless it names its own."""
    modes = reverse_modes(["openai", "https://llm.example.com@9001", "anthropic"], 8080)
    assert list(modes) == [
        "reverse:https://api.openai.com@8081", "reverse:https://llm.example.com@9001",
        "reverse:https://api.anthropic.com@8082",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected a URL, or one of openai"):
        list(reverse_modes(["opnai"], 8080))


def test_the_hosts_are_metered() -> None:
    """What --reverse knows by name has a profile."""
    from urllib.parse import urlsplit

    from llmtab.profiles import Profiles

    profiles = Profiles.load((), ())
    for name, base in BASES.items():
        parts = urlsplit(base.url)
        port = parts.port or 443
        assert profiles.at_host(parts.hostname or "", port), name
