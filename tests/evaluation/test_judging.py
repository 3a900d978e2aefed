"""An evaluation from end to end, on a tiny avatar whose truth is what it does itself."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipwire.api import open_avatar
from lipwire.domain import InvalidInput, NotFound, UInt8Array
from lipwire.evaluation import Bar, Index, SequenceEntry, Viseme, evaluate, write_index

FRAMES = 20


@pytest.fixture(scope="module")
def judged(
    make_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, UInt8Array]:
    """A package with a sequence "own", and the pictures that the avatar really makes of it."""
    path = make_package(tmp_path_factory.mktemp("judged") / "anna")
    boxes = json.loads((path / "crop_rects.json").read_text())
    even = [[x1, y1, x1 + 120, y1 + 120] for x1, y1, _, _ in boxes]
    (path / "crop_rects.json").write_text(json.dumps(even))
    folder = path / "evaluation"
    folder.mkdir()
    pcm = np.random.default_rng(0).normal(0, 3000, FRAMES * 640).astype(np.int16)
    pcm[4000:8000] = 0
    _write_flac(folder / "own.flac", pcm)
    with open_avatar(path, outputs=("bgr",)) as avatar:
        frames = [frame.bgr for frame in avatar.speak(folder / "own.flac")]
    pictures = []
    for index, frame in enumerate(frames):
        step = index % 14
        x1, y1, x2, y2 = even[step if step < 8 else 14 - step]
        pictures.append(frame[y1:y2, x1:x2])
    truth = np.stack(pictures)
    _write_video(folder / "own.mp4", truth)
    entry = SequenceEntry(
        name="own",
        closures=((2, 4),),
        pauses=((8, 11),),
        visemes=(Viseme(label="a", frame=3), Viseme(label="i", frame=19)),
    )
    write_index(
        folder,
        Index(mouth_region=(10, 10, 110, 110), lips_box=(20, 20, 100, 100), sequences=(entry,)),
    )
    return path, truth


def _write_flac(path: Path, pcm: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_video(path: Path, pictures: UInt8Array) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.options = {"qp": "0", "preset": "veryfast"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))


def bar(bars: tuple[Bar, ...], name: str) -> Bar:
    return next(one for one in bars if one.name == name)


@pytest.mark.slow
def test_an_avatar_equals_its_own_truth(judged: tuple[Path, UInt8Array], tmp_path: Path) -> None:
    path, _ = judged
    told: list[tuple[int, int]] = []

    report = evaluate(
        path, tmp_path / "out", progress=lambda done, total: told.append((done, total))
    )

    assert report.frames == FRAMES
    assert bar(report.bars, "mouth region while speaking, from speech").value > 38
    assert bar(report.bars, "opening follows the truth").value > 0.98
    assert bar(report.bars, "lips beside the truth").value < 0.1
    assert told[-1] == (FRAMES, FRAMES)
    assert {picture.name for picture in report.pictures} == {"opening.png", "visemes.png"}
    for picture in report.pictures:
        assert cv2.imread(str(picture)) is not None
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_a_wrong_truth_fails_its_bar(judged: tuple[Path, UInt8Array], tmp_path: Path) -> None:
    path, truth = judged
    video = path / "evaluation" / "own.mp4"
    kept = video.read_bytes()
    _write_video(video, 255 - truth)
    try:
        report = evaluate(path, tmp_path)
    finally:
        video.write_bytes(kept)

    assert not bar(report.bars, "mouth region while speaking, from speech").passed
    assert not report.passed


def test_truth_of_another_size_is_refused(judged: tuple[Path, UInt8Array], tmp_path: Path) -> None:
    path, truth = judged
    video = path / "evaluation" / "own.mp4"
    kept = video.read_bytes()
    _write_video(video, truth[:, :100])
    try:
        with pytest.raises(
            InvalidInput, match=r"own\.mp4 is 120x100; the crop rectangle is 120x120"
        ):
            evaluate(path, tmp_path)
    finally:
        video.write_bytes(kept)


def test_a_recording_is_judged_without_truth(
    judged: tuple[Path, UInt8Array], tmp_path: Path
) -> None:
    path, _ = judged

    report = evaluate(path, tmp_path, audio=path / "evaluation" / "own.flac")

    assert {one.name for one in report.bars} >= {"lips beside the loudness", "seam, mean"}
    assert report.figures["own"]["frames"] == FRAMES
    assert {picture.name for picture in report.pictures} == {"opening.png", "mouths.png"}


@pytest.mark.slow
def test_an_avatar_without_material_needs_a_recording(
    judged: tuple[Path, UInt8Array], avatar_package: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="--audio FILE"):
        evaluate(avatar_package, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    rects = json.loads((avatar_package / "crop_rects.json").read_text())
    even = [[x1, y1, x1 + 120, y1 + 120] for x1, y1, _, _ in rects]
    (avatar_package / "crop_rects.json").write_text(json.dumps(even))
    recording = judged[0] / "evaluation" / "own.flac"
    assert evaluate(avatar_package, tmp_path / "out", audio=recording).frames == FRAMES


def test_a_figure_that_could_not_be_measured_does_not_pass() -> None:
    assert not Bar("x", float("nan"), 1.0, "at most").passed
    assert Bar("x", 1.0, 1.0, "at most").line() == "PASS  x: 1 (at most 1)"
    assert Bar("x", 3.0, 32.0, "at least", "dB").line() == "FAIL  x: 3 dB (at least 32 dB)"
