"""The set-up of a running meter: mitmproxy's `llmtab_*` options turned into profiles, prices, ledger.

Knows option names, defaults and where things lie. Must not know flows. A bad value or file raises ValueError or OSError with
one clear line; the set-up in force is never half changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from llmtab.attribution import Fingerprints
from llmtab.config import Config
from llmtab.home import home
from llmtab.ledger import Ledger
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
from llmtab.sources import Sources, Stamp

CHOICES: Final = {
    "llmtab_intercept": ("llm", "all"),
    "llmtab_table": ("auto", "on", "off"),
    "llmtab_fsync": ("always", "interval", "off"),
}
LEDGER_OPTIONS: Final = ("llmtab_ledger", "llmtab_fsync")


def declare_options(add: Callable[..., None]) -> None:
    """Declare every option of ours to mitmproxy (`mitmdump --options` prints these texts)."""
    add(
        "llmtab_ledger",
        str,
        "",
        "The ledger: one JSON line a call. Default: ~/.llmtab/ledger.jsonl (the folder: $LLMTAB_HOME).",
    )
    add(
        "llmtab_config",
        str,
        "",
        "Path of llmtab.yaml: own hosts and profiles, price overrides. Default: llmtab.yaml in $LLMTAB_HOME, if there.",
    )
    add("llmtab_pricing", Sequence[str], [], "Further price files; a later entry replaces a whole earlier one.")
    add("llmtab_profiles", Sequence[str], [], "Folders (or files) of your own profiles.")
    add(
        "llmtab_intercept", str, "llm", "Which TLS connections are decrypted: llm (only hosts of LLM providers) or all."
    )
    add(
        "llmtab_table",
        str,
        "auto",
        "The live table: auto (when stdout is a terminal and the tool is mitmdump), on, off.",
    )
    add(
        "llmtab_fsync",
        str,
        "interval",
        "When lines reach the disk for certain: always (before the call ends), interval (each second), off.",
    )
    add(
        "llmtab_estimate",
        bool,
        False,
        "Estimate tokens and cost of each call before it leaves; `estimate` on its line says what was expected.",
    )
    add(
        "llmtab_warn_usd",
        str,
        "",
        "Warn of each call that may cost more (USD, p90 of its estimate) and mark its line over_warn, e.g. 0.50. "
        "Switches estimating on.",
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """What is in force. Replaced as a whole when an option or a file changes."""

    config: Config
    profiles: Profiles
    prices: PriceBook
    ledger: Ledger
    fingerprints: Fingerprints
    intercept_all: bool
    table: str
    sources: Sources
    stamp: Stamp
    """How the files of `sources` looked when they were read."""
    estimate: bool
    warn_usd: Decimal | None

    @classmethod
    def read(cls, options: Any, old: "Setup | None") -> "Setup":
        """The set-up that mitmproxy's options describe. Raises ValueError or OSError with one clear line."""
        for name, choices in CHOICES.items():
            if getattr(options, name) not in choices:
                raise ValueError(f"{name}: {getattr(options, name)!r}, expected one of {', '.join(choices)}")
        warn = _amount(options.llmtab_warn_usd, "llmtab_warn_usd")
        sources = Sources(
            _existing(options.llmtab_config, "llmtab_config") if options.llmtab_config else None,
            tuple(_existing(path, "llmtab_profiles") for path in options.llmtab_profiles),
            tuple(_existing(path, "llmtab_pricing") for path in options.llmtab_pricing),
        )
        found = sources.read()
        path = Path(options.llmtab_ledger).expanduser() if options.llmtab_ledger else home() / "ledger.jsonl"
        return cls(
            found.config, found.profiles, found.prices, _ledger(path, options.llmtab_fsync, old),
            Fingerprints(home() / "key"), options.llmtab_intercept == "all", options.llmtab_table,
            sources, found.stamp, options.llmtab_estimate or warn is not None, warn,
        )  # fmt: skip


def _ledger(path: Path, fsync: str, old: Setup | None) -> Ledger:
    if old is not None and old.ledger.path == path and old.ledger.fsync == fsync:
        return old.ledger
    ledger = Ledger(path, fsync=fsync)
    ledger.open()
    if old is not None:
        old.ledger.close()
    return ledger


def _amount(text: str, option: str) -> Decimal | None:
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{option}: {text!r}, expected an amount in USD like 0.50")
    return amount


def _existing(text: str, option: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise ValueError(f"{option}: {text}: no such file or folder")
    return path
