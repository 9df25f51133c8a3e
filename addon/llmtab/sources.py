"""The files a set-up is read from: llmtab.yaml, price files, folders of profiles, names of keys; and how they looked
when read.

Knows where they lie and how they become config, profiles and prices. Must not know mitmproxy's options or when to look.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from llmtab.attribution import keynames
from llmtab.budgets.weights import weighed
from llmtab.config import Config
from llmtab.config import load as load_config
from llmtab.home import config_file, config_place
from llmtab.pricing import PriceBook, default_path
from llmtab.profiles import Profiles

type Stamp = tuple[tuple[str, int, int, int], ...]
"""(path, modification time in ns, bytes, inode) of every file; -1 where there is none."""


class Contents(NamedTuple):
    """What the files said, and how they looked just before they were read."""

    config: Config
    profiles: Profiles
    prices: PriceBook
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Sources:
    """`config`: the file that was named, None for the usual one (which need not be there)."""

    config: Path | None = None
    profiles: tuple[Path, ...] = ()
    pricing: tuple[Path, ...] = ()

    def read(self) -> Contents:
        """Everything read and checked. Raises ConfigError (a ValueError) or OSError with one clear line."""
        stamp = self.stamp()
        config = load_config(self.config or config_file())
        profiles = Profiles.load(self.profiles, config.profile_specs, weighed(config.sections.get("budgets")))
        prices = PriceBook.load(
            extra=self.pricing, overrides=config.pricing, overrides_path=config.path or "llmtab.yaml"
        )
        config = replace(config, key_names=keynames.load(keynames.usual()))
        return Contents(config, profiles, prices, stamp + stamps(config.folders))

    def stamp(self, folders: Sequence[Path] = ()) -> Stamp:
        """How the files look now. `folders`: those that llmtab.yaml names."""
        named = self.config or config_place()
        return stamps([default_path(), *self.pricing, named, *self.profiles, keynames.usual()]) + stamps(folders)


def stamps(paths: Sequence[Path]) -> Stamp:
    """How files, and the profiles in folders, look now."""
    return tuple(_stamp(file) for path in paths for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        yield from sorted([*path.glob("*.yaml"), *path.glob("*.yml")])


def _stamp(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), -1, -1, -1
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
