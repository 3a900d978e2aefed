"""A version's files, brought into a folder."""

import shutil
from pathlib import Path

import pytest
from tests.avatars.store.test_pushing import contents

from lipwire.avatars.store import fetching, pushing
from lipwire.avatars.store.fetching import fetch, missing_files, remove_others
from lipwire.avatars.store.layout import Manifest, file_key
from lipwire.domain import AvatarInvalid, NotFound, Unavailable
from lipwire.stores.objects import ObjectStore


@pytest.fixture
def manifest(store: ObjectStore, avatar_package: Path) -> Manifest:
    return pushing.push(store, "anna", avatar_package)


def test_a_package_comes_back_as_it_was(
    store: ObjectStore, manifest: Manifest, avatar_package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    told: list[tuple[int, int]] = []
    fetch(store, manifest, folder, list(manifest.files), lambda *each: told.append(each))
    assert contents(folder) == contents(avatar_package)
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert missing_files(folder, manifest) == []


@pytest.mark.slow
def test_a_file_that_is_larger_than_a_piece_comes_whole(
    store: ObjectStore, avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", 1000)
    manifest = pushing.push(store, "anna", avatar_package)
    fetch(store, manifest, tmp_path / "here", list(manifest.files))
    assert contents(tmp_path / "here") == contents(avatar_package)


def test_only_what_is_damaged_is_fetched_again(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    fetch(store, manifest, folder, list(manifest.files))
    rects = folder / "crop_rects.json"
    rects.write_bytes(rects.read_bytes()[:-1] + b"x")
    next((folder / "frames").iterdir()).unlink()
    lost = missing_files(folder, manifest)
    assert len(lost) == 2
    fetch(store, manifest, folder, lost)
    assert missing_files(folder, manifest) == []


def test_what_an_interrupted_download_left_goes(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "here", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    fetch(store, manifest, folder, list(manifest.files))
    (folder / "frames" / ".lipwire.tmp-0123.png").write_bytes(b"half")
    shutil.rmtree(folder / "checkpoint")
    (folder / "checkpoint").symlink_to(outside)
    remove_others(folder, manifest)
    fetch(store, manifest, folder, missing_files(folder, manifest))
    assert set(contents(folder)) == {each.path for each in manifest.files}
    assert [each.name for each in outside.iterdir()] == ["kept.txt"]


def test_a_file_that_is_another_one_in_the_store_is_refused(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    for data in (b"x", b"\0" * manifest.files[0].size_bytes, b"x" * 10_000_000):
        store.write(file_key("anna", manifest.files[0].sha256), data)
        with pytest.raises(AvatarInvalid, match="is damaged in the store"):
            fetch(store, manifest, tmp_path / "here", list(manifest.files[:1]))
        assert contents(tmp_path / "here") == {}
    store.remove(file_key("anna", manifest.files[0].sha256))
    with pytest.raises(NotFound, match="is missing in the store"):
        fetch(store, manifest, tmp_path / "here", list(manifest.files))


def test_what_came_before_the_store_went_away_stays(
    store: ObjectStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_range, asked = ObjectStore.read_range, []

    def failing(self: ObjectStore, key: str, start: int, end: int) -> bytes:
        asked.append(key)
        if len(asked) > 4:
            raise Unavailable("the avatar store cannot be asked: away")
        return read_range(self, key, start, end)

    monkeypatch.setattr(fetching, "RECEIVERS", 1)
    monkeypatch.setattr(ObjectStore, "read_range", failing)
    with pytest.raises(Unavailable):
        fetch(store, manifest, tmp_path / "here", list(manifest.files))
    assert len(missing_files(tmp_path / "here", manifest)) == len(manifest.files) - 4
