"""The file for `mitmdump -s`: which copy of the package runs, what a reload reloads, and what it leaves behind.

Loaded by mitmproxy's own loader, in a process of its own, with a package beside it that stands in for llmtab.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = Path(__file__).parents[1] / "addon" / "main.py"
LOAD = """
import sys
from mitmproxy.addons.script import load_script
before = list(sys.path)
def load():
    module = load_script(r"{script}")
    assert module, "the script did not load"
    return module
"""

METER = """
class Meter:
    mark = {mark!r}

    def late(self):
        from llmtab.late import MARK
        return MARK
"""


def package(folder: Path, mark: str) -> Path:
    """A package `llmtab` in `folder` whose meter says `mark`, and imports a module only when asked."""
    room = folder / "llmtab"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("")
    (room / "late.py").write_text(f"MARK = {mark!r}\n")
    (room / "meter.py").write_text(METER.format(mark=mark))
    return room


def run(script: Path, code: str, *, path: Path | None = None) -> str:
    """What the code prints, once the script can be loaded with `load()`; `path` comes first on sys.path."""
    lines = [*([f"import sys; sys.path.insert(0, r'{path}')"] if path else []), LOAD.format(script=script), code]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A checkout: `addon/main.py` beside a package."""
    package(tmp_path / "addon", "beside")
    return Path(shutil.copy(MAIN, tmp_path / "addon"))


def test_the_package_beside_it_runs(script: Path, tmp_path: Path) -> None:
    """Another installed llmtab, even one imported before, never runs instead of the one beside `main.py`."""
    package(tmp_path / "site", "stale")
    code = "import llmtab.meter\nassert llmtab.meter.Meter.mark == 'stale'\nprint(load().addons[0].mark)"
    assert run(script, code, path=tmp_path / "site") == "beside"


def test_late_imports_still_find_it(script: Path, tmp_path: Path) -> None:
    """A module that is imported later, in the middle of a call, comes from the same copy."""
    package(tmp_path / "site", "stale")
    assert run(script, "print(load().addons[0].late())", path=tmp_path / "site") == "beside"


def test_its_folder_is_not_left_on_the_path(script: Path) -> None:
    """The script's folder, which mitmproxy leaves at the head of sys.path, cannot shadow other modules."""
    (script.parent / "colorsys.py").write_text("raise SystemExit('shadowed')")
    assert (
        run(script, f"load()\nimport colorsys\nprint(r'{script.parent}' in sys.path, sys.path == before)")
        == "False True"
    )


def test_a_reload_takes_every_module_anew(script: Path) -> None:
    """Touching `main.py` reloads the whole package: an edited module is in force, without a restart."""
    code = f"""
first = load().addons[0]
from pathlib import Path
late = Path(r"{script.parent}") / "llmtab" / "late.py"
assert first.late() == "beside"
late.write_text("MARK = 'edited while it ran'")
print(load().addons[0].late())
"""
    assert run(script, code) == "edited while it ran"


def test_a_wheel_holds_it_inside_the_package(tmp_path: Path) -> None:
    """The copy inside an installed package finds the package around it."""
    room = package(tmp_path / "site", "installed")
    script = Path(shutil.copy(MAIN, room))
    assert run(script, "print(load().addons[0].late())") == "installed"


def test_it_is_imports_and_one_list() -> None:
    """No function and no class stands in `main.py`: mitmproxy would call what is named like one of its hooks."""
    tree = ast.parse(MAIN.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    assert found == []
    names = {
        name.id for node in tree.body if isinstance(node, ast.Assign) for name in node.targets if hasattr(name, "id")
    }
    from mitmproxy import hooks

    assert names & (set(hooks.all_hooks) | {"name"}) == set()
