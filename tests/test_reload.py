"""Edited price files, profiles and llmtab.yaml: picked up while running, and a broken edit changes nothing."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmtab.pricing import Cost, PriceBook
from llmtab.reload import EVERY, SHOWN, Reloader
from llmtab.setup import Setup, declare_options
from llmtab.upkeep import Upkeep, warn_of_age
from llmtab.usage import Usage
from pricing_helpers import load_book

NOW = datetime.now(UTC)
PRICES = "providers: {{openai: {{models: {{our-model: {{input: {0}, output: 8}}}}}}}}\n"
HOSTS = "hosts: {{{0}: {{profile: openai}}}}\n"


def options(folder: Path, **more: Any) -> Any:
    """mitmproxy's options: ours at their defaults, but for those given."""
    values: dict[str, Any] = {}
    declare_options(lambda name, kind, default, *rest: values.__setitem__(name, default))
    values |= {"llmtab_ledger": str(folder / "ledger.jsonl"), "llmtab_fsync": "off", **more}
    return SimpleNamespace(**values)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def setup(home: Path) -> Setup:
    """Set up from a price file and llmtab.yaml."""
    (home / "prices.yaml").write_text(PRICES.format(2))
    (home / "llmtab.yaml").write_text(HOSTS.format("a.example.com"))
    return Setup.read(options(home, llmtab_pricing=[str(home / "prices.yaml")]), None)


