"""`llmtab.yaml`: what a user may write there, what becomes of it, and what the error says where it is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmtab import caching
from llmtab.config import Config, ConfigError, load
from llmtab.hosts import slug
from llmtab.profiles import Claim, Profiles

LLM = "hosts:\n  llm.example.com:\n"
AT = "hosts.llm.example.com"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Config]:
    def read(text: str) -> Config:
        (tmp_path / "llmtab.yaml").write_text(text)
        return load(tmp_path / "llmtab.yaml")

    return read


def claim(config: Config, host: str, path: str, method: str = "POST", port: int = 443) -> Claim:
    found = Profiles.load(extra=config.profile_specs).match(host, port, method, path)
    assert found is not None
    return found


def rows(found: Claim) -> dict[str, Any]:
    return {row.name: row.fold for row in found.binding.dialects[0].rows}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_no_file_is_no_configuration(read: Callable[[str], Config]) -> None:
    """Without a file, and with an empty one, everything is as shipped."""
    assert load(None) == Config()
    assert (read("").profile_specs, read("# nothing\n").pricing, read("").timezone) == ((), None, UTC)


def test_a_time_zone(read: Callable[[str], Config]) -> None:
    """A day begins where the user says."""
    assert read("timezone: Europe/Berlin").timezone == ZoneInfo("Europe/Berlin")
    assert read("timezone: UTC").timezone is UTC


def test_prices_are_handed_on_as_written(read: Callable[[str], Config]) -> None:
    """Price overrides are a price file's content: the price book reads them, digits and all."""
    found = read("pricing:\n  providers:\n    openai:\n      models:\n        gpt-x: {input: 0.10}\n")
    assert str(found.pricing["providers"]["openai"]["models"]["gpt-x"]["input"]) == "0.10"


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("- 1\n", 1, None, "expected a mapping of hosts, profiles, pricing, timezone"),
        ("timezone: UTC\nhost: {}\n", 2, "host", "unknown key, expected 'hosts'"),
        ("timezone: Europe/Berln\n", 1, "timezone", "is no time zone, expected an IANA name"),
        ("timezone: ../etc\n", 1, "timezone", "is no time zone"),
        ("pricing: 3\n", 1, "pricing", "expected"),
        ("hosts: [a]\n", 1, "hosts", "expected"),
        ("hosts:\n  a.example: 1\n", 2, "hosts.a.example", "expected"),
        ("hosts:\n  a.example: {}\n", 2, "hosts.a.example", "says nothing to count by"),
        ("hosts:\n  https://a.example/v1: {profile: openai}\n", 2, "hosts.https://a.example/v1", "a host like"),
        ("hosts:\n  a.example: {profile: openai}\n  a.example: {}\n", 3, "a.example", "duplicate key"),
        ("hosts:\n  a.x: {profile: openai}\n  A.x: {profile: openai}\n", 3, "hosts.A.x", "cannot be told"),
        (f"{LLM}    input_tokens: usage/in\n", 3, f"{AT}.input_tokens", "is no reference: expected /a/pointer"),
        (f"{LLM}    input_tokens: /usage~2in\n", 3, f"{AT}.input_tokens", "no JSON pointer (RFC 6901)"),
        (f"{LLM}    input_tokns: /in\n", 3, f"{AT}.input_tokns", "unknown key, expected 'input_tokens'"),
        (f"{LLM}    total_tokens: /in\n", 3, f"{AT}.total_tokens", "unknown key"),
        (f"{LLM}    input_tokens:\n", 3, f"{AT}.input_tokens", "expected string"),
        (f"{LLM}    input_tokens: [/a, {{any: /b}}]\n", 3, f"{AT}.input_tokens.1.any", "expected list"),
        (f"{LLM}    input_tokens: /in\n    fold: lats\n", 4, f"{AT}.fold", "expected 'last', 'max', 'sum'"),
        (f"{LLM}    input_tokens: /in\n    path: ask\n", 4, f"{AT}.path", "expected a path like /v1/chat"),
        (f"{LLM}    input_tokens: /in\n    path: post /ask\n", 4, f"{AT}.path", "match pattern"),
        (f"{LLM}    input_tokens: /in\n    paths: [/a, '/{{b']\n", 4, f"{AT}.paths.1", "is no pattern"),
        (f"{LLM}    input_tokens: /in\n    provider: My AI\n", 4, f"{AT}.provider", "pattern"),
        (f"{LLM}    input_tokens: /in\n    profile: openai\n", 2, AT, "'profile' beside 'input_tokens'"),
        (f"{LLM}    profile: openai\n    path: /x\n", 2, AT, "'path' beside 'profile'"),
        (f"{LLM}    gravitee: {{extraction: {{type: GPT}}}}\n    provider: x\n", 2, AT, "'provider' beside"),
        ("profiles: [./none]\n", 1, "profiles.0", "expected a folder of profiles"),
        ("profiles:\n  - {}\n", 2, "profiles.0", "needs `provider:`"),
        ("profiles:\n  - hello: 1\n    provider: x\n", 2, "profiles.0.hello", "unknown key"),
    ],
)  # fmt: skip
def test_errors(read: Callable[[str], Config], text: str, line: int, key: str | None, message: str) -> None:
    """A mistake is one line: the file, the line, the key, and what was expected there."""
    with pytest.raises(ConfigError) as error:
        read(text)
    assert (error.value.line, error.value.key) == (line, key), str(error.value)
    assert message in str(error.value)
    assert error.value.file.endswith("llmtab.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (f"{LLM}    profile: opnai\n", 2, AT, "profile 'opnai' is not known, expected 'openai'?"),
        (f"{LLM}    routes:\n      POST /x: openai.caht\n", 4, f"{AT}.routes.POST /x", "'openai.caht' is not known"),
        (f"{LLM}    serves: [{{opnai: /v1}}]\n", 3, f"{AT}.serves", "surface 'opnai' is not known"),
        (f"{LLM}    profile: openai\n    overrides:\n      openai.caht: {{}}\n", 5, f"{AT}.overrides.openai.caht",
         "dialect 'openai.caht' is not known"),
        ("profiles:\n  - provider: x\n    source: https://x.y/z\n    routes:\n      POST /y: {dialect: [nope]}\n", 5,
         "profiles.0.routes.POST /y", "dialect 'nope' is not known"),
    ],
)  # fmt: skip
def test_errors_of_what_is_named(read: Callable[[str], Config], text: str, line: int, key: str, message: str) -> None:
    """A profile, dialect or surface that does not exist stops the start as well, with the line that names it."""
    found = read(text)
    with pytest.raises(ConfigError) as error:
        Profiles.load(extra=found.profile_specs)
    assert (error.value.line, error.value.key) == (line, key), str(error.value)
    assert message in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, or is no text, is an error with its name."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml:1: is not UTF-8"):
        load(tmp_path / "binary.yaml")


