"""Who called: labels, sessions, key fingerprints and client names, from what a request says in its headers.

Knows our own `x-llmtab-*` headers, the session headers of coding agents and gateways, and where credentials stand. Must
not know flows, profiles or the ledger; never keeps a credential, and reads nothing from a body but a known agent's
session id.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from llmtab.profiles.refs import walk
from llmtab.record import label_text

PREFIX: Final = b"x-llmtab-"
MAX_LABELS: Final = 16
MAX_AGENT: Final = 64

SESSION_SUFFIX: Final = "-session-id"
"""`x-<vendor>-session-id`: any vendor's, where its value looks like an id."""
_SUFFIX_BYTES: Final = SESSION_SUFFIX.encode()
_SESSIONS: Final = (
    "x-claude-code-session-id",
    "x-opencode-session",
    "x-qwen-code-session-id",
    "x-client-session-id",  # GitHub Copilot
    "x-litellm-session-id",
    "helicone-session-id",
    "x-grok-conv-id",
)
_CODEX_SESSIONS: Final = ("session-id", "session_id", "thread-id", "conversation_id")
"""Names too common to be believed from anybody but Codex."""
_LAST_SESSIONS: Final = ("x-session-id", "x-session-affinity", "x-litellm-trace-id")
_ANY_SESSION: Final = frozenset({*_SESSIONS, *_CODEX_SESSIONS, *_LAST_SESSIONS, "x-interaction-id"})
_CREDENTIALS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
HEADERS: Final = frozenset(
    name.encode()
    for name in (
        *_SESSIONS, *_CODEX_SESSIONS, *_LAST_SESSIONS, *_CREDENTIALS,
        "user-agent", "originator", "copilot-integration-id", "x-interaction-id",
    )
)  # fmt: skip
"""Lower-case names of all headers that the functions here look at."""

_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch
_SESSION: Final = re.compile(r"[A-Za-z0-9_-]{8,64}").fullmatch
_OLD_USER_ID: Final = re.compile(r"_session_([A-Za-z0-9_-]{8,64})$").search
_SIGNED: Final = re.compile(rb"^AWS4-[^;]*?SignedHeaders=([^,\s]+)")
_ACCESS_KEY: Final = re.compile(r"^AWS4-\S+ .*?Credential=([^/,\s]+)").match
_COMMENT: Final = re.compile(r"\([^()]*\)?")
_PRODUCT: Final = re.compile(r"(?<!\S)([\w.!#$%&'*+^`|~-]{1,48}(?:/[\w.!#$%&'*+^`|~-]{1,32})?)(?=[\s/]|$)", re.ASCII)

type Fields = tuple[tuple[bytes, bytes], ...]


def request_labels(fields: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], Fields | None]:
    """Labels of the `x-llmtab-<label>: value` headers, and the header fields without them (None: nothing to take off).

    Headers that AWS's signature covers are read but stay: without them the call would be refused. What is no valid
    label (name `[a-z][a-z0-9_]{0,31}`, value 1 to 128 printable characters, 16 at most) is taken off and not kept.
    """
    fields = tuple(fields)
    if not any(is_label_name(name.lower()) for name, _ in fields):
        return {}, None
    signed = _signed_headers(fields)
    labels: dict[str, str] = {}
    kept = []
    for name, value in fields:
        lower = name.lower()
        if not lower.startswith(PREFIX):
            kept.append((name, value))
            continue
        label = lower[len(PREFIX) :].decode("ascii", "replace").replace("-", "_")
        text = label_text(value.decode("utf-8", "replace").strip())
        if text and _LABEL(label) and (label in labels or len(labels) < MAX_LABELS):
            labels[label] = text
        if lower in signed:
            kept.append((name, value))
    return labels, tuple(kept) if len(kept) < len(fields) else None


def is_label_name(name: bytes) -> bool:
    """Whether a header (lower-case name) is one of our labels."""
    return name.startswith(PREFIX)


def _signed_headers(fields: Fields) -> frozenset[bytes]:
    for name, value in fields:
        if name.lower() == b"authorization" and (found := _SIGNED.match(value)):
            return frozenset(found[1].lower().split(b";"))
    return frozenset()


def session_label(headers: Mapping[str, str]) -> str | None:
    """The session that a known agent or gateway names in its headers (lower-case names), or None.

    Explicit names first, then any `x-<vendor>-session-id`, then the bare names of Codex where it is Codex that asks.
    """
    if not any(name in _ANY_SESSION or name.endswith(SESSION_SUFFIX) for name in headers):
        return None
    names = [*_SESSIONS, *(name for name in headers if name.startswith("x-") and name.endswith(SESSION_SUFFIX))]
    names = [name for name in names if name != "x-session-id"]
    if headers.get("user-agent", "").startswith("codex") or headers.get("originator", "").startswith("codex"):
        names += _CODEX_SESSIONS
    if "copilot-integration-id" in headers:
        names.append("x-interaction-id")
    for name in (*names, *_LAST_SESSIONS):
        value = headers.get(name)
        if value is not None and _SESSION(value):
            return value
    return None


