"""TAR files: what hostile ones may cost, and the forms that are read."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from tests.fuzz.costs import MIB, measured

from lipwire.avatars.importing.unpacking import archives, tarfiles
from lipwire.avatars.importing.unpacking.archives import unpacked
from lipwire.avatars.importing.unpacking.tarfiles import decompressed, tar_entries
from lipwire.domain import AvatarInvalid

MOST_MIB: Final = 64
"""By which a hostile file of some megabytes may raise the memory of this process."""
BOMB_MIB: Final = 1024
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}
END: Final = bytes(2 * tarfile.BLOCKSIZE)


def header(kind: bytes, size: int, name: str = "a") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def extended(kind: bytes, data: bytes) -> bytes:
    return header(kind, len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One of pax, whose length counts its own digits."""
    size = len(key) + len(value) + 3
    while size != len(str(size)) + len(key) + len(value) + 3:
        size += 1
    return b"%d %s=%s\n" % (size, key, value)


def a_file(name: str = "a.txt", data: bytes = b"abc", size: int | None = None) -> bytes:
    return header(b"0", len(data) if size is None else size, name) + padded(data)


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
def test_a_header_of_a_gigabyte_is_refused_in_little_memory(
    tmp_path: Path, kind: bytes, compression: str
) -> None:
    compress = COMPRESS[compression]
    path = tmp_path / f"a.tar.{compression}"
    # One piece after the other is one file, and compressing the same one again would take seconds.
    path.write_bytes(
        compress(header(kind, BOMB_MIB * MIB)) + compress(bytes(8 * MIB)) * (BOMB_MIB // 8)
    )
    with (
        measured() as cost,
        pytest.raises(AvatarInvalid, match=r"an extended header of 1073741824 bytes; at most"),
        unpacked(path),
    ):
        pass
    assert cost.grown_bytes < MOST_MIB * MIB, cost.grown_bytes / MIB


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("entry", [header(b"0", 1 << 40), header(b"0", 1 << 40, "__MACOSX/a")])
def test_a_file_of_a_gigabyte_is_refused_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: bytes, compression: str
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 100 * MIB)  # more would be written, which takes long
    compress = COMPRESS[compression]
    path = tmp_path / f"a.tar.{compression}"
    path.write_bytes(compress(entry) + compress(bytes(8 * MIB)) * (BOMB_MIB // 8))
    with (
        measured() as cost,
        pytest.raises(AvatarInvalid, match=r"unpacks to more than \d+ bytes|is cut off"),
        unpacked(path),
    ):
        pass
    assert cost.grown_bytes < MOST_MIB * MIB, cost.grown_bytes / MIB


def test_an_xz_file_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(a_file() + END, preset=0))
    # https://tukaani.org/xz/xz-file-format.txt: behind 12 bytes the block's header, in which
    # filter 0x21 has one byte for the size of its dictionary; 40 stands for 4 GiB.
    assert data[14:16] == b"\x21\x01"
    data[16] = 40
    size = (data[12] + 1) * 4
    data[12 + size - 4 : 12 + size] = zlib.crc32(data[12 : 12 + size - 4]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(data)
    with pytest.raises(AvatarInvalid, match="Memory usage limit"), unpacked(tmp_path / "a.tar.xz"):
        pass


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (header(b"S", 9) + END, "'a' is a link or no file"),
        (extended(b"x", record(b"GNU.sparse.major", b"1")) + a_file() + END, "is a link or no fil"),
        (extended(b"x", record(b"path", b"../evil")) + a_file() + END, "leads out of the folder"),
        (extended(b"L", b"../evil\0") + a_file() + END, "leads out of the folder"),
        (extended(b"x", record(b"path", b"a\xff")) + a_file() + END, "is no file name"),
        (extended(b"x", b"9999 path=a\n") + a_file() + END, "an extended header is damaged"),
        (extended(b"x", b"9" * 70_000) + a_file() + END, "an extended header is damaged"),
        (extended(b"x", b"0 path=a\n") + a_file() + END, "an extended header is damaged"),
        (extended(b"x", record(b"size", b"-5")) + a_file() + END, "an extended header is damaged"),
        (extended(b"g", record(b"size", b"5")) + a_file() + END, "one name or size for all"),
        (extended(b"x", b"") * 9 + a_file() + END, "more than 8 extended headers before an entry"),
        (extended(b"x", b"")[:700] + b"", "cut off"),
        (header(b"0", 1 << 40), "cut off"),
        (a_file(), "cut off: its end is not marked"),
        (a_file(size=(1 << 60) - 1) + END, "is cut off"),
        (a_file("a/" * 600 + "b") + END, "is no file name"),
        (a_file("b" * 300) + END, "is no file name"),
    ],
)
def test_what_is_wrong_with_an_entry_is_told(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with measured() as cost, pytest.raises(AvatarInvalid, match=told) as raised, unpacked(path):
        pass
    assert str(raised.value).startswith("a.tar")
    assert cost.grown_bytes < MOST_MIB * MIB


def test_a_size_below_zero_is_told(tmp_path: Path) -> None:
    block = bytearray(a_file()[:512])
    block[124:136] = b"\xff" * 12  # -1 in GNU's form
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 0x20 + sum(block[156:]))
    (tmp_path / "a.tar").write_bytes(bytes(block) + END)
    with pytest.raises(AvatarInvalid, match="of -1 bytes"), unpacked(tmp_path / "a.tar"):
        pass


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compression", ["", *COMPRESS])
def test_what_tarfile_writes_is_read(tmp_path: Path, form: int, compression: str) -> None:
    wanted = {
        "f": b"",
        "Ännchen 2/0.jpg": bytes(range(256)) * 9,
        "b/" + 40 * "long " + ".lms": b"x",
    }
    if form == tarfile.USTAR_FORMAT:
        wanted.popitem()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as written:
        for name, data in wanted.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # pax has fractions
            written.addfile(info, io.BytesIO(data))
    whole = made.getvalue()
    path = tmp_path / "a.tar"
    path.write_bytes(COMPRESS[compression](whole) if compression else whole)
    with unpacked(path) as folder:
        there = {
            each.relative_to(folder).as_posix(): each.read_bytes()
            for each in folder.rglob("*")
            if each.is_file()
        }
    assert there == wanted


def test_what_is_not_read_of_an_entry_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(a_file("a", bytes(2000)) + a_file("b", b"12345") + END)
    with decompressed(path) as stream:
        read = [(entry.name, content.read(3)) for entry, content in tar_entries(stream)]
    assert read == [("a", b"\0\0\0"), ("b", b"123")]


def test_xz_files_may_be_several(tmp_path: Path) -> None:
    data = a_file("a", bytes(range(256)) * 40) + END
    halves = lzma.compress(data[:700]), lzma.compress(data[700:])
    path = tmp_path / "a.tar.xz"
    path.write_bytes(halves[0] + bytes(4) + halves[1] + bytes(8))
    with decompressed(path) as stream:
        assert b"".join(iter(lambda: stream.read(100), b"")) == data
    assert tarfiles.XZ_MEMORY_BYTES > 65 * MIB  # what xz -9 makes


def test_a_damaged_end_of_a_compressed_file_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(a_file("a", bytes(3000)) + END))
    packed[-6] ^= 1  # in its checksum
    (tmp_path / "a.tgz").write_bytes(packed)
    with pytest.raises(AvatarInvalid, match="CRC"), unpacked(tmp_path / "a.tgz"):
        pass
