"""`llmtab init`: a commented llmtab.yaml to begin with. Knows where it goes; what it says is in `template.yaml`."""

import argparse
import os
from pathlib import Path
from typing import Final

from llmtab.home import home
from llmtab.verbs import Verbs, add_verb

DETAILS: Final = """
Every setting there is, explained and commented out: the file changes nothing until a line is taken
into use. With --here it is a .llmtab.yaml for the project in the working directory, whose labels llmtab run takes."""
SIGN: Final = "# "
PROJECT: Final = """\
# Labels of every call that `llmtab run` makes from here, or from a folder below.
labels:
  project: {project}
"""


def add_parsers(verbs: Verbs) -> None:
    """Declares the verb."""
    summary = "write a commented llmtab.yaml to begin with"
    parser = add_verb(verbs, "init", run, summary=summary, details=DETAILS, example="llmtab init")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="default: llmtab.yaml in ~/.llmtab")
    parser.add_argument("--here", action="store_true", help="a .llmtab.yaml for this project")
    parser.add_argument("--force", action="store_true", help="write over what is there")


def run(args: argparse.Namespace) -> int:
    """Writes it, and says where."""
    from llmtab.run.project import FILE

    path = args.file or (Path.cwd() / FILE if args.here else home() / "llmtab.yaml")
    if path.is_dir():
        path = path / "llmtab.yaml"
    text = project_file(Path.cwd()) if args.here else template()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    how = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if args.force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, how, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} is there already; --force writes over it") from None
    print(f"{path}: read it through; nothing in it is in force yet" if not args.here else str(path))
    return 0


def template() -> str:
    """The commented file."""
    return Path(__file__).resolve().parents[1].joinpath("template.yaml").read_text()


def uncommented(text: str) -> str:
    """The template with every setting in force and no explanation."""
    lines = (line.removeprefix(SIGN) for line in text.splitlines() if not line.startswith("##"))
    return "\n".join(lines) + "\n"


def project_file(folder: Path) -> str:
    """A `.llmtab.yaml` that says what `llmtab run` would have found by itself."""
    import json

    from llmtab.run.project import labels_at

    name = labels_at(folder, Path.home()).get("project") or "".join(c for c in folder.name if c.isprintable()) or "web"
    return PROJECT.format(project=json.dumps(name))  # quoted: a name may look like a number, or null
