"""Where recordings come from: files, open files, bytes, pipes."""

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.audio.soundfiles import encoded, tone

from lipwire.audio import decode_audio
from lipwire.audio.recordings import source
from lipwire.audio.recordings.source import Part, open_source
from lipwire.domain import Float32Array, InvalidInput, StorageFailed


@pytest.fixture(scope="module")
def content() -> bytes:
    """An MP4 whose index is at its end, so that it cannot be read from front to back."""
    made = encoded("mp4", "aac", tone(1.0, 16_000), 16_000)
    assert made.index(b"moov") > made.index(b"mdat")
    return made


@pytest.fixture(scope="module")
def expected(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> Float32Array:
    path = tmp_path_factory.mktemp("source") / "a.mp4"
    path.write_bytes(content)
    return decode_audio(path)


class Wrapped(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


class OnlyRead:
    """As the body of an HTTP answer: it has ``read`` and nothing else."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 1000))


@pytest.mark.parametrize(
    "form",
    [
        lambda path: path,
        str,
        Wrapped,
        lambda path: path.open("rb"),
        lambda path: path.open("rb", buffering=0),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: OnlyRead(path.read_bytes()),
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
    ],
    ids=[
        "path",
        "str",
        "pathlike",
        "file",
        "raw",
        "bytesio",
        "body",
        "bytes",
        "bytearray",
        "memoryview",
    ],
)
def test_every_form_of_a_file_gives_the_same(
    tmp_path: Path, content: bytes, expected: Float32Array, form: Callable[[Path], Any]
) -> None:
    (path := tmp_path / "a.mp4").write_bytes(content)
    given = form(path)
    np.testing.assert_array_equal(decode_audio(given), expected)
    if hasattr(given, "close"):
        assert not given.closed
        given.close()


def test_an_open_file_is_read_from_where_it_stands(content: bytes, expected: Float32Array) -> None:
    file = io.BytesIO(b"a header of 21 bytes." + content)
    file.seek(21)
    np.testing.assert_array_equal(decode_audio(file), expected)


def feed(path: Path, content: bytes) -> threading.Thread:
    """Write into a pipe from another thread."""

    def write() -> None:
        with suppress(BrokenPipeError), path.open("wb") as file:
            file.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_named_pipe_is_a_recording(
    tmp_path: Path, content: bytes, expected: Float32Array
) -> None:
    os.mkfifo(path := tmp_path / "pipe.mp4")
    thread = feed(path, content)
    np.testing.assert_array_equal(decode_audio(path), expected)
    thread.join()


def send(socket_: socket.socket, content: bytes) -> None:
    socket_.sendall(content)
    socket_.close()


def test_a_socket_is_a_recording(content: bytes, expected: Float32Array) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        thread = threading.Thread(target=send, args=(theirs, content))
        thread.start()
        np.testing.assert_array_equal(decode_audio(file), expected)
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize("piped", [True, False], ids=["a pipe", "a file"])
def test_standard_input_is_a_recording_by_its_path(
    tmp_path: Path, content: bytes, expected: Float32Array, way: str, piped: bool
) -> None:
    (path := tmp_path / "a.mp4").write_bytes(content)
    program = f"from lipwire.audio import decode_audio; print(len(decode_audio({way!r})))"
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            **({"input": content} if piped else {"stdin": file}),
        )
    assert int(done.stdout) == len(expected)


def test_nothing_is_left_of_a_pipe(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_source(OnlyRead(content)) as opened:
        assert opened.size_bytes == len(content)
        assert list(tmp_path.iterdir()) == []  # it has no name even while it is used
    with pytest.raises(InvalidInput, match="not audio"):
        decode_audio(OnlyRead(b"not audio at all. " * 500))
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def read(self, size: int) -> bytes:
            return bytes(size)

    monkeypatch.setattr(source, "MAX_SPOOLED_BYTES", 5_000_000)
    with pytest.raises(InvalidInput, match="longer than 5000000 bytes, the most taken"):
        decode_audio(Endless())


def test_a_full_disk_under_a_pipe_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/full/nowhere")
    with pytest.raises(StorageFailed, match="cannot be copied to /dev/full/nowhere"):
        decode_audio(OnlyRead(b"x" * 100))


class Broken:
    def read(self, size: int) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (io.StringIO("RIFF"), "open as text; allowed: a file opened as binary"),
        (io.BytesIO(), r"is empty \(0 bytes\)"),
        (b"", r"is empty \(0 bytes\)"),
        (OnlyRead(b""), r"is empty \(0 bytes\)"),
        (b"not audio", "not audio that can be decoded"),
        (np.zeros(1600, np.int16).tobytes(), "samples belong into an array"),
        (Broken(), "cannot be read: .*Input/output error"),
        ("a\0b.wav", "cannot be a file's name"),
        ("/dev/null", "is not a file"),
        (5, "a recording of type int; allowed: a path, an open binary file"),
        (None, "a recording of type NoneType"),
    ],
)
def test_what_is_no_recording_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        decode_audio(given)
    assert "\n" not in str(caught.value)


def test_a_closed_file_is_refused(content: bytes) -> None:
    file = io.BytesIO(content)
    file.close()
    with pytest.raises(InvalidInput, match="closed file"):
        decode_audio(file)


def test_a_part_of_a_file_is_a_file() -> None:
    whole = io.BytesIO(b"0123456789")
    part, other = Part(whole, 2, 8), Part(whole, 0, 3)
    assert (part.read(2), other.read(), part.read(), part.read(5)) == (b"23", b"012", b"4567", b"")
    assert (part.seek(-2, os.SEEK_END), part.read(), part.seek(1), part.tell()) == (4, b"67", 1, 1)
