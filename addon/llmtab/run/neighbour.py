"""Who listens on a port: nobody, a mitmproxy, or something else.

Knows one question that every mitmproxy answers itself (http://mitm.it/, which never leaves it). Must not know why it is
asked.
"""

import socket
from contextlib import suppress
from typing import Final, Literal

SECONDS: Final = 2.0
_QUESTION: Final = b"GET http://mitm.it/ HTTP/1.1\r\nHost: mitm.it\r\nConnection: close\r\n\r\n"
_MOST: Final = 65536

type Neighbour = Literal["nobody", "mitmproxy", "somebody"]


def listening(host: str, port: int) -> Neighbour:
    """Asks, and waits two seconds at most for each answer."""
    try:
        connection = socket.create_connection((host, port), SECONDS)
    except OSError:
        return "nobody"
    said = b""
    with connection, suppress(OSError):
        connection.sendall(_QUESTION)
        while len(said) < _MOST and (data := connection.recv(_MOST)):
            said += data
            if b"mitmproxy" in said:
                break
    return "mitmproxy" if b"mitmproxy" in said else "somebody"
