"""The parsed forms of the files that ship with the package, made before anybody starts it.

Knows which files those are. Must not know how one is read. Run as a program it makes what is missing beside the package
it stands in: the wheel is built with it, and `scripts/setup` spares a checkout's first start the seconds of parsing.
"""

from pathlib import Path

from llmtab.caching import packaged_folder
from llmtab.pricing.table import bake_shipped
from llmtab.profiles.files import bake_built_in


def prebuild(folder: Path, prices: Path | None = None) -> list[Path]:
    """The parsed profiles and prices in `folder`; older forms of them go. `prices`: where the shipped price file lies
    if not in its place. Raises ConfigError where a file is wrong, OSError where the folder cannot be written."""
    made = [bake_built_in(folder), bake_shipped(folder, prices)]
    for path in set(folder.glob("*.json")).difference(made):
        path.unlink(missing_ok=True)
    return made


if __name__ == "__main__":
    prebuild(packaged_folder())
