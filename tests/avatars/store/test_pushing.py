"""Packages brought into a store, and what is published of them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import PackageFactory
from tests.support.s3server import S3Server
from tests.support.waiting import until

from lipwire.avatars.store import pushing
from lipwire.avatars.store.layout import Canary, Published
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound, Unavailable
from lipwire.stores.objects import ObjectStore


def contents(package: Path) -> dict[str, bytes]:
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and ".lipwire" not in path.parts
    }


@pytest.mark.slow
def test_a_bucket_has_every_file_by_its_hash(s3: S3Server, avatar_package: Path) -> None:
    url = s3.new_url()
    manifest = pushing.push(ObjectStore(url, endpoint_url=s3.endpoint_url), "anna", avatar_package)
    inside = contents(avatar_package)
    wanted = {
        f"avatars/anna/files/{hashlib.sha256(data).hexdigest()}": data for data in inside.values()
    }
    wanted[f"avatars/anna/versions/{manifest.version}.json"] = manifest.to_bytes()
    assert s3.objects(url) == wanted
    assert {each.path for each in manifest.files} == set(inside)


def test_the_same_files_are_the_same_version(
    store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    first = pushing.push(store, "anna", make_package(tmp_path / "a"))
    again = pushing.push(store, "anna", make_package(tmp_path / "b"))
    other = pushing.push(store, "anna", make_package(tmp_path / "c", seed=1))
    assert first.version == again.version != other.version
    assert sorted(pushing.versions(store, "anna")) == sorted({first.version, other.version})


def test_only_what_is_missing_is_sent(
    store: ObjectStore, avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushing.push(store, "anna", avatar_package)
    sent: list[str] = []
    upload = ObjectStore.upload

    def noting(self: ObjectStore, key: str, source: Path) -> None:
        sent.append(source.name)
        upload(self, key, source)

    monkeypatch.setattr(ObjectStore, "upload", noting)
    (avatar_package / "avatar.yaml").write_text("description: new\n")
    told: list[tuple[int, int]] = []
    pushing.push(store, "anna", avatar_package, lambda *each: told.append(each))
    assert sent == ["avatar.yaml"]
    assert told[-1][0] == told[-1][1] == sum(map(len, contents(avatar_package).values()))


def test_what_was_interrupted_is_nowhere_and_goes_on(
    store: ObjectStore, avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = ObjectStore.upload
    sent: list[str] = []

    def failing(self: ObjectStore, key: str, source: Path) -> None:
        if len(sent) == 3:
            raise Unavailable("the avatar store cannot be asked: away")
        sent.append(key)
        upload(self, key, source)

    monkeypatch.setattr(pushing, "SENDERS", 1)
    monkeypatch.setattr(ObjectStore, "upload", failing)
    with pytest.raises(Unavailable):
        pushing.push(store, "anna", avatar_package)
    assert pushing.versions(store, "anna") == []
    monkeypatch.setattr(ObjectStore, "upload", upload)
    before = {each.name: each.token for each in store.listed("avatars/anna/files")}
    assert len(before) == 3
    manifest = pushing.push(store, "anna", avatar_package)
    after = {each.name: each.token for each in store.listed("avatars/anna/files")}
    assert before.items() <= after.items()
    assert pushing.versions(store, "anna") == [manifest.version]


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_nothing_to_be_found(
    s3: S3Server, avatar_package: Path
) -> None:
    url = s3.new_url()
    (avatar_package / "more.bin").write_bytes(os.urandom(40_000_000))
    arguments = ["avatar", "push", "anna", "--from", str(avatar_package), "--store", url]
    process = subprocess.Popen(
        [sys.executable, "-m", "lipwire", *arguments, "--endpoint-url", s3.endpoint_url]
    )
    until(lambda: s3.objects(url))
    s3.hang()
    process.kill()
    process.wait()
    s3.go_on()
    store = ObjectStore(url, endpoint_url=s3.endpoint_url)
    assert pushing.versions(store, "anna") == []
    assert pushing.avatars_in(store) == {}
    manifest = pushing.push(store, "anna", avatar_package)
    assert pushing.versions(store, "anna") == [manifest.version]


def test_a_file_that_changes_meanwhile_is_not_kept(
    store: ObjectStore, avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = ObjectStore.upload

    def changing(self: ObjectStore, key: str, source: Path) -> None:
        if source.name == "crop_rects.json":
            source.write_bytes(b"other")
        upload(self, key, source)

    digest = pushing.sha256_of(avatar_package / "crop_rects.json")
    monkeypatch.setattr(ObjectStore, "upload", changing)
    with pytest.raises(InvalidInput, match=r"crop_rects.json was changed while it was sent"):
        pushing.push(store, "anna", avatar_package)
    assert digest not in {each.name for each in store.listed("avatars/anna/files")}
    assert pushing.versions(store, "anna") == []


def test_a_package_that_is_broken_is_not_sent(store: ObjectStore, avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").write_text("{}")
    with pytest.raises(AvatarInvalid):
        pushing.push(store, "anna", avatar_package)
    assert store.listed("avatars/anna/files") == []


def test_links_that_lead_out_are_not_sent(store: ObjectStore, avatar_package: Path) -> None:
    (avatar_package / "secret.txt").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match=r"secret.txt is a link that leads out"):
        pushing.push(store, "anna", avatar_package)


def test_hidden_files_and_compiled_forms_stay(store: ObjectStore, avatar_package: Path) -> None:
    assert (avatar_package / ".lipwire").is_dir()
    (avatar_package / ".DS_Store").write_bytes(b"x")
    manifest = pushing.push(store, "anna", avatar_package)
    assert not [each.path for each in manifest.files if each.path.startswith(".")]


def two_versions(
    store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> tuple[str, str]:
    one = pushing.push(store, "anna", make_package(tmp_path / "a"))
    two = pushing.push(store, "anna", make_package(tmp_path / "b", seed=1))
    return one.version, two.version


def test_publishing_and_rolling_back(
    store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    one, two = two_versions(store, make_package, tmp_path)
    with pytest.raises(NotFound, match="no avatar named anna is published"):
        pushing.published(store, "anna")
    pushing.publish(store, "anna", one)
    with pytest.raises(NotFound, match="had no other version"):
        pushing.rollback(store, "anna")
    pushing.publish(store, "anna", two[:12])
    assert pushing.published(store, "anna").version == two
    assert pushing.rollback(store, "anna").version == one
    assert pushing.published(store, "anna").before == ()
    assert set(pushing.avatars_in(store)) == {"anna"}


def test_a_version_is_found_by_its_beginning(store: ObjectStore, avatar_package: Path) -> None:
    version = pushing.push(store, "anna", avatar_package).version
    assert pushing.find_version(store, "anna", version[:6].upper()) == version
    with pytest.raises(InvalidInput, match="at least 6 digits"):
        pushing.find_version(store, "anna", version[:5])
    with pytest.raises(NotFound, match="has no version"):
        pushing.find_version(store, "anna", "123456789")


@pytest.mark.slow
def test_an_avatar_that_is_forgotten_leaves_nothing(s3: S3Server, avatar_package: Path) -> None:
    url = s3.new_url()
    store = ObjectStore(url, endpoint_url=s3.endpoint_url)
    for name in ("anna", "zoé"):
        manifest = pushing.push(store, name, avatar_package)
        pushing.publish(store, name, manifest.version)
    assert pushing.forget(store, "zoé") == len({each.sha256 for each in manifest.files}) + 1
    assert set(pushing.avatars_in(store)) == {"anna"}
    assert all("anna" in key for key in s3.objects(url))


def test_a_share_is_shown_another_version_until_it_is_for_all(
    store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    packages = [make_package(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    one, two, three = (pushing.push(store, "anna", each).version for each in packages)
    with pytest.raises(NotFound, match="publish one without --share first"):
        pushing.publish(store, "anna", one, 0.05)
    pushing.publish(store, "anna", one)
    for wanted in (two, three):  # which takes the place of the other
        now = pushing.publish(store, "anna", wanted, 0.05)
        assert now == pushing.published(store, "anna") == Published(one, (), Canary(wanted, 0.05))
    assert pushing.publish(store, "anna", three, 0.5).canary == Canary(three, 0.5)
    assert pushing.publish(store, "anna", three) == Published(three, (one,))
    with pytest.raises(InvalidInput, match="is shown to all"):
        pushing.publish(store, "anna", three, 0.05)
    for share in (0, -1, 1.5):
        with pytest.raises(InvalidInput, match="the share is"):
            pushing.publish(store, "anna", two, share)


@pytest.mark.slow
def test_a_rollback_ends_the_canary_first(
    store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    packages = [make_package(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    one, two, three = (pushing.push(store, "anna", each).version for each in packages)
    pushing.publish(store, "anna", one)
    pushing.publish(store, "anna", two)
    pushing.publish(store, "anna", three, 0.05)
    assert pushing.rollback(store, "anna") == Published(two, (one,))
    assert pushing.rollback(store, "anna") == Published(one)
