"""`llmtab init`: a file that explains itself, changes nothing, and is right in every line."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmtab import config
from llmtab.cli import main
from llmtab.config_schema import File
from llmtab.documents import loads
from llmtab.pricing import PriceBook
from llmtab.run.project import labels_at
from llmtab.verbs.init import template, uncommented


def sections() -> list[str]:
    """The template's settings, a text for each top-level key."""
    found: list[str] = []
    for line in uncommented(template()).splitlines():
        if line and not line.startswith(" "):
            found.append("")
        if line:
            found[-1] += line + "\n"
    return found


def test_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, the file is valid and says nothing; it is the user's own (0600), and comes into the usual place."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "home"))
    assert main(["init"]) == 0
    path = tmp_path / "home" / "llmtab.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert loads(path.read_text(), "llmtab.yaml") is None
    assert config.load(path).profile_specs == ()


def test_every_line_is_right(tmp_path: Path) -> None:
    """With the `# ` taken off every line the file is valid, with every setting in force."""
    path = tmp_path / "llmtab.yaml"
    path.write_text(uncommented(template()))
    found = config.load(path)
    assert str(found.timezone) == "Europe/Berlin"
    assert {spec.get("provider") for spec in found.profile_specs} == {"house", "ask.example.com", "example"}
    book = PriceBook.load(overrides=found.pricing, overrides_path=path)
    assert book.find("house", "house-model", datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", sections(), ids=lambda text: text.partition(":")[0])
def test_each_section_is_right(text: str, tmp_path: Path) -> None:
    """Each section is valid by itself too."""
    path = tmp_path / "llmtab.yaml"
    path.write_text(text)
    config.load(path)


def test_it_has_everything() -> None:
    """No setting is missing: every key that llmtab.yaml may have at its top has its section."""
    assert {text.partition(":")[0] for text in sections()} == set(File.model_fields)


def test_it_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there stays, unless --force says otherwise."""
    path = tmp_path / "llmtab.yaml"
    path.write_text("timezone: UTC\n")
    assert main(["init", str(path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "timezone: UTC\n"
    assert main(["init", str(path), "--force"]) == 0
    assert path.read_text() == template()


@pytest.mark.parametrize("name", ["shop", "my shop", "42", "null"])
def test_a_projects_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`llmtab init --here` writes down the project's name, which `llmtab run` then finds."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["init", "--here"]) == 0
    assert labels_at(folder, tmp_path) == {"project": name}
