"""Routes of the built-in profiles: which calls are claimed, by whom, and which leave no line."""

from urllib.parse import urlsplit

import pytest

from llmtab.profiles import Profiles

GATEWAY = "https://gateway.ai.cloudflare.com/v1/acct/gw"
PYDANTIC = "https://gateway.pydantic.dev/proxy"

BILLED = [
    ("https://api.x.ai/v1/messages", "xai", "anthropic.messages"),
    ("https://api.x.ai/xai_api.Chat/GetCompletionChunk", "xai", "xai.grpc"),
    ("https://api.cloudflare.com/client/v4/accounts/a/ai/v1/embeddings", "cloudflare", "openai.embeddings"),
    (f"{GATEWAY}/compat/chat/completions", "cloudflare-gateway", "openai.chat"),
    (f"{GATEWAY}/openai/responses", "openai", "openai.responses"),
    (f"{GATEWAY}/aws-bedrock/bedrock-runtime/us-east-1/model/a.b/converse", "bedrock", "bedrock.converse"),
    (f"{GATEWAY}/google-ai-studio/v1beta/models/g:generateContent", "google", "gemini.generateContent"),
    ("https://api.individual.githubcopilot.com/v1/messages", "github-copilot", "anthropic.messages"),
    ("https://copilot-api.acme.ghe.com/chat/completions", "github-copilot", "openai.chat"),
    ("https://router.huggingface.co/novita/v3/openai/chat/completions", "huggingface", "openai.chat"),
    ("https://router.huggingface.co/hf-inference/models/a/b", "huggingface", "huggingface.inference"),
    ("https://dbc-1.cloud.databricks.com/ai-gateway/anthropic/v1/messages", "databricks", "anthropic.messages"),
    ("https://dbc-1.cloud.databricks.com/serving-endpoints/mine/invocations", "databricks", "openai.chat"),
    ("https://api.deepseek.com/beta/completions", "deepseek", "openai.completions"),
    ("https://api.perplexity.ai/v1/agent", "perplexity", "openai.responses"),
    ("https://dashscope.aliyuncs.com/apps/anthropic/v1/messages", "dashscope", "anthropic.messages"),
    ("https://ws1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1/chat/completions", "dashscope", "openai.chat"),
    ("https://api.moonshot.cn/v1/chat/completions", "moonshotai-cn", "openai.chat"),
    ("https://opencode.ai/inference/go/openai/v1/chat/completions", "opencode", "openai.chat"),
    ("https://opencode.ai/zen/v1/models/g:streamGenerateContent", "opencode", "gemini.generateContent"),
    (
        f"{PYDANTIC}/google-vertex/v1beta/models/g:generateContent",
        "vertex",
        "gemini.generateContent",
    ),
    ("https://api.us.elevenlabs.io/v1/text-to-speech/v/stream", "elevenlabs", "elevenlabs.speech"),
    ("http://localhost:4000/anthropic/v1/messages", "openai_compatible", "anthropic.messages"),
    ("http://localhost:4000/model/a.b/converse-stream", "openai_compatible", "bedrock.converse"),
    ("http://localhost:8787/v2/chat", "openai_compatible", "cohere.v2.chat"),
]
FREE = [
    ("POST", "https://api.x.ai/xai_api.Models/ListLanguageModels"),
    ("GET", "https://api.x.ai/v1/models"),
    ("POST", "https://api.x.ai/v1/batches"),
    ("GET", "https://api.cloudflare.com/client/v4/accounts/a/ai/models/search"),
    ("POST", f"{GATEWAY}/google-vertex-ai/v1/projects/p/locations/l/publishers/google/models/g:countTokens"),
    ("POST", f"{GATEWAY}/anthropic/v1/messages/count_tokens"),
    ("GET", "https://openrouter.ai/api/v1/generation"),
    ("GET", "https://openrouter.ai/api/v1/credits"),
    ("GET", "https://api.githubcopilot.com/models"),
    ("GET", "https://router.huggingface.co/v1/models"),
    ("GET", "https://dbc-1.cloud.databricks.com/api/2.0/serving-endpoints"),
    ("GET", "https://api.deepseek.com/user/balance"),
    ("GET", "https://ai-gateway.vercel.sh/v1/credits"),
    ("POST", "https://us-south.ml.cloud.ibm.com/ml/v1/text/tokenization"),
    ("GET", "http://localhost:11434/api/tags"),
    ("POST", "http://localhost:11434/api/show"),
]
NOBODYS = [
    ("POST", "https://api2.cursor.sh/aiserver.v1.AiService/StreamChat"),
    ("POST", "http://localhost:3000/api/users"),
    ("GET", "http://localhost:8000/v1/models"),
]


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.load()


def claim(profiles: Profiles, method: str, url: str):
    parts = urlsplit(url)
    return profiles.match(
        parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme], method, parts.path
    )


@pytest.mark.parametrize(("url", "provider", "dialect"), BILLED)
def test_a_billable_path_is_claimed(profiles: Profiles, url: str, provider: str, dialect: str) -> None:
    """Each path is read in its own shape and priced by the company that bills it, also behind a gateway."""
    found = claim(profiles, "POST", url)
    assert found is not None
    assert (found.binding.provider, found.binding.role) == (provider, "billed")
    assert found.binding.dialects[0].name == dialect


@pytest.mark.parametrize(("method", "url"), FREE)
def test_what_is_free_leaves_no_line(profiles: Profiles, method: str, url: str) -> None:
    """Model lists, counting, polls and account pages may hold figures that look like usage; they are never booked."""
    found = claim(profiles, method, url)
    assert found is not None
    assert found.binding.role == "not_billed"


@pytest.mark.parametrize(("method", "url"), NOBODYS)
def test_what_is_no_llm_call_is_not_claimed(profiles: Profiles, method: str, url: str) -> None:
    """Cursor's own hosts stay opaque, and an application's own paths are nobody's."""
    assert claim(profiles, method, url) is None
