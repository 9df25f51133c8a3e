"""What all tests share: a home that is not the user's."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def llmtab_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$LLMTAB_HOME for the whole run: no test touches the ledger, config or caches of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LLMTAB_HOME", str(home))
        yield home
