"""House rules as small programs: who may import whom, how long a file may grow, that the docs say what is so."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "addon" / "llmtab"
ROOMS = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 350, 50
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md"]

MITMPROXY = {"meter", "run.dump", "run.private_main", "run.doors", "run.authority"}
"""Rooms that may know mitmproxy: the shell, and what starts it, tells its modes and makes its CA."""
RICH = {"live", "cli"}
"""Rooms that may know the terminal, by the first part of their name."""
WATCHERS = {"live", "verbs", "cli", "demo", "meter", "watch", "run", "doctor"}
"""Rooms behind the ledger: what writes it must not know them."""


def name(path: Path) -> str:
    """`addon/llmtab/wire/framing.py` -> `wire.framing`; the package itself is the empty string."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all modules that a file imports, at its head or later; `from a import b` counts as `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def users(module: str) -> set[str]:
    """The rooms that import `module` or something of it."""
    return {name(path) for path in ROOMS if any(f"{used}.".startswith(f"{module}.") for used in imports(path))}


def test_only_the_shell_knows_mitmproxy() -> None:
    """Everything but the shell runs without a proxy."""
    assert users("mitmproxy") <= MITMPROXY


def test_only_the_table_knows_the_terminal() -> None:
    """rich is for what a person looks at."""
    assert {room for room in users("rich") if room.partition(".")[0].partition("_")[0] not in RICH} == set()


@pytest.mark.parametrize("room", ["wire", "usage"])
def test_the_leftmost_rooms_import_nothing_of_ours(room: str) -> None:
    """`wire` knows bytes and `usage` knows counters; neither knows anything else of this package."""
    own = [path for path in ROOMS if name(path).partition(".")[0] == room]
    used = {module for path in own for module in imports(path) if module.partition(".")[0] == "llmtab"}
    assert own
    assert {module for module in used if not module.startswith(f"llmtab.{room}.")} == set()


def test_imports_point_one_way() -> None:
    """What writes the ledger does not know who watches it; only watchers and the shell know both."""
    knowing = {
        f"{name(path)} -> {module}"
        for path in ROOMS
        if name(path).partition(".")[0].partition("_")[0] not in WATCHERS
        for module in imports(path)
        for room in WATCHERS
        if f"{module}.".startswith(f"llmtab.{room}.")
    }
    assert knowing == set()


@pytest.mark.parametrize(
    "path", [*ROOMS, *(ROOT / "tests").rglob("*.py")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_stay_short(path: Path) -> None:
    """A file of 350 lines is split by topic; a test file may be half as long again."""
    longest = LONGEST_FILE if PACKAGE in path.parents else LONGEST_FILE * 3 // 2
    assert len(path.read_text().splitlines()) <= longest


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_functions_stay_short(path: Path) -> None:
    """No function is longer than 50 lines."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {function: lines for function, lines in long.items() if lines > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_every_room_says_what_it_knows(path: Path) -> None:
    """Each module opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_tests_are_promises() -> None:
    """Every test has a docstring: a sentence that a user could rely on."""
    silent = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_file_names_this_machine() -> None:
    """No tracked file holds a path of somebody's machine or the host of a package registry."""
    pattern = "|".join(
        ["/(root|work|home)/" + "[a-z]", "python" + "hosted", r"pypi\.org/" + "simple", "registry.npm" + "js"]
    )
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    texts = {file: (ROOT / file).read_text(errors="replace") for file in files if (ROOT / file).is_file()}
    assert [file for file, text in texts.items() if re.search(pattern, text)] == []


def test_the_readme_names_every_verb_and_option() -> None:
    """README knows every verb of the command line and every option of the addon."""
    from llmtab.cli import _parser
    from llmtab.setup import declare_options

    options: list[str] = []
    declare_options(lambda option, *_: options.append(option))
    text = (ROOT / "README.md").read_text()
    assert [verb for verb in _parser()[1].choices if f"llmtab {verb}" not in text] == []
    assert [option for option in options if option not in text] == []


def test_the_readme_names_only_what_there_is() -> None:
    """Every verb, option and file that README names exists."""
    from llmtab.cli import _parser
    from llmtab.setup import declare_options

    options: list[str] = []
    declare_options(lambda option, *_: options.append(option))
    text = (ROOT / "README.md").read_text()
    verbs = set(re.findall(r"(?:^|`|\s)llmtab ([a-z]+)\b", "\n".join(re.findall(r"`[^`\n]+`|^ {4}.*$", text, re.M))))
    assert verbs - set(_parser()[1].choices) == set()
    assert set(re.findall(r"\bllmtab_[a-z_]+", text)) - set(options) == set()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_docs_know_this_version(path: Path) -> None:
    """The changelog has an entry for the version of the package; the README names no other."""
    from llmtab import __version__

    text = path.read_text()
    assert f"[{__version__}]" in text if path.name == "CHANGELOG.md" else True
    assert set(re.findall(r"\bllmtab[ =]=?(\d+\.\d+\.\d+)", text)) <= {__version__}


def test_the_wheel_would_hold_everything() -> None:
    """Every profile lies in the package, and the build hook adds the prices and the file for `mitmdump -s`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    hook = (ROOT / wheel["hooks"]["custom"]["path"]).read_text()
    assert wheel["packages"] == ["addon/llmtab"]
    assert {'"pricing.yaml"', '"addon/main.py"'} <= set(re.findall(r'"[\w/.]+"', hook))
    assert [file for file in ROOT.rglob("addon/**/*.yaml") if PACKAGE not in file.parents] == []
