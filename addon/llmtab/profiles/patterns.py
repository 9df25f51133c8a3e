"""Host and path patterns: `bedrock-runtime.{region}.amazonaws.com`, `POST /model/{model}/invoke`.

`{name}` catches one host label or (part of) one path segment, `{name=a|b}` only these words, `{name**}` any number of
segments; `*` is one label or segment, `**` any number. Must not know profiles.
"""

import re
from collections.abc import Mapping
from re import Pattern
from urllib.parse import unquote

_TOKEN = re.compile(
    r"\{(?P<name>[a-z][a-z0-9_]*)(?:=(?P<words>[^}]+)|(?P<deep>\*\*))?\}|(?P<any>/\*\*)|(?P<stars>\*\*|\*)"
)

_ID = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{4,}|[0-9a-fA-F]{16,}|\d{5,}|[a-z]{1,12}[_-](?=[A-Za-z0-9_]*\d)[A-Za-z0-9_]{12,}|[A-Za-z0-9_=-]{33,}"
    r"|(?=(?:[A-Za-z]*\d){3})[A-Za-z0-9]{10,}|.*(?:[%@=,]|[^!-~]).*"
)
"""Ids as providers make them: UUIDs, hex, long numbers, `resp_...`, `file-...`, letters and digits mixed, anything
very long; and whatever had to be escaped or is no plain word: a name, an address, a question."""


def compile_host(text: str) -> Pattern[str]:
    """A pattern for `host` or `host:port`, in lower case. Raises ValueError."""
    return _compile(text.lower(), "[^.:]+", r"[^:]+")


def compile_path(text: str) -> Pattern[str]:
    """A pattern for a path without its query. Raises ValueError."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r}: a path pattern starts with /")
    return _compile(text, "[^/]+?", ".+?")


def _compile(text: str, one: str, many: str) -> Pattern[str]:
    if {"{", "}"} & set(_TOKEN.sub("", text)):
        raise ValueError(f"{text!r} is no pattern: expected {{name}}, {{name=this|that}} or {{name**}} in braces")
    out, at = [], 0
    for token in _TOKEN.finditer(text):
        out.append(re.escape(text[at : token.start()]))
        at = token.end()
        if token["name"]:
            inside = (
                "|".join(map(re.escape, token["words"].split("|")))
                if token["words"]
                else many
                if token["deep"]
                else one
            )
            out.append(f"(?P<{token['name']}>{inside})")
        elif token["any"]:
            out.append(r"(?:/[^/]+)*/?")  # also the bare root
        else:
            out.append(many if token["stars"] == "**" else one)
    out.append(re.escape(text[at:]))
    try:
        return re.compile("".join(out))
    except re.error as error:
        raise ValueError(f"{text!r} is no pattern: {error}") from error


def is_literal(text: str) -> bool:
    """Whether a pattern has nothing that varies."""
    return _TOKEN.search(text) is None


def clean_path(path: str) -> str:
    """A request path for matching: no query, no fragment, single slashes, none at the end."""
    for sign in "?#":
        path = path.partition(sign)[0]
    while "//" in path:
        path = path.replace("//", "/")
    return path.rstrip("/") or "/"


def shown_path(path: str, captures: Mapping[str, str]) -> str:
    """A path as the ledger shows it: segments that name a piece of content become `{id}`, models and deployments
    stay."""
    keep = {captures.get("model"), captures.get("deployment")}
    parts = [
        part if unquote(part) in keep or not _ID.fullmatch(part) else "{id}" for part in clean_path(path).split("/")
    ]
    return "".join(sign if "!" <= sign <= "~" else "?" for sign in "/".join(parts)[:128])


def captured(match: re.Match[str]) -> dict[str, str]:
    """What a pattern caught, percent-decoded (a Bedrock model id may hold %3A or a whole ARN)."""
    return {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
