"""What all tests share: a home that is not the user's, the parsed forms of what ships, and how hard to look."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import effort  # noqa: F401 - chooses Hypothesis' profile
from llmtab.caching import packaged_folder
from llmtab.prebuilt import prebuild


def pytest_configure(config: pytest.Config) -> None:
    """Parses what ships once, not in every test that has a home of its own (2 s each)."""
    if not hasattr(config, "workerinput"):
        with contextlib.suppress(ValueError, OSError):  # a broken file is for the tests to tell
            prebuild(packaged_folder())


@pytest.fixture(scope="session", autouse=True)
def llmtab_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$LLMTAB_HOME for the whole run: no test touches the ledger, config or caches of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LLMTAB_")]:
            patch.delenv(name)  # whoever runs the tests may have set options there
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LLMTAB_HOME", str(home))
        yield home
