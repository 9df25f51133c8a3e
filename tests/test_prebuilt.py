"""The first start: prices and profiles come parsed, within 100 ms, and never from other code or content."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtab.caching import packaged_folder
from llmtab.prebuilt import prebuild

PACKAGE = Path(__file__).parents[1] / "addon" / "llmtab"
START = """
import json, sys, time
import mitmproxy.tools.main, mitmproxy.tools.dump
began = time.process_time()
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
profiles, prices = Profiles.load(), PriceBook.load()
took = time.process_time() - began
print(json.dumps({"ms": took * 1e3, "pydantic": "pydantic" in sys.modules, "providers": len(profiles.providers),
                  "priced": len(prices.finder.tables[0].providers)}))
"""
MOST = 100
"""Milliseconds that prices and profiles may add to the start of mitmdump, the imports they need included."""
UNPARSED = """
from llmtab.profiles import Profiles, files
def parsed(path):
    raise SystemExit("parsed again")
files.read_profile = parsed
Profiles.load()
print("as it was")
"""


def python(code: str, path: Path, home: Path) -> str:
    """What the code prints (or why it ended) in a Python that finds llmtab in `path`."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"]
    environment = {"LLMTAB_HOME": str(home), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=path.anchor)
    return done.stdout.strip() or done.stderr.strip()


def test_a_first_start_parses_nothing(tmp_path: Path) -> None:
    """With what the package brings, prices and profiles add under 100 ms to the start, and write nothing."""
    for _ in range(5):  # the best of some: other programs run on this machine
        found: dict[str, Any] = json.loads(python(START, PACKAGE.parent, tmp_path / "home"))
        if found["ms"] < MOST:
            break
    assert found["ms"] < MOST
    assert (found["pydantic"], found["providers"] > 50, found["priced"] > 20) == (False, True, True)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("file", ["profiles/compiled.py", "profiles/dialects/openai.chat.yaml", "usage.py", None])
def test_other_code_never_believes_it(tmp_path: Path, file: str | None) -> None:
    """A parsed form is one of its files and of the code that read them: where either changed they are read again."""
    room = tmp_path / "site" / "llmtab"
    shutil.copytree(PACKAGE, room, ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        (room / file).write_text((room / file).read_text() + "# edited\n")
    assert python(UNPARSED, room.parent, tmp_path) == ("parsed again" if file else "as it was")


def test_a_torn_form_is_not_believed(tmp_path: Path) -> None:
    """Half a file, or one byte of it changed, is as good as none."""
    room = tmp_path / "site" / "llmtab"
    shutil.copytree(PACKAGE, room, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (room / "_cache").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    assert python(UNPARSED, room.parent, tmp_path) == "parsed again"


def test_older_forms_go(tmp_path: Path) -> None:
    """The folder holds one form of each; what is there already is not made again."""
    shutil.copytree(packaged_folder(), tmp_path / "cache")
    (tmp_path / "cache" / "old.json").write_text("{}")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    made = prebuild(tmp_path / "cache")
    assert set((tmp_path / "cache").iterdir()) == set(made)
    assert [path.stat().st_mtime_ns for path in made] == [times[path] for path in made]
