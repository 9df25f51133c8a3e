"""`llmtab schema`: the JSON Schema of a ledger line. Knows how to print it; what it says is the record's business."""

import argparse

from llmtab.verbs import Verbs, add_verb


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    summary = "print the JSON Schema of a ledger line"
    add_verb(verbs, "schema", run, summary=summary, example="llmtab schema > ledger.schema.json")


def run(args: argparse.Namespace) -> int:
    """Prints the schema as JSON."""
    import json

    from llmtab import record

    print(json.dumps(record.schema(), indent=2))
    return 0
