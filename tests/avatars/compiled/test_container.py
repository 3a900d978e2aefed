import errno
import io
import mmap
from pathlib import Path

import numpy as np
import pytest

from lipwire.avatars.compiled.container import Container, ContainerDamagedError, ContainerWriter


def write(path: Path, *, part: str = "patches", key: str = "k1") -> bytes:
    with path.open("wb") as stream:
        writer = ContainerWriter(stream)
        writer.begin("data")
        assert writer.append(b"abc") == 0
        assert writer.append(memoryview(b"defg")) == 3
        writer.array("table", np.arange(12, dtype=np.int32).reshape(3, 4))
        writer.array("none", np.empty((0, 4), np.int64))
        writer.finish(part, key, {"width": 7})
    return path.read_bytes()


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "c")
    container = Container(tmp_path / "c", "patches", "k1")
    assert container.array("data").tobytes() == b"abcdefg"
    assert np.array_equal(container.array("table"), np.arange(12).reshape(3, 4))
    assert container.array("none").shape == (0, 4)
    assert container.facts == {"width": 7}


def test_sections_begin_on_pages_and_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "c")
    table = Container(tmp_path / "c", "patches", "k1").array("table")
    assert table.ctypes.data % 4096 == 0
    assert not table.flags.writeable


def test_arrays_outlive_the_container_and_the_file(tmp_path: Path) -> None:
    write(tmp_path / "c")
    table = Container(tmp_path / "c", "patches", "k1").array("table")
    (tmp_path / "c").unlink()
    assert table.sum() == 66


@pytest.mark.parametrize("section", [{"offset": 1e999}, {"shape": [1e999]}])
def test_numbers_without_end_are_damage(tmp_path: Path, section: dict[str, object]) -> None:
    with (tmp_path / "c").open("wb") as stream:
        writer = ContainerWriter(stream)
        writer.array("table", np.arange(12, dtype=np.int32))
        writer._sections["table"] |= section
        writer.finish("patches", "k1", {})
    with pytest.raises(ContainerDamagedError, match="no sound section table"):
        Container(tmp_path / "c", "patches", "k1").array("table")


def test_no_room_to_map_it_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "c")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(MemoryError):
        Container(tmp_path / "c", "patches", "k1")


@pytest.mark.parametrize("length", [0, 1, 39, 40, 4095, 4096, -1])
def test_sees_that_the_end_is_missing(tmp_path: Path, length: int) -> None:
    data = write(tmp_path / "c")
    (tmp_path / "c").write_bytes(data[:length])
    with pytest.raises(ContainerDamagedError):
        Container(tmp_path / "c", "patches", "k1")


def test_sees_bytes_too_many(tmp_path: Path) -> None:
    data = write(tmp_path / "c")
    (tmp_path / "c").write_bytes(data + b"\0")
    with pytest.raises(ContainerDamagedError):
        Container(tmp_path / "c", "patches", "k1")


def test_sees_every_flipped_bit_of_prelude_and_header(tmp_path: Path) -> None:
    data = write(tmp_path / "c")
    header = data.rindex(b'{"part"')
    for position in [*range(40), *range(header, len(data))]:
        damaged = bytearray(data)
        damaged[position] ^= 1
        (tmp_path / "c").write_bytes(damaged)
        with pytest.raises(ContainerDamagedError):
            Container(tmp_path / "c", "patches", "k1")


@pytest.mark.parametrize(("part", "key"), [("jpeg", "k1"), ("patches", "k2")])
def test_refuses_the_container_of_something_else(tmp_path: Path, part: str, key: str) -> None:
    write(tmp_path / "c")
    with pytest.raises(ContainerDamagedError, match="something else"):
        Container(tmp_path / "c", part, key)


@pytest.mark.parametrize(
    "section",
    [
        {"offset": 4096, "dtype": "|u1", "shape": [1 << 40]},
        {"offset": 1 << 40, "dtype": "|u1", "shape": [1]},
        {"offset": -4096, "dtype": "|u1", "shape": [1]},
        {"offset": 0, "dtype": "|u1", "shape": [1]},
        {"offset": 4097, "dtype": "|u1", "shape": [1]},
        {"offset": 4096, "dtype": "|O", "shape": [1]},
        {"offset": 4096, "dtype": "|u1", "shape": [-1]},
        {"offset": 4096, "dtype": "|u1", "shape": [-1, -1]},
        {"offset": 4096, "dtype": "|u1"},
        {"offset": None, "dtype": "|u1", "shape": [1]},
        [],
    ],
)
def test_refuses_a_section_that_leaves_the_file(tmp_path: Path, section: object) -> None:
    stream = io.BytesIO()
    writer = ContainerWriter(stream)
    writer.begin("data")
    writer.append(b"abc")
    writer._sections["data"] = section  # type: ignore[assignment]
    writer.finish("patches", "k1", {})
    (tmp_path / "c").write_bytes(stream.getvalue())
    with pytest.raises(ContainerDamagedError):
        Container(tmp_path / "c", "patches", "k1").array("data")


def test_nothing_is_valid_before_it_is_finished(tmp_path: Path) -> None:
    with (tmp_path / "c").open("wb") as stream:
        writer = ContainerWriter(stream)
        writer.begin("data")
        writer.append(b"abc")
    with pytest.raises(ContainerDamagedError):
        Container(tmp_path / "c", "patches", "k1")
