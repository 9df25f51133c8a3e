"""The provider of the demonstration: an HTTP proxy on loopback that answers every call itself.

Knows HTTP and the answers in `calls`. Being the proxy's own upstream proxy, it is asked for whatever host a call names,
and nothing ever leaves the machine.
"""

import http.server
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from llmtab.demo.calls import CALLS


class Provider:
    """`with Provider(pace) as provider:` listens on `provider.port`; `pace`: seconds between the events of a stream."""

    def __init__(self, pace: float) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, pace))
        self._thread = threading.Thread(target=self._server.serve_forever, name="demo-provider", daemon=True)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> "Provider":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, pace: float, *connection: Any) -> None:
        self.pace = pace
        super().__init__(*connection)  # serves the whole connection

    def do_POST(self) -> None:
        """Answers with what the call that is named in a header should get."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        call = CALLS[int(self.headers["x-demo-call"])]
        self.send_response(call.status)
        self.send_header("content-type", call.media_type)
        time.sleep(self.pace)
        with suppress(ConnectionError):  # the one that leaves
            if len(call.answer) == 1:
                self.send_header("content-length", str(len(call.answer[0])))
                self.end_headers()
                self.wfile.write(call.answer[0])
            else:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in call.answer:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    time.sleep(self.pace)
                self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """The proxy's table is what there is to see."""
