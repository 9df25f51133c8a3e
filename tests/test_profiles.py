"""Profiles: who is matched on a host and path, what files may say, and what the error says where they are wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtab.documents import ConfigError
from llmtab.profiles import Claim, ProfileError, Profiles, merged
from llmtab.profiles.files import read_folder, read_profile, validated
from llmtab.profiles.patterns import captured, clean_path, compile_host, compile_path, is_literal, shown_path

GOOGLE = "generativelanguage.googleapis.com"
DIALECT = "dialect: house.chat\nsource: https://house.example/doc\nusage:\n  input_tokens: [/in]\n"
PROVIDER = "provider: house\nhosts: [house.example]\nsource: https://house.example/doc\n"


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "profiles"
    found.mkdir()
    return found


def claim(profiles: Profiles, url: str, method: str = "POST", port: int = 443) -> Claim:
    host, slash, path = url.partition("/")
    found = profiles.match(host, port, method, slash + path)
    assert found is not None, url
    return found


# -- built in ----------------------------------------------------------------------------------------------------------


def test_every_built_in_route_compiles(profiles: Profiles) -> None:
    """Nothing that ships can fail when the first call comes."""
    profiles.check()
    for provider in profiles.providers.values():
        for host in provider.spec.get("hosts") or ():
            compile_host(host)


def test_every_built_in_profile_says_where_it_comes_from() -> None:
    """Each dialect and provider names the page of the vendor that says so."""
    room = Path(sys.modules["llmtab.profiles"].__file__ or "").parent
    for path in room.glob("*/*.yaml"):
        spec = read_profile(path)
        assert "like" in spec or spec["source"].startswith("https://"), path.name


@pytest.mark.parametrize(
    ("url", "provider", "dialect"),
    [
        ("api.openai.com/v1/chat/completions", "openai", "openai.chat"),
        ("api.openai.com/v1/chat/completions?x=y", "openai", "openai.chat"),
        ("api.openai.com//v1//chat/completions/", "openai", "openai.chat"),
        ("API.OpenAI.com/v1/responses#top", "openai", "openai.responses"),
        ("api.openai.com./v1/embeddings", "openai", "openai.embeddings"),
        ("eu.api.openai.com/v1/completions", "openai", "openai.completions"),
        ("api.anthropic.com/v1/messages?beta=true", "anthropic", "anthropic.messages"),
        ("api.anthropic.com/v1/chat/completions", "anthropic", "openai.chat"),
        ("generativelanguage.googleapis.com/v1beta/models/m:generateContent?key=x", "google", "gemini.generateContent"),
        ("generativelanguage.googleapis.com/v1/models/m:streamGenerateContent", "google", "gemini.generateContent"),
        ("generativelanguage.googleapis.com/v1beta/models/m:embedContent", "google", "gemini.embedContent"),
        ("generativelanguage.googleapis.com/v1beta/openai/chat/completions", "google", "openai.chat"),
        ("us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/google/models/m:generateContent",
         "vertex", "gemini.generateContent"),
        ("aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models/m:streamRawPredict",
         "vertex", "anthropic.messages"),
        ("api.mistral.ai/v1/fim/completions", "mistral", "openai.chat"),
        ("codestral.mistral.ai/v1/chat/completions", "mistral", "openai.chat"),
        ("llm.internal/api/v2/chat/completions", "openai_compatible", "openai.chat"),
        ("llm.internal/x/v1/messages", "openai_compatible", "anthropic.messages"),
    ],
)  # fmt: skip
def test_who_is_matched(profiles: Profiles, url: str, provider: str, dialect: str) -> None:
    """A call is matched by host, method and path; queries, doubled slashes and the case of the host do not matter."""
    found = claim(profiles, url)
    assert (found.binding.provider, found.binding.dialects[0].name) == (provider, dialect)


@pytest.mark.parametrize(
    ("url", "captures"),
    [
        ("us.api.openai.com/v1/responses", {"region": "us"}),
        (f"{GOOGLE}/v1beta/models/gemini-x:generateContent", {"version": "v1beta", "model": "gemini-x"}),
        (f"{GOOGLE}/v1beta/models/tuned%2Fgemini-x:generateContent", {"model": "tuned/gemini-x"}),
        ("aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/anthropic/models/claude-x@20250101:rawPredict",
         {"region": "eu", "model": "claude-x@20250101", "host_region": "eu"}),
    ],
)  # fmt: skip
def test_what_patterns_catch(profiles: Profiles, url: str, captures: dict[str, str]) -> None:
    """Regions and models are caught from host and path, percent-decoded."""
    assert captures.items() <= dict(claim(profiles, url).captures).items()


@pytest.mark.parametrize(
    ("url", "method"),
    [
        ("api.openai.com/v1/models", "GET"),
        ("api.openai.com/v1/models/gpt-x", "GET"),
        ("api.openai.com/v1/files/file-1", "GET"),
        ("api.openai.com/v1/files", "POST"),
        ("api.openai.com/v1/moderations", "POST"),
        ("api.openai.com/v1/responses/input_tokens", "POST"),
        ("api.openai.com/v1/responses/resp_1", "DELETE"),
        ("api.openai.com/v1/responses/resp_1/input_items", "GET"),
        ("api.openai.com/v1/organization/usage/completions", "GET"),
        ("api.openai.com/v1/threads", "POST"),
        ("api.anthropic.com/v1/messages/count_tokens", "POST"),
        ("api.anthropic.com/api/event_logging/v2/batch", "POST"),
        ("api.anthropic.com/v1/models", "GET"),
        ("generativelanguage.googleapis.com/v1beta/models/m:countTokens", "POST"),
        ("generativelanguage.googleapis.com/v1beta/cachedContents", "POST"),
        ("generativelanguage.googleapis.com/v1beta/models", "GET"),
        (
            "us-east5-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            "POST",
        ),
        ("api.mistral.ai/v1/models", "GET"),
    ],
)
def test_what_is_not_billed(profiles: Profiles, url: str, method: str) -> None:
    """Model lists, token counting, files and telemetry are claimed, so that they can give no line."""
    assert claim(profiles, url, method).binding.role == "not_billed"


@pytest.mark.parametrize(
    ("url", "method"),
    [
        ("example.com/", "POST"),
        ("example.com/v1/users", "POST"),
        ("example.com/v1/chat/completions", "GET"),
        ("api.openai.com.evil.example/v1/anything", "POST"),
        ("api.openai.com/v1/unknown", "GET"),
    ],
)
def test_who_is_not_matched(profiles: Profiles, url: str, method: str) -> None:
    """Other hosts and methods are nobody's call."""
    host, slash, path = url.partition("/")
    assert profiles.match(host, 443, method, slash + path) is None


