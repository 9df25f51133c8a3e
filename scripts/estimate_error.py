"""How far off estimates are: recorded streams with their usage hidden, what would have been booked beside what it was.

    scripts/setup && .venv/bin/python scripts/estimate_error.py [--corpus FOLDER] [--json] [--worst N]

For each provider and for all: streams, those that could be estimated, median and p90 of |estimate - actual| / actual
of output and input tokens, and the share of output estimates within 10 %. The recordings are looked for in
../shared/corpus and are no part of this repository; without them there is nothing to measure (status 2). Status 1 where
the median error of output tokens is 10 % or more.
"""

import argparse
import base64
import gzip
import json
import re
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "addon"))

from llmtab.booking import book  # noqa: E402
from llmtab.estimates.guess import Guesser  # noqa: E402
from llmtab.exchange import Exchange, TapMemory  # noqa: E402
from llmtab.observation import Answer, Call  # noqa: E402
from llmtab.pricing import PriceBook  # noqa: E402
from llmtab.profiles import Profiles  # noqa: E402
from llmtab.wire.decoding import decode_all  # noqa: E402
from llmtab.wire.eventstream import prelude  # noqa: E402

CORPUS = ROOT.parent / "shared" / "corpus"
GOOD = 0.10
FIGURES = re.compile(
    rb'"(?=(?:usage|usageMetadata|x_groq|amazon-bedrock-invocationMetrics|prompt_eval_count|eval_count|total_usage|'
    rb"billed_units|tokens|meta|input_token_count|generated_token_count|(?:prompt|completion|total|input|output)_tokens|"
    rb"inputTextTokenCount|totalOutputTextTokenCount|outputTextTokenCount|prompt_token_count|generation_token_count|"
    rb'step_usage|copilot_usage|time_info|tokens_predicted|tokens_evaluated|timings)"\s*:)[A-Za-z]'
)
"""The first letter of a member's name that tells usage: another letter, and no length changes."""


def hidden(body: bytes) -> bytes:
    """The body without anything that tells usage, of the same length, frames and checksums intact."""
    if _is_eventstream(body):
        return b"".join(_messages(body))
    return FIGURES.sub(lambda found: found[0][:-1] + b"#", body)


def _is_eventstream(body: bytes) -> bool:
    try:
        return 16 <= prelude(body[:12])[0] <= len(body)
    except (ValueError, struct.error):
        return False


def _messages(body: bytes) -> Iterator[bytes]:
    """Each message of an AWS event stream with its payload's figures hidden and its checksum made right."""
    start = 0
    while start < len(body):
        size = prelude(body[start : start + 12])[0]
        message = re.sub(rb'"bytes":"([^"]*)"', _inner, body[start : start + size - 4])
        message = FIGURES.sub(lambda found: found[0][:-1] + b"#", message)
        yield message + struct.pack(">I", zlib.crc32(message))
        start += size


def _inner(found: re.Match[bytes]) -> bytes:
    return b'"bytes":"' + base64.b64encode(hidden(base64.b64decode(found[1]))) + b'"'


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Recorded streams whose usage is known, each once."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found |= {record["id"]: record for record in map(json.loads, lines)}
    for record in found.values():
        expected = record["expected"]
        if record["streamed"] and expected["expect"] == "usage" and expected["output_tokens"]:
            yield record


