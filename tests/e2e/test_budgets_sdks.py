"""What the vendors' own SDKs make of a refusal: their usual exception, and no retry that cannot help."""

from collections.abc import Callable
from pathlib import Path

import pytest
from proxy import Proxy
from sdk import needs, run
from test_budgets import config
from upstream import Upstream

OPENAI = """
import openai
try:
    openai.OpenAI(api_key="x").chat.completions.create(
        model="our-model", messages=[{"role": "user", "content": "hi"}], max_tokens=1000)
except openai.RateLimitError as error:
    print(type(error).__name__, error.status_code, error.code, "budget day" in str(error))
"""
ANTHROPIC = """
import anthropic
try:
    anthropic.Anthropic(api_key="x").messages.create(
        model="our-model", messages=[{"role": "user", "content": "hi"}], max_tokens=1000)
except anthropic.RateLimitError as error:
    print(type(error).__name__, error.status_code, error.body["error"]["type"], "budget day" in str(error))
"""
GOOGLE = """
from google import genai
from google.genai import errors
client = genai.Client(api_key="x")
try:
    client.models.generate_content(model="our-model", contents="hi")
except errors.ClientError as error:
    print(type(error).__name__, error.code, error.status, "budget day" in str(error))
"""
BOTO3 = """
import boto3
client = boto3.client("bedrock-runtime", region_name="us-east-1")
try:
    client.converse(modelId="our-model", messages=[{"role": "user", "content": [{"text": "hi"}]}])
except client.exceptions.ServiceQuotaExceededException as error:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    print(type(error).__name__, status, error.response["Error"]["Code"], "budget day" in str(error))
"""
SAID = {
    "openai": (OPENAI, "RateLimitError 429 insufficient_quota True"),
    "anthropic": (ANTHROPIC, "RateLimitError 429 rate_limit_error True"),
    "google.genai": (GOOGLE, "ClientError 429 RESOURCE_EXHAUSTED True"),
    "boto3": (BOTO3, "ServiceQuotaExceededException 400 ServiceQuotaExceededException True"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in SAID])
def test_a_spent_budget_is_the_sdks_own_exception(
    name: str, start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path
) -> None:
    """Where waiting does not help the SDK raises at once, with the limit and the arithmetic in its message."""
    code, said = SAID[name]
    proxy = start(*config(tmp_path, "  - {name: day, limit: 1 tokens per month}\n"))
    before = len(upstream.seen)
    assert run(proxy, tmp_path, code) == said
    [line] = proxy.settled(1)
    assert (line["outcome"], line["budget"]["refused"]["why"]) == ("refused", "too_large")
    assert len(upstream.seen) == before
