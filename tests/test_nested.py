"""A gateway and its upstream are one call, and nothing else is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from llmtab.nested import GRACE, PATIENCE, Nested, is_loopback
from llmtab.observation import Answer, Call

type Line = dict[str, Any]


@dataclass
class Server:
    """A connection as mitmproxy describes it."""

    address: tuple[str, int]
    peername: tuple[str, int] = ("127.0.0.1", 1)
    sockname: tuple[str, int] = ("192.168.1.5", 2)
    via: Any = None


@dataclass
class Open:
    """An open call."""

    call: Call
    chunks: list[bytes] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    def first_chunks(self) -> list[bytes]:
        return self.chunks


def call(name: str, host: str, began: float, address: str = "127.0.0.1", port: int = 443) -> Call:
    return Call(
        name,
        host,
        "POST",
        "/",
        began,
        {},
        lambda: None,
        lambda _: None,
        client={"address": address},
        server=(host, port),
    )


def line(name: str, **over: Any) -> Line:
    found = {"schema": 1, "id": name, "provider": "openai", "response_model": "m", "response_id": "r",
             "usage": {"input_tokens": 5}, "usage_source": "reported", "cost_usd": Decimal("0.5"),
             "cost_source": "list", "cost_lines": [], "price": {}, "saved_usd": Decimal(0)} | over  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


GATEWAY, UPSTREAM = call("outer", "localhost", 1.0, port=4000), call("inner", "api.openai.com", 2.0)


@pytest.fixture
def nested() -> Nested:
    found = Nested()
    found.connected(Server(("localhost", 4000)))
    found.connected(Server(("api.openai.com", 443), ("1.2.3.4", 443)))
    return found


def end(nested: Nested, ended: Call, at: float, lines: list[Line], *still: Call) -> list[list[Line]]:
    nested.note(ended, at)
    return nested.sort(lines, {each.id: Open(each) for each in still}, at)


def test_equal_and_inside_is_one_call(nested: Nested) -> None:
    """The inner line waits for the outer one, then says whose call it repeats, without usage, cost and proof."""
    assert end(nested, UPSTREAM, 3.0, [line("inner")], GATEWAY) == []
    outer, [inner] = end(nested, GATEWAY, 4.0, [line("outer")])
    assert outer == [line("outer")]
    assert inner == {
        "schema": 1, "id": "inner", "provider": "openai", "response_model": "m", "response_id": "r",
        "usage_source": "none", "usage_reason": "not_billed", "cost_usd": Decimal(0), "cost_source": "not_billed",
        "repeat_of": "outer",
    }  # fmt: skip


@pytest.mark.parametrize("other", [{"response_id": "q"}, {"response_model": "n"}, {"usage": {"input_tokens": 6}}])
def test_one_difference_makes_two_calls(nested: Nested, other: Line) -> None:
    """Id, model and all counters have to be equal."""
    end(nested, UPSTREAM, 3.0, [line("inner")], GATEWAY)
    assert end(nested, GATEWAY, 4.0, [line("outer", **other)]) == [[line("outer", **other)], [line("inner")]]


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (UPSTREAM, call("outer", "localhost", 2.5, port=4000)),
        (call("inner", "api.openai.com", 2.0, "10.0.0.9"), GATEWAY),
        (call("inner", "localhost", 2.0, port=4000), GATEWAY),
        (UPSTREAM, call("outer", "gateway.example.com", 1.0)),
    ],
    ids=["began before", "from elsewhere", "same server", "gateway elsewhere"],
)
def test_nobody_else_waits(nested: Nested, inner: Call, outer: Call) -> None:
    """A call that began before the other, comes from another machine, goes to the same server, or beside a server
    that is not this machine, has its line at once."""
    assert end(nested, inner, 3.0, [line("inner")], outer) == [[line("inner")]]


def test_without_a_local_server_nothing_is_even_asked() -> None:
    """Where no server runs on this machine, or there is only one server, no call can be a gateway's."""
    nested = Nested()
    nested.connected(Server(("api.openai.com", 443), ("1.2.3.4", 443)))
    nested.connected(Server(("other.example.com", 443), ("10.0.0.1", 8080), via=("http", ("10.0.0.1", 8080))))
    assert not nested.possible
    nested.connected(Server(("gateway.lan", 443), ("192.168.1.5", 443)))  # its address is our own
    assert nested.possible


@pytest.mark.parametrize("text, waits", [(b"data: abc " * 500, False), (b"data: r " * 1000, True), (b"", True)])
def test_a_stream_of_another_answer_is_nobodys_gateway(nested: Nested, text: bytes, waits: bool) -> None:
    """A local server that is in the middle of another answer (a model at home) makes nobody wait."""
    nested.note(UPSTREAM, 3.0)
    found = nested.sort([line("inner")], {"outer": Open(GATEWAY, [text] if text else [])}, 3.0)
    assert (found == []) is waits


@pytest.mark.parametrize(("seconds", "open_calls"), [(PATIENCE, ["outer"]), (GRACE, [])])
def test_the_wait_is_bounded(nested: Nested, seconds: float, open_calls: list[str]) -> None:
    """After some seconds, or when the enclosing call is gone without a line, the inner line is written as it is."""
    end(nested, UPSTREAM, 3.0, [line("inner")], GATEWAY)
    assert nested.release(3.0, open_calls) == []
    assert nested.release(3.0 + seconds, open_calls) == [[line("inner")]]


def test_an_outer_call_that_took_too_long_repeats_the_inner_one(nested: Nested) -> None:
    """What was waited for in vain is counted once all the same: then the later line is the one without figures."""
    end(nested, UPSTREAM, 3.0, [line("inner")], GATEWAY)
    nested.release(20.0, ["outer"])
    [[outer]] = end(nested, GATEWAY, 30.0, [line("outer")])
    assert (outer["repeat_of"], "usage" in outer) == ("inner", False)


def test_the_end_gives_up_all_lines(nested: Nested) -> None:
    """A proxy that ends writes what waits."""
    end(nested, UPSTREAM, 3.0, [line("inner")], GATEWAY)
    assert nested.release() == [[line("inner")]]


def test_shares_of_other_models_are_compared_and_go(nested: Nested) -> None:
    """The sub-lines of a call belong to its figures."""
    share: Callable[[str], Line] = lambda main: line(f"{main}-part", parent=main, response_model="adviser")  # noqa: E731
    end(nested, UPSTREAM, 3.0, [line("inner"), share("inner")], GATEWAY)
    outer, inner = end(nested, GATEWAY, 4.0, [line("outer"), share("outer")])
    assert (len(outer), len(inner)) == (2, 1)


@pytest.mark.parametrize(
    ("address", "is_ours"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
     ("", False), ("localhost", False)],
)  # fmt: skip
def test_loopback(address: str, is_ours: bool) -> None:
    """What is this machine by its form."""
    assert is_loopback(address) is is_ours
