"""What README shows is run as it stands there."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from proxy import Proxy
from test_lines import ASKED, CHAT
from upstream import Upstream, reply

from llmtab.record import FIELDS

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, holding: str) -> str:
    """The one code block of a language in README that holds these words."""
    [text] = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if holding in text]
    return str(text)


def test_the_provider_in_ten_lines(start: Callable[..., Proxy], tmp_path: Path, upstream: Upstream) -> None:
    """The YAML of README, word for word, meters both of its hosts over TLS."""
    config = tmp_path / "llmtab.yaml"
    provider = block("yaml", "hosts:")
    config.write_text(provider)
    assert len(provider.splitlines()) <= 10
    proxy = start("--set", f"llmtab_config={config}")
    upstream.on("POST llm.example.com/v1/chat/completions", reply(CHAT))
    upstream.on("POST ask.example.com/api/ask", reply({"model": "m1", "stats": {"prompt": 5, "completion": 7}}))
    proxy.call("https://llm.example.com/v1/chat/completions", ASKED)
    proxy.call("https://ask.example.com/api/ask", {"q": "hi"})
    first, second = proxy.settled(2)
    assert (first["host"], first["usage"]["input_tokens"]) == ("llm.example.com", 1200)
    assert (second["host"], second["response_model"]) == ("ask.example.com", "m1")
    assert {"input_tokens": 5, "output_tokens": 7}.items() <= second["usage"].items()


def test_the_ledger_line_is_one() -> None:
    """The line of README has only keys of the schema, in their order, and its cost is the sum of its parts."""
    line = json.loads(block("json", '"schema"'), parse_float=Decimal)
    assert list(line) == [key for key in FIELDS if key in line]
    assert line["cost_usd"] == sum(part["usd"] for part in line["cost_lines"])


def test_labels_and_reverse_mode(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """In reverse mode a client needs only a base URL, and its labels are on the line."""
    proxy = start("--mode", "reverse:https://api.openai.com")
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
    got = proxy.call(url, ASKED, [("x-llmtab-project", "web")])
    assert got.status == 200
    [line] = proxy.settled(1)
    assert (line["host"], line["provider"], line["labels"]) == ("api.openai.com", "openai", {"project": "web"})


@pytest.mark.parametrize("command", ["scripts/run --demo", "scripts/test", "scripts/check"])
def test_the_commands_exist(command: str) -> None:
    """Every script that README names is there and can be run."""
    script = Path(__file__).parents[2] / command.split()[0]
    assert command in README
    assert script.stat().st_mode & 0o111
