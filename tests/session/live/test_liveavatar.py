import numpy as np
import pytest
from tests.support.liveparts import FakeAvatar

from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    LipwireError,
    Overloaded,
    Unavailable,
)
from lipwire.session.live.events import Picture
from lipwire.session.live.liveavatar import blend

SPEAKS = np.full((2, 2, 3), 11, np.uint8)


def mouth_in(avatar: FakeAvatar, picture: Picture, *, position: int = 7) -> int:
    """The mean of the mouth in the composed frame, which is that of ``position``; 255 where there
    is none."""
    shown = avatar.live().shown(picture)
    assert shown.picture is picture
    assert shown.position == position
    assert shown.data is shown.data  # composed once
    return shown.data[1]


def test_a_speaking_mouth_is_shown_as_it_is() -> None:
    assert mouth_in(FakeAvatar(), Picture(3, 7, SPEAKS, 1.0, 1)) == 11


def test_at_rest_the_frames_own_mouth_is_shown() -> None:
    assert mouth_in(FakeAvatar(1), Picture(3, 7, None, 0.0, 0)) == 101


def test_where_that_was_not_made_a_frame_before_it_is_shown() -> None:
    """With its own mouth: that of another frame would not fit."""
    avatar = FakeAvatar(1, complete=False)
    assert mouth_in(avatar, Picture(3, 7, None, 0.0, 0)) == 255
    for position in (2, 4, 9):
        avatar.mouth(position)
    assert mouth_in(avatar, Picture(3, 7, None, 0.0, 0), position=4) == 101
    assert mouth_in(avatar, Picture(3, 7, SPEAKS, 0.5, 0), position=4) == 56  # closing
    assert mouth_in(avatar, Picture(3, 7, SPEAKS, 0.5, 1)) == 11  # made for this frame
    assert mouth_in(avatar, Picture(3, 7, None, 0.0, 1), position=4) == 101  # none could be made
    assert mouth_in(avatar, Picture(3, 109, None, 0.0, 0), position=109) == 255


def test_between_rest_and_speech_both_are_mixed() -> None:
    avatar = FakeAvatar(1)
    assert mouth_in(avatar, Picture(3, 7, SPEAKS, 0.5, 1)) == 56
    assert mouth_in(avatar, Picture(3, 7, SPEAKS, 1 / 3, 1)) == 71
    assert mouth_in(FakeAvatar(complete=False), Picture(3, 7, SPEAKS, 0.5, 1)) == 11


def test_a_mixture_is_rounded_and_keeps_to_its_range() -> None:
    dark, bright = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    for weight in np.linspace(0, 1, 257):
        mixed = blend(dark, bright, weight)
        assert mixed.dtype == np.uint8
        assert abs(int(mixed[0, 0, 0]) - 255 * weight) <= 0.51
        np.testing.assert_array_equal(blend(bright, bright, weight), bright)


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), Overloaded("busy"), Unavailable("gone")]
)
def test_a_mouth_at_rest_may_be_missing(error: LipwireError) -> None:
    def refuse(_: int) -> None:
        raise error

    avatar = FakeAvatar(complete=False, on_rest=refuse)
    assert avatar.live().rest_mouth(3, "tenant", "live") is None
    avatar.on_rest = lambda _: None
    for _ in range(2):
        mouth = avatar.live().rest_mouth(3, "tenant", "live")
        assert mouth is not None
        assert mouth.mean() == 101
    assert avatar.rest_asked == [3, 3]


def test_without_planes_there_is_no_video() -> None:
    shown = FakeAvatar().live().shown(Picture(3, 7, SPEAKS, 1.0, 1))
    with pytest.raises(InvalidInput, match="not opened for video"):
        shown.planes()


def test_a_broken_avatar_is_told() -> None:
    def fail(_: int) -> None:
        raise AvatarInvalid("broken")

    with pytest.raises(AvatarInvalid):
        FakeAvatar(complete=False, on_rest=fail).live().rest_mouth(0, "", "live")
