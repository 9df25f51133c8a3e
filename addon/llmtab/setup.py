"""The set-up of a running meter: mitmproxy's `llmtab_*` options turned into profiles, prices, ledger.

Knows option names, defaults and where things lie. Must not know flows. A bad value or file raises ValueError or
OSError with one clear line; the set-up in force is never half changed.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from llmtab import environment
from llmtab.attribution.fingerprints import Fingerprints
from llmtab.attribution.labels import stated_labels
from llmtab.budgets.amounts import amount
from llmtab.config import Config
from llmtab.home import home
from llmtab.ledger.chain import chain_key
from llmtab.ledger.housekeeping import Policy
from llmtab.ledger.repair import too_open, too_wide
from llmtab.ledger.retention import span
from llmtab.ledger.rotation import rotation
from llmtab.ledger.writer import Ledger
from llmtab.pricing import PriceBook
from llmtab.profiles import Profiles
from llmtab.sources import Sources, Stamp

log = logging.getLogger("llmtab")

CHOICES: Final = {
    "llmtab_intercept": ("llm", "all"),
    "llmtab_table": ("auto", "on", "off"),
    "llmtab_fsync": ("always", "interval", "off"),
}
IS_GROUPING: Final = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch
LEDGER_OPTIONS: Final = ("llmtab_ledger", "llmtab_fsync")
# fmt: off
OPTIONS: Final[tuple[tuple[str, Any, Any, str], ...]] = (
    ("llmtab_ledger", str, "",
     "The ledger: one JSON line a call. Default: ~/.llmtab/ledger.jsonl (the folder: $LLMTAB_HOME)."),
    ("llmtab_config", str, "",
     "Path of llmtab.yaml: own hosts and profiles, price overrides. Default: llmtab.yaml in $LLMTAB_HOME, if "
     "there."),
    ("llmtab_labels", str, "",
     "Labels of every call, e.g. project=web,team=x. A call's own headers and the proxy's user win over them."),
    ("llmtab_pricing", Sequence[str], (),
     "Further price files; a later entry replaces a whole earlier one."),
    ("llmtab_profiles", Sequence[str], (),
     "Folders (or files) of your own profiles."),
    ("llmtab_intercept", str, "llm",
     "Which TLS connections are decrypted: llm (only hosts of LLM providers) or all."),
    ("llmtab_table", str, "auto",
     "The live table: auto (when stdout is a terminal and the tool is mitmdump), on, off."),
    ("llmtab_by", str, "model",
     "What the live table groups calls by: model, provider, host, outcome, ... or any label such as project."),
    ("llmtab_fsync", str, "interval",
     "When lines reach the disk for certain: always (before the call ends), interval (each second), off."),
    ("llmtab_rotate", str, "",
     "When a ledger file is finished and a new one begun: a size like 100MB, or day. Default: what llmtab.yaml "
     "says."),
    ("llmtab_chain_key", str, "",
     "Path of a key file: the ledger's chain is an HMAC with it, which nobody without the key can recompute."),
    ("llmtab_estimate", bool, False,
     "Estimate tokens and cost of each call before it leaves; `estimate` on its line says what was expected."),
    ("llmtab_warn_usd", str, "",
     "Warn of each call that may cost more (USD, p90 of its estimate) and mark its line over_warn, e.g. 0.50. "
     "Switches estimating on."),
    ("llmtab_budget", str, "",
     "A hard limit for this process, e.g. 5 USD or 2M tokens; further ones are `budgets:` in llmtab.yaml."),
    ("llmtab_inject_usage", bool, False,
     "Ask OpenAI-shaped streams for their usage where the client does not (on hosts known to take it), and hide "
     "the chunk that comes for it."),
)
# fmt: on
"""(name, type, default, what `mitmdump --options` says of it)."""


def declare_options(add: Callable[..., None]) -> None:
    """Declare every option of ours to mitmproxy; the environment gives defaults (LLMTAB_LEDGER for llmtab_ledger)."""
    found = environment.defaults(OPTIONS, os.environ)
    for name, kind, _, text in OPTIONS:
        add(name, kind, found[name], text)


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
    rotate: str
    labels: Mapping[str, str]
    """Of every call: what `llmtab_labels` says."""
    budget: str
    """Of this process alone: `5 USD`, "" for none."""
    inject: bool = False
    """Whether streams are asked for their usage."""

    @property
    def policy(self) -> Policy:
        """Rotation (the option, else llmtab.yaml) and retention of the ledger."""
        config = self.config
        return Policy(rotation(self.rotate or config.rotate, config.timezone), span(config.keep))

    @classmethod
    def read(cls, options: Any, old: "Setup | None") -> "Setup":
        """The set-up that mitmproxy's options describe. Raises ValueError or OSError with one clear line."""
        sources = checked(options)
        found = sources.read()
        if old is None or old.sources.config != sources.config:
            _name_what_is_open(sources.config or home() / "llmtab.yaml")
            for said in environment.misspelt(OPTIONS, os.environ):
                log.warning("llmtab: %s", said)
        warn = _amount(options.llmtab_warn_usd, "llmtab_warn_usd")
        path = Path(options.llmtab_ledger).expanduser() if options.llmtab_ledger else home() / "ledger.jsonl"
        return cls(
            found.config, found.profiles, found.prices,
            _ledger(path, options.llmtab_fsync, _chain_key(options.llmtab_chain_key), old),
            Fingerprints(home() / "key"), options.llmtab_intercept == "all", options.llmtab_table,
            sources, found.stamp, options.llmtab_estimate or warn is not None, warn,
            options.llmtab_rotate, _labels(options.llmtab_labels), options.llmtab_budget,
            options.llmtab_inject_usage,
        )  # fmt: skip


