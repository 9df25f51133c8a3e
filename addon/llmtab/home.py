"""The folder of everything llmtab keeps: ledger, key, config, caches.

Knows the environment variable and the default. Must not know what lies in it.
"""

import os
from pathlib import Path


def home() -> Path:
    """`$LLMTAB_HOME`, else `~/.llmtab`."""
    return Path(os.environ.get("LLMTAB_HOME") or "~/.llmtab").expanduser()
