"""A host entry of `llmtab.yaml` as an ordinary provider profile: the short forms, written out.

Knows how few words become routes, roots and rows. Must not know files, prices or how a profile is run. There is no
second mechanism: what comes out is what a provider file says, and goes through the same loader.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmtab.profiles.refs import EACH, split_ref
from llmtab.usage import COUNTERS

EVERY_PATH: Final = ("POST /**",)
SOURCE: Final = "llmtab.yaml"
REQUEST_MODEL: Final[Mapping[str, Any]] = {"any": ["request:/model", "path:model"]}
_FACTS: Final = ("model", "request_model", "id", "operation", "stream")


def expand(host: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The provider profile of a validated host entry (any form but `gravitee`)."""
    if not any(name in COUNTERS for name in entry):
        return _full(host, entry)
    rows = {name: row for name, row in entry.items() if name in COUNTERS}
    facts = {key: entry[key] for key in _FACTS if entry.get(key) is not None}
    route = counted(rows, facts, root=entry.get("root"), fold=entry.get("fold") or "last")
    name = slug(host)
    return {
        "provider": entry.get("provider") or name,
        "name": name,
        "hosts": [host],
        "routes": dict.fromkeys(routes_of(entry), route),
        "source": SOURCE,
    }


def _full(host: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The long form, or another profile's routes here: `profile: openai` alone adds the host to that profile."""
    spec = {key: entry[key] for key in ("provider", "title", "serves", "routes", "overrides") if entry.get(key)}
    if entry.get("profile"):
        spec["like"] = entry["profile"]
        if len(spec) > 1:
            spec["name"] = slug(host)
    else:
        spec = {"provider": slug(host), "name": slug(host), "source": entry.get("source") or SOURCE, **spec}
    return {**spec, "hosts": [host]}


def counted(
    rows: Mapping[str, Any], facts: Mapping[str, Any], *, root: str | None = None, fold: str = "last"
) -> dict[str, Any]:
    """A route that reads counters by pointers. Without `root` pointers start at the top of the body (or event), and the
    object that holds all of them is found here; with it they start at that object."""
    terms = {name: row if isinstance(row, list) else [row] for name, row in rows.items() if not _folded(row)}
    if root is None:
        root, terms = _rooted(terms) if len(terms) == len(rows) else ("", terms)
    usage: dict[str, Any] = {name: row for name, row in rows.items() if _folded(row)}
    usage |= {name: row if fold == "last" else {"terms": row, "fold": fold} for name, row in terms.items()}
    headers = [term for row in terms.values() for term in row if isinstance(term, str) and term.startswith("header:")]
    in_headers = len(headers) == sum(map(len, terms.values())) and len(terms) == len(rows)
    return {
        "roots": headers if in_headers else [root],
        "usage": {name: usage[name] for name in rows},
        "request_model": REQUEST_MODEL,
        **facts,
    }


def _folded(row: Any) -> bool:
    return isinstance(row, Mapping) and "terms" in row


def _rooted(rows: Mapping[str, list[Any]]) -> tuple[str, dict[str, list[Any]]]:
    """The deepest object that holds everything the rows point at, and the rows from there on.

    Events of a stream are folded object by object, so the smaller it is the less there is to fold.
    """
    pointers = [term for row in rows.values() for term in row]
    if not all(isinstance(term, str) and split_ref(term)[0] == "" for term in pointers):
        return "", dict(rows)
    split = [pointer.split("/")[1:-1] for pointer in pointers]
    common = 0
    while all(len(parts) > common and parts[common] == split[0][common] != EACH for parts in split):
        common += 1
    root = "".join(f"/{part}" for part in split[0][:common])
    return root, {name: [term.removeprefix(root) for term in row] for name, row in rows.items()}


def routes_of(entry: Mapping[str, Any]) -> Iterable[str]:
    """`METHOD /path` for `path:` and `paths:`; POST where no method is said, every path where none is."""
    said = [*([entry["path"]] if entry.get("path") else ()), *(entry.get("paths") or ())]
    return [path if " " in path else f"POST {path}" for path in said] or EVERY_PATH


def slug(host: str) -> str:
    """The name of a host's own profile and price list: `llm.example.com`, `localhost-8080`, `any.example.com`.

    A bare word gets `host.` in front: a container called `openai` is not the provider `openai`.
    """
    text = re.sub(r"[^a-z0-9.-]+", "-", host.lower().replace("**", "any").replace("*", "any")).strip("-.")[:48]
    return text if re.fullmatch(r"[a-z].*[.\d-].*", text) else f"host.{text}".rstrip(".")
