"""Archives: what they hold is unpacked, and hostile ones are refused whole."""

import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.avatars.importing.conftest import Import
from tests.fuzz.costs import MIB, measured
from tests.support.foreignavatars import (
    assert_same_frames,
    spoken_by_hand,
    write_guide_package,
)

from lipwire.avatars.importing.unpacking import archives
from lipwire.avatars.importing.unpacking.archives import is_archive, stem_of, unpacked
from lipwire.domain import AvatarInvalid, NotFound, UInt8Array


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which is empty again after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def opened_tar(path: Path) -> Any:
    """A new tar file, compressed as its name says."""
    kind = path.suffix.removeprefix(".")
    quickly: dict[str, Any] = {"xz": {"preset": 0}, "bz2": {"compresslevel": 1}}.get(kind, {})
    mode: Any = "w" if kind == "tar" else f"w:{kind}"
    return tarfile.open(path, mode, **quickly)


def zipped(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            made.writestr(name, data)
    return path


def tarred(path: Path, entries: list[tuple[str, bytes, bytes]]) -> Path:
    """``entries`` are names, contents and the types of tar's entries."""
    with tarfile.open(path, "w:gz") as made:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            made.addfile(info, io.BytesIO(data))
    return path


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("frames/0.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "up": lambda p: zipped(p / "a.zip", [("ok.txt", b"1"), ("a/../../evil.txt", b"1")]),
    "up, backslashes": lambda p: zipped(p / "a.zip", [("..\\evil.txt", b"1")]),
    "absolute": lambda p: zipped(p / "a.zip", [("/tmp/evil.txt", b"1")]),
    "drive": lambda p: zipped(p / "a.zip", [("C:/evil.txt", b"1")]),
    "control": lambda p: zipped(p / "a.zip", [("a\x1b[2J", b"1")]),
    "link in zip": lambda p: zipped(p / "a.zip", [(link(), b"/etc/passwd")]),
    "twice": lambda p: tarred(p / "a.tgz", [("a", b"1", b"0"), ("a/b", b"1", b"0")]),
    "up in tar": lambda p: tarred(p / "a.tar.gz", [("../evil.txt", b"1", tarfile.REGTYPE)]),
    "absolute in tar": lambda p: tarred(p / "a.tgz", [("/etc/evil", b"1", tarfile.REGTYPE)]),
    "link in tar": lambda p: tarred(p / "a.tgz", [("frames", b"", tarfile.SYMTYPE)]),
    "hard link": lambda p: tarred(p / "a.tgz", [("frames", b"", tarfile.LNKTYPE)]),
    "device": lambda p: tarred(p / "a.tgz", [("frames", b"", tarfile.CHRTYPE)]),
    "pipe": lambda p: tarred(p / "a.tgz", [("frames", b"", tarfile.FIFOTYPE)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_whole(tmp_path: Path, temporary: Path, name: str) -> None:
    path = HOSTILE[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AvatarInvalid, match=r"^a\..*; nothing of it is taken$"), unpacked(path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.listdir(temporary)  # noqa: PTH208 - the names alone


@pytest.mark.slow
def test_an_archive_that_unpacks_to_very_much_is_refused(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 1 << 20)
    bomb = zipped(tmp_path / "bomb.zip", [("a", bytes(1 << 24))])
    assert bomb.stat().st_size < 1 << 15
    with pytest.raises(AvatarInvalid, match=r"unpacks to more than \d+ bytes"), unpacked(bomb):
        pass
    with tarfile.open(tmp_path / "bomb.tar.xz", "w:xz") as made:
        info = tarfile.TarInfo("a")
        info.size = 1 << 24
        made.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(AvatarInvalid, match="unpacks to more"), unpacked(tmp_path / "bomb.tar.xz"):
        pass
    assert not list(temporary.iterdir())


def test_what_a_zip_says_of_its_sizes_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 1 << 20)
    path = zipped(tmp_path / "bomb.zip", [("a", bytes(1 << 24))])
    data = path.read_bytes()
    path.write_bytes(data.replace((1 << 24).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    with pytest.raises(AvatarInvalid, match=r"bomb\.zip"), unpacked(path):
        pass


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    path = zipped(tmp_path / "a.zip", [(str(number), b"") for number in range(4)])
    with pytest.raises(AvatarInvalid, match=r"a.zip holds more than 3 files"), unpacked(path):
        pass
    path = zipped(tmp_path / "deep.zip", [("1/2/3", b""), ("1/2/4/5", b"")])
    with pytest.raises(AvatarInvalid, match=r"more than 3 files and folders"), unpacked(path):
        pass


@pytest.mark.parametrize("entries", [300_000, 600_000])
def test_a_list_of_very_many_files_is_refused_in_little_memory(
    tmp_path: Path, entries: int
) -> None:
    data = zipped(tmp_path / "a.zip", [("a", b"1")]).read_bytes()
    first, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    listed = data[first:end] * entries
    tail = bytearray(data[end:])
    tail[12:16] = len(listed).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data[:first] + listed + tail)
    told = r"a.zip holds more than 200000 files|its list of files has \d+ bytes; at most"
    with (
        measured() as cost,
        pytest.raises(AvatarInvalid, match=told),
        unpacked(tmp_path / "a.zip"),
    ):
        pass
    assert cost.grown_bytes < 100 * MIB, cost.grown_bytes / MIB


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_limit_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as made:
        made.writestr("a", bytes(1 << 20))
    told = f"'a' is packed by method {method}; read are"
    with pytest.raises(AvatarInvalid, match=told), unpacked(tmp_path / "a.zip"):
        pass


def test_an_archive_in_an_archive_is_not_unpacked(imported: Import, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", [("frames/0.png", b"1")]).read_bytes()
    with pytest.raises(AvatarInvalid, match=r"outer.zip holds no avatar that is known"):
        imported(zipped(tmp_path / "outer.zip", [("inner.zip", inner)]))


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_damaged_archives_are_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no archive")
    with pytest.raises(AvatarInvalid, match=rf"^a\{suffix} cannot be unpacked"), unpacked(path):
        pass
    noise = os.urandom(300_000)
    if suffix == ".zip":
        zipped(path, [("a", noise)])
    else:
        with opened_tar(path) as made:
            info = tarfile.TarInfo("a")
            info.size = len(noise)
            made.addfile(info, io.BytesIO(noise))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(AvatarInvalid, match=rf"^a\{suffix} cannot be unpacked"), unpacked(path):
        pass


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [("a", b"1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(AvatarInvalid, match="'a' has a password"), unpacked(path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_becomes_the_avatar_that_is_in_it(
    imported: Import, frames: list[UInt8Array], tmp_path: Path, temporary: Path, suffix: str
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    path = tmp_path / f"anna_preprocessed.{suffix}"
    names = {file: f"a/anna/{file.relative_to(source)}" for file in source.rglob("*")}
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("__MACOSX/._a", b"what macOS adds")
            for file, name in names.items():
                made.write(file, name)
    else:
        with opened_tar(path) as packed:
            for file, name in names.items():
                packed.add(file, name, recursive=False)
    package, _ = imported(path)
    assert package.name == "anna"
    assert_same_frames(package, spoken_by_hand())
    assert not list(temporary.iterdir())


def test_names_with_backslashes_are_folders(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [("anna\\", b""), ("anna\\frames\\0.png", b"1")])
    with unpacked(path) as folder:
        assert (folder / "anna" / "frames" / "0.png").read_bytes() == b"1"


def test_archives_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("Anna.ZIP", "anna.tar", "anna.tgz", "anna.tar.gz", "anna.tar.bz2", "anna.tar.xz"):
        assert is_archive(Path(name))
        assert stem_of(Path(name)).lower() == "anna"
    assert not is_archive(Path("anna.rar"))
    with pytest.raises(NotFound, match="no archive"), unpacked(tmp_path / "none.zip"):
        pass