def test_an_unchanged_file_needs_no_pydantic(tmp_path: Path) -> None:
    """A start with a file that was read before imports neither the validator nor the YAML parser."""
    path = tmp_path / "llmtab.yaml"
    path.write_text(f"{LLM}    input_tokens: /in\n")
    load(path)
    code = (
        "import sys; from pathlib import Path; from llmtab.config import load; "
        f"load(Path({str(path)!r})); sys.exit(bool({{'pydantic', 'ruamel.yaml'}} & sys.modules.keys()))"
    )
    room = str(Path(caching.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": room}).returncode == 0


def test_a_moved_file_names_its_new_place(tmp_path: Path) -> None:
    """What is remembered of a file is its content, not where it stood."""
    text = f"{LLM}    profile: opnai\n"
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "llmtab.yaml").write_text(text)
        with pytest.raises(ConfigError) as error:
            Profiles.load(extra=load(folder / "llmtab.yaml").profile_specs)
        assert error.value.file == str(folder / "llmtab.yaml")


# -- hosts -------------------------------------------------------------------------------------------------------------


def test_the_short_form(read: Callable[[str], Config]) -> None:
    """Three pointers under a host are a whole profile: any POST there, figures where the pointers say."""
    config = read(f"{LLM}    input_tokens: /usage/in\n    output_tokens: /usage/out\n    model: /model\n")
    for path in ("/", "/v1/ask", "/a/b/c?d=e"):
        found = claim(config, "llm.example.com", path)
        assert found.binding.profile == found.binding.provider == "llm.example.com"
        assert found.binding.role == "billed"
        assert rows(found) == {"input_tokens": "last", "output_tokens": "last"}
    assert Profiles.load(extra=config.profile_specs).match("llm.example.com", 443, "GET", "/v1/ask") is None


def test_the_short_form_in_full(read: Callable[[str], Config]) -> None:
    """Paths, a price key, a root, a fold, and every counter there is may be said in the short form."""
    config = read(
        f"{LLM}    paths: [/ask, 'PUT|POST /v{{version}}/ask']\n    provider: house\n    root: /meter\n    fold: max\n"
        "    input_tokens: {any: [/in, /prompt]}\n    output_tokens: [/out, /thought]\n"
        "    images: {terms: [/i], fold: sum}\n    operation: image\n    model: {any: [/model, request:/model]}\n"
    )
    found = claim(config, "llm.example.com", "/v2/ask", "PUT")
    assert (found.binding.provider, found.captures) == ("house", {"version": "2"})
    assert rows(found) == {"input_tokens": "max", "output_tokens": "max", "images": "sum"}
    assert found.binding.dialects[0].operation == "image"
    assert claim(config, "llm.example.com", "/ask").binding.profile == "llm.example.com"


def test_hosts_with_ports_and_patterns(read: Callable[[str], Config]) -> None:
    """A host may be named with its port, or by a pattern."""
    config = read("hosts:\n  localhost:8080: {input_tokens: /in}\n  '*.llm.example': {input_tokens: /in}\n")
    assert claim(config, "localhost", "/", port=8080).binding.profile == "localhost-8080"
    assert claim(config, "eu.llm.example", "/").binding.profile == "any.llm.example"
    assert not Profiles.load(extra=config.profile_specs).at_host("localhost", 8081)


def test_a_host_like_a_known_provider(read: Callable[[str], Config]) -> None:
    """`profile: openai` alone adds a host to OpenAI's; with a price key of its own it is a profile of its own."""
    same = claim(read(f"{LLM}    profile: openai\n"), "llm.example.com", "/v1/responses")
    assert (same.binding.profile, same.binding.provider) == ("openai", "openai")
    own = claim(read(f"{LLM}    profile: openai\n    provider: azure\n"), "llm.example.com", "/v1/responses")
    assert (own.binding.profile, own.binding.provider) == ("llm.example.com", "azure")
    for config in (read(f"{LLM}    profile: openai\n"), read(f"{LLM}    profile: openai\n    provider: azure\n")):
        assert claim(config, "api.openai.com", "/v1/responses").binding.profile == "openai"


def test_a_host_like_a_known_provider_with_differences(read: Callable[[str], Config]) -> None:
    """Own routes come before those of the profile a host is like, and own rows over its rows."""
    config = read(
        f"{LLM}    profile: openai\n    routes:\n      POST /v1/files/ask: openai.chat\n    overrides:\n"
        "      openai.chat:\n        usage: {pages: [/pages]}\n"
    )
    found = claim(config, "llm.example.com", "/v1/files/ask")
    assert {"input_tokens", "pages"} <= rows(found).keys()
    assert claim(config, "llm.example.com", "/v1/files/x").binding.role == "not_billed"
    assert "pages" not in rows(claim(config, "api.openai.com", "/v1/chat/completions"))


def test_the_long_form(read: Callable[[str], Config]) -> None:
    """Surfaces, routes and overrides may be said as in a provider's file."""
    config = read(
        f"{LLM}    provider: house\n    serves: [{{openai: /api}}]\n    routes:\n      POST /count: not_billed\n"
        "      POST /ask:\n        roots: [/u]\n        usage: {input_tokens: [/i]}\n"
    )
    assert claim(config, "llm.example.com", "/api/chat/completions").binding.dialects[0].name == "openai.chat"
    assert claim(config, "llm.example.com", "/count").binding.role == "not_billed"
    asked = claim(config, "llm.example.com", "/ask")
    assert (asked.binding.provider, rows(asked)) == ("house", {"input_tokens": "last"})


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("llm.example.com", "llm.example.com"),
        ("LLM.Example.com", "llm.example.com"),
        ("localhost:8080", "localhost-8080"),
        ("*.example.com", "any.example.com"),
        ("{region}.example.com", "region-.example.com"),
        ("openai", "host.openai"),
        ("10.0.0.7", "host.10.0.0.7"),
        ("[::1]:80", "host.1-80"),
    ],
)
def test_names_of_hosts(host: str, name: str) -> None:
    """A host's own profile and price list have its name; a container called `openai` is not the provider `openai`."""
    assert slug(host) == name


