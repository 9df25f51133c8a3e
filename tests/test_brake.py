"""The brake: a server connection is stopped and let go, and where that cannot be done nothing breaks."""

from types import SimpleNamespace
from typing import Any

from llmtab.batches.brake import brake


class Transport:
    def __init__(self, closing: bool = False) -> None:
        self.said: list[str] = []
        self.is_closing = lambda: closing
        self.pause_reading = lambda: self.said.append("stop")
        self.resume_reading = lambda: self.said.append("go")


def proxy(transport: Any) -> Any:
    """mitmproxy's proxy server with one client `c` that has one server connection `s`."""
    io = SimpleNamespace(writer=SimpleNamespace(transport=transport))
    return SimpleNamespace(connections={"c": SimpleNamespace(transports={"s": io})})


CLIENT = SimpleNamespace(id="c")


def test_stop_and_go() -> None:
    """The server's connection, not the client's, is paused and resumed."""
    transport = Transport()
    brakes = brake(proxy(transport), CLIENT, lambda: "s")
    assert brakes(True)
    assert brakes(False)
    assert transport.said == ["stop", "go"]


def test_a_closing_connection_is_left_alone() -> None:
    """What is being closed is not touched."""
    transport = Transport(closing=True)
    assert brake(proxy(transport), CLIENT, lambda: "s")(True)
    assert transport.said == []


def test_no_brake_where_things_are_otherwise() -> None:
    """Another mitmproxy, a connection that is gone, one that is no TCP: the answer is no, never an error."""
    assert not brake(None, CLIENT, lambda: "s")(True)
    assert not brake(SimpleNamespace(), CLIENT, lambda: "s")(True)
    assert not brake(proxy(object()), CLIENT, lambda: "s")(True)
    assert not brake(proxy(Transport()), CLIENT, lambda: "gone")(False)
    assert not brake(proxy(Transport()), SimpleNamespace(id="gone"), lambda: "s")(False)
