"""curl and the vendors' Node SDKs under `llmtab run`, told of the proxy by nothing but its environment."""

import json
import shutil
from pathlib import Path
from typing import Any

import node
import pytest
from answers import CLAUDE_USAGE, CODEX_USAGE, GEMINI_USAGE, compose
from machine import Machine
from node import needs
from test_lines import ASKED, CHAT
from upstream import Upstream, reply

OPENAI = """
import OpenAI from "openai";
const client = new OpenAI({apiKey: "x", maxRetries: 0});
const stream = await client.responses.create({model: "gpt-5-codex", input: "hi", stream: true});
for await (const event of stream) if (event.response?.usage) console.log(event.response.usage.total_tokens);
"""
ANTHROPIC = """
import Anthropic from "@anthropic-ai/sdk";
const client = new Anthropic({apiKey: "x", maxRetries: 0});
const messages = [{role: "user", content: "hi"}];
const stream = client.messages.stream({model: "claude-sonnet-4-5", max_tokens: 100, messages});
console.log((await stream.finalMessage()).usage.output_tokens);
"""
GOOGLE = """
import { GoogleGenAI } from "@google/genai";
const client = new GoogleGenAI({apiKey: "x"});
const stream = await client.models.generateContentStream({model: "gemini-2.5-pro", contents: "hi"});
for await (const chunk of stream) console.log(chunk.usageMetadata.totalTokenCount);
"""


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(machine: Machine, upstream: Upstream) -> None:
    """curl over HTTPS: its bytes unchanged, its line exact."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    url = "https://api.openai.com/v1/chat/completions"
    done = machine.run("curl", "-sS", url, "-H", "content-type: application/json", "-d", json.dumps(ASKED))
    assert json.loads(done.out) == CHAT, done.err
    [line] = machine.lines()
    assert (line["usage"]["total_tokens"], line["cost_usd"]) == (1285, done.bill["cost_usd"])
    assert line["client"]["agent"].startswith("curl/")


@needs("node")
@pytest.mark.parametrize(
    ("code", "printed", "usage"),
    [
        pytest.param(OPENAI, "2300", CODEX_USAGE, marks=needs("openai"), id="openai"),
        pytest.param(ANTHROPIC, "42", CLAUDE_USAGE, marks=needs("@anthropic-ai/sdk"), id="anthropic"),
        pytest.param(GOOGLE, "125", GEMINI_USAGE, marks=needs("@google/genai"), id="google"),
    ],
)
def test_node_sdk(code: str, printed: str, usage: dict[str, Any], machine: Machine, upstream: Upstream) -> None:
    """A Node.js SDK, streaming: the program sees its answer, the ledger has one line with exact usage."""
    compose(upstream)
    Path(machine.work, "node_modules").symlink_to(node.MODULES)
    Path(machine.work, "program.mjs").write_text(code)
    done = machine.run("node", "program.mjs", env={"PATH": node.path()})
    assert (done.status, done.out.strip()) == (0, printed), done.err
    [line] = machine.lines()
    assert usage.items() <= line["usage"].items()
    assert (line["usage_source"], line["cost_usd"]) == ("reported", done.bill["cost_usd"])
