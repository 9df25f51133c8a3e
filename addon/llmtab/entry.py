"""Where the file for `mitmdump -s` is. Knows the two places it can have; must not know who starts mitmdump."""

from pathlib import Path


def script() -> Path:
    """`addon/main.py` of the checkout, or the copy of it that a wheel holds."""
    package = Path(__file__).resolve().parent
    installed = package / "main.py"
    return installed if installed.is_file() else package.with_name("main.py")
