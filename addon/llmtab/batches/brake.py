"""A brake on one server connection: the provider waits while we are behind, and the client's bytes with it.

Knows how mitmproxy's proxy server keeps its connections (12.2, 12.3), though it imports nothing of it: where
that is not as expected, there is no brake. Used only where megabytes wait already, so that memory stays bounded.
"""

from collections.abc import Callable
from typing import Any


def brake(proxyserver: Any, client: Any, server: Callable[[], Any]) -> Callable[[bool], bool]:
    """A function that stops (True) or resumes the reading from a server; whether that could be done.

    `proxyserver`: the add-on of that name. `client`: the client connection. `server()`: the server connection.
    """

    def set_brake(stop: bool) -> bool:
        handler = getattr(proxyserver, "connections", {}).get(client.id)
        io = getattr(handler, "transports", {}).get(server())
        transport: Any = getattr(getattr(io, "writer", None), "transport", None)
        if not hasattr(transport, "pause_reading"):
            return False
        if not transport.is_closing():
            transport.pause_reading() if stop else transport.resume_reading()
        return True

    return set_brake
