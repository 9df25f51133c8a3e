"""Two sources into one table: who is believed where they differ, which names share an entry, what is left out.

Knows how to decide, by `pricing_providers.yaml`: the providers we list, and rulings made after reading vendors' pages.
Must not know how the sources spell things (`pricing_genai.py`, `pricing_litellm.py`) or the file's text
(`pricing_text.py`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pricing_genai import Genai
from pricing_litellm import Litellm
from pricing_rows import Offer, Row, ordered

from llmtab.documents import load
from llmtab.pricing.names import undated
from llmtab.pricing.rates import RATES

type Rulings = Mapping[tuple[str, str, str], str]
"""(provider, id, key or `*`) -> the source that is right."""


@dataclass(frozen=True)
class Provider:
    """A provider of ours and where its prices are read. `trust`: whose price stands where the two differ on input or
    output (`nobody`: the model stays unpriced until somebody rules). `also`: ids that genai-prices only matches by
    pattern. `defaults`: rates of every model that has no such rate of its own."""

    name: str
    source: str
    genai: str | None = None
    keep: str = ""
    litellm: tuple[str, ...] = ()
    skip: str | None = None
    trust: str = "genai"
    dated: bool = False
    fallback: bool = False
    tiers_from: str = "2026-11-20"
    settings: Mapping[str, Any] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


type Overlay = tuple[tuple[str, re.Pattern[str], str, Row], ...]
"""(provider, ids, the rate a price must have for this, rates that neither source has; None takes a rate away)."""


def configured() -> tuple[list[Provider], Rulings, Overlay]:
    """The providers we list, and the rulings and rates that come from reading the vendors' pages."""
    data = load(Path(__file__).with_name("pricing_providers.yaml"), cache=False)
    lists = ("litellm", "also")
    providers = [
        Provider(name, **{key: tuple(value) if key in lists else value for key, value in row.items()})
        for name, row in data["providers"].items()
    ]
    overlay = tuple((provider, re.compile(ids), has, rates) for provider, ids, has, rates in data["overlay"])
    return providers, {(provider, model, key): right for provider, model, key, right in data["rulings"]}, overlay


PROVIDERS, RULINGS, OVERLAY = configured()
ALONE = 60  # USD per million input tokens: above it litellm alone is not believed (it has slips of the point)
# Bedrock: genai-prices follows AWS's price list for these vendors; for others only litellm has the regional markup.
GEOS = ("", "us.", "eu.", "apac.", "jp.", "au.", "ca.", "in.")  # genai-prices names these in one: `regional.`
GENAI_ON_BEDROCK = re.compile(r"^(?!us-gov\.).*(anthropic|openai|moonshotai|zai)\.")


@dataclass
class Report:
    """What a person should look at: disputes by model and key, and models left out because of them."""

    as_of: str
    disputed: list[str] = field(default_factory=list)


def merged(provider: Provider, genai: Genai, litellm: Litellm | None, report: Report) -> dict[str, Row]:
    """Entries by id, in the form of the file."""
    theirs = litellm.offers(provider.litellm, provider.skip) if litellm else {}
    names = set(theirs) | set(genai.named[provider.genai] if provider.genai else ()) | set(provider.also)
    names |= {geo + name.removeprefix("regional.") for name in names if name.startswith("regional.") for geo in GEOS}
    groups: dict[Any, list[str]] = {}
    rows: dict[str, Row] = {}
    for name in sorted(names):
        if not re.search(provider.keep, name) or re.search(r"[\s*]", name):
            continue
        found = _decide(provider, name, genai, theirs.get(name), report)
        if found is not None:
            offer, entry = found
            entry["prices"] = [_completed(row, provider, name) for row in entry["prices"]]
            rows[name] = entry
            groups.setdefault((offer.group, repr(entry)), []).append(name)
    _join(groups, rows, theirs)
    return dict(sorted(_grouped(provider, groups, rows, genai), key=lambda pair: pair[0]))


def _completed(row: Row, provider: Provider, name: str) -> Row:
    """A price with what the vendor says and neither source has."""
    if "input" not in row:
        return row
    whole = {**provider.defaults, **row}
    for its, ids, has, rates in OVERLAY:
        if its == provider.name and has in row and ids.search(name):
            whole |= rates
    return ordered({key: value for key, value in whole.items() if value is not None})


def _join(groups: dict[Any, list[str]], rows: dict[str, Row], theirs: Mapping[str, Offer]) -> None:
    """Names that only genai-prices has join the entry of the same model of its that litellm added something to."""
    for (group, shape), names in list(groups.items()):
        if any(name in theirs for name in names):
            continue
        others = [key for key in groups if key[0] == group and key[1] != shape and group.lower() in groups[key]]
        if others and str(rows[groups[others[0]][0]].get("source", "genai-prices")).startswith("genai-prices"):
            joined = groups.pop((group, shape))
            rows.update(dict.fromkeys(joined, rows[groups[others[0]][0]]))
            groups[others[0]] = sorted(groups[others[0]] + joined)


