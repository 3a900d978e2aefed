"""A folder of frames appears whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from lipwire.compose import JpegFolderWriter, encode_jpeg
from lipwire.domain import InvalidInput, StorageFailed

JPEG = encode_jpeg(np.zeros((16, 16, 3), np.uint8), 75)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_frames_are_numbered_and_appear_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with JpegFolderWriter(target) as writer:
        writer.write(JPEG)
        writer.write(JPEG + b"2")
        assert not target.exists()
    assert names(target) == ["frame_000000.jpg", "frame_000001.jpg"]
    assert (target / "frame_000001.jpg").read_bytes() == JPEG + b"2"
    assert names(tmp_path) == ["out"]


def test_an_earlier_folder_of_frames_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for count in (3, 1):
        with JpegFolderWriter(target) as writer:
            for _ in range(count):
                writer.write(JPEG)
    assert names(target) == ["frame_000000.jpg"]
    assert names(tmp_path) == ["out"]


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"it holds 'thesis\.txt'"), JpegFolderWriter(target):
        pass
    assert names(target) == ["thesis.txt"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_fills_meanwhile_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def write() -> None:
        with JpegFolderWriter(target) as writer:
            writer.write(JPEG)
            target.mkdir()
            (target / "thesis.txt").write_text("years of work")

    with pytest.raises(InvalidInput, match="it holds"):
        write()
    assert names(target) == ["thesis.txt"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "out"
    with JpegFolderWriter(target) as writer:
        writer.write(JPEG)

    def fail() -> None:
        with JpegFolderWriter(target) as writer:
            writer.write(JPEG)
            writer.write(JPEG)
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert names(target) == ["frame_000000.jpg"]
    assert names(tmp_path) == ["out"]


def test_no_frame_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not one frame"), JpegFolderWriter(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


def test_a_missing_parent_and_a_file_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="missing does not exist"):
        JpegFolderWriter(tmp_path / "missing" / "out").__enter__()
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(InvalidInput, match="it is a file"):
        JpegFolderWriter(tmp_path / "out").__enter__()
    assert names(tmp_path) == ["out"]