def test_a_guess_by_shape_needs_a_known_host(profiles: Profiles) -> None:
    """On a known provider's host an unknown path is claimed by the shape of its answer, at that provider's prices."""
    found = claim(profiles, "api.openai.com/v2/something/new")
    assert (found.binding.profile, found.binding.provider, found.binding.role) == (
        "openai_compatible",
        "openai",
        "by_shape",
    )
    assert profiles.match("llm.internal", 443, "POST", "/v2/something/new") is None


def test_a_read_again_is_no_call(profiles: Profiles) -> None:
    """Reading a stored response again is told from making it."""
    assert claim(profiles, "api.openai.com/v1/responses/resp_123", "GET").binding.role == "retrieve"


def test_hosts_worth_decrypting(profiles: Profiles) -> None:
    """The hosts of providers are known with and without their port; others are not."""
    for host, port in (
        ("api.openai.com", 443),
        ("eu.api.openai.com", 8443),
        ("europe-west4-aiplatform.googleapis.com", 443),
    ):
        assert profiles.at_host(host, port), host
    for host in ("example.com", "openai.com", "x.api.openai.com.example", "xx.api.openai.com"):
        assert not profiles.at_host(host, 443), host


def test_a_scanner_does_not_fill_the_memory(profiles: Profiles) -> None:
    """However many paths are asked for, only so many are remembered."""
    from llmtab.profiles import CACHE_SIZE

    for number in range(CACHE_SIZE + 10):
        profiles.match("scanned.example", 443, "POST", f"/v1/{number}")
    assert len(profiles._claims) <= CACHE_SIZE


def test_a_start_needs_no_pydantic(tmp_path: Path) -> None:
    """The second start reads the built-in profiles from the cache, without the validator and the YAML parser."""
    code = (
        "import sys; from llmtab.profiles import Profiles; Profiles.load(); "
        "sys.exit(bool({'ruamel.yaml', 'pydantic'} & sys.modules.keys()))"
    )
    room = str(Path(sys.modules["llmtab.profiles"].__file__ or "").parents[2])
    env = {"PYTHONPATH": room, "LLMTAB_HOME": str(tmp_path)}
    codes = [subprocess.run([sys.executable, "-c", code], env=env).returncode for _ in range(2)]
    assert codes[1] == 0


