"""What a store's files say, and what of it is refused."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.avatars.store.layout import (
    Canary,
    Manifest,
    Published,
    StoredFile,
    name_of,
    parse_manifest,
    parse_published,
    pointer_key,
)
from lipwire.domain import AvatarInvalid
from lipwire.domain.names import canonical_name, is_name

HASH = "ab" * 32
OTHER = "cd" * 32


def stored(files: Any, **others: Any) -> tuple[bytes, str]:
    """A manifest's bytes, and the version they are named by."""
    data = json.dumps({"lipwire": 1, "avatar": "anna", "files": files, **others}).encode()
    return data, hashlib.sha256(data).hexdigest()


def test_a_manifest_is_read_as_it_was_written() -> None:
    files = (StoredFile("a/b.png", 3, HASH), StoredFile("a/ü.png", 0, OTHER))
    manifest = Manifest("anna", files)
    assert parse_manifest(manifest.to_bytes(), "anna", manifest.version) == manifest
    assert manifest.size_bytes == 3


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([["../x", 1, HASH]], "leads out"),
        ([["a/../../x", 1, HASH]], "leads out"),
        ([["/etc/passwd", 1, HASH]], "leads out"),
        ([["C:/x", 1, HASH]], "leads out"),
        ([["a\\..\\x", 1, HASH]], "leads out"),
        ([[".lipwire/model", 1, HASH]], "hidden"),
        ([["a//b", 1, HASH]], "leads out"),
        ([["a/b\n", 1, HASH]], "characters that no path has"),
        ([["a\0b", 1, HASH]], "characters that no path has"),
        ([["x" * 600, 1, HASH]], "more than 512 characters"),
        ([["x" * 300, 1, HASH]], "more than 200 bytes"),
        ([["", 1, HASH]], "is empty"),
        ([["a", -1, HASH]], "has -1 bytes"),
        ([["a", 1 << 50, HASH]], "bytes"),
        ([["a", 20 << 30, HASH], ["b", 20 << 30, HASH]], "bytes; allowed are"),
        ([["a", True, HASH]], "no file"),
        ([["a", 1.5, HASH]], "no file"),
        ([["a", 1, "../../x"]], "no SHA-256"),
        ([["a", 1, HASH.upper()]], "no SHA-256"),
        ([["A/b", 1, HASH], ["a/B", 1, HASH]], "there twice"),
        ([["a", 1, HASH], ["a/b", 1, HASH]], "a file and a folder"),
        ([], "has 0 files"),
        ([["a", 1]], "no file"),
        ("a", "something else"),
    ],
)
def test_a_hostile_manifest_is_refused(files: Any, said: str) -> None:
    data, version = stored(files)
    with pytest.raises(AvatarInvalid, match=said):
        parse_manifest(data, "anna", version)


def test_a_manifest_of_another_avatar_or_version_is_refused() -> None:
    data, version = stored([["a", 1, HASH]])
    with pytest.raises(AvatarInvalid, match="something else"):
        parse_manifest(data, "zoe", version)
    with pytest.raises(AvatarInvalid, match="not the one it is named by"):
        parse_manifest(data + b" ", "anna", version)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 100_000, b'{"lipwire": 2}', b"\xff"])
def test_what_is_no_file_of_a_store_is_refused(data: bytes) -> None:
    with pytest.raises(AvatarInvalid):
        parse_manifest(data, "anna", hashlib.sha256(data).hexdigest())
    with pytest.raises(AvatarInvalid):
        parse_published(data, "anna")


def test_what_is_published_is_read_as_it_was_written() -> None:
    now = Published(HASH, (OTHER,))
    assert parse_published(now.to_bytes(), "anna") == now


@pytest.mark.parametrize(
    "facts",
    [
        {"version": "../x"},
        {"version": HASH, "before": "x"},
        {"version": HASH, "before": ["x"]},
    ],
)
def test_a_pointer_to_no_version_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(AvatarInvalid):
        parse_published(json.dumps({"lipwire": 1, **facts}).encode(), "anna")


def test_what_was_published_is_remembered_once_and_not_for_ever() -> None:
    now = Published(f"{0:064x}")
    for number in (*range(1, 40), 39, 20):
        now = now.then(f"{number:064x}")
    assert now.version == f"{20:064x}"
    assert now.before[0] == f"{39:064x}"
    assert len(now.before) == len(set(now.before)) == 20
    assert now.version not in now.before


@given(st.text(min_size=1, max_size=30).filter(is_name))
def test_a_name_comes_back_from_its_key(text: str) -> None:
    name = canonical_name(text)
    key = pointer_key(name)
    assert key.count("/") == 1
    assert key.isascii()
    assert name_of(key.removeprefix("published/")) == name


@pytest.mark.parametrize(
    "pointer", ["anna", "a%2Fb.json", "%2e.json", "%FF.json", "..json", ".json"]
)
def test_a_file_that_lipwire_did_not_write_names_no_avatar(pointer: str) -> None:
    assert name_of(pointer) is None


def test_a_canary_is_read_as_it_was_written() -> None:
    now = Published(HASH, (OTHER,), Canary("ef" * 32, 0.05))
    assert parse_published(now.to_bytes(), "anna") == now
    assert now.then(OTHER).canary is None


@pytest.mark.parametrize(
    "canary",
    [
        "5%",
        {},
        {"version": HASH},
        {"version": "x", "share": 0.5},
        {"version": HASH, "share": 0},
        {"version": HASH, "share": 1},
        {"version": HASH, "share": -0.1},
        {"version": HASH, "share": "0.5"},
        {"version": HASH, "share": float("nan")},
    ],
)
def test_a_canary_that_is_none_is_refused(canary: Any) -> None:
    data = json.dumps({"lipwire": 1, "version": HASH, "before": [], "canary": canary}).encode()
    with pytest.raises(AvatarInvalid, match="a canary that is none"):
        parse_published(data, "anna")
