"""`llmtab schema`: the JSON Schema of a ledger line, or of llmtab.yaml. Knows how to print it, not what it says."""

import argparse

from llmtab.verbs import Verbs, add_verb

DETAILS = """With --config it is that of llmtab.yaml: editors complete its keys when
its first line says `# yaml-language-server: $schema=llmtab.schema.json`."""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    parser = add_verb(
        verbs,
        "schema",
        run,
        summary="print the JSON Schema of a ledger line",
        details=DETAILS,
        example="llmtab schema --config > ~/.llmtab/llmtab.schema.json",
    )
    parser.add_argument("--config", action="store_true", help="the schema of llmtab.yaml")


def run(args: argparse.Namespace) -> int:
    """Prints the schema as JSON."""
    import json

    if args.config:
        from llmtab.config_schema import json_schema as schema
    else:
        from llmtab.record import schema
    print(json.dumps(schema(), indent=2))
    return 0
