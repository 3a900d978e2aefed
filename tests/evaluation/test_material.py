"""Reading what an avatar is judged by."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from lipwire.domain import AvatarInvalid, NotFound
from lipwire.evaluation import Index, SequenceEntry, Viseme, read_material, write_index

BOXES = {"mouth_region": [0, 0, 9, 9], "lips_box": [1, 2, 3, 4]}


def package(tmp_path: Path, index: object = None) -> Path:
    folder = tmp_path / "anna" / "evaluation"
    folder.mkdir(parents=True)
    if index is not None:
        (folder / "evaluation.json").write_text(json.dumps(index))
    return folder.parent


def test_an_index_comes_back_as_written(tmp_path: Path) -> None:
    path = package(tmp_path)
    entry = SequenceEntry(
        name="awb", voice="a voice", closures=((1, 3),), visemes=(Viseme(label="a", frame=4),)
    )
    index = Index(mouth_region=(1, 2, 30, 40), lips_box=(5, 6, 20, 30), sequences=(entry,))

    write_index(path / "evaluation", index)

    assert read_material(path).index == index


def test_a_package_without_material_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--audio FILE"):
        read_material(package(tmp_path))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "mouth_region"),
        ({**BOXES, "lips_box": [1, 2, 3]}, "lips_box"),
        ({**BOXES, "extra": 1}, "extra"),
        ({**BOXES, "version": 2}, "version"),
        ({**BOXES, "sequences": [{"name": "../other"}]}, "name"),
        ([], "the file"),
    ],
)
def test_a_broken_index_is_refused_in_one_line(tmp_path: Path, index: object, message: str) -> None:
    with pytest.raises(AvatarInvalid, match=message) as caught:
        read_material(package(tmp_path, index))
    assert "\n" not in str(caught.value)


def test_damaged_truth_and_controls_are_refused(tmp_path: Path) -> None:
    path = package(tmp_path, {**BOXES, "sequences": [{"name": "a"}]})
    material = read_material(path)
    (entry,) = material.index.sequences
    assert material.controls(entry) is None
    (path / "evaluation" / "a.mp4").write_bytes(b"no video")
    (path / "evaluation" / "a.npy").write_bytes(b"no array")

    with pytest.raises(AvatarInvalid, match=r"a\.mp4 cannot be decoded"):
        material.truth(entry)
    with pytest.raises(AvatarInvalid, match=r"a\.npy is not an array"):
        material.controls(entry)
    np.save(path / "evaluation" / "a.npy", np.full((3, 6), np.nan, np.float32))
    with pytest.raises(AvatarInvalid, match="finite"):
        material.controls(entry)


def test_a_truth_that_names_other_files_is_refused(tmp_path: Path) -> None:
    """It would be decoded as if it were the package's, whatever it is and wherever it lies."""
    elsewhere = tmp_path / "private.mp4"
    with av.open(str(elsewhere), "w") as video:
        stream = video.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="bgr24")
        video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    path = package(tmp_path, {**BOXES, "sequences": [{"name": "a"}]})
    material = read_material(path)
    (entry,) = material.index.sequences
    truth = path / "evaluation" / "a.mp4"
    truth.write_bytes(elsewhere.read_bytes())
    assert material.truth(entry).shape == (1, 32, 32, 3)
    elsewhere.rename(path / "evaluation" / "private.mp4")
    truth.write_text("ffconcat version 1.0\nfile private.mp4\n")
    with pytest.raises(AvatarInvalid, match=r"a\.mp4 cannot be decoded"):
        material.truth(entry)
