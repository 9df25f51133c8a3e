"""The file for `mitmdump -s addon/main.py`: makes the llmtab beside it the one that runs, and hands over its meter.

No function and no class may stand here: mitmproxy takes the module itself for an addon and calls what is named like
a hook.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

folder = Path(__file__).resolve().parent
root = folder if (folder / "llmtab").is_dir() else folder.parent  # a wheel holds this file inside the package

# mitmproxy leaves the script's folder at the head of sys.path, where it could shadow other modules. Off with it: the
# package finds its own modules by its __path__.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]

# Loaded again (mitmproxy reloads this file when it is touched), or another copy installed: start from nothing.
for module in [known for known in sys.modules if known.partition(".")[0] == "llmtab"]:
    del sys.modules[module]

spec = PathFinder.find_spec("llmtab", [str(root)])
assert spec is not None, f"no llmtab in {root}"
assert spec.loader is not None, f"{root / 'llmtab'} is no package"
sys.modules["llmtab"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["llmtab"])

from llmtab.meter import Meter  # noqa: E402

addons = [Meter()]
