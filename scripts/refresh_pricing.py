"""Regenerate pricing.yaml from genai-prices, checked against litellm: `python scripts/refresh_pricing.py [--write]`.

Needs the extra `refresh` (genai-prices; litellm's table is optional, `--litellm FILE` reads a copy). Prints what is
new, changed, gone and disputed, and writes with --write. Entries marked `by: hand` stay as they are, byte for byte;
models that the sources dropped stay, for history. A price that changes by more than 3x is refused without --force, and
so is rewriting an entry that was edited without the mark.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "scripts")]

from pricing_genai import Genai  # noqa: E402
from pricing_litellm import Litellm  # noqa: E402
from pricing_merge import PROVIDERS, Provider, Report, merged  # noqa: E402
from pricing_text import entry_lines, flow, scalar, wrapped  # noqa: E402

from llmtab.documents import loads  # noqa: E402
from llmtab.pricing.rates import RATES  # noqa: E402
from llmtab.pricing.schema import validate  # noqa: E402

MOST = 3
HEADER = """\
# What calls cost, in USD. Token prices are per million tokens; searches, pages and calls per thousand; audio per hour.
# Yours to read and edit: mark an entry that you changed `by: hand` and scripts/refresh_pricing.py leaves it alone.
# Better: put your own prices into llmtab.yaml (`pricing:`), in this same form; they win over this file.
#
# A model is found by its id, an alias, or its id with a snapshot date where `dated` says so; nothing else matches.
# `from`: valid from that day on, UTC. `above: {N: ...}`: the whole request, if its prompt (cached tokens included) has
# more than N tokens. `tiers`: rows or factors (`x0.5`) for flex, batch, priority; `regions`: factors by where it ran.
# A counter without a price here makes a call's cost unknown (null), never 0. `free: true` is the only way to be free.
#
# Collected from genai-prices (MIT, Pydantic Services Inc.) and, where `source` says so, litellm (MIT, Berri AI): the
# notices are in LICENSE-pricing. What neither has, and who is right where they differ: scripts/pricing_providers.yaml.
"""


@dataclass
class Changes:
    """What the new table does to the old one."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass
class Old:
    """The file as it stands: its data, the text of each entry with the comments above it, and of each provider."""

    data: dict[str, Any]
    blocks: dict[tuple[str, str], list[str]]
    providers: dict[str, str]


def main(argv: list[str] | None = None) -> int:
    """Exit status 0: fine; 1: refused; 2: bad arguments."""
    options = arguments(argv)
    genai, litellm = Genai(), find_litellm(options.litellm)
    old = read_old(options.file)
    generated = f"genai-prices {genai.version}" + (f", litellm {litellm.version}" if litellm else "")
    same = old.data.get("generated_from") == generated
    as_of = options.as_of or (same and old.data.get("as_of")) or datetime.now(UTC).date().isoformat()
    report, changes = Report(as_of), Changes()
    parts = [
        f"{HEADER}version: 1\ncurrency: USD\nunit: 1000000\nas_of: {as_of}\ngenerated_from: {generated}\nproviders:\n"
    ]
    named = {provider.name: provider for provider in PROVIDERS}
    for name in sorted({*named, *old.providers}):
        if options.only and name not in options.only:
            parts.append(old.providers.get(name, ""))
            continue
        fresh = merged(named[name], genai, litellm, report) if name in named else {}
        parts.append(provider_text(name, named.get(name), fresh, old, changes, as_of, options.force))
    text = "".join(parts)
    validate(loads(text, "new pricing.yaml"), "new pricing.yaml", user=False)
    show(changes, report)
    if changes.refused and not options.force:
        print(f"refused: {len(changes.refused)} (see above); --force writes them all the same", file=sys.stderr)
        return 1
    if options.write and text != (options.file.read_text() if options.file.exists() else None):
        options.file.write_text(text)
        print(f"wrote {options.file}")
    return 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=ROOT / "pricing.yaml", help="the table to refresh")
    parser.add_argument("--litellm", type=Path, help="litellm's model_prices_and_context_window_backup.json")
    parser.add_argument(
        "--as-of", help="the day the sources stand for (default: today, or as before if nothing is new)"
    )
    parser.add_argument("--only", action="append", metavar="PROVIDER", help="refresh this provider and no other")
    parser.add_argument("--write", action="store_true", help="write the file (default: only show what would change)")
    parser.add_argument("--force", action="store_true", help="accept changes above 3x and overwrite unmarked edits")
    return parser.parse_args(argv)


