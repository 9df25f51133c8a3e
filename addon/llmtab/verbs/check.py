"""`llmtab check URL|FILE`: who reads it, which figures come from where, what they cost, and what nobody understood.

Knows what is asked, and collects the answer as plain data. Must not know how calls are read (`discovery`), what is
proposed for those that nobody reads (`proposal`), or how the answer looks (`check_text`).
"""

import argparse
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmtab.verbs import Verbs, add_verb

if TYPE_CHECKING:
    from llmtab.discovery import Finding, Place, Sample
    from llmtab.profiles import Claim
    from llmtab.sources import Contents

DETAILS = """
A URL (after a method, where it is not POST): which profile claims a call to it, and what it would
read. A FILE (- is standard input): an answer as it was saved, JSON, events or lines; every figure with the place it
came from. Never shows what an answer says. Exit status 0 if it is understood, 1 if not."""
FACTS: Final = (
    "model", "request_model", "id", "request_id", "tier", "pricing_tier", "region", "finish", "total", "session",
)  # fmt: skip
GZIP: Final = b"\x1f\x8b"
SAMPLED: Final = 10_000
"""Events of an unclaimed answer that are looked at for a proposal."""
PATH_UNKNOWN: Final = "the host is known, the path is not: "
OPAQUE: Final = "nobody names this host: its TLS connection passes through opaque, and nothing is read; "
ELSEWHERE: Final = "in reverse mode, or with llmtab_intercept=all, the call "
ADVICE: Final = "if it speaks OpenAI's language; else see llmtab check FILE --url URL"


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    example = "llmtab check answer.json --url https://api.openai.com/v1/responses"
    summary = "tell which profile reads a URL or a saved answer, every figure's origin, and its price"
    parser = add_verb(verbs, "check", run, summary=summary, details=DETAILS, example=example)
    parser.add_argument("target", metavar="URL|FILE", nargs="+", help="[METHOD] URL, or a saved answer, or -")
    parser.add_argument("--url", metavar="URL", help="where the answer of FILE came from")
    parser.add_argument("--method", metavar="METHOD", default="POST", help="of --url (default: POST)")
    parser.add_argument("--model", metavar="MODEL", help="the model that was asked for")
    parser.add_argument("--request", metavar="FILE", type=Path, help="the request's body, where figures depend on it")
    parser.add_argument("--provider", metavar="P", help="who answered, where no --url says it")
    parser.add_argument("--encoding", metavar="CODING", default="", help="content coding of FILE: gzip, br, zstd ...")
    parser.add_argument("--header", metavar="'NAME: VALUE'", action="append", default=[], help="a header of the answer")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--config", metavar="FILE", type=Path, help="llmtab.yaml (default: the usual one)")
    parser.add_argument("--profiles", metavar="FOLDER", type=Path, action="append", default=[], help="more profiles")
    parser.add_argument("--pricing", metavar="FILE", type=Path, action="append", default=[], help="further price file")


def run(args: argparse.Namespace) -> int:
    """Answers for a URL or for a file."""
    from llmtab.discovery import place
    from llmtab.pricing.compare import to_json
    from llmtab.sources import Sources
    from llmtab.verbs import check_text

    *method, target = args.target
    is_url = "://" in target
    if len(method) > is_url or (method and not re.fullmatch("[A-Z]+", method[0])):
        raise ValueError(f"{' '.join(args.target)!r}, expected [METHOD] URL, or one FILE")
    for path in [*args.profiles, *args.pricing, *([args.config] if args.config else [])]:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    contents = Sources(args.config, tuple(args.profiles), tuple(args.pricing)).read()
    if is_url:
        found = _url(contents, place(target, method[0] if method else "POST"), args.model)
    else:
        origin = place(args.url, args.method) if args.url else None
        found = _file(contents, origin, _sample(args, target), args.provider)
    found = {"target": target, **found}
    print(to_json(found) if args.json else "\n".join((check_text.url if is_url else check_text.file)(found)))
    return 0 if found["understood"] else 1


