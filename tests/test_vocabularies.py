"""Real vocabularies where they are installed, the rule of pieces where they are not."""

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from llmtab.estimates.pieces import family, pieces
from llmtab.estimates.vocabularies import Vocabularies


def test_without_packages_pieces_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is an extra: without it every family is counted, by the rule of pieces."""
    monkeypatch.setitem(sys.modules, "splintr", None)
    monkeypatch.setitem(sys.modules, "ctok", None)
    for model in ("gpt-4o", "claude-opus-4-8", "amazon.nova-lite-v1:0", ""):
        assert Vocabularies().of(family(model)) == (pieces, "pieces")


def test_a_package_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of another version than we know is as good as none."""
    monkeypatch.setitem(sys.modules, "splintr", SimpleNamespace(Tokenizer=None))
    assert Vocabularies().of(family("gpt-4o")) == (pieces, "pieces")


def test_a_vocabulary_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes up to half a second; it is done when a family is first counted."""
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        return SimpleNamespace(encode_ordinary=lambda text: text.split())

    tokenizer = SimpleNamespace(from_pretrained=load)
    monkeypatch.setitem(sys.modules, "splintr", SimpleNamespace(Tokenizer=tokenizer))
    found = Vocabularies()
    assert found.of(family("gpt-4o"))[0]("a b c") == 3
    assert found.of(family("gpt-4o"))[1] == "tokenizer:o200k_base"
    found.of(family("deepseek-chat"))
    assert loaded == ["o200k_base", "deepseek_v3"]


@pytest.mark.parametrize(
    ("package", "model", "text", "count"),
    [
        ("splintr", "gpt-4o", "The capital of France is Paris.", 7),
        ("splintr", "gpt-4o", "half a pair \ud83d of surrogates", None),
        ("ctok", "claude-sonnet-4-5", "hello, world", 3),
        ("ctok", "claude-opus-4-8", "hello, world", 4),
    ],
)
def test_installed_packages_count(package: str, model: str, text: str, count: int | None) -> None:
    """What the extra `tokenizers` installs counts without a network."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra: tokenizers)")
    counter, name = Vocabularies().of(family(model))
    assert name.startswith("tokenizer:")
    assert counter(text) == count if count is not None else counter(text) > 0
