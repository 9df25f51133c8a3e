"""What `attribution:` and `rules:` of llmtab.yaml may say, as pydantic models.

Knows names of labels, patterns and their bounds. Must not know calls: `ladder.py` climbs what is described here.
Imported only when a file is really parsed.
"""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from llmtab.attribution.textmatch import LONGEST_PATTERN, compile_pattern
from llmtab.profiles.refs import EACH, pointer_parts, split_ref


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r}, expected an address like 10.0.0.7 or a network like 10.1.0.0/16") from None


def _pointer(text: str) -> str:
    if not text.startswith("/") or EACH in pointer_parts(text):
        raise ValueError(f"{text!r}, expected a JSON pointer like /metadata/team")
    return text


def _asked(text: str) -> str:
    kind, rest = split_ref(text)
    if kind not in ("request", "request_header") or EACH in (pointer_parts(rest) if kind == "request" else ()):
        raise ValueError(f"{text!r}, expected request:/a/pointer (into the body) or request_header:NAME")
    return text


LabelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$", to_lower=True)]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Globs = Glob | Annotated[list[Glob], Field(min_length=1)]
Network = Annotated[str, AfterValidator(_network)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_pattern)]
Asked = Annotated[str, AfterValidator(_asked)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(Strict):
    """All that is said must hold. A text is a glob (`*`, `?`, `[ab]`, in any case); of a list one must fit."""

    host: Globs | None = Field(default=None, description="the host that was called, e.g. *.openai.azure.com")
    path: Globs | None = Field(default=None, description="the path as the ledger shows it, e.g. /v1/embeddings")
    provider: Globs | None = Field(default=None, description="the provider as the ledger names it, e.g. anthropic")
    model: Globs | None = Field(default=None, description="the model that was asked for, or the one that answered")
    agent: Globs | None = Field(default=None, description="the whole User-Agent header, e.g. claude-cli/*")
    key: Globs | None = Field(default=None, description="the key's fingerprint (k_...), or the name you gave it")
    address: Network | Annotated[list[Network], Field(min_length=1)] | None = Field(
        default=None, description="the client's address or network, e.g. 10.1.0.0/16"
    )
    header: dict[HeaderName, Globs] = Field(default={}, description="request headers")
    label: dict[LabelName, Globs] = Field(
        default={}, description="labels found higher up: the proxy user, an earlier rule"
    )
    body: dict[Annotated[str, AfterValidator(_pointer)], Globs] = Field(
        default={}, description="JSON pointers into the body"
    )
    system: Pattern | None = Field(
        default=None, description="a regular expression found in the first 4 KiB of the system prompt"
    )
    tools: Pattern | None = Field(
        default=None, description="a regular expression found in the names of the tools, one a line"
    )


class Rule(Strict):
    """Labels for the calls that match. Without `match` it is every call."""

    match: Match = Match()
    labels: dict[LabelName, LabelValue] = Field(min_length=1)


class Taken(Strict):
    """A label taken from the request."""

    take: Annotated[list[Asked], Field(min_length=1)] | Asked = Field(description="the first one with a value counts")
    hash: bool = Field(
        default=False, description="keep a fingerprint (u_...) made with this machine's key, not the value"
    )


class Attribution(Strict):
    """The ladder: where labels come from, from the top down. The first rung that gives a label its value wins."""

    headers: bool = Field(default=True, description="x-llmtab-<label> request headers")
    proxy_user: LabelName | Literal[False] = Field(
        default="consumer", description="the label of the user in HTTPS_PROXY=http://alice:x@...; false: nobody's"
    )
    run: bool = Field(default=True, description="the option llmtab_labels (LLMTAB_LABELS)")
    rules: bool = Field(default=True, description="the rules of this file")
    agents: bool | Literal["headers"] = Field(
        default=True, description="ids that known agents send (session, agent, ...); headers: not those inside a body"
    )
    openai: bool = Field(default=True, description="openai-project and openai-organization headers")
    fields: dict[LabelName, Asked | Annotated[list[Asked], Field(min_length=1)] | Taken] = Field(
        default={}, description="labels taken from other headers, or from request bodies"
    )
    keys: Literal["names", "all", "off"] = Field(
        default="names",
        description="consumer by key: only keys with a name, all (the fingerprint where there is no name), off",
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_words(cls, said: object) -> object:
        """`off` and `on` are text in YAML 1.2; here they mean what they say."""
        if not isinstance(said, dict):
            return said
        words = {"off": False, "on": True}
        plain = {key: words.get(value, value) if isinstance(value, str) else value for key, value in said.items()}
        if plain.get("keys") is False:
            plain["keys"] = "off"
        if plain.get("proxy_user") is True:
            del plain["proxy_user"]
        return plain