# -- a URL -------------------------------------------------------------------------------------------------------------


def _url(contents: "Contents", at: "Place", model: str | None) -> dict[str, Any]:
    from llmtab.discovery import claim_of

    claim = claim_of(contents.profiles, at)
    fate, metered, named = _fate(contents, at, claim)
    found: dict[str, Any] = {"understood": metered, "method": at.method, "host": at.name, "path": at.path, "fate": fate}
    if claim is not None:
        found |= {"path": claim.path, "claim": _claimed(contents, claim)}
        if metered and claim.binding.dialects:
            found["dialects"] = [_meaning(dialect.name, dialect.spec) for dialect in claim.binding.dialects]
            found["price"] = _price(contents, claim, model)
    return found if named else found | {"config": f"hosts: {{{at.name}: {{profile: openai}}}}", "advice": ADVICE}


def _fate(contents: "Contents", at: "Place", claim: "Claim | None") -> tuple[str, bool, bool]:
    """What would become of a call, whether that is understood, and whether somebody names the host."""
    from llmtab.profiles import GUESS

    named = bool(contents.profiles.at_host(at.host, at.port))
    role = claim.binding.role if claim is not None else "none"
    if role in ("not_billed", "batch"):
        return "is known, and not billed" if role == "not_billed" else "is known: results of a batch", True, True
    if named and role == "by_shape":
        return PATH_UNKNOWN + "there is a line only if the answer has usage in a known shape", False, True
    if named:
        return ("is metered", True, True) if claim else (PATH_UNKNOWN + "it passes without a line", False, True)
    guess = claim is not None and claim.binding.profile == GUESS
    shape = "is metered as a guess, by its shape" if guess else "passes without a line: its path has no known shape"
    if at.plain:
        return f"nobody names this host; the call {shape}", guess, False
    return f"{OPAQUE}{ELSEWHERE}{shape}", False, False


def _claimed(contents: "Contents", claim: "Claim") -> dict[str, Any]:
    binding = claim.binding
    return {
        "profile": binding.profile,
        "title": contents.profiles.providers[binding.profile].spec.get("title"),
        "provider": binding.provider,
        "apis": [dialect.api for dialect in binding.dialects],
        "route": binding.route,
        "role": binding.role,
        "streams": binding.stream,
        "captured": dict(claim.captures),
    }


