"""What the wheel holds beside the package's own files: `pricing.yaml` and the file for `mitmdump -s`."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Runs while a wheel is built; an editable installation reads the files of the checkout itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["pricing.yaml"] = "llmtab/pricing.yaml"
            build_data["force_include"]["addon/main.py"] = "llmtab/main.py"
