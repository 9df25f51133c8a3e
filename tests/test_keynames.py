"""Names of keys: a small file that a command writes and a person may edit."""

import stat
from pathlib import Path

import pytest

from llmtab.attribution.keynames import load, put
from llmtab.documents import ConfigError

ONE, TWO = "k_0123456789abcdef", "k_fedcba9876543210"


def test_names_are_kept(tmp_path: Path) -> None:
    """A name holds until another takes its place or it is taken away; the file is its owner's alone."""
    path = tmp_path / "home" / "keys.yaml"
    assert load(path) == {}
    put(path, ONE, 'ci "bot"')
    put(path, TWO, "true")
    assert load(path) == {ONE: 'ci "bot"', TWO: "true"}
    put(path, ONE, "deploy")
    assert load(path) == {TWO: "true", ONE: "deploy"}
    put(path, TWO, None)
    assert load(path) == {ONE: "deploy"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["keys.yaml"]


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    """Comments and lines in a person's own form are left as they are."""
    path = tmp_path / "keys.yaml"
    path.write_text(f"# ours\n'{ONE}' : one # the first\n\n{TWO}: two\n")
    put(path, TWO, "second")
    assert path.read_text() == f"# ours\n'{ONE}' : one # the first\n\n{TWO}: \"second\"\n"
    put(path, ONE, "first")
    assert load(path) == {TWO: "second", ONE: "first"}


@pytest.mark.parametrize("name", ["", "na\u00efve", "a\nb", "x" * 129])
def test_names_the_ledger_could_not_hold(tmp_path: Path, name: str) -> None:
    """A name is a label's value: printable ASCII, 128 characters at most."""
    with pytest.raises(ValueError, match="expected a name"):
        put(tmp_path / "keys.yaml", ONE, name)
    assert not (tmp_path / "keys.yaml").exists()


def test_only_fingerprints_have_names(tmp_path: Path) -> None:
    """A key itself is refused, so that it never lands in the file, and the error does not repeat it."""
    with pytest.raises(ValueError, match="is no fingerprint") as error:
        put(tmp_path / "keys.yaml", "sk-proj-whatever", "x")
    assert "sk-proj" not in str(error.value)
    assert not (tmp_path / "keys.yaml").exists()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- a\n", 1, "expected lines like"),
        (f"{ONE}: a\nsk-x: b\n", 2, "expected a fingerprint"),
        (f"{ONE}: 7\n", 1, "expected a name"),
        (f"{ONE}: a\n{ONE}: b\n", 2, "duplicate key"),
        ("{", 1, "not YAML"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A file that cannot be read is an error with its line, and is not written over."""
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert error.value.line == line
    with pytest.raises(ConfigError, match=message):
        put(path, TWO, "x")
    assert path.read_text() == text
