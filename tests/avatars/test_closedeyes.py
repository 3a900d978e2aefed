from fractions import Fraction
from pathlib import Path

import pytest
from tests.avatars.videos import with_video, write_video

from lipwire.avatars import Avatar, read_package, validate_package
from lipwire.avatars.closedeyes import beyond, parse_spans, shown_frames_of
from lipwire.domain import AvatarInvalid


def said(package: Path, value: str) -> Path:
    """The package, with that for ``closed_eyes`` in its settings."""
    settings = package / "avatar.yaml"
    lines = settings.read_text().splitlines() if settings.exists() else []
    kept = [line for line in lines if not line.startswith("closed_eyes")]
    settings.write_text("\n".join([*kept, f"closed_eyes: {value}"]))
    return package


def test_entries_are_numbers_and_spans() -> None:
    assert parse_spans(["12", "40-43", " 7 - 7 "]) == ((12, 12), (40, 43), (7, 7))
    assert parse_spans([]) == ()


@pytest.mark.parametrize("entry", ["", "-1", "1-", "3-2", "1.5", "one", "1-2-3", "1" * 10, "١"])
def test_other_entries_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"frame number|behind its end"):
        parse_spans(["1", entry])


def test_frames_that_are_not_there_are_named() -> None:
    assert beyond(((0, 3), (7, 7)), 8) is None
    assert beyond((), 1) is None
    assert beyond(((0, 3), (7, 8)), 8) == "closed_eyes names frame 8; allowed are 0 to 7"


def test_source_frames_that_are_shown_twice_or_never() -> None:
    assert shown_frames_of(((1, 2),), [0, 0, 1, 1, 3, 2]) == {2, 3, 5}


def test_an_avatar_knows_its_frames_with_closed_eyes(avatar_package: Path) -> None:
    with Avatar.open(avatar_package) as avatar:
        assert avatar.closed_eyes == frozenset()
    with Avatar.open(said(avatar_package, "[1, 4-6]")) as avatar:
        assert avatar.closed_eyes == {1, 4, 5, 6}


def test_numbers_behind_the_last_image_are_refused(avatar_package: Path) -> None:
    said(avatar_package, "[2, 6-8]")
    line = "avatar.yaml: closed_eyes names frame 8; allowed are 0 to 7"
    with pytest.raises(AvatarInvalid) as raised:
        read_package(avatar_package)
    assert str(raised.value) == line
    assert line in [problem.message for problem in validate_package(avatar_package)]


def test_numbers_of_a_video_are_those_of_its_frames(avatar_package: Path, tmp_path: Path) -> None:
    """Of 8 frames at 50 a second 4 are shown."""
    video = write_video(tmp_path / "a.mp4", range(8), Fraction(1, 50))
    package = said(with_video(avatar_package, video, 20), "[2-5]")
    with Avatar.open(package) as avatar:
        assert avatar.frame_count == 4
        assert avatar.closed_eyes == {1, 2}
    line = "avatar.yaml: closed_eyes names frame 9; allowed are 0 to 7"
    said(package, "[9]")
    with pytest.raises(AvatarInvalid, match=line):
        Avatar.open(package)
    assert line in [problem.message for problem in validate_package(package)]