class Clock:
    """Ticks a reloader as the meter does, once a second; what it says is put in force."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.reloader = Reloader()
        self.now = 0.0

    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1
            self.setup = self.reloader.tick(self.setup, self.now) or self.setup
            if self.reloader._thread is not None:
                self.reloader._thread.join()


def price(setup: Setup) -> Decimal | None:
    found = setup.prices.price(Usage({"input_tokens": 1_000_000}), "openai", "our-model", at=NOW)
    return found.usd if isinstance(found, Cost) else None


def write(path: Path, text: str) -> None:
    """An edit that nobody can miss, however coarse the clock of the disk is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_an_edit_is_picked_up_and_told(setup: Setup, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """New prices hold from the next look on, swapped whole; what changed is logged; the ledger stays the same one."""
    clock = Clock(setup)
    clock.tick(5)
    assert clock.setup is setup, "nothing was edited"
    write(home / "prices.yaml", PRICES.format(3))
    with caplog.at_level(logging.INFO, "llmtab"):
        clock.tick(4)
    assert (price(setup), price(clock.setup)) == (2, 3)
    assert clock.setup.ledger is setup.ledger
    assert caplog.messages == ["llmtab: prices: changed openai/our-model: input 2 -> 3"]
    again = clock.setup
    clock.tick(5)
    assert clock.setup is again


def test_files_are_looked_at_seldom(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every two seconds at most, whatever the ticks."""
    looks: list[float] = []
    monkeypatch.setattr(Reloader, "_look", lambda self, setup: looks.append(self._looked))
    reloader = Reloader()
    for step in range(100):
        reloader.tick(setup, step / 10)
    assert all(later - sooner >= EVERY for sooner, later in pairwise(looks))
    assert len(looks) == 5


@pytest.mark.parametrize(
    "broken", ["providers: [", "providers: {openai: {models: {m: {input: -1}}}}", "", "a: 1\na: 2\n"]
)
def test_a_broken_edit_changes_nothing(setup: Setup, home: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """The last good table stays in force, one clear error names file and line, and `trouble` says so until mended."""
    clock = Clock(setup)
    (home / "prices.yaml").unlink() if not broken else write(home / "prices.yaml", broken)
    with caplog.at_level(logging.ERROR, "llmtab"):
        clock.tick(20)
    assert clock.setup is setup
    [said] = caplog.messages
    assert "prices.yaml" in said
    assert "what was read before it still is" in said
    assert clock.reloader.trouble in said
    write(home / "prices.yaml", PRICES.format(4))
    clock.tick(4)
    assert (price(clock.setup), clock.reloader.trouble) == (4, "")


def test_a_mended_file_that_is_as_before_is_well_again(setup: Setup, home: Path) -> None:
    """Undoing the edit by restoring the very file ends the trouble as well."""
    clock = Clock(setup)
    kept = (home / "prices.yaml").rename(home / "kept.yaml")
    clock.tick(8)
    assert "prices.yaml" in clock.reloader.trouble
    kept.rename(home / "prices.yaml")
    clock.tick(4)
    assert clock.reloader.trouble == ""
    assert clock.setup is setup


def test_half_a_file_is_not_an_error(setup: Setup, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file caught in the middle of being written is looked at again before anything is said about it."""
    clock = Clock(setup)
    write(home / "prices.yaml", "providers: {openai")
    clock.tick(2)
    write(home / "prices.yaml", PRICES.format(5))
    with caplog.at_level(logging.ERROR, "llmtab"):
        clock.tick(6)
    assert price(clock.setup) == 5
    assert not caplog.messages


def test_profiles_of_llmtab_yaml_are_picked_up(setup: Setup, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A host added to llmtab.yaml is metered without a restart; one taken out is not any more."""
    clock = Clock(setup)
    assert setup.profiles.at_host("a.example.com")
    write(home / "llmtab.yaml", HOSTS.format("b.example.com"))
    with caplog.at_level(logging.INFO, "llmtab"):
        clock.tick(4)
    assert clock.setup.profiles.at_host("b.example.com")
    assert not clock.setup.profiles.at_host("a.example.com")
    assert caplog.messages == ["llmtab: profiles: changed openai"]


def test_a_config_that_appears_or_goes_is_picked_up(home: Path) -> None:
    """The usual llmtab.yaml need not be there at the start, nor stay."""
    clock = Clock(Setup.read(options(home), None))
    write(home / "llmtab.yaml", "pricing: {providers: {openai: {models: {our-model: {input: 9}}}}}")
    clock.tick(4)
    assert price(clock.setup) == 9
    (home / "llmtab.yaml").unlink()
    clock.tick(4)
    assert price(clock.setup) is None
    assert clock.reloader.trouble == ""


def test_folders_of_profiles_are_watched(home: Path) -> None:
    """A profile put into a folder, named by an option or by llmtab.yaml, is picked up."""
    profile = "provider: mine\nhosts: [{0}]\nserves: [{{openai: /v1}}]\nsource: https://example.com\n"
    for name in ("one", "two"):
        (home / name).mkdir()
    (home / "llmtab.yaml").write_text("profiles: [two]\n")
    clock = Clock(Setup.read(options(home, llmtab_profiles=[str(home / "one")]), None))
    for name in ("one", "two"):
        write(home / name / "mine.yaml", profile.format(f"{name}.example.com"))
        clock.tick(4)
        assert clock.reloader.trouble == ""
        assert clock.setup.profiles.at_host(f"{name}.example.com"), name


def test_an_edit_beside_new_options_is_dropped(setup: Setup, home: Path) -> None:
    """Where options change while files are being read, what was read for the old ones is never put in force."""
    reloader, other = Reloader(), Setup.read(options(home), setup)
    write(home / "prices.yaml", PRICES.format(3))
    assert reloader.tick(setup, 2) is None
    assert reloader._thread is not None
    reloader._thread.join()
    assert reloader.tick(other, 3) is None
    assert reloader.tick(other, 6) is None


def test_rules_and_names_of_keys_are_picked_up(setup: Setup, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Any section of llmtab.yaml, and the names of keys, hold from the next look on; the log says which changed."""
    clock = Clock(setup)
    clock.tick(5)
    with caplog.at_level(logging.INFO):
        write(home / "llmtab.yaml", HOSTS.format("a.example.com") + "rules: [{labels: {project: web}}]\n")
        write(home / "keys.yaml", "k_0123456789abcdef: ci bot\n")
        clock.tick(5)
    assert clock.setup.config.sections["rules"][0]["labels"] == {"project": "web"}
    assert clock.setup.config.key_names == {"k_0123456789abcdef": "ci bot"}
    assert caplog.messages == ["llmtab: config: changed rules", "llmtab: config: changed names of keys"]


def test_many_changes_are_counted(setup: Setup, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A whole new table does not flood the log."""
    rows = "".join(f"      m{number}: {{input: 1}}\n" for number in range(SHOWN + 5))
    write(home / "prices.yaml", "providers:\n  openai:\n    models:\n" + rows)
    clock = Clock(setup)
    with caplog.at_level(logging.INFO, "llmtab"):
        clock.tick(4)
    assert len(caplog.messages) == SHOWN + 1
    assert caplog.messages[-1] == "llmtab: and 6 more changes"  # 25 new, one gone


# -- beside it ---------------------------------------------------------------------------------------------------------


def test_old_prices_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A table older than 60 days is a warning at the start (an error would end mitmdump's) and a note in the table."""
    book = load_book(tmp_path)
    day = datetime.fromisoformat(book.as_of or "").date()
    assert book.stale_note(day + timedelta(days=60)) is None
    said = book.stale_note(day + timedelta(days=61)) or ""
    assert "prices of 2026-11-20 are 61 days old" in said
    old = PriceBook.load(old_table(tmp_path))
    setup: Any = SimpleNamespace(prices=old)
    with caplog.at_level(logging.WARNING, "llmtab"):
        warn_of_age(setup)
    [record] = caplog.records
    assert (record.levelname, "days old" in record.message) == ("WARNING", True)


def old_table(folder: Path) -> Path:
    path = folder / "old.yaml"
    path.write_text("as_of: 2024-01-01\n" + PRICES.format(2))
    return path


def test_the_table_is_told_of_trouble_and_age(setup: Setup, home: Path) -> None:
    """What is wrong with a file, and how old the prices are, is a note until it is over."""
    notes: dict[str, str | None] = {}
    upkeep = Upkeep()
    upkeep._reloader.trouble = "an edit is not in force"
    old: Any = SimpleNamespace(
        prices=PriceBook.load(old_table(home)), sources=setup.sources, stamp=setup.stamp, config=setup.config
    )
    upkeep.tick(old, notes.__setitem__)
    assert "days old" in (notes["age"] or "")
    upkeep.tick(setup, notes.__setitem__)
    assert (notes["files"], notes["age"]) == ("", setup.prices.stale_note(datetime.now(UTC).date()))


@pytest.mark.parametrize(("warn", "estimate"), [("", False), ("", True), ("0.5", False)])
def test_estimates_are_switched(home: Path, warn: str, estimate: bool) -> None:
    """Off without a word; on by `llmtab_estimate`, or by an amount to warn of; off again any time."""
    upkeep = Upkeep()
    setup = Setup.read(options(home, llmtab_warn_usd=warn, llmtab_estimate=estimate), None)
    assert upkeep.switch(setup) == bool(warn or estimate)
    assert setup.warn_usd == (Decimal(warn) if warn else None)
    assert upkeep.switch(Setup.read(options(home), setup)) is False


@pytest.mark.parametrize("amount", ["much", "-1", "NaN", "inf", "$5"])
def test_an_amount_that_is_none_stops_the_start(home: Path, amount: str) -> None:
    """One line with the option, the value and what was expected."""
    with pytest.raises(ValueError, match=r"llmtab_warn_usd: .* expected an amount in USD"):
        Setup.read(options(home, llmtab_warn_usd=amount), None)


def test_nothing_is_read_twice_for_the_same_reason(setup: Setup, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A broken file is parsed once, not every two seconds until somebody mends it."""
    reads: list[int] = []
    real: Callable[..., Any] = Reloader._read

    def counted(self: Reloader, *given: Any) -> None:
        reads.append(1)
        real(self, *given)

    monkeypatch.setattr(Reloader, "_read", counted)
    clock = Clock(setup)
    write(home / "prices.yaml", "nonsense")
    clock.tick(60)
    assert len(reads) == 1