def find_litellm(path: Path | None) -> Litellm | None:
    """litellm's table, or None with a word that its part is missing."""
    try:
        return Litellm(path)
    except (ModuleNotFoundError, StopIteration):
        print("litellm is not installed: nothing is cross-checked, and tiers only it has are missing", file=sys.stderr)
        return None


def read_old(path: Path) -> Old:
    """The present file; empty where there is none."""
    if not path.exists():
        return Old({}, {}, {})
    text = path.read_text()
    data = loads(text, str(path)) or {}
    pieces = re.split(r"^(?=  [a-z][a-z0-9_.-]*:)", text, flags=re.MULTILINE)[1:]
    return Old(data, dict(_blocks(text)), {piece.split(":")[0].strip(): piece for piece in pieces})


def _blocks(text: str) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Each entry's own lines: from the comments above its key to the next key of the same depth."""
    provider, model, lines, comments = "", "", [], []
    models = False
    for line in [*text.splitlines(), "end:"]:
        key = re.match(r"^( *)(?:'([^']*)'|([^\s#'][^\s]*?)):(?: |$)", line)
        depth = len(key[1]) if key else 99
        if line.lstrip().startswith("#"):
            comments.append(line)
            continue
        if key and depth <= 6:
            if model:
                yield (provider, model), lines
            model, lines = "", []
            if depth == 6 and models:
                model, lines = key[2] or key[3], [*comments, line]
            elif depth == 4:
                models = key[3] == "models"
            elif depth == 2:
                provider, models = key[3], False
            comments = []
            continue
        lines += [*comments, line]
        comments = []


def provider_text(
    name: str, provider: Provider | None, fresh: Mapping[str, Any], old: Old, changes: Changes, as_of: str, force: bool
) -> str:
    its = old.data.get("providers", {}).get(name, {})
    before = its.get("models", {})
    hand = {model for model, entry in before.items() if entry.get("by") == "hand"}
    edited = "digest" in its and its["digest"] != digest({key: before[key] for key in before if key not in hand})
    claimed = {alias for model in hand for alias in (model, *before[model].get("aliases", ()))}
    lines: dict[str, list[str]] = {model: old.blocks[name, model] for model in hand}
    generated: dict[str, Any] = {}
    for model in sorted({*fresh, *before} - hand):
        entry = without(fresh.get(model), claimed)
        was = before.get(model)
        if entry is None or model in claimed:
            if was is not None and model not in claimed:
                changes.gone.append(f"{name}/{model} (kept, for history)")
                entry = was
            else:
                continue
        elif was is None:
            changes.new.append(f"{name}/{model}: {summary(entry)}")
        elif normal(entry) != normal(was):
            if edited and not force:
                changes.refused.append(f"{name}/{model}: edited without `by: hand`, or changed: {summary(was)}")
                entry = was
            else:
                entry = with_history(name, model, was, entry, changes, as_of)
        generated[model] = entry
        lines[model] = entry_lines(model, unrolled(entry), "      ")
    for model in sorted(hand & fresh.keys()):
        if summary(fresh[model]) != summary(before[model]):
            changes.kept.append(
                f"{name}/{model}: sources say {summary(fresh[model])}, the hand says {summary(before[model])}"
            )
    return _provider(name, provider, its, lines, generated, as_of)


