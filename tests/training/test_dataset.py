"""Pairs of a studio folder, and samples of a person's own video. Needs no torch."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support.studiofolder import CONTROLS, draw_face, rectangle, write_studio_folder

from lipwire.compose import network_crop
from lipwire.domain import CropRect, InvalidInput
from lipwire.training.dataset import PairDataset, VideoDataset, masked_crop


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    write_studio_folder(tmp_path / "studio", frames=4, pairs=12)
    return tmp_path / "studio"


def still(folder: Path) -> PairDataset:
    """Without what is drawn by chance."""
    return PairDataset(folder, rest_every=10**9, shift_px=0)


def test_a_pair_is_cut_as_the_avatar_will_cut_it(studio: Path) -> None:
    entry = json.loads((studio / "pairs" / "pairs.json").read_text())[3]
    box = rectangle(entry["frame"])

    batch = still(studio).batch(np.array([3]), np.random.default_rng(0))

    truth = draw_face(entry["frame"], np.array(entry["controls"]))
    base = draw_face(entry["frame"], np.zeros(CONTROLS))
    np.testing.assert_array_equal(batch.target[0], network_crop(truth, box, 4))
    np.testing.assert_array_equal(batch.real[0], network_crop(base, box, 4))
    np.testing.assert_array_equal(batch.masked[0], masked_crop(batch.real[0]))
    np.testing.assert_allclose(batch.condition[0], entry["controls"], rtol=1e-6)


def test_the_mask_blacks_out_what_the_engine_blacks_out() -> None:
    masked = masked_crop(np.full((320, 320, 3), 9, np.uint8))

    rows, columns = np.nonzero(masked[..., 0] == 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 309, 5, 314)


def test_pairs_still_to_be_rendered_are_left_out(studio: Path) -> None:
    (studio / "pairs" / "000005.png").unlink()
    (studio / "pairs" / "000006.png").write_bytes(b"half a picture")

    assert len(PairDataset(studio)) == 10


def test_at_rest_nothing_changes(studio: Path) -> None:
    dataset = PairDataset(studio, rest_every=1, shift_px=0)

    batch = dataset.batch(np.array([0, 1]), np.random.default_rng(0))

    np.testing.assert_array_equal(batch.target, batch.real)
    assert not batch.condition.any()


def test_both_pictures_are_moved_together(studio: Path) -> None:
    moved = PairDataset(studio, rest_every=10**9, shift_px=3)
    rng = np.random.default_rng(4)
    shift = np.random.default_rng(4)
    shift.random(1)
    down, right = shift.integers(-3, 4, 2)

    batch, plain = moved.batch(np.array([2]), rng), still(studio).batch(np.array([2]), rng)

    assert (down, right) != (0, 0)
    for made, given in ((batch.real, plain.real), (batch.target, plain.target)):
        np.testing.assert_array_equal(made, np.roll(given, (down, right), (1, 2)))


def test_the_moving_window_surrounds_the_mouth(studio: Path) -> None:
    top, left, height, width = PairDataset(studio).moving_window()

    # The drawn mouth is centred at (60, 85) of a rectangle of 120: at (160, 227) of the crop.
    assert top <= 200 < 250 <= top + height
    assert left <= 110 < 210 <= left + width
    assert height * width < 320 * 320 / 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda studio: (studio / "crop_rects.json").unlink(), "crop_rects.json is missing"),
        (lambda studio: (studio / "crop_rects.json").write_text("[1]"), "not a list of"),
        (lambda studio: (studio / "pairs" / "pairs.json").unlink(), "pairs.json is missing"),
        (lambda studio: (studio / "pairs" / "pairs.json").write_text("{"), "not JSON"),
        (lambda studio: (studio / "pairs" / "pairs.json").write_text("[]"), "no pair"),
        (
            lambda studio: cv2.imwrite(
                str(studio / "pairs" / "000000.png"), np.zeros((50, 60, 3), np.uint8)
            ),
            "000000.png is 60x50; the rectangle of frame",
        ),
    ],
)
def test_a_broken_studio_folder_is_refused_with_a_reason(
    studio: Path, edit: object, message: str
) -> None:
    edit(studio)  # type: ignore[operator]

    with pytest.raises(InvalidInput, match=message):
        PairDataset(studio)


def video(count: int) -> VideoDataset:
    frames = [np.full((240, 320, 3), 10 * i, np.uint8) for i in range(count)]
    boxes = [CropRect(80, 40, 200, 160)] * count
    windows = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 32, 16, 16))
    return VideoDataset(frames, boxes, windows.astype(np.float32), apart=5)


def test_a_video_pairs_speech_with_its_own_frame_and_a_distant_reference() -> None:
    dataset = video(20)
    indices = np.arange(20)

    batch = dataset.batch(indices, np.random.default_rng(0))

    np.testing.assert_array_equal(batch.target[:, 160, 160, 0], 10 * indices)
    np.testing.assert_array_equal(batch.condition[:, 0, 0, 0], indices)
    np.testing.assert_array_equal(batch.masked, masked_crop(batch.target))
    apart = np.abs(batch.real[:, 0, 0, 0].astype(int) // 10 - indices)
    assert np.minimum(apart, 20 - apart).min() >= 5


def test_a_video_of_one_frame_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 usable frames"):
        video(1)
