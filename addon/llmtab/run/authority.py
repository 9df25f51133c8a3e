"""mitmproxy's certificate authority: where it lies, made where it is missing, and how long it lasts.

Knows mitmproxy's folder and the names in it. Must not know who trusts it.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

FOLDER: Final = Path("~/.mitmproxy")
CERTIFICATE: Final = "mitmproxy-ca-cert.pem"
PRIVATE: Final = "mitmproxy-ca.pem"
"""Certificate and key: whoever has it can read what trusts it."""
KEY_BITS: Final = 2048


def certificate(folder: Path | None = None) -> Path:
    """The CA's certificate, PEM; made as mitmproxy would make it at its first start. OSError where it cannot be."""
    place = (folder or FOLDER).expanduser()
    path = place / CERTIFICATE
    if not path.is_file():
        from mitmproxy.certs import CertStore

        CertStore.from_store(place, "mitmproxy", KEY_BITS)
    return path


def server(folder: Path, host: str) -> tuple[Path, Path]:
    """A CA of its own in `folder`, and a certificate of it for `host`: (the CA's certificate, certificate and key)."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509 import DNSName
    from mitmproxy.certs import CertStore

    entry = CertStore.from_store(folder, "server", KEY_BITS).get_cert(host, [DNSName(host)])
    path = folder / "server.pem"
    path.touch(mode=0o600)
    key = entry.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key + entry.cert.to_pem())
    return folder / "server-ca-cert.pem", path


def expires(path: Path) -> datetime:
    """When the certificate in a PEM file ends, UTC. Raises ValueError where it is none."""
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.astimezone(UTC)