def estimated(record: Mapping[str, Any], profiles: Profiles, prices: PriceBook, guesser: Guesser) -> dict[str, Any]:
    """The line of a recorded stream whose usage was hidden; {} where nobody claims it."""
    asked, answer = record["request"], record["response"]
    url = urlsplit(asked["url"])
    request = base64.b64decode(asked.get("body_b64") or "")
    port = url.port or (443 if url.scheme == "https" else 80)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    claim = profiles.match(url.hostname or "", port, asked["method"], path)
    if claim is None or claim.binding.role not in ("billed", "by_shape"):
        return {}
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    call = Call("i", url.hostname or "", asked["method"], url.path, 0.0, _headers(asked), lambda: request, query.get)
    exchange = Exchange(call, claim, TapMemory())
    headers = _headers(answer)
    body = decode_all([base64.b64decode(answer["body_b64"])], headers.pop("content-encoding", "")).data
    exchange.answer = Answer(answer["status"], _without_figures(headers), 0.1)
    body = hidden(body)
    for start in range(0, len(body), 500):
        exchange.feed(body[start : start + 500], 0.2)
    seen = exchange.close("complete", 1.0)
    assert seen is not None
    lines = book(seen, prices, guesser.guess)
    return lines[0] if lines else {}


def _headers(message: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in message["headers"]}


def _without_figures(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not re.search("token|usage|cost", name)}


def measured(folder: Path) -> list[dict[str, Any]]:
    """One row a stream: id, provider, model, and (estimate, actual) of output and input."""
    profiles, prices, guesser, rows = Profiles.load(), PriceBook.load(), Guesser(list), []
    for record in records(folder):
        line, expected = estimated(record, profiles, prices, guesser), record["expected"]
        usage = line.get("usage") or {}
        rows.append(
            {
                "id": record["id"],
                "provider": record["provider"],
                "model": line.get("response_model") or line.get("request_model"),
                "source": line.get("usage_source"),
                "method": line.get("estimate_method"),
                "reasoning": expected.get("reasoning_tokens") or 0,
                "output": [usage.get("output_tokens"), expected["output_tokens"]],
                "input": [usage.get("input_tokens") if _whole(record) else None, expected["input_tokens"]],
            }
        )
    return rows


def _whole(record: Mapping[str, Any]) -> bool:
    """Whether the recorded request is the one that was sent."""
    return not record["request"].get("body_cut") and "request" not in record["synthesized"]


def error(pair: list[int | None]) -> float | None:
    """|estimate - actual| / actual; None where one of them is not known."""
    guess, actual = pair
    return None if guess is None or not actual else abs(guess - actual) / actual


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say together. A stream that could not be estimated counts as wholly wrong."""
    outputs = [1.0 if (found := error(row["output"])) is None else found for row in rows]
    inputs = [found for row in rows if (found := error(row["input"])) is not None]
    return {
        "streams": len(rows),
        "estimated": sum(row["output"][0] is not None for row in rows),
        "output_median": _quantile(outputs, 0.5),
        "output_p90": _quantile(outputs, 0.9),
        "output_within_10": round(sum(one <= GOOD for one in outputs) / len(outputs), 3) if outputs else None,
        "input_median": _quantile(inputs, 0.5),
        "input_p90": _quantile(inputs, 0.9),
    }


def _quantile(values: list[float], share: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 4) if values else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of recorded calls")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="name the N worst estimates")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        print(f"estimate_error: no recorded calls in {arguments.corpus}", file=sys.stderr)
        return 2
    rows = measured(arguments.corpus)
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["provider"]].append(row)
        groups["ALL, reasoning hidden or not" if row["reasoning"] else "ALL without reasoning"].append(row)
    found = {name: summary(some) for name, some in sorted(groups.items())} | {"ALL": summary(rows)}
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    for row in sorted(rows, key=lambda row: -(error(row["output"]) or 0))[: arguments.worst]:
        print(f"{row['id']}: {row['output'][0]} of {row['output'][1]} ({row['method']}, {row['model']})")
    return int(found["ALL"]["output_median"] >= GOOD)


def _print(found: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"{'provider':30} streams estimated  output: median     p90  <= 10 %   input: median")
    for name, row in found.items():
        cells = [_percent(row[key]) for key in ("output_median", "output_p90", "output_within_10", "input_median")]
        counts = f"{row['streams']:7} {row['estimated']:9}"
        print(f"{name:30} {counts} {cells[0]:>15} {cells[1]:>7} {cells[2]:>8} {cells[3]:>15}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    sys.exit(main())