def _decide(
    provider: Provider, name: str, genai: Genai, theirs: Offer | None, report: Report
) -> tuple[Offer, Row] | None:
    ours = None
    if provider.genai:
        ours = genai.find(provider.genai, name, provider.tiers_from, fallback=provider.fallback)
    if ours and provider.fallback:
        ours = _borrowed(ours, report.as_of)
    if ours and ours.empty:
        free = name.endswith(":free") or (theirs is not None and theirs.empty and bool(theirs.prices))
        return (ours, {"prices": [{"free": True}]}) if free else None
    if theirs and theirs.empty:
        theirs = None
    if ours is None or theirs is None:
        alone = ours or theirs
        if alone is theirs and alone and alone.prices[-1].get("input", 0) > ALONE:
            report.disputed.append(
                f"{provider.name}/{name}: input {alone.prices[-1]['input']:f} at litellm only: nobody"
            )
            return None
        return (alone, _entry(provider, alone, alone is theirs)) if alone else None
    its, other = _standing(ours.prices, report.as_of), theirs.prices[-1]
    differing = [key for key in ("input", "output") if key in its and key in other and not _close(its[key], other[key])]
    if differing or not any(key in its and key in other for key in RATES if not RATES[key].fee):
        return _ruled(provider, name, genai, ours, theirs, differing, report)
    if RULINGS.get((provider.name, name, "*")) == "litellm":
        return theirs, _entry(provider, theirs, True)
    entry = _supplemented(provider, name, ours, theirs, report)
    return (ours, entry) if all(any(key in RATES for key in row) for row in entry["prices"]) else None


def _borrowed(offer: Offer, as_of: str) -> Offer:
    """A vendor's own offer as a cloud's. Clouds follow a cut weeks later, so the vendor's dates are not theirs and what
    was before is unknown; their tiers and fees are their own as well."""
    own = {"tiers", "from", *(key for key in RATES if RATES[key].fee)}
    rows = [{key: value for key, value in row.items() if key not in own} for row in offer.prices]
    if len(rows) == 1 or not offer.prices:
        return replace(offer, prices=rows)
    row = rows[offer.prices.index(_standing(offer.prices, as_of))]
    return replace(offer, prices=[{"from": as_of} | row])


def _ruled(
    provider: Provider, name: str, genai: Genai, ours: Offer, theirs: Offer, keys: list[str], report: Report
) -> tuple[Offer, Row] | None:
    its, other = _standing(ours.prices, report.as_of), theirs.prices[-1]
    said = ", ".join(f"{key} genai {its[key].normalize():f} litellm {other[key].normalize():f}" for key in keys)
    ruling = RULINGS.get((provider.name, name, "*"))
    by_prefix = provider.genai is not None and name not in genai.named[provider.genai]
    regional = provider.fallback and all(_close(other[key], its[key] * Decimal("1.1")) for key in keys)
    if ruling is None and provider.trust == "vendor":
        ruling = "genai" if GENAI_ON_BEDROCK.search(name) else "litellm"
    elif (
        ruling is None and by_prefix and not regional
    ):  # a tenth more is Azure's regional meter: nobody knows which runs
        ruling = "litellm"  # genai-prices only has a neighbour whose name begins alike, or another seller's price
    ruling = ruling or provider.trust
    report.disputed.append(f"{provider.name}/{name}: {said or 'no price in common'}: {ruling}")
    if ruling == "nobody":
        return None
    return (theirs, _entry(provider, theirs, True)) if ruling == "litellm" else (ours, _entry(provider, ours, False))


def _entry(provider: Provider, offer: Offer, only_litellm: bool) -> Row:
    entry: Row = {}
    if only_litellm:
        entry["source"] = "litellm"
    if offer.max_output:
        entry["max_output"] = offer.max_output
    if offer.regions and "regions" not in provider.settings:
        entry["regions"] = dict(offer.regions)
    entry["prices"] = [_renamed(row, provider.rename) for row in offer.prices]
    return entry


