"""Frames of which much is as in the one before, encoded without the box round the mouth."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compose.test_partial_jpeg import picture
from tests.support.examples import examples

from lipwire.compose import PartialJpeg, SurroundingsEncoder, partial_jpeg
from lipwire.domain import CropRect, InvalidInput, UInt8Array


def assert_right(encoder: SurroundingsEncoder, frame: UInt8Array, rect: CropRect) -> None:
    layout = PartialJpeg(frame.shape[1], frame.shape[0], 75)
    right = layout.background(frame, rect).without_box()
    before = frame.copy()
    made = encoder.encode(frame, rect)
    assert np.array_equal(frame, before)
    assert (made.jpeg, made.box) == (right.jpeg, right.box)
    assert made.row_bounds.dtype == right.row_bounds.dtype
    assert np.array_equal(made.row_bounds, right.row_bounds)


def encoder_for(frame: UInt8Array) -> SurroundingsEncoder:
    return SurroundingsEncoder(PartialJpeg(frame.shape[1], frame.shape[0], 75))


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> CropRect:
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return CropRect(x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_frames_are_those_of_a_full_encode(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 30).map(lambda n: 16 * n) | st.integers(1, 400), "width")
    height = data.draw(st.integers(1, 12).map(lambda n: 16 * n) | st.integers(1, 150), "height")
    frame = picture(width, height, data.draw(st.integers(0, 99), "seed"))
    encoder = encoder_for(frame)
    for number in range(data.draw(st.integers(2, 5), "frames")):
        frame = frame.copy()
        for _ in range(data.draw(st.integers(0, 3), "changes")):
            part = data.draw(boxes(width, height), "changed")
            frame[part.y1 : part.y2, part.x1 : part.x2] += np.uint8(1 + number)
        assert_right(encoder, frame, data.draw(boxes(width, height), "rectangle"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (320, 200), (854, 480), (70, 39)])
def test_a_mouth_that_moves_over_a_background_that_stays(size: tuple[int, int]) -> None:
    width, height = size
    frame = picture(width, height, 5)
    encoder = encoder_for(frame)
    side = min(width, height) // 3
    for number in range(4):
        frame = frame.copy()
        x, y = width // 3 + 7 * number, height // 3 + 3 * number
        frame[y : y + side, x : x + side] = picture(side, side, number)[: height - y, : width - x]
        assert_right(encoder, frame, CropRect(x, y, min(width, x + side), min(height, y + side)))


def test_one_pixel_of_a_segment_is_enough() -> None:
    frame = picture(320, 216, 5)
    encoder = encoder_for(frame)
    rect = CropRect(100, 60, 140, 100)
    assert_right(encoder, frame, rect)
    for x, y in ((0, 0), (79, 15), (80, 16), (319, 207), (319, 215), (0, 208), (100, 59)):
        frame = frame.copy()
        frame[y, x, 1] ^= 0x40
        assert_right(encoder, frame, rect)


def test_what_is_as_before_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    plain = partial_jpeg.imencode_jpeg

    def counted(pixels: UInt8Array, options: list[int]) -> UInt8Array:
        encoded.append(pixels.shape[0] * pixels.shape[1])
        return plain(pixels, options)

    frame = picture(640, 320, 5)
    encoder = encoder_for(frame)
    rect = CropRect(200, 100, 380, 280)
    encoder.encode(frame, rect)
    monkeypatch.setattr(partial_jpeg, "imencode_jpeg", counted)
    encoder.encode(frame.copy(), rect)
    assert encoded == []
    changed = frame.copy()
    changed[0, 0] += 1
    encoder.encode(changed, rect)
    assert encoded == [640 * 16]  # one segment, in a row of its own
    encoder.encode(picture(640, 320, 6), rect)
    assert encoded == [640 * 16, 640 * 320]


@pytest.mark.parametrize("writable", [True, False])
def test_a_frame_is_as_it_was_when_its_surroundings_are_encoded(writable: bool) -> None:
    frame = picture(320, 200, 11)
    frame.setflags(write=writable)
    assert_right(encoder_for(frame), frame, CropRect(90, 50, 200, 150))


def test_a_frame_of_another_size_is_refused() -> None:
    frame = picture(320, 200, 11)
    encoder = encoder_for(frame)
    with pytest.raises(InvalidInput, match="is 160x100"):
        encoder.encode(frame[:100, :160].copy(), CropRect(0, 0, 10, 10))
    with pytest.raises(InvalidInput, match="rectangle"):
        encoder.encode(frame, CropRect(10, 10, 10, 20))


def test_threads_share_an_encoder() -> None:
    frame = picture(640, 360, 11)
    encoder = encoder_for(frame)
    frames = []
    for number in range(12):
        frame = frame.copy()
        frame[20 * number : 20 * number + 30, :200] += np.uint8(9)
        frames.append(frame)
    rect = CropRect(200, 100, 380, 280)
    layout = PartialJpeg(640, 360, 75)
    right = [layout.background(each, rect).without_box().jpeg for each in frames]

    def wrong_of(first: int) -> list[int]:
        numbers = [(first + 5 * at) % len(frames) for at in range(60)]
        return [
            number
            for number in numbers
            if encoder.encode(frames[number].copy(), rect).jpeg != right[number]
        ]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong_of, range(4))) == [[], [], [], []]
