"""Whose work is done in a folder: the labels that the nearest `.llmtab.yaml` or git repository gives.

Knows the two places and their order. Must not know who asks, nor git: a repository's name is that of its folder.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmtab.documents import fail, load
from llmtab.record import label_text

FILE: Final = ".llmtab.yaml"
EXPECTED: Final = "expected `labels:` with lines like `project: web`"


def labels_at(folder: Path, home: Path) -> dict[str, str]:
    """The labels of work in `folder`: those of the nearest `.llmtab.yaml`, and `project`, where that names none.

    `project` is the name of the nearest git repository, else of the folder with the file. `home` itself is nobody's
    project. Raises ConfigError where the file is wrong.
    """
    file = _nearest(folder, FILE, None)
    labels = read(file) if file else {}
    if "project" not in labels:
        repository = _nearest(folder, ".git", home)
        named = repository.parent.name if repository else file.parent.name if file else ""
        if text := label_text(named.replace(",", "_").replace("+", "_")):  # signs between labels, in their places
            labels["project"] = text
    return labels


def read(path: Path) -> dict[str, str]:
    """The labels that a `.llmtab.yaml` holds. Raises ConfigError with file, line and key."""
    data = load(path)
    if not isinstance(data, dict):
        raise fail(path, (), EXPECTED)
    if stray := next((key for key in data if key != "labels"), None):
        raise fail(path, (stray,), f"is not known here, {EXPECTED}")
    labels = data.get("labels") or {}
    if not isinstance(labels, dict):
        raise fail(path, ("labels",), EXPECTED)
    return {name: _value(path, name, value) for name, value in labels.items()}


def _value(path: Path, name: str, value: Any) -> str:
    from llmtab.attribution.labels import stated_labels

    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not label_text(text) or "," in text:
        raise fail(path, ("labels", name), "expected 1 to 128 printable ASCII characters without a comma")
    try:
        stated_labels(f"{name}={text}")
    except ValueError as error:
        raise fail(path, ("labels", name), str(error)) from None
    return text


def stated(labels: Mapping[str, str]) -> str:
    """Labels as one text: `project=web,team=x`."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _nearest(folder: Path, name: str, not_in: Path | None) -> Path | None:
    return next((path for path in _upwards(folder, name) if path.exists() and path.parent != not_in), None)


def _upwards(folder: Path, name: str) -> Iterator[Path]:
    for place in (folder, *folder.parents):
        yield place / name
