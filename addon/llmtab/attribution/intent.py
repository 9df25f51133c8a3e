"""What a request says of its purpose: the head of its system prompt, and the names of its tools.

Knows where the wire shapes keep them. Must not know rules or labels: what is read here is looked at in memory, once,
and forgotten. At most 4 KiB of either.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from llmtab.attribution.textmatch import LONGEST_TEXT
from llmtab.profiles.refs import walk, walk_each

MOST: Final = 64
"""Messages and tools that are looked at: a system prompt stands at the head."""
_SYSTEM_ROLES: Final = ("system", "developer")
_SYSTEM: Final = (
    ("system",),  # Anthropic, Bedrock, Ollama
    ("instructions",),  # OpenAI's Responses
    ("systemInstruction", "parts"),
    ("system_instruction", "parts"),
    ("preamble",),  # Cohere v1
)
_MESSAGES: Final = (("messages",), ("input",))
_TOOL_NAMES: Final = (
    ("tools", "*", "name"),
    ("tools", "*", "function", "name"),
    ("tools", "*", "functionDeclarations", "*", "name"),
    ("tools", "*", "function_declarations", "*", "name"),
    ("toolConfig", "tools", "*", "toolSpec", "name"),
)


def system_text(request: Any) -> str:
    """The first 4 KiB of the system prompt, "" where there is none."""
    inner = _inner(request)
    pieces = [text for path in _SYSTEM for text in _texts(walk(inner, path))]
    for path in _MESSAGES:
        messages = walk(inner, path)
        for message in messages[:MOST] if type(messages) is list else ():
            if type(message) is dict and message.get("role") in _SYSTEM_ROLES:
                pieces += _texts(message.get("content"))
    return _cut(pieces)


def tool_names(request: Any) -> str:
    """The names of the tools the model may call, one a line, 4 KiB at most."""
    inner = _inner(request)
    return _cut([name for path in _TOOL_NAMES for _, name in islice(walk_each(inner, path), MOST) if type(name) is str])


def _inner(request: Any) -> Any:
    """Code Assist wraps a request in a request."""
    wrapped = walk(request, ("request",))
    return wrapped if type(wrapped) is dict else request


def _texts(value: Any) -> Iterator[str]:
    """A text, or the texts of a list of parts."""
    for part in [value] if type(value) is str else value[:MOST] if type(value) is list else ():
        text = part if type(part) is str else walk(part, ("text",))
        if type(text) is str:
            yield text[:LONGEST_TEXT]


def _cut(pieces: list[str]) -> str:
    return "\n".join(pieces)[:LONGEST_TEXT]
