"""A script for mitmdump in tests: every connection to the outside goes to the local upstream instead.

Only the TCP connect is redirected, so that names, SNI and `Host` are what they are in production.
"""

import asyncio
import os

TLS_PORT, PLAIN_PORT = (int(port) for port in os.environ["LLMTAB_TEST_PORTS"].split(","))
REFUSED = "refused.example.com"

real = asyncio.open_connection


async def open_connection(host=None, port=None, **options):
    """Port 80 is plain, everything else TLS; loopback and one name that nobody answers are left alone."""
    if host == REFUSED:
        raise ConnectionRefusedError(111, "Connection refused")
    if host != "127.0.0.1":
        host, port = "127.0.0.1", PLAIN_PORT if port == 80 else TLS_PORT
    return await real(host, port, **options)


asyncio.open_connection = open_connection
