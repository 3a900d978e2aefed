from collections.abc import Callable

import pytest

from lipwire.avatars.checks.rectanglechecks import doubts, misplaced
from lipwire.domain import CropRect

Order = Callable[[int, int, int, int], tuple[int, int, int, int]]
SQUARES = [(548 + n, 299 - n % 4, 728 + n, 479 - n % 4) for n in range(523)]
"""x1, y1, x2, y2 of a face that moves in a frame of 1280x720."""


def rectangles(write: Order, squares: list[tuple[int, int, int, int]]) -> list[CropRect]:
    return [CropRect(*write(*square)) for square in squares]


def test_squares_inside_the_frame_are_in_order() -> None:
    rects = [CropRect(*square) for square in SQUARES]
    assert misplaced(rects, 1280, 720) is None
    assert list(doubts(rects, 1280, 720)) == []


@pytest.mark.parametrize("height", [179, 181, 170, 200])
def test_nearly_square_is_square(height: int) -> None:
    rects = [CropRect(548, 299, 728, 299 + height)]
    assert misplaced(rects, 1280, 720) is None
    assert list(doubts(rects, 1280, 720)) == []


@pytest.mark.parametrize(
    ("name", "write", "offset"),
    [
        ("x, y, width, height", lambda a, b, c, d: (a, b, c - a, d - b), (-500, -270)),
        ("y1, x1, y2, x2", lambda a, b, c, d: (b, a, d, c), (0, 0)),
        ("y1, y2, x1, x2", lambda a, b, c, d: (b, d, a, c), (0, 0)),
        ("y1, y2, x1, x2", lambda a, b, c, d: (b, d, a, c), (500, 200)),
    ],
)
def test_another_order_is_named_where_it_makes_squares_of_all(
    name: str, write: Order, offset: tuple[int, int]
) -> None:
    """Some leave the frame as they stand, others are long and thin in it."""
    x, y = offset
    squares = [(x1 + x, y1 + y, x2 + x, y2 + y) for x1, y1, x2, y2 in SQUARES[:20]]
    message = misplaced(rectangles(write, squares), 1280, 720)
    assert message is not None
    assert message.startswith("crop_rects.json: frames ")
    first = ",".join(map(str, squares[0]))
    assert "; all would be squares as " in message
    assert f"{name} ([{first}])" in message


def test_those_outside_are_listed_in_one_line() -> None:
    rects = [CropRect(10, 10, 60, 60)] * 10
    for index, rect in ((3, (0, 0, 321, 50)), (4, (-1, 0, 50, 50)), (7, (0, 0, 50, 241))):
        rects[index] = CropRect(*rect)
    assert misplaced(rects, 320, 240, first_frame=1) == (
        "crop_rects.json: frames 4-5, 8: rectangle of frame 4 is [0,0,321,50]; it has to lie inside"
        " the frame of 320x240"
    )


def test_rectangles_of_larger_frames_say_how_far_they_reach() -> None:
    rects = [CropRect(*square) for square in SQUARES]
    message = misplaced(rects, 640, 360)
    assert message is not None
    assert message.startswith("crop_rects.json: frames 0-522: rectangle of frame 0 is [548,299,728")
    assert message.endswith("inside the frame of 640x360; the rectangles reach to 1250,479")


@pytest.mark.parametrize(
    ("rects", "message"),
    [
        (
            [(0, 0, 100, 100), (0, 0, 100, 200), (0, 0, 300, 100), (0, 0, 100, 100)],
            "frames 1-2: rectangle of frame 1 is [0,0,100,200], 100x200 pixels; squares are",
        ),
        ([(0, 0, 90, 120)], "rectangle of frame 0 is [0,0,90,120], 90x120 pixels; squares are"),
        (
            [(5, 5, 21, 22)] * 3,
            "frames 0-2: rectangle of frame 0 is [5,5,21,22], 16x17 pixels of a frame of 640x480;"
            " at least 32x32 are expected",
        ),
    ],
)
def test_what_is_unusual_is_told(rects: list[tuple[int, int, int, int]], message: str) -> None:
    seen = [CropRect(*rect) for rect in rects]
    assert misplaced(seen, 640, 480) is None
    (doubt,) = doubts(seen, 640, 480)
    assert message in doubt


def test_no_rectangles() -> None:
    assert misplaced([], 640, 480) is None
    assert list(doubts([], 640, 480)) == []


@pytest.mark.parametrize("rect", [(300, 310, 480, 480), (100, 200, 300, 400), (0, 0, 640, 480)])
def test_one_rectangle_for_all_frames_is_no_other_order_by_chance(
    rect: tuple[int, int, int, int],
) -> None:
    assert misplaced([CropRect(*rect)] * 9, 1280, 800) is None


def test_rectangles_in_the_order_of_texts_jump() -> None:
    """0, 1, 10, 11, ... as sorted file names come."""
    walk = [CropRect(20 * n, 100, 20 * n + 120, 220) for n in range(40)]
    rects = [walk[int(name)] for name in sorted(str(number) for number in range(40))]
    assert misplaced(rects, 1280, 720) is None
    assert list(doubts(walk, 1280, 720)) == []
    (doubt,) = doubts(rects, 1280, 720)
    assert doubt.startswith("crop_rects.json: frames 2, 12-13, 23-24, 34: rectangle of frame 2 is")
    assert "180 pixels from the one before; less than half its side is expected" in doubt


def test_a_cut_in_the_recording_is_usual() -> None:
    rects = [CropRect(100, 100, 220, 220)] * 50 + [CropRect(700, 100, 820, 220)] * 50
    assert list(doubts(rects, 1280, 720)) == []


def test_sizes_that_are_nearly_squares_as_corners_are_told() -> None:
    """x, y, width, height of a face in the upper left corner, where x and y are alike."""
    written = [CropRect(20 + n % 5, 22 + n % 3, 200, 200) for n in range(30)]
    assert misplaced(written, 640, 480) is None
    (doubt,) = doubts(written, 640, 480)
    assert (
        "frames 0-29: rectangle of frame 0 is [20,22,200,200], and in all of them x2 is y2" in doubt
    )
    assert doubt.endswith("x1, y1, x2, y2 are expected: [20,22,220,222]")


@pytest.mark.parametrize(
    "rects",
    [
        [CropRect(20 + n, 20 + n, 200 + n, 200 + n) for n in range(30)],  # on the diagonal
        [CropRect(20 + n % 5, 22, 200 + n % 5, 202) for n in range(30)],
        [CropRect(20, 22, 200, 200)] * 30,
        [CropRect(320 + n % 5, 322 + n % 3, 470, 470) for n in range(30)],  # no room for sizes
    ],
)
def test_corners_that_are_alike_by_chance_are_not(rects: list[CropRect]) -> None:
    assert list(doubts(rects, 640, 480)) == []
