"""Whose work a folder is: `.llmtab.yaml`, else the git repository."""

from pathlib import Path

import pytest

from llmtab.documents import ConfigError
from llmtab.run.project import labels_at, stated


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a repository `shop` in it, which has a folder `src/web`."""
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    (tmp_path / "shop" / "src" / "web").mkdir(parents=True)
    return tmp_path


def test_the_repository(home: Path) -> None:
    """Anywhere inside a git repository `project` is the name of its folder; a worktree's .git, a file, counts too."""
    assert labels_at(home / "shop" / "src" / "web", home) == {"project": "shop"}
    (home / "tree").mkdir()
    (home / "tree" / ".git").write_text("gitdir: elsewhere\n")
    assert labels_at(home / "tree", home) == {"project": "tree"}


def test_a_repository_with_an_odd_name(home: Path) -> None:
    """Signs that part labels from each other become `_`; a name that no label can hold gives none."""
    for name in ("c++,x", "größe"):
        (home / name / ".git").mkdir(parents=True)
    assert labels_at(home / "c++,x", home) == {"project": "c___x"}
    assert labels_at(home / "größe", home) == {}


def test_outside(home: Path) -> None:
    """Outside of any there is no label, and a home that is a repository (of dotfiles) is no project."""
    (home / ".git").mkdir()
    assert labels_at(home, home) == {}


def test_the_file(home: Path) -> None:
    """The nearest .llmtab.yaml gives its labels, numbers as text; the repository's name fills in `project`."""
    (home / "shop" / ".llmtab.yaml").write_text("labels:\n  team: web\n  cost_centre: 4711\n")
    assert labels_at(home / "shop" / "src", home) == {"team": "web", "cost_centre": "4711", "project": "shop"}
    (home / "shop" / "src" / ".llmtab.yaml").write_text("labels: {project: frontend}\n")
    assert labels_at(home / "shop" / "src" / "web", home) == {"project": "frontend"}


def test_a_file_without_a_repository(tmp_path: Path) -> None:
    """Where there is no repository the folder with the file names the project."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".llmtab.yaml").write_text("labels: {team: web}\n")
    assert labels_at(tmp_path / "notes", tmp_path) == {"team": "web", "project": "notes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "expected `labels:`"),
        ("label: {a: b}\n", "1: label: is not known"),
        ("labels: [a]\n", "1: labels: expected"),
        ("labels:\n  team: 'a,b'\n", "2: labels.team: expected"),
        ("labels:\n  Team: web\n", "2: labels.Team: "),
        ("labels:\n  team: [web]\n", "2: labels.team: expected"),
        ("labels: {team: \n", "llmtab.yaml"),
    ],
)
def test_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    """A mistake is one line with file, line and key."""
    (tmp_path / ".llmtab.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        labels_at(tmp_path, tmp_path)
    assert said in str(error.value)


def test_stated() -> None:
    """Labels as one text are what `--label` and LLMTAB_LABELS take."""
    assert stated({"project": "web", "team": "x y"}) == "project=web,team=x y"