def checked(options: Any) -> Sources:
    """The files that the options name, once every option is found to be one that can hold. Raises ValueError."""
    environment.check(OPTIONS, os.environ)
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise ValueError(f"{name}: {getattr(options, name)!r}, expected one of {', '.join(choices)}")
    if not IS_GROUPING(options.llmtab_by):
        raise ValueError(f"llmtab_by: {options.llmtab_by!r}, expected model, provider or a label's name")
    try:
        rotation(options.llmtab_rotate)
    except ValueError as error:
        raise ValueError(f"llmtab_rotate: {error}") from None
    _labels(options.llmtab_labels)
    _amount(options.llmtab_warn_usd, "llmtab_warn_usd")
    try:
        if options.llmtab_budget:
            amount(options.llmtab_budget)
    except ValueError as error:
        raise ValueError(f"llmtab_budget: {error}") from None
    return Sources(
        _existing(options.llmtab_config, "llmtab_config") if options.llmtab_config else None,
        tuple(_existing(path, "llmtab_profiles") for path in options.llmtab_profiles),
        tuple(_existing(path, "llmtab_pricing") for path in options.llmtab_pricing),
    )


def held(options: Any) -> Config:
    """What a start with these options would put in force; nothing is begun or written. Raises as the start would."""
    found = checked(options).read()
    if options.llmtab_chain_key:
        chain_key(_existing(options.llmtab_chain_key, "llmtab_chain_key"))
    spec = found.config.sections.get("budgets")
    if spec or options.llmtab_budget:
        from llmtab.budgets.policy import policy

        said = policy(spec, found.config.timezone, options.llmtab_budget, 0.0)
        if said and said.store is not None:
            from llmtab.budgets.redis_store import RedisStore  # the extra `redis`; made, it has not connected yet

            RedisStore(said.store, "check", None, said.limits)
    return found.config


def _chain_key(text: str) -> bytes | None:
    if not text:
        return None
    path = _existing(text, "llmtab_chain_key")
    if said := too_wide(path):
        log.warning("llmtab: %s", said)
    return chain_key(path)


def _ledger(path: Path, fsync: str, key: bytes | None, old: Setup | None) -> Ledger:
    if old is not None and (old.ledger.path, old.ledger.fsync, old.ledger.key) == (path, fsync, key):
        return old.ledger
    ledger = Ledger(path, fsync=fsync, key=key)
    ledger.open()
    if old is not None:
        old.ledger.close()
    return ledger


def _name_what_is_open(config: Path) -> None:
    """Warn of what others on this machine may read: the keys of fingerprints, webhooks and stores are in there."""
    for said in (too_open(home()), too_wide(home() / "key"), too_wide(config)):
        if said:
            log.warning("llmtab: %s", said)


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


def _labels(text: str) -> Mapping[str, str]:
    try:
        return stated_labels(text)
    except ValueError as error:
        raise ValueError(f"llmtab_labels: {error}") from None


def _existing(text: str, option: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise ValueError(f"{option}: {text}: no such file or folder")
    return path