# -- profiles ----------------------------------------------------------------------------------------------------------

PROVIDER = "provider: house\nhosts: [llm.example.com]\nsource: https://x.example/doc\nroutes:\n  POST /ask: {dialect}\n"


def test_profiles_inside_the_file(read: Callable[[str], Config]) -> None:
    """Profiles of the very form of a profile file may stand in the configuration too."""
    text = PROVIDER.format(dialect="house.chat").replace("\n", "\n    ")
    config = read(
        "profiles:\n  - dialect: house.chat\n    like: openai.chat\n    source: https://llm.example.com/doc\n"
        f"    usage: {{input_tokens: [/i]}}\n  - {text}\n"
    )
    found = claim(config, "llm.example.com", "/ask")
    assert found.binding.dialects[0].api == "house.chat"
    assert {"input_tokens", "output_tokens"} <= rows(found).keys()


def test_profiles_in_folders(read: Callable[[str], Config], tmp_path: Path) -> None:
    """A folder (or file) of profiles is named relative to the configuration; errors in it name that file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "house.yaml").write_text(PROVIDER.format(dialect="openai.chat"))
    assert claim(read("profiles: [mine]"), "llm.example.com", "/ask").binding.provider == "house"
    assert claim(read("profiles: [./mine/house.yaml]"), "llm.example.com", "/ask").binding.provider == "house"
    (tmp_path / "mine" / "house.yaml").write_text(PROVIDER.format(dialect="openai.caht"))
    with pytest.raises(ConfigError) as error:
        Profiles.load(extra=read("profiles: [mine]").profile_specs)
    assert (Path(error.value.file).name, error.value.line, error.value.key) == ("house.yaml", 5, "routes.POST /ask")


def test_hosts_win_over_profiles(read: Callable[[str], Config], tmp_path: Path) -> None:
    """What is said of one host wins over the profiles of the same file."""
    (tmp_path / "house.yaml").write_text(PROVIDER.format(dialect="openai.chat"))
    found = claim(read(f"{LLM}    input_tokens: /in\nprofiles: [house.yaml]\n"), "llm.example.com", "/ask")
    assert found.binding.profile == "llm.example.com"
