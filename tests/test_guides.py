"""The guides for teams and on privacy: what they show works as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llmtab import cli, documents
from llmtab.attribution.schema import Attribution, Match
from llmtab.config_schema import json_schema
from llmtab.setup import OPTIONS

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "docs" / name for name in ("teams.md", "privacy.md", "providers.md")]
MARKED = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
KEYS = "k_0123456789abcdef: ci bot\n"


def marked(kind: str) -> list[tuple[str, str]]:
    """(guide, text) of every block that is marked so."""
    found = [(path.name, block) for path in GUIDES for name, block in MARKED.findall(path.read_text()) if name == kind]
    assert found
    return found


@pytest.mark.parametrize(("guide", "text"), marked("llmtab.yaml"))
def test_what_the_guides_configure_can_be_configured(
    guide: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every llmtab.yaml in a guide is one that a start accepts."""
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    (tmp_path / "llmtab.yaml").write_text(text)
    (tmp_path / "keys.yaml").write_text(KEYS)
    assert cli.main(["config", "--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("guide", "text"), marked("commands"))
def test_what_the_guides_type_can_be_typed(guide: str, text: str, tmp_path: Path) -> None:
    """Every command in a guide runs and succeeds, in the order they stand there."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    shim = bin_folder / "llmtab"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmtab.cli "$@"\n')
    shim.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMTAB_")} | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT / "addon"), "OPENAI_API_KEY": "sk-nothing",
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-e", "-c", text], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "llmtab key" in done.stderr) == (0, False), done.stderr


def test_every_verb_and_option_in_the_guides_exists() -> None:
    """Lines that start with `llmtab` name verbs and options there are."""
    parser, _ = cli._parser()
    known = {name for name, *_ in OPTIONS}
    for path in GUIDES:
        for line in re.findall(r"^(?:    )?(llmtab .+)$", path.read_text(), re.MULTILINE):
            words = shlex.split(line.partition(" > ")[0])[1:]
            args, rest = parser.parse_known_args(words)
            assert not rest or args.passes_on, line
            assert {word.partition("=")[0] for word in rest if word.startswith("llmtab_")} <= known, line
        assert set(re.findall(r"`?(llmtab_[a-z_]+)", path.read_text())) <= known


def test_every_rung_and_match_is_in_the_guide() -> None:
    """The guide for teams names every switch of `attribution:` and everything that a rule can look at."""
    text = (ROOT / "docs" / "teams.md").read_text()
    assert [name for name in Attribution.model_fields if f"{name}:" not in text] == []
    assert [name for name in Match.model_fields if f"{name}:" not in text and f"{name}: " not in text] == []


def test_editors_accept_what_the_guides_configure() -> None:
    """The JSON Schema of llmtab.yaml is a valid one, takes every example of the guides, and refuses a misspelt key."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for guide, text in marked("llmtab.yaml"):
        found = documents.loads(text, guide)
        assert [error.message for error in validator.iter_errors(found)] == []
        assert not validator.is_valid({**found, "rulez": []})
