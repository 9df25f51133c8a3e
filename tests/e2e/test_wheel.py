"""The wheel: what a user who installs it gets, away from any checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = """
import sys
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
Profiles.load(), PriceBook.load()
print(sys.modules["llmtab"].__file__, *(name for name in ("pydantic", "ruamel.yaml") if name in sys.modules))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    pytest.importorskip("hatchling", reason="hatchling is not installed (extra `dev`)")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_it_brings_prices_and_profiles_parsed(site: Path, tmp_path: Path) -> None:
    """The first start after an installation reads no YAML, and needs no folder of its own for that."""
    assert len([*(site / "llmtab" / "_cache").glob("*.json")]) == 2
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{START}"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"LLMTAB_HOME": str(tmp_path / "home")}, timeout=60
    )
    assert done.stdout.split() == [str(site / "llmtab" / "__init__.py")], done.stderr
    assert not (tmp_path / "home").exists()


def test_it_holds_the_file_for_mitmdump(site: Path) -> None:
    """`mitmdump -s .../llmtab/main.py` works from an installed package, and the price file lies beside it."""
    assert (site / "llmtab" / "main.py").read_bytes() == (ROOT / "addon" / "main.py").read_bytes()
    assert (site / "llmtab" / "pricing.yaml").read_bytes() == (ROOT / "pricing.yaml").read_bytes()
