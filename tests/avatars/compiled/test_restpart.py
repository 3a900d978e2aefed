import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lipwire.avatars import ALWAYS, compile_avatar, homes, read_package
from lipwire.avatars.compiled import keys as part_keys
from lipwire.avatars.compiled.container import Container, ContainerDamagedError, ContainerWriter
from lipwire.avatars.compiled.restpart import (
    RestKey,
    RestPart,
    mouth_of,
    open_rest,
    stored_bytes,
    stored_form,
    sweep_rest,
    write_rest,
)
from lipwire.domain import AvatarFiles, Revision, StorageFailed, UInt8Array

REVISION = Revision(frames="f", model="m")
SILENCE = np.zeros((32, 16, 16), np.float32)


def mouth(shade: int) -> UInt8Array:
    rows = np.arange(320, dtype=np.uint16)[:, None, None]
    return np.broadcast_to(((rows + shade) % 256).astype(np.uint8), (320, 320, 3)).copy()


MOUTHS = [stored_form(mouth(40 * number)) for number in range(3)]


def key_of(revision: Revision = REVISION, silence: np.ndarray = SILENCE) -> RestKey:
    key = RestKey.of(revision, silence)
    assert key is not None
    return key


def write(package: Path, key: RestKey, *, replace: bool = False) -> None:
    files = AvatarFiles.at(package)
    write_rest(package, files, key, MOUTHS, pytest.fail, replace=replace)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "anna").mkdir()
    return tmp_path / "anna"


def test_a_mouth_is_given_back_but_for_what_jpeg_loses() -> None:
    shown = mouth_of(stored_form(mouth(7)))
    assert shown is not None
    assert np.abs(shown.astype(int) - mouth(7)).max() <= 3
    coloured = mouth(0)
    coloured[::2, :, 2] = 255 - coloured[::2, :, 2]  # at 4:2:0 its rows would run into each other
    shown = mouth_of(stored_form(coloured))
    assert shown is not None
    error = shown.astype(float) - coloured
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 35


@pytest.mark.parametrize("data", [b"", b"no picture", MOUTHS[0][:100]])
def test_what_is_damaged_is_no_mouth(data: bytes) -> None:
    assert mouth_of(data) is None


def test_a_picture_of_another_size_is_no_mouth() -> None:
    assert mouth_of(stored_form(mouth(0)[:300])) is None


def test_what_was_written_is_opened(package: Path) -> None:
    key = key_of()
    write(package, key)
    part = open_rest(homes(package), key, 3)
    assert part is not None
    assert [part.jpeg(number).tobytes() for number in range(3)] == MOUTHS
    assert part.size_bytes == sum(map(len, MOUTHS))
    assert open_rest(homes(package), key, 4) is None
    assert stored_bytes(package, AvatarFiles.at(package), REVISION) == part.path.stat().st_size


@pytest.mark.parametrize(
    "other",
    [
        key_of(Revision(frames="f2", model="m")),
        key_of(Revision(frames="f", model="m2")),
        key_of(silence=SILENCE + np.float32(1e-6)),
    ],
    ids=["frames", "network", "audio encoder"],
)
def test_another_package_has_other_mouths(package: Path, other: RestKey) -> None:
    write(package, key_of())
    assert open_rest(homes(package), other, 3) is None


@pytest.mark.parametrize("revision", [Revision(frames="f"), Revision(model="m"), Revision()])
def test_without_a_known_network_there_is_no_part(package: Path, revision: Revision) -> None:
    assert RestKey.of(revision, SILENCE) is None
    write(package, key_of())
    assert stored_bytes(package, AvatarFiles.at(package), revision) == 0
    sweep_rest(package / ".lipwire", revision)
    assert open_rest(homes(package), key_of(), 3) is not None


def test_old_content_is_swept_and_other_encoders_are_not(package: Path) -> None:
    old = key_of(Revision(frames="old", model="m"))
    heard = key_of(silence=SILENCE + np.float32(1))
    for key in (old, heard, key_of()):
        write(package, key)
    there = {path.name for path in (package / ".lipwire").glob("rest-*")}
    assert there == {heard.name, key_of().name}


def test_mouths_that_the_last_minor_version_made_are_kept(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_keys, "_FORMAT", part_keys.EARLIER_FORMAT)
    old = key_of()
    write(package, old)
    monkeypatch.undo()
    assert old.name != key_of().name
    write(package, key_of())
    sweep_rest(package / ".lipwire", REVISION)
    there = {path.name for path in (package / ".lipwire").glob("rest-*")}
    assert there == {old.name, key_of().name}


@pytest.mark.slow
def test_compiling_sweeps_mouths_of_another_network(
    avatar_package: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    parsed = read_package(avatar_package)
    revision = compile_avatar(parsed, parts=ALWAYS).revision
    key = key_of(revision)
    write(avatar_package, key)
    compile_avatar(parsed, parts=ALWAYS | {"jpeg"})
    assert open_rest(homes(avatar_package), key, 3) is not None
    other = make_package(tmp_path / "other", frames=1, seed=5)
    network = "checkpoint/model_best.onnx"
    shutil.copy(other / network, avatar_package / network)
    compile_avatar(read_package(avatar_package), parts=ALWAYS)
    assert not list((avatar_package / ".lipwire").glob("rest-*"))


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(package: Path) -> None:
    write(package, key_of())
    path = package / ".lipwire" / key_of().name
    before = path.stat().st_ino
    write(package, key_of())
    assert path.stat().st_ino == before
    write(package, key_of(), replace=True)
    assert path.stat().st_ino != before


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_file_that_is_cut_short_is_not_opened_and_is_written_anew(
    package: Path, length: int
) -> None:
    write(package, key_of())
    path = package / ".lipwire" / key_of().name
    path.write_bytes(path.read_bytes()[:length])
    assert open_rest(homes(package), key_of(), 3) is None
    write(package, key_of())
    assert open_rest(homes(package), key_of(), 3) is not None


@pytest.mark.parametrize("starts", [[0, 1, 2], [0, 1, 2, 10**6], [1, 2, 3, 4], [0, 2, 1, 3]])
def test_tables_that_do_not_add_up_are_refused(package: Path, starts: list[int]) -> None:
    path = package / "rest-x"
    with path.open("wb") as stream:
        writer = ContainerWriter(stream)
        writer.begin("jpegs")
        writer.append(b"abc")
        writer.array("starts", np.array(starts, np.int64))
        writer.finish("rest", "rest-x", {"frames": 3})
    with pytest.raises(ContainerDamagedError, match="do not add up"):
        RestPart(Container(path, "rest", "rest-x"))


def test_a_full_disk_leaves_what_was_there(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(package, key_of())

    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(ContainerWriter, "append", full)
    with pytest.raises(StorageFailed, match="the disk is full"):
        write(package, key_of(), replace=True)
    monkeypatch.undo()
    assert open_rest(homes(package), key_of(), 3) is not None
    assert len(list((package / ".lipwire").iterdir())) == 3  # with the lock and .gitignore
