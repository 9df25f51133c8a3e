"""What `alerts:` in llmtab.yaml may say, as a pydantic model. Imported only when a file is really parsed."""

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_SCHEMES: Final = ("http", "https")


def _url(text: str) -> str:
    found = urlsplit(text)
    if found.scheme not in _SCHEMES or not found.hostname:
        raise ValueError("expected an address like https://hooks.example.com/llmtab")
    return text


class AlertsSpec(BaseModel):
    """Where alerts go besides the log. `command` gets the message, a JSON object, on its standard input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook: Annotated[str, AfterValidator(_url)] | None = None
    headers: dict[str, str] | None = None
    command: Annotated[list[str], Field(min_length=1)] | None = None
