"""API keys in a file."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from tests.support.waiting import Clock

from lipwire.domain import (
    Access,
    InvalidInput,
    LipwireError,
    NotFound,
    StorageFailed,
    Unauthenticated,
)
from lipwire.security import PREFIX, KeyFile


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> KeyFile:
    return KeyFile(tmp_path / "keys.json", now=clock)


def test_a_key_allows_what_it_was_made_for(keys: KeyFile) -> None:
    key = keys.create("phone", tenant="acme", operations=["live"], avatars=["acme-*"])
    assert key.startswith(f"{PREFIX}phone_")
    assert keys.access(key) == Access("key phone", "acme", frozenset({"live"}), ("acme-*",))
    everything = keys.create("admin")
    assert keys.access(everything).sees_all
    assert [one.name for one in keys.listed()] == ["admin", "phone"]


def test_the_file_has_no_secret(keys: KeyFile) -> None:
    key = keys.create("phone")
    text = keys.path.read_text("utf-8")
    assert key not in text
    assert key.removeprefix(PREFIX).partition("_")[2] not in text


def test_two_keys_share_nothing(keys: KeyFile) -> None:
    made = [keys.create(f"key{number}").removeprefix(PREFIX) for number in range(20)]
    secrets = {key.partition("_")[2] for key in made}
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {43}  # 256 bits


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key + "x",
        lambda key: key[:-1],
        lambda key: key.replace("phone", "other"),
        lambda key: PREFIX,
        lambda key: f"{PREFIX}phone_",
        lambda key: "",
        lambda key: f"{PREFIX}phone_\ud800",
    ],
)
def test_another_key_is_none(keys: KeyFile, change: object) -> None:
    key = keys.create("phone")
    assert callable(change)
    with pytest.raises(Unauthenticated, match="not known here"):
        keys.access(change(key))


def test_a_key_expires(keys: KeyFile, clock: Clock) -> None:
    key = keys.create("phone", lifetime_s=60)
    clock.now += 59
    keys.access(key)
    clock.now += 1
    with pytest.raises(Unauthenticated, match="the API key phone has expired"):
        keys.access(key)


def test_a_revoked_key_counts_for_nothing_within_a_second(keys: KeyFile, clock: Clock) -> None:
    key, other = keys.create("phone"), keys.create("other")
    keys.access(key)
    KeyFile(keys.path).revoke("phone")  # in another process
    clock.now += 1
    with pytest.raises(Unauthenticated):
        keys.access(key)
    keys.access(other)
    with pytest.raises(NotFound, match="no key phone"):
        keys.revoke("phone")


def test_a_new_key_counts_within_a_second(keys: KeyFile, clock: Clock) -> None:
    with pytest.raises(Unauthenticated):
        keys.access(f"{PREFIX}a_b")
    key = KeyFile(keys.path).create("phone")
    clock.now += 1
    keys.access(key)


def test_while_the_file_cannot_be_looked_at_the_keys_before_count(
    keys: KeyFile, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.create("phone")
    assert keys.access(key).subject == "key phone"

    def refused(path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    clock.now += 10
    assert keys.access(key).subject == "key phone"
    with pytest.raises(InvalidInput, match=r"keys\.json cannot be read: Permission denied"):
        keys.listed()


def test_while_the_file_is_damaged_the_keys_before_count(
    keys: KeyFile, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.create("phone")
    keys.access(key)
    good = keys.path.read_text("utf-8")
    keys.path.write_text("{", "utf-8")
    clock.now += 1
    keys.access(key)
    clock.now += 1
    keys.access(key)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "no file of API keys" in said
    keys.path.write_text(good, "utf-8")
    clock.now += 1
    keys.access(key)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 41, "a b", "../a"])
def test_names_are_plain(keys: KeyFile, name: str) -> None:
    with pytest.raises(InvalidInput, match="the key's name is"):
        keys.create(name)


def test_what_a_key_may_do_is_checked(keys: KeyFile) -> None:
    with pytest.raises(InvalidInput, match="operations are fly; allowed are live"):
        keys.create("a", operations=["fly"])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="operations are none"):
        keys.create("a", operations=[])
    with pytest.raises(InvalidInput, match="a pattern of avatars is empty"):
        keys.create("a", avatars=[""])
    keys.create("a")
    with pytest.raises(InvalidInput, match="there is a key a already"):
        keys.create("a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{}]}',
        '{"version": 1, "keys": 3}',
        json.dumps(
            {
                "version": 1,
                "keys": [
                    {
                        "name": "a",
                        "sha256": "00",
                        "tenant": "",
                        "operations": ["live"],
                        "avatars": ["*"],
                        "created_s": 0,
                        "expires_s": None,
                    }
                ],
            }
        ),
    ],
)
def test_a_damaged_file_is_told_and_kept(keys: KeyFile, text: str) -> None:
    keys.path.write_text(text, "utf-8")
    for what in (keys.listed, lambda: keys.create("a")):
        with pytest.raises(InvalidInput, match=r"keys\.json"):
            what()
    assert keys.path.read_text("utf-8") == text


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed):
        KeyFile(tmp_path / "file" / "keys.json").create("a")


@pytest.mark.slow
def test_keys_made_at_once_are_all_there(keys: KeyFile) -> None:
    errors: list[LipwireError] = []

    def make(number: int) -> None:
        try:
            KeyFile(keys.path).create(f"key{number}")
        except LipwireError as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(keys.listed()) == 8


@pytest.mark.parametrize("text", ['{"version": 1, "keys": ' + "[" * 100_000, "[" * 100_000])
def test_a_file_of_keys_that_is_nested_without_end_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="is no file of API keys"):
        KeyFile(path).listed()
