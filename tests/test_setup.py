"""What is said at a start about files that others on the machine may read."""

from pathlib import Path

import pytest

from llmtab.setup import Setup
from test_reload import options


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "llmtab.yaml").touch()
    (tmp_path / "llmtab.yaml").chmod(0o600)
    return tmp_path


def started(home: Path, caplog: pytest.LogCaptureFixture, old: Setup | None = None, **more: str) -> tuple[Setup, str]:
    """The set-up, and what was logged."""
    caplog.clear()
    setup = Setup.read(options(home, **more), old)
    return setup, caplog.text


def test_what_is_closed_is_not_spoken_of(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of 0600 in a folder of 0700 give no warning."""
    assert "chmod" not in started(home, caplog)[1]


def test_a_config_that_others_may_read_is_named(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """llmtab.yaml may hold webhooks and passwords of stores: the usual one is looked at, and one that is named."""
    (home / "llmtab.yaml").chmod(0o640)
    setup, said = started(home, caplog)
    assert f"chmod 600 {home / 'llmtab.yaml'}" in said
    other = home / "other.yaml"
    other.touch()
    other.chmod(0o604)
    assert f"chmod 600 {other}" in started(home, caplog, setup, llmtab_config=str(other))[1]


def test_a_folder_that_others_may_look_into_is_named(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """llmtab's own folder is 0700, or the start says how it becomes so."""
    home.chmod(0o755)
    setup, said = started(home, caplog)
    assert f"chmod 700 {home}" in said
    assert "chmod" not in started(home, caplog, setup)[1], "said at the start, not at every change of an option"
