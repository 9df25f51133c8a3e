"""The folder of everything llmtab keeps: ledger, key, config, caches.

Knows the environment variables and the defaults. Must not know what lies in it.
"""

import os
from pathlib import Path


def home() -> Path:
    """`$LLMTAB_HOME`, else `~/.llmtab`."""
    return Path(os.environ.get("LLMTAB_HOME") or "~/.llmtab").expanduser()


def private_folder(folder: Path) -> None:
    """Makes a folder that is not there, and those above it, for the user alone (`parents=True` would open those)."""
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)


def config_place() -> Path:
    """Where llmtab.yaml is, or would be: what `$LLMTAB_CONFIG` names, else `llmtab.yaml` in the home."""
    named = os.environ.get("LLMTAB_CONFIG")
    return Path(named).expanduser() if named else home() / "llmtab.yaml"


def config_file() -> Path | None:
    """The llmtab.yaml that holds where none is named; None where there is none. One that the environment names is given
    even if it is not there: whoever reads it says so."""
    place = config_place()
    return place if os.environ.get("LLMTAB_CONFIG") or place.is_file() else None
