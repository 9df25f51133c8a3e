"""Two sources into one table: who is believed where they differ, which names share an entry, what is left out.

Knows the providers we list and the rulings made after looking at the vendors' pages (docs and dates beside each). Must not
know how the sources spell things (`pricing_sources.py`) or the file's text (`pricing_text.py`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pricing_sources import Genai, Litellm, Offer, Row, ordered

from llmtab.pricing.names import undated
from llmtab.pricing.rates import RATES

SINCE = "2026-10-14"  # genai-prices has tier prices since then; nobody has their history
FIRST = "2026-11-20"  # tier prices that only litellm has are known since our first table


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
    tiers_from: str = FIRST
    settings: Mapping[str, Any] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


UPLIFT = {"eu": Decimal("1.1"), "us": Decimal("1.1")}
GEMINI_VERSIONS = (
    "gemini-1.5-flash-001", "gemini-1.5-flash-002", "gemini-1.5-pro-001", "gemini-1.5-pro-002", "gemini-2.0-flash-001",
    "gemini-2.0-flash-lite-001", "gemini-2.5-pro-preview-03-25", "gemini-2.5-pro-preview-05-06",
    "gemini-2.5-pro-preview-06-05", "gemini-2.5-flash-preview-04-17", "gemini-2.5-flash-preview-05-20",
)  # fmt: skip
GROUNDING = {"web_search": "grounding"}  # Google bills grounded prompts or queries, not searches by a tool
# fmt: off
PROVIDERS = (
    Provider("anthropic", "https://platform.claude.com/docs/en/about-claude/pricing", "anthropic", litellm=("anthropic",), skip=r"^(bedrock|vertex_ai)/", dated=True, tiers_from=SINCE),
    Provider("ai21", "https://www.ai21.com/pricing", litellm=("ai21",)),
    Provider("arcee", "https://docs.arcee.ai/get-started/pricing", "arcee"),
    Provider("avian", "https://avian.io/pricing/", "avian"),
    Provider("azure", "https://azure.microsoft.com/en-us/pricing/details/cognitive-services/openai-service/", "azure", litellm=("azure", "azure_ai", "azure_text"), skip=r"^azure(_ai)?/[^/]+/.+|container|/mistral-ocr", trust="nobody", fallback=True),
    Provider("baseten", "https://www.baseten.co/pricing/", "baseten", litellm=("baseten",), trust="nobody"),
    Provider("bedrock", "https://aws.amazon.com/bedrock/pricing/", "aws", r"^([a-z-]+\.)?(ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|moonshotai|nvidia|openai|qwen|stability|twelvelabs|writer|zai)\.", ("bedrock", "bedrock_converse", "bedrock_mantle"), r"^(bedrock|\d+-x|max-x)/|commitment", trust="vendor"),
    Provider("bedrock-mantle", "https://aws.amazon.com/bedrock/pricing/", settings={"models_of": "bedrock"}),
    Provider("cerebras", "https://www.cerebras.ai/pricing", "cerebras", r"^(?!cerebras[/:])", ("cerebras",), defaults={"cache_read": "input"}),  # inference-docs.cerebras.ai/capabilities/prompt-caching: billed as input
    Provider("cloudflare", "https://developers.cloudflare.com/workers-ai/platform/pricing/", "cloudflare", litellm=("cloudflare",)),
    Provider("cohere", "https://cohere.com/pricing", "cohere", litellm=("cohere", "cohere_chat")),
    Provider("crusoe", "https://www.crusoe.ai/cloud/pricing", litellm=("crusoe",)),
    Provider("dashscope", "https://www.alibabacloud.com/help/en/model-studio/model-pricing", litellm=("dashscope",)),
    Provider("databricks", "https://www.databricks.com/product/pricing/foundation-model-serving", "databricks", litellm=("databricks",), trust="nobody"),
    Provider("deepinfra", "https://deepinfra.com/pricing", litellm=("deepinfra",)),
    Provider("deepseek", "https://api-docs.deepseek.com/quick_start/pricing", "deepseek", litellm=("deepseek",), skip=r"search", defaults={"cache_write": "input"}),  # filling the cache is billed as input
    Provider("doubleword", "https://docs.doubleword.ai/inference-api/models", "doubleword"),
    Provider("elevenlabs", "https://elevenlabs.io/pricing/api", "elevenlabs", litellm=("elevenlabs",)),
    Provider("fireworks", "https://fireworks.ai/pricing", "fireworks", litellm=("fireworks_ai", "fireworks_ai-embedding-models"), skip=r"^fireworks-ai-", trust="nobody"),
    Provider("github-copilot", "https://docs.github.com/en/copilot/reference/copilot-billing", "github-copilot", litellm=(), trust="genai"),
    Provider("google", "https://ai.google.dev/gemini-api/docs/pricing", "google", r"^(?!.*claude|gemini-flash-1\.5|gemini-pro-1\.5)", ("gemini",), tiers_from=SINCE, rename=GROUNDING, also=GEMINI_VERSIONS),
    Provider("groq", "https://groq.com/pricing", "groq", litellm=("groq",), tiers_from=SINCE),
    Provider("meta", "https://dev.meta.ai/docs/pricing-rate-limits", "meta", litellm=("meta", "meta_llama")),
    Provider("minimax", "https://platform.minimax.io/docs/pricing/overview", "minimax", litellm=("minimax",)),
    Provider("mistral", "https://mistral.ai/pricing/api", "mistral", litellm=("mistral", "codestral"), tiers_from=SINCE, settings={"regions": UPLIFT}, also=("magistral-medium-2506", "magistral-medium-2507", "magistral-medium-2509", "magistral-small-2506", "magistral-small-2507", "magistral-small-2509")),
    Provider("moonshotai", "https://platform.kimi.ai/docs/pricing", "moonshotai", litellm=("moonshot",)),
    Provider("nebius", "https://nebius.com/prices", litellm=("nebius",)),
    Provider("novita", "https://novita.ai/pricing", "novita", litellm=("novita",), trust="nobody"),
    Provider("openai", "https://developers.openai.com/api/docs/pricing", "openai", litellm=("openai", "text-completion-openai"), skip=r"/|^(container|openai)", dated=True, tiers_from=SINCE, also=("gpt-3.5-turbo-instruct:20230824-v2",)),
    Provider("openrouter", "https://openrouter.ai/models", "openrouter", dated=True),
    Provider("ovhcloud", "https://www.ovhcloud.com/en/public-cloud/prices/", "ovhcloud", litellm=("ovhcloud",), trust="nobody"),
    Provider("perplexity", "https://docs.perplexity.ai/docs/getting-started/pricing", "perplexity", litellm=("perplexity",), skip=r"perplexity/(search|preset|anthropic|openai|google|xai)", trust="genai"),
    Provider("sambanova", "https://cloud.sambanova.ai/plans/pricing", litellm=("sambanova",)),
    Provider("snowflake", "https://www.snowflake.com/legal-files/CreditConsumptionTable.pdf", litellm=("snowflake",)),
    Provider("together", "https://www.together.ai/pricing", "together", litellm=("together_ai",), skip=r"^together-ai-", trust="nobody"),
    Provider("vertex", "https://cloud.google.com/vertex-ai/generative-ai/pricing", "google", r"^(?!gemini-flash-1\.5|gemini-pro-1\.5|anthropic/)", ("vertex_ai", "vertex_ai-language-models", "vertex_ai-anthropic_models", "vertex_ai-mistral_models", "vertex_ai-llama_models", "vertex_ai-embedding-models", "vertex_ai-deepseek_models", "vertex_ai-qwen_models", "vertex_ai-zai_models", "vertex_ai-openai_models", "vertex_ai-minimax_models", "vertex_ai-moonshot_models", "vertex_ai-ai21_models"), trust="nobody", dated=True, tiers_from=SINCE, rename=GROUNDING, also=GEMINI_VERSIONS),
    Provider("voyage", "https://docs.voyageai.com/docs/pricing", "voyageai", litellm=("voyage",)),
    Provider("xai", "https://docs.x.ai/developers/pricing", "x-ai", r"^(?!x-ai/)", ("xai",), dated=True, tiers_from=SINCE),
    Provider("zai", "https://docs.z.ai/guides/overview/pricing", "zai", litellm=("zai",)),
)

# (provider, id, key or "*") -> the source that is right, found by reading the vendor's page; the reason stands beside it.
RULINGS = {
    ("openai", "gpt-4o-transcribe", "input_audio"): "litellm",       # OpenAI's model page: audio 2.50
    ("openai", "gpt-4o-transcribe-diarize", "input_audio"): "litellm",
    ("openai", "gpt-4o-mini-transcribe", "input_audio"): "litellm",  # OpenAI's model page: audio 1.25
    ("azure", "ada", "*"): "genai",  # Azure sells embeddings at the list price; litellm has the regional meter
    ("azure", "text-embedding-3-large", "*"): "genai",
    ("azure", "text-embedding-3-small", "*"): "genai",
    ("azure", "text-embedding-ada-002", "*"): "genai",
    ("vertex", "gemini-2.0-flash", "*"): "litellm",                  # Vertex's own page: 0.15 / 0.60, unlike the API
    ("vertex", "gemini-2.0-flash-001", "*"): "litellm",
    ("together", "mistralai/mixtral-8x7b-instruct-v0.1", "*"): "litellm",  # 0.60, Together's price by size
    ("xai", "grok-code-fast-1", "*"): "litellm",                     # the id is now served by grok-build-0.1
    ("xai", "grok-code-fast", "*"): "litellm",
    ("xai", "grok-code-fast-1-0825", "*"): "litellm",
}
# fmt: on
# Bedrock: genai-prices follows AWS's price list for these vendors; for the others it has no regional markup, litellm has.
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
            entry["prices"] = [_defaulted(row, provider.defaults) for row in entry["prices"]]
            rows[name] = entry
            groups.setdefault((offer.group, repr(entry)), []).append(name)
    _join(groups, rows, theirs)
    return dict(sorted(_grouped(provider, groups, rows, genai), key=lambda pair: pair[0]))


def _defaulted(row: Row, defaults: Mapping[str, Any]) -> Row:
    return ordered({**defaults, **row}) if "input" in row else row


def _join(groups: dict[Any, list[str]], rows: dict[str, Row], theirs: Mapping[str, Offer]) -> None:
    """Names that only genai-prices has join the entry of the same model of its that litellm added something to."""
    for (group, shape), names in list(groups.items()):
        if any(name in theirs for name in names):
            continue
        others = [key for key in groups if key[0] == group and key[1] != shape and group.lower() in groups[key]]
        if others and str(rows[groups[others[0]][0]].get("source", "genai-prices")).startswith("genai-prices"):
            groups[others[0]] = sorted(groups[others[0]] + groups.pop((group, shape)))


def _decide(
    provider: Provider, name: str, genai: Genai, theirs: Offer | None, report: Report
) -> tuple[Offer, Row] | None:
    ours = None
    if provider.genai:
        ours = genai.find(provider.genai, name, provider.tiers_from, fallback=provider.fallback)
    if ours and ours.empty:
        free = name.endswith(":free") or (theirs is not None and theirs.empty and bool(theirs.prices))
        return (ours, {"prices": [{"free": True}]}) if free else None
    if theirs and theirs.empty:
        theirs = None
    if ours is None or theirs is None:
        alone = ours or theirs
        return (alone, _entry(provider, alone, alone is theirs)) if alone else None
    its, other = _standing(ours.prices, report.as_of), theirs.prices[-1]
    differing = [key for key in ("input", "output") if key in its and key in other and not _close(its[key], other[key])]
    if differing or not any(key in its and key in other for key in RATES if not RATES[key].fee):
        return _ruled(provider, name, genai, ours, theirs, differing, report)
    if RULINGS.get((provider.name, name, "*")) == "litellm":
        return theirs, _entry(provider, theirs, True)
    entry = _supplemented(provider, name, ours, theirs, report)
    return (ours, entry) if all(any(key in RATES for key in row) for row in entry["prices"]) else None


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
    elif ruling is None and by_prefix and not regional:  # a tenth more is Azure's regional meter: nobody knows which runs
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
    """genai's entry with what only litellm has, in every price that litellm's figures belong to (they have no dates)."""
    entry = _entry(provider, ours, False)
    standing = _standing(ours.prices, report.as_of)
    index = ours.prices.index(standing)
    row = dict(entry["prices"][index])
    other = _renamed(theirs.prices[-1], provider.rename)
    taken = []
    for key, value in other.items():
        if key in RATES and key not in row and not (key == "cache_read" and value >= other.get("input", value)):
            row[key] = value
            taken.append(key)
        elif key in RATES and key in row and not _close(row[key], value):
            ruling = RULINGS.get((provider.name, name, key)) or ("nobody" if provider.trust == "nobody" else "genai")
            report.disputed.append(f"{provider.name}/{name}: {key} genai {row[key]:f} litellm {value:f}: {ruling}")
            if ruling == "litellm":
                row[key] = value
            elif ruling == "nobody":
                del row[key]
    if taken and "above" in row and any(not RATES[key].fee for key in taken):
        row["above"] = {
            size: ordered(step | {key: other.get("above", {})[size][key] for key in taken if key in other.get("above", {}).get(size, {})})
            for size, step in row["above"].items()
        }  # fmt: skip
    taken += _more_tiers(row, other, report, f"{provider.name}/{name}")
    if taken:
        entry["source"] = f"genai-prices; litellm: {', '.join(sorted(set(taken)))}"
    entry["prices"][index] = ordered(row)
    if theirs.max_output:
        entry["max_output"] = theirs.max_output
    if theirs.regions and "regions" not in provider.settings:
        entry["regions"] = dict(theirs.regions)
    return {key: entry[key] for key in ("source", "max_output", "regions", "prices") if key in entry}


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
        steps = its.get("above", {})
        row["above"] = {size: ordered({key: steps.get(size, {}).get(key) for key in more if key in steps.get(size, {})} | step)
                        for size, step in mine["above"].items()}  # fmt: skip
    return row


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
    """Names with one and the same price share an entry: the shortest is its id, snapshots are `dated`, others aliases."""
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