# -- patterns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "caught"),
    [
        ("/v1/chat", "/v1/chat", {}),
        ("/v1/chat", "/v1/chat/x", None),
        ("/v1/chat", "/V1/chat", None),
        ("/v1.0/chat", "/v1x0/chat", None),
        ("/{version}/chat", "/v2/chat", {"version": "v2"}),
        ("/{version}/chat", "/v2/x/chat", None),
        ("/{version=v1|v1beta}/chat", "/v1beta/chat", {"version": "v1beta"}),
        ("/{version=v1|v1beta}/chat", "/v2/chat", None),
        ("/model/{model**}/invoke", "/model/arn:aws:x/y/z/invoke", {"model": "arn:aws:x/y/z"}),
        ("/model/{model}/invoke", "/model/a%3Ab/invoke", {"model": "a:b"}),
        ("/models/{model}:run", "/models/m:1:run", {"model": "m:1"}),
        ("/*/chat", "/a/chat", {}),
        ("/*/chat", "/a/b/chat", None),
        ("/**/chat", "/chat", {}),
        ("/**/chat", "/a/b/chat", {}),
        ("/files/**", "/files", {}),
        ("/files/**", "/files/a/b", {}),
        ("/files/**", "/filesystem", None),
        ("/**", "/", {}),
        ("/**", "/a/b", {}),
    ],
)
def test_path_patterns(pattern: str, path: str, caught: dict[str, str] | None) -> None:
    """`{name}` is (part of) one segment, `{name=a|b}` one of these words, `{name**}` and `**` any number."""
    found = compile_path(pattern).fullmatch(path)
    assert (captured(found) if found else None) == caught


@pytest.mark.parametrize(
    ("pattern", "host", "caught"),
    [
        ("api.example.com", "api.example.com", {}),
        ("api.example.com", "apixexample.com", None),
        ("{region}.example.com", "eu-west-1.example.com", {"region": "eu-west-1"}),
        ("{region}.example.com", "a.b.example.com", None),
        ("*.example.com", "a.example.com", {}),
        ("*.example.com", "a.b.example.com", None),
        ("**.example.com", "a.b.example.com", {}),
        ("*.example.com", "example.com", None),
        ("localhost:8080", "localhost:8080", {}),
        ("*.Example.com", "a.example.com", {}),
    ],
)
def test_host_patterns(pattern: str, host: str, caught: dict[str, str] | None) -> None:
    """`{name}` and `*` are one label of a host, `**` any number; a port is only matched where it is named."""
    found = compile_host(pattern).fullmatch(host)
    assert (captured(found) if found else None) == caught


@pytest.mark.parametrize("pattern", ["v1", "", "/{a}/{a}", "/{", "/}x", "/{A}", "/{a=}", "/{a-b}"])
def test_what_is_no_pattern(pattern: str) -> None:
    """A slip in a pattern is an error when it is loaded, not a route that never fits."""
    with pytest.raises(ValueError, match="pattern"):
        compile_path(pattern)


def test_paths_for_matching_and_for_showing() -> None:
    """Queries are never kept; ids of content are left out of what the ledger shows, models are not."""
    assert clean_path("/v1//a///b/?key=secret#x") == "/v1/a/b"
    assert clean_path("/?x") == clean_path("") == clean_path("//") == "/"
    assert shown_path("/v1/responses/resp_68a1b2c3d4e5f6?x=secret", {}) == "/v1/responses/{id}"
    assert shown_path("/v1/models/gemini-2.5-flash-001:run", {"model": "gemini-2.5-flash-001"}).endswith("-001:run")
    assert shown_path(
        "/v1/model/arn%3Aaws%3Abedrock%3A123456789012", {"model": "arn:aws:bedrock:123456789012"}
    ).endswith("9012")
    assert len(shown_path("/x" * 300, {})) <= 128
    assert is_literal("api.example.com")
    assert not is_literal("*.example.com")


# -- a user's own ------------------------------------------------------------------------------------------------------


def test_a_provider_in_ten_lines(folder: Path) -> None:
    """A folder with one small file is a new provider."""
    (folder / "house.yaml").write_text(PROVIDER + "serves: [{openai: /api}]\nroutes:\n  POST /ask: openai.chat\n")
    profiles = Profiles.load([folder])
    assert claim(profiles, "house.example/ask").binding.provider == "house"
    assert claim(profiles, "house.example/api/responses").binding.dialects[0].name == "openai.responses"


