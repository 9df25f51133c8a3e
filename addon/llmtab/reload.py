"""Edits of price files and llmtab.yaml, picked up while running: looked for seldom, read in a thread, swapped whole.

Knows when to look and what to say. Must not know what the files hold, nor mitmproxy. What was read last without an
error stays in force until all files can be read again.
"""

import logging
from dataclasses import replace
from threading import Thread
from typing import Final, NamedTuple

from llmtab.config import Config
from llmtab.pricing.compare import diff
from llmtab.profiles import Profiles
from llmtab.setup import Setup
from llmtab.sources import Contents, Stamp

log = logging.getLogger("llmtab")

EVERY: Final = 2.0
"""Seconds between two looks at the files."""
SHOWN: Final = 20
"""Changes named one by one; the rest is counted."""


class _Read(NamedTuple):
    """What a thread brings back: the files as it found them, or why they cannot be used."""

    setup: Setup
    stamp: Stamp
    contents: Contents | None
    error: str
    changes: list[str]


class Reloader:
    """Call `tick` about once a second, from one thread. `trouble`: what is wrong with the files now, "" if nothing."""

    def __init__(self) -> None:
        self.trouble = ""
        self._looked = float("-inf")
        self._thread: Thread | None = None
        self._found: _Read | None = None
        self._refused: _Read | None = None

    def tick(self, setup: Setup, now: float) -> Setup | None:
        """The set-up to put in force in place of `setup`, if an edit was read. `now`: seconds of a steady clock."""
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread, found, self._found = None, self._found, None
            return self._take(found) if found is not None and found.setup is setup else None
        if now - self._looked >= EVERY:
            self._looked = now
            self._look(setup)
        return None

    def _look(self, setup: Setup) -> None:
        stamp = setup.sources.stamp(setup.config.folders)
        if stamp == setup.stamp:
            self._mended("the files are as they were")
        elif self._refused is not None and stamp == self._refused.stamp:
            self._complain(self._refused.error)  # it stayed like that: not just a file that was being written
        else:
            self._thread = Thread(target=self._read, args=(setup, stamp), name="llmtab-reload", daemon=True)
            self._thread.start()

    def _read(self, setup: Setup, stamp: Stamp) -> None:
        """In a thread: parsing may take half a second."""
        try:
            new = setup.sources.read()
            self._found = _Read(setup, stamp, new, "", _changes(setup, new))
        except (ValueError, OSError, RecursionError) as error:
            self._found = _Read(setup, stamp, None, str(error), [])

    def _take(self, found: _Read) -> Setup | None:
        new = found.contents
        if new is None:
            self._refused = found
            return None
        self._mended("they can be read again")
        for change in found.changes[:SHOWN]:
            log.info("llmtab: %s", change)
        if len(found.changes) > SHOWN:
            log.info("llmtab: and %d more changes", len(found.changes) - SHOWN)
        return replace(
            found.setup, config=new.config, profiles=new.profiles, prices=new.prices, stamp=new.stamp
        )  # fmt: skip

    def _complain(self, error: str) -> None:
        said = f"an edit is not in force, what was read before it still is: {error}"
        if self.trouble != said:
            self.trouble = said
            log.error("llmtab: %s", said)

    def _mended(self, why: str) -> None:
        if self.trouble:
            log.info("llmtab: the trouble with the files is over: %s", why)
        self.trouble, self._refused = "", None


def _changes(old: Setup, new: Contents) -> list[str]:
    """What the edit did, a line each."""
    prices = [f"prices: {line}" for line in diff(old.prices, new.prices)]
    return prices + _moved(old.profiles, new.profiles) + _said(old.config, new.config)


def _said(old: Config, new: Config) -> list[str]:
    """Sections of llmtab.yaml that say something else now, and the names of keys."""
    names = sorted(old.sections.keys() | new.sections.keys())
    changed = [name for name in names if old.sections.get(name) != new.sections.get(name)]
    changed += ["names of keys"] if old.key_names != new.key_names else []
    return [f"config: changed {name}" for name in changed]


def _moved(old: Profiles, new: Profiles) -> list[str]:
    before = {name: provider.spec for name, provider in old.providers.items()}
    after = {name: provider.spec for name, provider in new.providers.items()}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            word = "new" if name not in before else "gone" if name not in after else "changed"
            lines.append(f"profiles: {word} {name}")
    return lines
