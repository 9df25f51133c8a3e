"""Fingerprints: one key has one name, and the name says nothing."""

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llmtab.attribution import fingerprints
from llmtab.attribution.fingerprints import Fingerprints


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "key"


def test_one_key_has_one_name(key_file: Path) -> None:
    """The same credential gives the same fingerprint however it is sent, and after a restart too."""
    first, second = Fingerprints(key_file), Fingerprints(key_file)
    name = first.of({"authorization": "Bearer sk-test-1"})
    assert name is not None
    assert name.startswith("k_")
    assert len(name) >= 14
    for headers in (
        {"x-api-key": "sk-test-1"},
        {"api-key": "sk-test-1"},
        {"x-goog-api-key": "sk-test-1"},
        {"authorization": "bearer  sk-test-1"},
        {"authorization": "", "x-api-key": " sk-test-1 "},
    ):
        assert second.of(headers) == name
    assert second.of({}, "sk-test-1") == name
    assert second.of({"x-api-key": "sk-test-2"}) != name


def test_no_credential_has_no_name(key_file: Path) -> None:
    """A call without a credential has no fingerprint, and makes no key file."""
    assert Fingerprints(key_file).of({"user-agent": "x", "authorization": "Bearer "}) is None
    assert not key_file.parent.exists()


def test_an_aws_signature_is_its_access_key(key_file: Path) -> None:
    """Signatures differ from call to call; the access key's id is what stays."""
    signature = (
        "AWS4-HMAC-SHA256 Credential=AKIATEST/2026{}/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={}"
    )
    names = {Fingerprints(key_file).of({"authorization": signature.format(day, day * 8)}) for day in ("1101", "1102")}
    assert len(names) == 1
    assert names == {Fingerprints(key_file).of({"x-api-key": "AKIATEST"})}


def test_fingerprints_do_not_hold_the_key(key_file: Path) -> None:
    """Another machine gives the same credential another name: nobody can test guesses against a ledger."""
    headers = {"x-api-key": "sk-test-1"}
    assert Fingerprints(key_file).of(headers) != Fingerprints(key_file.with_name("other")).of(headers)


def test_the_key_file_is_private(key_file: Path) -> None:
    """The random key is readable by its owner alone, in a folder that is too."""
    Fingerprints(key_file).of({"x-api-key": "x"})
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["key"]
    assert len(key_file.read_bytes()) == 32


def test_a_folder_that_refuses_costs_only_constancy(tmp_path: Path) -> None:
    """Where the key cannot be kept there are fingerprints all the same, for as long as the process lives."""
    (tmp_path / "file").write_text("not a folder")
    found = Fingerprints(tmp_path / "file" / "key")
    assert found.of({"x-api-key": "x"}) == found.of({"x-api-key": "x"}) != None  # noqa: E711


def test_an_empty_key_file_is_replaced(key_file: Path) -> None:
    """What a crash left of the key file is no key."""
    key_file.parent.mkdir()
    key_file.write_bytes(b"")
    assert Fingerprints(key_file).of({"x-api-key": "x"}) == Fingerprints(key_file).of({"x-api-key": "x"})
    assert len(key_file.read_bytes()) == 32


def test_processes_that_start_together_agree(key_file: Path) -> None:
    """Two proxies that start at the same moment end up with the same key."""
    gate, names = threading.Barrier(8), []

    def start() -> None:
        gate.wait()
        names.append(Fingerprints(key_file).of({"x-api-key": "x"}))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 1


def test_no_hard_links(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links keeps the key as well."""

    def refuse(*_: Any) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(fingerprints.os, "link", refuse)
    test_the_key_file_is_private(key_file)


def test_strange_credentials(key_file: Path) -> None:
    """No bytes in a credential raise anything."""
    of: Callable[..., str | None] = Fingerprints(key_file).of
    assert of({"authorization": "\udcff\x00"}) is not None
    assert of({"authorization": "AWS4-HMAC-SHA256"}) is not None


def test_people_are_fingerprints_of_another_kind(key_file: Path) -> None:
    """An end user's name has a fingerprint too, another one than a key of the same text would have."""
    found = Fingerprints(key_file)
    assert found.of_person("somebody") == Fingerprints(key_file).of_person("somebody")
    assert found.of_person("somebody") != found.of_person("somebody else")
    assert found.of_person("somebody")[:2] == "u_"
    assert found.of_person("somebody")[2:] != (found.of({"x-api-key": "somebody"}) or "")[2:]