def test_own_dialects_start_from_others(folder: Path) -> None:
    """`like` starts from another dialect's rows; only what is said differs."""
    text = DIALECT.replace("usage:", "like: openai.chat\nusage:")
    (folder / "a.yaml").write_text(text)
    (folder / "b.yaml").write_text(PROVIDER + "routes:\n  POST /ask: house.chat\n")
    found = claim(Profiles.load([folder]), "house.example/ask").binding.dialects[0]
    assert (found.api, found.operation) == ("house.chat", "chat")
    assert {"input_tokens", "output_tokens"} <= {row.name for row in found.rows}


def test_a_row_can_be_taken_off(folder: Path) -> None:
    """A row that is null is no longer counted."""
    text = (
        PROVIDER
        + "routes:\n  POST /ask: openai.chat\noverrides:\n  openai.chat:\n    usage: {reasoning_output_tokens: null}\n"
    )
    (folder / "a.yaml").write_text(text)
    found = claim(Profiles.load([folder]), "house.example/ask").binding.dialects[0]
    assert "reasoning_output_tokens" not in {row.name for row in found.rows}


def test_a_users_provider_replaces_the_built_in_one(folder: Path) -> None:
    """A provider of the name of a built-in one takes its place, hosts and all."""
    (folder / "openai.yaml").write_text(
        "provider: openai\nhosts: [house.example]\nsource: https://house.example/\nroutes:\n  POST /ask: openai.chat\n"
    )
    profiles = Profiles.load([folder])
    assert claim(profiles, "house.example/ask").binding.profile == "openai"
    assert not profiles.at_host("api.openai.com", 443)


def test_a_users_provider_comes_first(folder: Path) -> None:
    """On a host of a built-in provider the user's routes are asked first, then the built-in ones."""
    (folder / "a.yaml").write_text(
        PROVIDER.replace("house.example]", "api.openai.com]") + "routes:\n  POST /v1/responses: openai.chat\n"
    )
    profiles = Profiles.load([folder])
    assert claim(profiles, "api.openai.com/v1/responses").binding.profile == "house"
    assert claim(profiles, "api.openai.com/v1/embeddings").binding.profile == "openai"


def test_a_provider_like_another(folder: Path) -> None:
    """`like` starts from another provider's routes; without a name of its own it adds its hosts to that provider."""
    (folder / "a.yaml").write_text("like: openai\nhosts: [proxy.example]\n")
    (folder / "b.yaml").write_text(
        "provider: house\nlike: anthropic\nhosts: [house.example]\nroutes:\n  POST /v1/messages: openai.chat\n"
    )
    profiles = Profiles.load([folder])
    assert claim(profiles, "proxy.example/v1/responses").binding.profile == "openai"
    assert claim(profiles, "api.openai.com/v1/responses").binding.profile == "openai"
    assert claim(profiles, "house.example/v1/messages").binding.dialects[0].name == "openai.chat"
    assert claim(profiles, "house.example/v1/messages/count_tokens").binding.role == "not_billed"
    assert claim(profiles, "api.anthropic.com/v1/messages").binding.profile == "anthropic"


