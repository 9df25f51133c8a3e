"""Names of keys: a person's words for the fingerprints on the ledger, in `keys.yaml` under $LLMTAB_HOME.

Knows the file's form, `k_0123456789abcdef: "ci bot"` a line. A file of its own and not a section of llmtab.yaml: it is
written by a command, and its fingerprints mean something only beside the random key in the same folder. Must not know
the ledger.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llmtab import documents
from llmtab.home import home
from llmtab.record import label_text

FORM: Final = re.compile(r"k_[0-9a-f]{16}")
_LINE: Final = re.compile(r"""\s*["']?(k_[0-9a-f]{16})["']?\s*:""")


def usual() -> Path:
    """`keys.yaml` under $LLMTAB_HOME."""
    return home() / "keys.yaml"


def load(path: Path) -> Mapping[str, str]:
    """Names by fingerprint; {} where there is no file. Raises ConfigError with file, line and key."""
    if not path.is_file():
        return {}
    found = documents.load(path, cache=False)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise documents.fail(path, (), 'expected lines like k_0123456789abcdef: "ci bot"')
    for key, name in found.items():
        if not FORM.fullmatch(key):
            raise documents.fail(path, (key,), "expected a fingerprint: k_ and 16 hex digits")
        if not label_text(name):
            raise documents.fail(path, (key,), f"{name!r}, expected a name of 1 to 128 printable ASCII characters")
    return found


def put(path: Path, fingerprint: str, name: str | None) -> None:
    """Gives a fingerprint a name, or takes it away (None). The file's other lines stay as they are.

    Raises ValueError for what is no fingerprint or no name, or where the file could not be read before.
    """
    if not FORM.fullmatch(fingerprint):
        raise ValueError("that is no fingerprint, expected k_ and 16 hex digits (see llmtab key list)")  # may be a key
    if name is not None and not label_text(name):
        raise ValueError(f"{name!r}, expected a name of 1 to 128 printable ASCII characters")
    load(path)
    text = (
        path.read_text(encoding="utf-8") if path.is_file() else "# Names of keys, by fingerprint (llmtab key --help)\n"
    )
    kept = [line for line in text.splitlines() if not (found := _LINE.match(line)) or found[1] != fingerprint]
    if name is not None:
        kept.append(f"{fingerprint}: {json.dumps(name)}")
    _replace(path, "\n".join(kept) + "\n")


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