def _supplemented(provider: Provider, name: str, ours: Offer, theirs: Offer, report: Report) -> Row:
    """genai's entry with what only litellm has, in the price that stands now (litellm's figures have no dates)."""
    entry = _entry(provider, ours, False)
    standing = _standing(ours.prices, report.as_of)
    index = ours.prices.index(standing)
    row = dict(entry["prices"][index])
    other = _renamed(theirs.prices[-1], provider.rename)
    taken = []
    for key, value in other.items():
        if key in RATES and key not in row and not _implausible(key, value, other):
            row[key] = value
            taken.append(key)
        elif key in RATES and key in row and not _close(row[key], value):
            ruling = RULINGS.get((provider.name, name, key)) or ("nobody" if provider.trust == "nobody" else "genai")
            report.disputed.append(f"{provider.name}/{name}: {key} genai {row[key]:f} litellm {value:f}: {ruling}")
            if ruling == "litellm":
                row[key] = value
            elif ruling == "nobody":
                del row[key]
    if "above" in row:
        row["above"] = _steps_with(row["above"], other.get("above", {}), taken)
    taken += _more_tiers(row, other, report, f"{provider.name}/{name}")
    if taken:
        entry["source"] = f"genai-prices; litellm: {', '.join(sorted(set(taken)))}"
    entry["prices"][index] = ordered(row)
    if theirs.max_output:
        entry["max_output"] = theirs.max_output
    if theirs.regions and "regions" not in provider.settings:
        entry["regions"] = dict(theirs.regions)
    return {key: entry[key] for key in ("source", "max_output", "regions", "prices") if key in entry}


def _implausible(key: str, value: Decimal, row: Row) -> bool:
    """A cached read is never dearer than input, nor a write cheaper: litellm has such slips."""
    known = row.get("input", value)
    return value >= known if key == "cache_read" else key == "cache_write" and value < known


def _more_tiers(row: Row, other: Row, report: Report, name: str) -> list[str]:
    taken = []
    tiers = dict(row.get("tiers", {}))
    for tier, its in other.get("tiers", {}).items():
        if tier not in tiers:
            tiers[tier] = its
            taken.append(tier)
        elif isinstance(mine := tiers[tier], dict) and isinstance(its, dict):
            more = {key: its[key] for key in its if key not in mine and key != "above"}
            if more:
                tiers[tier] = _with_steps(mine, its, more)
                taken.append(tier)
            report.disputed += [
                f"{name}: {tier} {key} genai {mine[key]:f} litellm {its[key]:f}: genai"
                for key in mine if key in RATES and key in its and not _close(mine[key], its[key])
            ]  # fmt: skip
    if tiers:
        row["tiers"] = dict(sorted(tiers.items()))
    return taken


def _with_steps(mine: Row, its: Row, more: Row) -> Row:
    row = ordered(mine | more)
    if "above" in mine:
        row["above"] = _steps_with(mine["above"], its.get("above", {}), more)
    return row


def _steps_with(mine: Row, its: Row, keys: Iterable[str]) -> Row:
    """Long-context steps with the other source's figures for `keys`, where it has that step."""
    keys = list(keys)
    return {
        size: ordered({key: its[size][key] for key in keys if key in its.get(size, {})} | step)
        for size, step in mine.items()
    }


def _standing(prices: list[Row], as_of: str) -> Row:
    """The price in force when the table is made (dated ones may lie in the future)."""
    return [row for row in prices if row.get("from", "") <= as_of][-1]


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return ordered({names.get(key, key): value for key, value in row.items()})


def _close(one: Decimal, two: Decimal) -> bool:
    """Equal but for a vendor's rounding to the cent of a halved price."""
    return one == two or abs(one - two) <= Decimal("0.001") * max(one, two)


def _grouped(
    provider: Provider, groups: Mapping[Any, list[str]], rows: Mapping[str, Row], genai: Genai
) -> Iterator[tuple[str, Row]]:
    """Names of one price share an entry: the shortest is its id, snapshots are `dated`, the others aliases."""
    for (group, _), names in groups.items():
        head = _head(provider, group.lower(), names, rows, genai)
        dates, aliases = [], []
        for name in names:
            found = undated(name)
            if name == head:
                continue
            if found and found[0] == head:
                dates.append(name.removeprefix(head)[1:])
            else:
                aliases.append(name)
        entry: Row = {}
        if aliases:
            entry["aliases"] = aliases
        snapshots = provider.dated and provider.genai and undated(head) is None
        if snapshots and genai.covers_dates(str(provider.genai), head):
            entry["dated"] = True
            short = [date for date in dates if len(date) == 4]
            if short:
                entry["aliases"] = sorted([*aliases, *(f"{head}-{date}" for date in short)])
        elif dates:
            entry["dated"] = sorted(dates)
        yield head, entry | rows[names[0]]


def _head(provider: Provider, group: str, names: list[str], rows: Mapping[str, Row], genai: Genai) -> str:
    """The source's own id if it is one of the names, else the shortest; without `-latest` where snapshots follow it."""
    head = group if group in names else min(names, key=lambda name: (undated(name) is not None, len(name), name))
    bare = head.removesuffix("-latest")
    if bare in rows or not provider.dated or not provider.genai or not genai.covers_dates(provider.genai, bare):
        return head
    return bare if genai.same(provider.genai, bare, head) else head