def body_session(headers: Mapping[str, str], request: Callable[[], Any]) -> str | None:
    """The session that a known agent writes into its request, or None.

    `request()` gives the request's JSON; it is asked only where the user agent is one of theirs.
    """
    agent = headers.get("user-agent", "")
    if agent.startswith("claude-cli/"):
        found = _claude_session(walk(request(), ("metadata", "user_id")))
    elif agent.startswith("GeminiCLI"):
        found = walk(request(), ("request", "session_id"))
    elif agent.startswith("QwenCode/"):
        found = walk(request(), ("metadata", "sessionId"))
    else:
        return None
    return found if isinstance(found, str) and _SESSION(found) else None


def _claude_session(user_id: Any) -> Any:
    """From Claude Code's `metadata.user_id`: JSON in a string, once `user_<hash>_account_<id>_session_<id>`."""
    if not isinstance(user_id, str) or len(user_id) > 4096:
        return None
    if user_id.startswith("{"):
        try:
            return walk(json.loads(user_id), ("session_id",))
        except (ValueError, RecursionError):
            return None
    found = _OLD_USER_ID(user_id)
    return found[1] if found else None


def is_session_name(name: bytes) -> bool:
    """Whether a header (lower-case name) is one in which a vendor may name its session."""
    return name.startswith(b"x-") and name.endswith(_SUFFIX_BYTES)


@lru_cache(512)  # a machine runs a handful of clients
def agent_text(user_agent: str | None) -> str | None:
    """A user agent cut to its product tokens, joined by commas, 64 characters at most: `OpenAI/Python,3.52.0`.

    Comments, addresses and paths are left out: some clients put a machine's name or a person's e-mail there.
    """
    if not user_agent:
        return None
    text = user_agent[:256]
    while "(" in text and (shorter := _COMMENT.sub(" ", text)) != text:
        text = shorter
    out = ""
    for product in _PRODUCT.findall(text):
        longer = f"{out},{product}" if out else product
        if len(longer) > MAX_AGENT:
            break
        out = longer
    return out or None


class Fingerprints:
    """Names for credentials: `k_` and 16 hex digits, the same for the same key on this machine, and useless elsewhere.

    The digest is keyed with random bytes in `key_file` (made on first use, 0600 in a 0700 folder), so that nobody can
    test guesses against a ledger. Where the file can be neither read nor made, the names last as long as the process.
    """

    def __init__(self, key_file: Path) -> None:
        self.key_file = key_file
        self._key: bytes | None = None

    def of(self, headers: Mapping[str, str], query_key: str | None = None) -> str | None:
        """The fingerprint of the credential in the headers (lower-case names), else in Gemini's `?key=`, else None."""
        secret = credential(headers) or query_key
        if not secret:
            return None
        if self._key is None:
            self._key = _random_key(self.key_file)
        # A keyed BLAKE2b takes less than a microsecond: nothing is gained by remembering what was hashed.
        return "k_" + hashlib.blake2b(secret.encode("utf-8", "replace"), digest_size=8, key=self._key).hexdigest()


def credential(headers: Mapping[str, str]) -> str | None:
    """The secret itself (never to be kept): without its scheme, so that one key has one name however it is sent.

    Of an AWS signature it is the access key's id, which is the same in every call.
    """
    for name in _CREDENTIALS:
        value = headers.get(name, "").strip()
        if not value:
            continue
        if name == "authorization":
            if found := _ACCESS_KEY(value):
                return found[1]
            scheme, _, rest = value.partition(" ")
            value = rest.strip() if scheme.lower() in ("bearer", "token", "key") else value
        if value:
            return value
    return None


def _random_key(path: Path) -> bytes:
    """The key in the file; made if it is not there. Two processes that start together end up with the same one."""
    with contextlib.suppress(OSError):
        if len(found := path.read_bytes()) >= 16:
            return found[:64]
    made = secrets.token_bytes(32)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made)
        _publish(temporary, path)
        return path.read_bytes()[:64] or made
    except OSError:
        return made
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name unless another process was quicker; one too short to be a key is replaced."""
    try:
        if path.exists() and path.stat().st_size < 16:
            path.unlink()
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        temporary.replace(path)
