"""Fingerprints: names for credentials and people that tell them apart and say nothing else.

Knows where credentials stand in a request, and the random key that fingerprints are made with. Must not know flows,
labels or the ledger; never keeps a credential.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CREDENTIALS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Lower-case names of the headers that a credential may stand in."""
_ACCESS_KEY: Final = re.compile(r"^AWS4-\S+ .*?Credential=([^/,\s]+)").match


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

    def of_person(self, name: str) -> str:
        """The fingerprint (`u_...`) of an end user's name or id; of the same text as a key it is another one."""
        if self._key is None:
            self._key = _random_key(self.key_file)
        data = name.encode("utf-8", "replace")
        return "u_" + hashlib.blake2b(data, digest_size=8, key=self._key, person=b"llmtab end user").hexdigest()

    def of_item(self, key: str) -> str:
        """The fingerprint (`c_...`) of a client's own name (`custom_id`) for one request of a batch."""
        if self._key is None:
            self._key = _random_key(self.key_file)
        data = key.encode("utf-8", "replace")
        return "c_" + hashlib.blake2b(data, digest_size=8, key=self._key, person=b"llmtab custom id").hexdigest()


def credential(headers: Mapping[str, str]) -> str | None:
    """The secret itself (never to be kept): without its scheme, so that one key has one name however it is sent.

    Of an AWS signature it is the access key's id, which is the same in every call.
    """
    for name in CREDENTIALS:
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
