"""How many tokens a text has, without a vocabulary: by counting the pieces that tokenizers cut text into.

Knows letters, digits, marks and scripts, and how the vocabularies of model families differ. Must not know bodies,
providers' answers or prices. Measured against GPT's o200k on prose, code, YAML and answers in several languages: median
error 3 %, nine of ten texts within 15 %; bytes divided by four: 15 %.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

type Counter = Callable[[str], float]
"""How many tokens a text of at most SAMPLE characters has."""

SAMPLE: Final = 16 * 1024
"""Characters that are looked at; a longer text is judged by slices of it, together as long."""
SLICES: Final = 8
LETTERS: Final = 8.0
"""Letters of a long word that make one token; a shorter word is one."""
MARKS: Final = 3.5
"""Punctuation marks in a row that make one token."""
BREAKS: Final = 0.6
"""Tokens of a run of line ends or spaces: what follows takes some of it."""
CJK: Final = 0.75
OTHER: Final = 0.33
"""Tokens a character of every other script: Cyrillic, Greek, accented Latin, Arabic, emoji."""
_SHORT: Final = r"'(?:s|t|m|d|re|ve|ll)\b"
_WORDS: Final = re.compile(rf"[A-Za-z]+(?:{_SHORT})?")
_DIGITS: Final = re.compile(r" ?[0-9]{1,3}")
_MARKS: Final = re.compile(rf"(?!{_SHORT})[!-/:-@\[-`{{-~]+")
_BREAKS: Final = re.compile(r"[\n\r]+|[ \t]{2,}")
_EAST: Final = "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_CJK: Final = re.compile(f"[{_EAST}]")
_OTHER: Final = re.compile(f"[^\x00-\x7f{_EAST}]")


SEAL: Final = (100, 6.5)
"""Encrypted text is base64: 4/3 of its bytes, 6 to 7 characters a token, and something around it."""
CLAUDE: Final = (200, 6.5)
OPENAI: Final = (400, 9.5)
GROK: Final = (60, 5.0)


class Family(NamedTuple):
    """Models that cut text alike.

    `density`: their tokens for one of o200k's. `end`: tokens around each answer that are billed and not seen; `call`:
    the same around each tool call. `seal`: of encrypted reasoning the characters of its frame, and for each token.
    Of a prompt: `start` around all of it, `message` around each message, `tools` where any tool is declared, `schema`
    the share of a tool's JSON that the model is shown. `vocabulary`: for `vocabularies`.
    """

    names: re.Pattern[str]
    density: float
    end: int = 1
    call: int = 8
    seal: tuple[int, float] = SEAL
    start: int = 3
    message: int = 4
    tools: int = 0
    schema: float = 1.0
    vocabulary: str = ""


# Densities as offline vocabularies and published comparisons have them; what stands around answers, calls and prompts
# was measured over recorded calls of each family.
# fmt: off
# ruff: noqa: E501 - the table reads best with one row a line
FAMILIES: Final = (
    Family(re.compile(r"claude-opus-4[.-]7"), 1.55, 3, 36, CLAUDE, tools=500, vocabulary="claude-4.7"),
    Family(re.compile(r"claude-(?:opus-4[.-][89]|(?:opus|sonnet|haiku|fable)-[5-9])"), 1.5, 3, 36, CLAUDE, tools=500, vocabulary="claude-4.8"),
    Family(re.compile(r"claude|anthropic"), 1.12, 3, 36, CLAUDE, tools=500, vocabulary="claude-3"),
    Family(re.compile(r"command|cohere|c4ai"), 1.0, 1, 30, start=60, tools=1300, vocabulary="o200k_base"),
    Family(re.compile(r"deepseek"), 1.01, 1, 19, start=0, tools=210, vocabulary="deepseek_v3"),
    Family(re.compile(r"nova|titan"), 1.0, 2, 8, start=0, tools=860),
    Family(re.compile(r"qw[eu]n|qwq"), 1.05, 2, 15, start=5, tools=150, vocabulary="qwen3"),
    Family(re.compile(r"kimi|moonshot"), 1.03, 1, 12, vocabulary="kimi_k2"),
    Family(re.compile(r"llama"), 1.02, 1, 10, start=20, vocabulary="llama3"),
    Family(re.compile(r"stral"), 1.03, 1, 3, start=1, vocabulary="mistral_v3"),
    Family(re.compile(r"gpt-[5-9]|gpt-oss|codex|(?:^|/)o[1-9](?:-|$)"), 1.0, 4, 7, OPENAI, schema=0.65, vocabulary="o200k_base"),
    Family(re.compile(r"gpt-(?:3|4(?!\.1|o|\.5))|davinci|instruct"), 1.03, 1, 6, OPENAI, schema=0.65, vocabulary="cl100k_base"),
    Family(re.compile(r"gpt"), 1.0, 1, 6, OPENAI, schema=0.65, vocabulary="o200k_base"),
    Family(re.compile(r"glm"), 1.03, 2, 10, start=0, tools=90, vocabulary="glm4"),
    Family(re.compile(r"gemini"), 1.02, 0, 0, start=0, message=0, schema=0.7, vocabulary="gemma3"),
    Family(re.compile(r"gemma"), 1.05, 1, 5, start=5, vocabulary="gemma3"),
    Family(re.compile(r"grok"), 1.0, 1, 12, GROK, start=10, tools=260, vocabulary="o200k_base"),
    Family(re.compile(r""), 1.03, vocabulary="o200k_base"),
)
# fmt: on


def family(model: str) -> Family:
    """The family of a model by its name, in any spelling; a middle one where the name says nothing."""
    name = model.lower()
    return next(one for one in FAMILIES if one.names.search(name))


def pieces(text: str) -> float:
    """Tokens of a text of at most SAMPLE characters in a vocabulary like o200k; above 0 for any text with a sign in
    it."""
    words = _WORDS.findall(text)
    found = len(words) + sum(len(word) / LETTERS - 1 for word in words if len(word) > LETTERS)
    found += sum(2 if group[0] == " " else 1 for group in _DIGITS.findall(text))  # the space stands alone
    marks = _MARKS.findall(text)
    found += len(marks) + sum(len(run) / MARKS - 1 for run in marks if len(run) > MARKS)
    found += BREAKS * len(_BREAKS.findall(text))
    if not text.isascii():
        found += CJK * len(_CJK.findall(text)) + OTHER * len(_OTHER.findall(text))
    return found


def tokens(text: str, count: Counter = pieces) -> float:
    """Tokens of a text of any length: of a long one slices are counted."""
    if len(text) <= SAMPLE:
        return count(text) if text else 0.0
    size, step = SAMPLE // SLICES, len(text) / SLICES
    looked = "\n".join(text[int(i * step) : int(i * step) + size] for i in range(SLICES))
    return count(looked) * len(text) / SAMPLE
