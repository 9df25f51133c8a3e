"""What is passed on as it comes, told by media type and request."""

import pytest

from llmtab.passing import is_large, is_stream, streams

ASKS = b'{"model": "m", "stream": true}'
PLAIN = b'{"model": "m", "stream": false}'


@pytest.mark.parametrize("label", ["", "application/json", "Application/JSON", "text/json", "application/vnd.x+json"])
def test_who_asks_for_a_stream_is_never_held_up_by_its_label(label: str) -> None:
    """A stream reaches the client as it comes though the server calls it JSON, or nothing at all; what was not asked
    to stream is held, as mitmproxy holds it."""
    assert streams(label, ASKS)
    assert not streams(label, PLAIN)


@pytest.mark.parametrize("label", ["audio/mpeg", "image/png", "text/plain", "application/octet-stream"])
def test_what_is_no_json_is_passed_on(label: str) -> None:
    """Audio and files are never held, whatever was asked."""
    assert streams(label, PLAIN)
    assert not is_stream(label)


def test_the_words_are_found_at_both_ends_of_a_large_request() -> None:
    """`stream` stands before or behind the prompt."""
    prompt = b'"prompt": "' + b"x" * 300_000 + b'"'
    assert streams("application/json", b'{"stream":true, ' + prompt + b"}")
    assert streams("application/json", b"{" + prompt + b', "stream" : true}')


@pytest.mark.parametrize(
    ("length", "coding", "large"),
    [("10", None, False), ("70000", None, True), (None, "chunked", True), (None, None, False), ("ten", None, False)],
)
def test_an_upload_is_large_where_it_may_be(length: str | None, coding: str | None, large: bool) -> None:
    """A body of unknown length counts as large."""
    assert is_large(length, coding) is large