def _meaning(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """One dialect in words."""
    from llmtab.probe import row_words, words

    facts = {fact: spec[fact] for fact in FACTS if spec.get(fact)}
    return {
        "dialect": name,
        "api": spec.get("api") or name,
        "operation": spec.get("operation") or "chat",
        "usage": ", else ".join(ref or "the answer itself" for ref in spec.get("roots") or ["/usage"]),
        "counters": {counter: row_words(row) for counter, row in (spec.get("usage") or {}).items() if row},
        "counted_by_us": {counter: row_words(row) for counter, row in (spec.get("estimate") or {}).items() if row},
        "facts": {key: "; ".join(map(words, its if isinstance(its, list) else [its])) for key, its in facts.items()},
        "money": [words(entry) for entry in spec.get("money") or ()],
        "money_is_the_cost": bool(spec.get("trust")),
        "billing": [words({"ref": entry["is"], "where": entry.get("where")}) for entry in spec.get("billing") or ()],
        "shares": [words({"ref": part["each"], "where": part.get("where")}) for part in spec.get("parts") or ()],
    }


def _price(contents: "Contents", claim: "Claim", model: str | None) -> str:
    """What is known of a model's price, or of how many models."""
    from datetime import UTC, datetime

    prices, provider = contents.prices, claim.binding.provider
    model = model or claim.captures.get("model")
    if model is None:
        sold = {provider, prices.finder.setting(provider, "models_of")}
        count = sum(match.provider in sold for match in prices.finder.entries())
        have = "1 model of {} has" if count == 1 else f"{count:,} models of {{}} have"
        return f"{have.format(provider)} one, as of {prices.as_of}; --model M asks for one"
    match = prices.find(provider, model, datetime.now(UTC))
    return f"none for {model} of {provider}: unknown_model" if match is None else f"{match.provider}/{match.model}"


# -- a file ------------------------------------------------------------------------------------------------------------


def _sample(args: argparse.Namespace, target: str) -> "Sample":
    from llmtab.discovery import Sample
    from llmtab.wire.decoding import DecodeError, decoder

    body = sys.stdin.buffer.read() if target == "-" else Path(target).read_bytes()
    headers = {}
    for header in args.header:
        name, colon, value = header.partition(":")
        if not colon:
            raise ValueError(f"--header {header!r}, expected 'name: value'")
        headers[name.strip().lower()] = value.strip()
    try:
        decoder(args.encoding)
    except DecodeError:
        raise ValueError(f"--encoding {args.encoding!r}, expected gzip, deflate, br or zstd") from None
    coding = args.encoding or ("gzip" if body.startswith(GZIP) else "")
    request = args.request.read_bytes() if args.request else None
    return Sample(body, headers | ({"content-encoding": coding} if coding else {}), args.model, request)


def _file(contents: "Contents", at: "Place | None", sample: "Sample", provider: str | None) -> dict[str, Any]:
    from llmtab.discovery import METERED, best, claim_of, read

    now, finding, named = time.time(), None, True
    if at is None:
        finding = best(contents.profiles, contents.prices, provider, sample, now)
    elif (claim := claim_of(contents.profiles, at)) is not None:
        fate, _, named = _fate(contents, at, claim)
        if claim.binding.role not in METERED:
            return {"understood": True, "fate": fate, "claim": _claimed(contents, claim)}
        claim = replace(claim, binding=replace(claim.binding, provider=provider)) if provider else claim
        finding = read(contents.profiles, contents.prices, claim, at, sample, now)
        named = named or at.plain
    else:
        named = bool(contents.profiles.at_host(at.host, at.port))
    settled = finding is not None and (finding.counted or _failed(finding))
    found: dict[str, Any] = {"understood": settled and named}
    if finding is not None:
        found |= {"claim": _claimed(contents, finding.claim), "by": "url" if at else "shape"} | _figures(finding)
    if not found["understood"]:
        found["config"] = _proposal(contents, at, sample, now)
    return found


def _failed(finding: "Finding") -> bool:
    """Whether it is the answer to a call that failed: there is nothing to count, and the meter knows that."""
    return bool(finding.lines) and finding.lines[0]["outcome"] == "error"


def _figures(finding: "Finding") -> dict[str, Any]:
    """Each counter with what each of its references gave, the line, and what was not read."""
    if not finding.lines:
        return {"counters": {}, "unread": [], "zeros": []}
    usage = finding.lines[0].get("usage") or {}
    counters = {
        name: {"quantity": value, "from": [{"ref": r, "quantity": q} for r, q in finding.sources.get(name, ())]}
        for name, value in usage.items()
    }
    unread = [ref for ref, used in finding.unread.items() if used]
    zeros = [ref for ref, used in finding.unread.items() if not used]
    return {"counters": counters, "lines": finding.lines, "unread": unread, "zeros": zeros}


def _proposal(contents: "Contents", at: "Place | None", sample: "Sample", now: float) -> str | None:
    """Lines of llmtab.yaml that would meter answers like this one."""
    from itertools import islice

    from llmtab import proposal
    from llmtab.discovery import best, events

    host, path, method = (at.name, at.path, at.method) if at else (None, None, "POST")
    known = best(contents.profiles, contents.prices, None, sample, now) if at else None
    if known is not None and known.fit[1] > 0:
        return proposal.served(host, path, known.seen.reading.dialect.name, method)
    found = list(islice(events(sample), SAMPLED))
    return proposal.proposed(found, host, path, stream=len(found) > 1)
