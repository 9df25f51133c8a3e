"""The vendors' own SDKs in a process of their own, told of the proxy by environment variables only; and the encoding of
AWS event streams, which only AWS's servers write."""

import base64
import binascii
import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy

SECONDS = 60
"""What a program may take; an SDK needs one or two to be imported."""
SECRETS = ("_proxy", "_api_key", "_token", "_profile", "_base_url")
"""Variables that would lead a program elsewhere."""


def needs(module: str) -> pytest.MarkDecorator:
    """Skips a test where an SDK is not installed."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    return pytest.mark.skipif(found is None, reason=f"{module} is not installed (extra: clients)")


def run(proxy: Proxy, folder: Path, code: str) -> str:
    """Runs a program as README says clients are to be run; what it prints. Fails where it fails."""
    import certifi

    bundle = folder / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes() + (proxy.conf / "mitmproxy-ca-cert.pem").read_bytes())
    address = f"http://127.0.0.1:{proxy.port}"
    told = {
        "HTTPS_PROXY": address, "https_proxy": address, "SSL_CERT_FILE": str(bundle), "AWS_CA_BUNDLE": str(bundle),
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(SECRETS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | told, capture_output=True, text=True, timeout=SECONDS, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def gate() -> Iterator[threading.Event]:
    """A step that holds an answer back until the block is left."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def message(kind: str, payload: Any) -> bytes:
    """One message of an AWS event stream: prelude, headers, payload and both checksums."""
    names = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in names.items()
    )
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    body = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + data
    return body + struct.pack(">I", binascii.crc32(body))


def chunk(event: Any) -> bytes:
    """A message of InvokeModelWithResponseStream: the model's own event in base64, and padding."""
    return message("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abcdefgh"})