def test_rows_are_merged_one_by_one() -> None:
    """An override changes the rows, tiers and regions it names; every other key is replaced whole."""
    below = {"usage": {"a": [1], "b": [2]}, "tiers": {"x": "y"}, "roots": ["/u"], "model": "/m"}
    above = {"usage": {"b": [3]}, "roots": ["/v"], "model": None}
    assert merged(below, above) == {"usage": {"a": [1], "b": [3]}, "tiers": {"x": "y"}, "roots": ["/v"], "model": "/m"}


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("", None, None, "expected a profile"),
        ("- a\n", 1, None, "expected a profile"),
        ("name: x\n", 1, None, "expected a profile: a file that says `dialect:`, `provider:` or `surface:`"),
        (DIALECT.replace("/in", "in"), 4, "usage.input_tokens.0", "'in' is no reference: expected /a/pointer"),
        (DIALECT.replace("/in", "/a~3"), 4, "usage.input_tokens.0", "no JSON pointer (RFC 6901)"),
        (DIALECT.replace("/in", "'header:'"), 4, "usage.input_tokens.0", "a name is missing after header:"),
        (DIALECT.replace("/in", "'request:x'"), 4, "usage.input_tokens.0", "must start with /"),
        (DIALECT.replace("[/in]", "/in"), 4, "usage.input_tokens", "expected"),
        (DIALECT.replace("input_tokens", "input_token"), 3, "usage", "input_token is no counter"),
        (DIALECT.replace("[/in]", "[{sum: /in}]"), 4, "usage.input_tokens.0.sum", "has no * segment"),
        (DIALECT.replace("[/in]", "[{any: []}]"), 4, "usage.input_tokens.0.any", "at least 1 item"),
        (DIALECT.replace("[/in]", "[{outside: /a}]"), 4, "usage.input_tokens.0.of", "is missing"),
        (DIALECT.replace("[/in]", "{terms: [/in], fold: min}"), 4, "usage.input_tokens.fold", "expected 'last', 'max'"),
        (DIALECT + "modle: /m\n", 5, "modle", "unknown key, expected 'model'"),
        (DIALECT + "end: {/t: x}\n", 5, "end", "expected"),
        (DIALECT + "end: [{t: x}]\n", 5, "end.0.t", "is no reference"),
        (DIALECT + "money: [{ref: /c, scale: 0}]\n", 5, "money.0.scale", "expected a factor above 0"),
        (DIALECT + "billing: [{is: gratis}]\n", 5, "billing.0.is", "expected 'metered'"),
        (DIALECT + "usage: {}\n", 5, "usage", "duplicate key (first in line 3)"),
        (DIALECT.replace("source: https://house.example/doc\n", ""), 1, "source", "is missing"),
        (PROVIDER, 1, None, "needs `serves:` or `routes:`"),
        (PROVIDER + "routes:\n  get /x: openai.chat\n", 5, "routes.get /x", "match pattern"),
        (PROVIDER + "routes:\n  POST /{a}/{a}: openai.chat\n", 5, "routes.POST /{a}/{a}", "is no pattern"),
        (PROVIDER + "routes:\n  POST /x: {role: free}\n", 5, "routes.POST /x.role", "expected 'billed'"),
        (PROVIDER + "routes:\n  POST /x: {rolle: batch}\n", 5, "routes.POST /x.rolle", "expected 'role'"),
        (PROVIDER.replace("[house.example]", "[https://x.y]") + "serves: [{openai: /}]\n", 2, "hosts.0", "a host"),
        (PROVIDER + "serves: [{openai: /a, gemini: /b}]\n", 1, None, "list of `surface: base path` pairs"),
        (PROVIDER + "serves: [{openai: /v1}\n", 5, None, "not YAML"),
    ],
)  # fmt: skip
def test_errors(folder: Path, text: str, line: int, key: str | None, message: str) -> None:
    """A mistake in a profile is one line: the file, the line, the key, and what was expected there."""
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        Profiles.load([folder])
    assert message in str(error.value)
    assert (Path(error.value.file).name, error.value.line, error.value.key) == ("mine.yaml", line, key), str(
        error.value
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (PROVIDER + "routes:\n  POST /x: openai.caht\n", 5, "routes.POST /x", "not known, expected 'openai.chat'?"),
        (PROVIDER + "routes:\n  POST /x: {dialect: [openai.chat, nope]}\n", 5, "routes.POST /x", "expected one of"),
        (PROVIDER + "serves: [{opnai: /v1}]\n", 4, "serves", "surface 'opnai' is not known, expected 'openai'?"),
        (PROVIDER + "serves: [{openai: /v1}]\noverrides:\n  chta: {}\n", 6, "overrides.chta", "'chta' is not known"),
        (PROVIDER + "like: opnai\n", 1, None, "profile 'opnai' is not known, expected 'openai'?"),
        (PROVIDER + "serves: [{openai: '/{a}/{a}'}]\n", 4, "serves", "is no pattern"),
        (PROVIDER + "routes:\n  POST /x: {roots: [/u], unwrap: ['header:x']}\n", 5, "routes.POST /x", "JSON pointer"),
    ],
)  # fmt: skip
def test_errors_of_what_is_named(folder: Path, text: str, line: int, key: str | None, message: str) -> None:
    """What a profile names must exist: that too is known at the start, with file, line and key."""
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        Profiles.load([folder])
    assert message in str(error.value)
    assert (Path(error.value.file).name, error.value.line, error.value.key) == ("mine.yaml", line, key), str(
        error.value
    )


def test_errors_of_what_is_in_no_file() -> None:
    """A profile that was built in memory is named where it cannot work."""
    spec: dict[str, Any] = {"provider": "x", "source": "https://x.example", "routes": {"POST /y": "nope"}}
    with pytest.raises(ProfileError, match=r"profile x, routes POST /y: dialect 'nope'"):
        Profiles([validated(spec, "x")]).check()


def test_a_single_file_is_a_folder_too(folder: Path) -> None:
    """Where a folder of profiles may be named, one file may be."""
    (folder / "mine.yaml").write_text(DIALECT)
    assert [spec["dialect"] for spec in read_folder(folder / "mine.yaml")] == ["house.chat"]
