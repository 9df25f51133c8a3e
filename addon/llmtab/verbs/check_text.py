"""What `llmtab check` found out, as lines for a person.

Knows the keys of its answer. Must not know how it was found.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from llmtab.pricing.compare import short

SHOWN: Final = (
    "request_model", "response_model", "response_id", "request_id", "service_tier", "pricing_tier", "region",
    "finish_reasons", "outcome", "error", "usage_source", "usage_reason", "estimated", "billing", "flags",
)  # fmt: skip
"""Facts of a line, in this order."""


def url(found: Mapping[str, Any]) -> Iterator[str]:
    """The answer for a URL."""
    yield f"{found['method']} {found['host']}{found['path']}"
    yield f"  {found['fate']}"
    yield from (f"  {key:14} {_said(value)}" for key, value in found.get("claim", {}).items() if value)
    for meaning in found.get("dialects", ()):
        yield from _dialect(meaning)
    if "price" in found:
        yield f"  {'price':14} {found['price']}"
    if "config" in found:
        yield from ("", f"To meter it, in llmtab.yaml ({found['advice']}):", f"  {found['config']}")


def _dialect(meaning: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {meaning['api']} ({meaning['operation']}), usage at {meaning['usage']}"
    yield from (f"    {counter:31} {said}" for counter, said in meaning["counters"].items())
    for counter, said in meaning["counted_by_us"].items():
        yield f"    {counter:31} {said} (counted by us, where no usage is told)"
    yield from (f"    {key:31} {said}" for key, said in meaning["facts"].items())
    money = "reported cost, which holds" if meaning["money_is_the_cost"] else "reported cost"
    for key, label in (("money", money), ("billing", "billing"), ("shares", "other models' shares")):
        yield from (f"    {label:31} {said}" for said in meaning[key])


def file(found: Mapping[str, Any]) -> Iterator[str]:
    """The answer for a saved body."""
    if "fate" in found:
        yield found["fate"]
    elif found.get("lines"):
        yield from _reading(found)
    else:
        yield "not understood: " + ("no usage in a shape known on this host" if "claim" in found else "nobody reads it")
    if found["understood"]:
        return
    if found.get("config"):
        yield from ("", "To meter answers like this, in llmtab.yaml, after a look at each line:", "")
        yield found["config"].rstrip()
    elif not found.get("lines"):
        yield "no number in it looks like usage"


def _reading(found: Mapping[str, Any]) -> Iterator[str]:
    main, claim = found["lines"][0], found["claim"]
    yield f"read as {main['api']} (profile {claim['profile']}, provider {main['provider']})"
    if found["by"] == "shape":
        yield "  by its shape; --url says where it came from, --provider whose it is"
    yield from (f"  {key:31} {_said(main[key])}" for key in SHOWN if key in main)
    for name, counter in found["counters"].items():
        places = counter["from"]
        said = " + ".join(one["ref"] if len(places) == 1 else f"{one['quantity']} {one['ref']}" for one in places)
        yield f"  {name:31} {counter['quantity']:>10}  {said or '(ours)'}"
    for line in found["lines"]:
        yield from _money(line)
    yield from (f"  not read: {ref}" for ref in found["unread"])
    yield from (f"  not read, and 0: {ref}" for ref in found["zeros"])


def _money(line: Mapping[str, Any]) -> Iterator[str]:
    """The price of a line with its proof, or why there is none."""
    if "parent" in line:
        yield f"  {line.get('response_model') or 'another model'} beside it:"
    for part in line.get("cost_lines") or ():
        factors = "".join(f", {name} x{short(value)} in it" for name, value in (part.get("factors") or {}).items())
        rate = f"{short(part['rate'])} / {part['per']:,}"
        yield f"  {part['counter']:31} {part['quantity']:>10}  x {rate} = {short(part['usd'])} USD{factors}"
    price = (line.get("price") or {}).get("id")
    if line["cost_usd"] is None:
        yield f"  no price: {line.get('cost_reason')} ({price or line['provider']})"
    else:
        yield f"  cost: {short(line['cost_usd'])} USD ({line['cost_source']}{f', {price}' if price else ''})"
    if "cost_reported_usd" in line:
        yield f"  reported by the provider: {short(line['cost_reported_usd'])} USD"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
