"""Real vocabularies, where the extra `tokenizers` is installed: they count exactly where the rule of pieces guesses.

Knows the packages that bring their vocabularies in the wheel (splintr-rs for most families, ctok for a reconstruction
of Claude's) and which family needs which. Must not know answers. Nothing is downloaded, ever; without the packages, or
where one fails, the rule of pieces counts.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final

from llmtab.estimates.pieces import Counter, Family, pieces

CLAUDE: Final = {"claude-3": "3.0", "claude-4.7": "4.7", "claude-4.8": "4.8"}
"""Our word for a vocabulary -> ctok's version."""


class Vocabularies:
    """Loaded when a family is first counted (20 to 400 ms, in the thread for large bodies) and kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Counter, str]] = {}

    def of(self, kin: Family) -> tuple[Counter, str]:
        """(what counts a text, its name in `estimate_method`)."""
        name = kin.vocabulary
        if name not in self._known:
            found = _load(name) if name else None
            self._known[name] = (found, f"tokenizer:{name}") if found else (pieces, "pieces")
        return self._known[name]


def _load(name: str) -> Counter | None:
    try:
        return _claude(CLAUDE[name]) if name in CLAUDE else _splintr(name)
    except Exception:  # whatever a package that is not ours does at its import: the rule of pieces is always there
        return None


def _splintr(name: str) -> Counter:
    tokenizer = importlib.import_module("splintr").Tokenizer.from_pretrained(name)
    encode: Callable[[str], Any] = tokenizer.encode_ordinary
    return lambda text: float(len(encode(text.encode("utf-8", "replace").decode())))  # half a surrogate pair is no text


def _claude(version: str) -> Counter:
    count: Callable[[str, str], int] = importlib.import_module("ctok").token_count
    frame = count("a", version) - 1  # it counts a whole message
    return lambda text: float(max(0, count(text, version) - frame))