def _provider(
    name: str, provider: Provider | None, its: Mapping[str, Any], lines: Mapping[str, list[str]],
    generated: Mapping[str, Any], as_of: str,
) -> str:  # fmt: skip
    head: dict[str, Any] = {key: value for key, value in its.items() if key not in ("models", "digest")}
    if provider is not None:
        head |= {"source": provider.source, **provider.settings}
        if any("tiers" in row for entry in generated.values() for row in rows_of(entry)):
            head["tiers_from"] = provider.tiers_from
        head["checked"] = as_of
    head["digest"] = digest(generated)
    order = ("source", "checked", "digest", "models_of", "tiers_from", "regions", "discount", "aliases", "note")
    text = [f"  {name}:"]
    text += [line for key in order if key in head for line in wrapped(f"    {key}: ", flow(head[key]), "      ")]
    text.append("    models:" if lines else "    models: {}")
    for model in sorted(lines):
        text += lines[model]
    return "\n".join(text) + "\n"


def without(entry: Any, claimed: set[str]) -> Any:
    """The entry without names that a hand-written entry has taken."""
    if entry is None or not claimed.intersection(entry.get("aliases", ())):
        return entry
    rest = [alias for alias in entry["aliases"] if alias not in claimed]
    return {key: value for key, value in (entry | {"aliases": rest}).items() if key != "aliases" or rest}


def with_history(name: str, model: str, was: Any, entry: Any, changes: Changes, as_of: str) -> Any:
    """The changed entry. A source without dates overwrites its past: ours gets a dated price instead."""
    old, new = rows_of(was)[-1], rows_of(entry)[-1]
    moved = [key for key in RATES if key in old and key in new and plain(old[key]) != plain(new[key])]
    if len(rows_of(entry)) == 1:
        past, row = rows_of(was), {key: value for key, value in new.items() if key != "from"}
        start = {"from": as_of} if moved else {"from": old["from"]} if "from" in old else {}
        entry = entry | {"prices": [*(past if moved else past[:-1]), start | row]}
    if normal(was) == normal(entry):
        return entry
    said = ", ".join(f"{key} {plain(old[key])} -> {plain(new[key])}" for key in moved) or "names, tiers or steps"
    changes.changed.append(f"{name}/{model}: {said}")
    for key in moved:
        one, two = plain(old[key]), plain(new[key])
        if "input" not in (one, two) and (not one or not two or max(one / two, two / one) > MOST):
            changes.refused.append(f"{name}/{model}: {key} {one} -> {two} is more than {MOST}x")
    return entry


def rows_of(entry: Mapping[str, Any]) -> list[Any]:
    """The dated rows of an entry in either form."""
    if "prices" in entry:
        return list(entry["prices"])
    names = ("aliases", "dated", "max_output", "regions", "source", "note", "by", "extends", "discount")
    return [{key: value for key, value in entry.items() if key not in names}]


def unrolled(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("aliases", "dated", "max_output", "regions", "source", "note", "extends", "discount")
    return {key: entry[key] for key in names if key in entry} | {"prices": rows_of(entry)}


def plain(value: Any) -> Any:
    return value if not isinstance(value, dict) else value["value"] / value["unit"]


def normal(entry: Mapping[str, Any]) -> str:
    """One text for equal entries, whether read from the file or freshly made."""
    return "\n".join(entry_lines("x", unrolled(entry), ""))


def digest(models: Mapping[str, Any]) -> str:
    """Of the generated entries, so that the next refresh sees whether a person edited one of them."""
    whole = "\n".join(f"{model} {normal(models[model])}" for model in sorted(models))
    return hashlib.sha256(whole.encode()).hexdigest()[:8]


def summary(entry: Mapping[str, Any]) -> str:
    row = rows_of(entry)[-1]
    return " ".join(f"{key} {scalar(row[key])}" for key in RATES if key in row and not isinstance(row[key], dict))


def show(changes: Changes, report: Report) -> None:
    for title in ("new", "changed", "gone", "kept", "refused"):
        for line in getattr(changes, title):
            print(f"{title:8} {line}")
    for line in report.disputed:
        print(f"disputed {line}")
    counts = {title: len(getattr(changes, title)) for title in ("new", "changed", "gone", "kept", "refused")}
    print(
        ", ".join(f"{count} {title}" for title, count in counts.items()), f"{len(report.disputed)} disputed", sep=", "
    )


if __name__ == "__main__":
    raise SystemExit(main())
