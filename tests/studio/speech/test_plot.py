"""The picture of speech and mouth."""

import numpy as np

from lipwire.training.coarticulation import Phone
from studio.speech.plot import PIXELS_PER_SECOND, draw_track, stack


def test_curves_are_drawn_at_their_heights_and_times() -> None:
    """A mouth that opens at one second: its first green points lie low, its last high."""
    controls = np.zeros((50, 6), np.float32)
    controls[25:, 0] = 1
    pcm = np.zeros(32000, np.float32)
    picture = draw_track(pcm, (Phone("\u0251", 1.0, 2.0),), controls)
    assert picture.dtype == np.uint8
    strip = picture[120:210]  # the first control
    green = (strip[..., 1] > strip[..., 0].astype(int) + 40) & (strip[..., 2] < 100)
    rows, columns = np.nonzero(green)
    middle = 80 + PIXELS_PER_SECOND
    assert rows[columns < middle - 10].mean() > rows[columns > middle + 10].mean() + 60


def test_pictures_of_different_widths_stack() -> None:
    wide, narrow = np.zeros((10, 30, 3), np.uint8), np.zeros((5, 20, 3), np.uint8)
    made = stack([wide, narrow])
    assert made.shape == (10 + 12 + 5 + 12, 30, 3)
    assert (made[22:27, 20:] == 255).all()
