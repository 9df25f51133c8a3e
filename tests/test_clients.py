"""How clients are led through the proxy: variables and bundles."""

import stat
from pathlib import Path

import pytest

from llmtab import clients
from llmtab.attribution.labels import user_labels

OURS = b"-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"
COMPANY = b"-----BEGIN CERTIFICATE-----\ncompany\n-----END CERTIFICATE-----\n"
URL = "http://127.0.0.1:8080"


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """Our CA's certificate."""
    path = tmp_path / "mitmproxy-ca-cert.pem"
    path.write_bytes(OURS)
    return path


def test_every_variable_is_set(ca: Path, tmp_path: Path) -> None:
    """Both spellings of the proxy, the CA for each kind of client, and Node.js's switch."""
    found = clients.environment(URL, ca, {}, tmp_path / "ca")
    assert set(found) == {name for name, _, _ in clients.VARIABLES}
    assert {found[name] for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")} == {URL}
    assert found["NODE_USE_ENV_PROXY"] == "1"
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "CODEX_CA_CERTIFICATE", "GIT_SSL_CAINFO"):
        assert OURS in Path(found[name]).read_bytes()


def test_what_replaces_keeps_the_systems_roots(ca: Path, tmp_path: Path) -> None:
    """A variable that replaces a client's roots names a bundle of the system's roots and our CA; one that adds to
    them our CA alone."""
    found = clients.environment(URL, ca, {}, tmp_path / "ca")
    bundle = Path(found["SSL_CERT_FILE"]).read_bytes()
    assert bundle.startswith(clients.system_roots().rstrip())
    assert bundle.endswith(OURS)
    assert Path(found["NODE_EXTRA_CA_CERTS"]) == ca


def test_a_companys_roots_stay(ca: Path, tmp_path: Path) -> None:
    """What a variable named before is in its new bundle, for those that add too; a file that is gone is no loss."""
    company = tmp_path / "company.pem"
    company.write_bytes(COMPANY)
    before = {"REQUESTS_CA_BUNDLE": str(company), "NODE_EXTRA_CA_CERTS": str(company), "CURL_CA_BUNDLE": "/gone.pem"}
    found = clients.environment(URL, ca, before, tmp_path / "ca")
    assert Path(found["REQUESTS_CA_BUNDLE"]).read_bytes() == COMPANY + OURS
    assert Path(found["NODE_EXTRA_CA_CERTS"]).read_bytes() == COMPANY + OURS
    assert found["CURL_CA_BUNDLE"] == found["SSL_CERT_FILE"]
    assert company.read_bytes() == COMPANY


def test_nobody_else_looks_into_the_home(ca: Path, tmp_path: Path) -> None:
    """The first thing that is kept makes llmtab's folder, and every folder of it is the user's alone."""
    home = tmp_path / "home"
    clients.environment(URL, ca, {}, home / "ca")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "ca")] == [0o700, 0o700]


def test_twice_is_once(ca: Path, tmp_path: Path) -> None:
    """In an environment that is set up already (a run in a run) the same bundles serve; none grows."""
    once = clients.environment(URL, ca, {}, tmp_path / "ca")
    twice = clients.environment(URL, ca, once, tmp_path / "ca")
    assert twice == once


def test_this_machine_is_not_proxied(ca: Path, tmp_path: Path) -> None:
    """Servers on this machine are reached directly, besides those that NO_PROXY has already; not so with `local`."""
    before = {"NO_PROXY": ".corp.example, localhost"}
    assert clients.bypassed(before, local=False) == ".corp.example,localhost,127.0.0.1,::1"
    assert clients.bypassed(before, local=True) == ".corp.example"
    found = clients.environment(URL, ca, before, tmp_path / "ca", local=True)
    assert (found["NO_PROXY"], found.get("no_proxy")) == (".corp.example", ".corp.example")
    assert "NO_PROXY" not in clients.environment(URL, ca, {}, tmp_path / "ca", local=True)
    only_local = clients.environment(URL, ca, {"NO_PROXY": "localhost"}, tmp_path / "ca", local=True)
    assert only_local["NO_PROXY"] == ""


def test_labels_ride_on_the_proxys_user() -> None:
    """Labels go into the URL's user, in a form the addon reads back; the password means nothing."""
    url = clients.with_user(URL, {"project": "web", "team": "x y"})
    assert url == "http://+project=web+team=x%20y:x@127.0.0.1:8080"
    assert user_labels("+project=web+team=x y", "consumer") == {"project": "web", "team": "x y"}
    assert clients.with_user(URL, {}) == URL


@pytest.mark.parametrize(
    ("url", "mode", "user"),
    [
        ("http://corp:3128", "upstream:http://corp:3128", ""),
        ("corp:3128", "upstream:http://corp:3128", ""),
        ("https://ann:p%40ss@corp", "upstream:https://corp", "ann:p@ss"),
        ("http://[::1]:3128", "upstream:http://[::1]:3128", ""),
    ],
)
def test_the_way_out(url: str, mode: str, user: str) -> None:
    """A company's proxy becomes mitmproxy's upstream, its password an option of its own."""
    assert clients.way_out(url) == (mode, user)


@pytest.mark.parametrize("url", ["socks5://corp:1080", "http://", "file:///x"])
def test_no_way_out(url: str) -> None:
    """What mitmproxy cannot go out through is refused, not ignored."""
    with pytest.raises(ValueError, match="expected http"):
        clients.way_out(url)


def test_upstream_of_an_environment() -> None:
    """The proxy an environment names by now, in the order that clients look for it."""
    assert clients.upstream({"ALL_PROXY": "http://a", "https_proxy": "corp:1"}) == "http://corp:1"
    assert clients.upstream({"HTTP_PROXY": "http://plain-only"}) is None


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("corp:3128", "http://corp:3128"),
        ("http://ann:s%40x@corp/", "http://ann:s%40x@corp:8080"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_the_address_of_a_proxy(url: str, whole: str) -> None:
    """It is made whole: clients disagree on the port of a URL without one."""
    assert clients.address(url) == whole


@pytest.mark.parametrize("url", ["", "nonsense:", "http://", "a b", "http://x:99999", "socks5://x:1", "http://x/path"])
def test_no_address_of_a_proxy(url: str) -> None:
    """What no client could use is refused, without a password that may be in it."""
    with pytest.raises(ValueError, match="expected the URL of a proxy like"):
        clients.address(url)
