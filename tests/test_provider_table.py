"""Providers are data: the table in README is the profiles, the example a real file, and none has code of its own."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from golden import built_in
from llmtab.profiles import GUESS, Profiles
from llmtab.profiles.files import read_profile
from llmtab.record import FIELDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "addon" / "llmtab"
PROVIDERS = PACKAGE / "profiles" / "providers"
README = (ROOT / "README.md").read_text()
MOST_LINES, MOST_QUIRKS = 10, 4
READERS = [
    *(PACKAGE / "profiles").glob("*.py"), *(PACKAGE / "wire").glob("*.py"),
    *(PACKAGE / f"{room}.py" for room in ("events", "exchange", "extract", "booking", "usage")),
]  # fmt: skip
"""Everything between a body's bytes and its line."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import provider_table

    return provider_table


def example() -> tuple[Path, str]:
    """The provider file that README shows, and its text there."""
    [(name, block)] = re.findall(r"providers/(\w+\.yaml)\):\n\n((?: {4}.*\n)+)", README)
    return PROVIDERS / name, re.sub(r"^ {4}", "", block, flags=re.MULTILINE)


def test_the_table_says_what_the_profiles_say(script: ModuleType) -> None:
    """README's table is the one that scripts/provider_table.py writes from the profiles of today."""
    assert script.written(README) == README, "run scripts/provider_table.py"


def test_the_table_has_every_provider(script: ModuleType) -> None:
    """Each profile has one row of three cells, with its title."""
    rows = script.table().splitlines()[2:]
    titles = [script.title(provider) for provider in built_in().providers.values()]
    assert sorted(row.split(" | ")[0].removeprefix("| ") for row in rows) == sorted(titles)
    assert {row.count("|") for row in rows} == {4}
    assert len(set(titles)) == len(titles)


def test_a_table_without_markers_is_an_error(script: ModuleType) -> None:
    """Nothing is written where nobody said where."""
    with pytest.raises(ValueError, match="README"):
        script.written("# no markers")


def test_the_example_is_a_real_provider(tmp_path: Path) -> None:
    """The provider file in README is a built-in one, word for word, and works when it is a user's."""
    path, text = example()
    assert path.read_text() == text
    assert len(text.splitlines()) <= MOST_LINES
    (tmp_path / path.name).write_text(text)
    spec = read_profile(tmp_path / path.name)
    claim = Profiles.load([tmp_path]).match(spec["hosts"][0], 443, "POST", "/v1/chat/completions")
    assert claim is not None
    assert (claim.binding.profile, claim.binding.dialects[0].name) == (spec["provider"], "openai.chat")


def test_the_example_is_the_shortest() -> None:
    """No provider that stands for itself has a shorter file than the one in README."""
    own = [path.read_text() for path in PROVIDERS.glob("*.yaml") if "like" not in read_profile(path)]
    assert len(example()[1].splitlines()) == min(len(text.splitlines()) for text in own)


def names() -> set[str]:
    """Names of providers, profiles and dialects, and their hosts."""
    found = built_in()
    profiles = {name for provider in found.providers.values() for name in (provider.profile, provider.spec["provider"])}
    dialects = {path.stem for path in (PACKAGE / "profiles" / "dialects").glob("*.yaml")}
    hosts = {host for provider in found.providers.values() for host in provider.spec.get("hosts") or ()}
    return (profiles | dialects | hosts) - {GUESS, *FIELDS}  # a `writer` is also what wrote a line


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_provider_has_code_of_its_own(path: Path) -> None:
    """Nothing between a body's bytes and its line asks for a provider, a profile, a dialect or a host by its name."""
    tree = ast.parse(path.read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert texts & names() == set()


def test_there_are_few_quirks() -> None:
    """At most four things about answers cannot be said as data."""
    quirks = PACKAGE / "profiles" / "quirks.py"
    tree = ast.parse(quirks.read_text() if quirks.exists() else "")
    assert sum(isinstance(node, ast.FunctionDef) and not node.name.startswith("_") for node in tree.body) <= MOST_QUIRKS
    assert [path for path in (PACKAGE / "profiles").rglob("*.py") if path.parent != PACKAGE / "profiles"] == []
    assert "llmtab.profiles" in sys.modules
