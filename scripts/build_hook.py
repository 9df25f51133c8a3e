"""What the wheel holds beside the package's own files: prices, the parsed forms of prices and profiles, and the file
for `mitmdump -s`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Runs while a wheel is built; an editable installation reads the files of the checkout itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        self.folder = tempfile.TemporaryDirectory()
        added = build_data["force_include"]
        added["pricing.yaml"] = "llmtab/pricing.yaml"
        added["addon/main.py"] = "llmtab/main.py"
        added[self.folder.name] = "llmtab/_cache"
        self._parse(Path(self.folder.name))

    def _parse(self, folder: Path) -> None:
        """Parsing and checking prices and profiles takes seconds: done once here, not at everybody's first start."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "addon"))
        try:
            from llmtab.prebuilt import prebuild

            prebuild(folder, root / "pricing.yaml")
        finally:
            sys.path.remove(str(root / "addon"))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version == "standard":
            self.folder.cleanup()
