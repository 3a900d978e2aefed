"""Avatars whose frames are a video: what they show, whatever the video is like."""

import json
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.avatars.videos import (
    cut,
    marked,
    number_of,
    set_matrix,
    with_video,
    without_middle,
    write_video,
)
from tests.support.quickfirst import quick_first

from lipwire.avatars import Avatar, Part, read_package
from lipwire.avatars.frames.framecache import FrameCache
from lipwire.avatars.frames.frameloading import frame_tasks, shown_frames
from lipwire.avatars.frames.origins import Origins, frame_sum
from lipwire.avatars.frames.sources import VideoSource
from lipwire.avatars.frames.videoframes import Video, VideoFrame
from lipwire.compose import bgr_to_i420, encode_jpeg
from lipwire.domain import AvatarInvalid, UInt8Array, ping_pong

ALL: frozenset[Part] = frozenset({"jpeg", "planes", "pixels"})
COUNT = 30

VIDEOS: dict[str, Callable[[Path], Path]] = {
    "key frames now and then": lambda path: write_video(path / "a.mp4", range(COUNT)),
    "one key frame": lambda path: write_video(
        path / "a.mp4", range(COUNT), options={"crf": "5", "g": "250"}
    ),
    "open groups": lambda path: write_video(
        path / "a.mkv", range(COUNT), options={"crf": "5", "g": "8", "x264-params": "open-gop=1"}
    ),
    "intra refresh": lambda path: write_video(
        path / "a.mkv",
        range(COUNT),
        options={"crf": "5", "g": "8", "x264-params": "intra-refresh=1:bframes=0"},
    ),
    "a transport stream": lambda path: write_video(path / "a.ts", range(COUNT)),
    "avi": lambda path: write_video(
        path / "a.avi", range(COUNT), codec="mpeg4", options={"g": "7", "qscale": "2"}
    ),
    "avi with frames out of order": lambda path: write_video(
        path / "a.avi", range(COUNT), options={"crf": "5", "g": "12", "bf": "3"}
    ),
    "no times": lambda path: write_video(
        path / "a.h264", range(COUNT), options={"crf": "5", "g": "7", "bf": "0"}
    ),
    "only key frames": lambda path: write_video(
        path / "a.mov", range(COUNT), codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}
    ),
    "a late beginning": lambda path: write_video(
        path / "a.mkv", [1000 + 40 * number for number in range(COUNT)], Fraction(1, 1000)
    ),
    "an edit list": lambda path: cut(write_video(path / "whole.mp4", range(COUNT + 5)), 5),
    "turned": lambda path: set_matrix(write_video(path / "a.mp4", range(COUNT)), 0, 1, -1, 0),
}


def source_frames(package: Path) -> list[UInt8Array]:
    return [task() for task in frame_tasks(read_package(package).pictures)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize(
    "budget_frames", [3, *(pytest.param(most, marks=pytest.mark.slow) for most in (0, 12, 1000))]
)
def test_frames_are_those_of_the_video_from_wherever_one_begins(
    avatar_package: Path, tmp_path: Path, kind: str, budget_frames: int
) -> None:
    package = with_video(avatar_package, VIDEOS[kind](tmp_path), COUNT)
    wanted = source_frames(package)
    cache = FrameCache(budget_frames * wanted[0].nbytes)
    with Avatar.open(package, parts=ALL, cache=cache) as avatar:
        assert avatar.frame_count == len(wanted) == COUNT
        assert avatar.notes == ()
        for start in (0, 17, 40, 25, 3):
            for index in (*range(start, start + 6), start + 50):
                frame = wanted[ping_pong(index, COUNT)]
                assert np.array_equal(avatar.pixels(index, None), frame)
                assert np.array_equal(avatar.planes(index, None), bgr_to_i420(frame))
                assert avatar.jpeg(index, None) == encode_jpeg(frame, 75)


def test_what_of_a_video_cannot_be_decoded_is_left_out(
    avatar_package: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "a.mp4", range(COUNT), options={"g": "1", "bf": "0"})
    without_middle(video)
    package = with_video(avatar_package, video, COUNT)
    wanted = source_frames(package)
    numbers = [number_of(frame) for frame in wanted]
    assert numbers == [*range(10), *range(20, COUNT)]
    with Avatar.open(package, parts=ALL) as avatar:
        assert any(
            "10 of its frames cannot be decoded and are left out" in note for note in avatar.notes
        )
        # The frame before them is shown longer, and so, by the average, is the last one.
        assert avatar.frame_count == COUNT + 1
        for index, source in ((COUNT - 1, len(wanted) - 1), (5, 5), (0, 0)):
            assert np.array_equal(avatar.pixels(index, None), wanted[source])


def test_what_an_edit_list_cuts_is_not_shown(avatar_package: Path, tmp_path: Path) -> None:
    package = with_video(avatar_package, VIDEOS["an edit list"](tmp_path), COUNT)
    with Avatar.open(package, parts=ALL) as avatar:
        assert [number_of(avatar.pixels(index, None)) for index in (0, 1, 29)] == [5, 6, 34]


@pytest.mark.parametrize(
    ("times", "time_base", "shown"),
    quick_first(
        [
            (range(60), Fraction(1, 50), range(0, 60, 2)),
            (range(12), Fraction(2, 25), [number // 2 for number in range(24)]),
            ([0, 1, 2, 7, 8, 9, 10], Fraction(1, 25), [0, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 6]),
            (range(36), Fraction(1, 30), [0, 1, 2, 4, 5]),
        ],
        2,
    ),
    ids=["50", "12.5", "variable", "30"],
)
def test_a_rectangle_goes_with_its_frame_of_the_video(
    avatar_package: Path,
    tmp_path: Path,
    times: list[int],
    time_base: Fraction,
    shown: list[int],
) -> None:
    video = write_video(tmp_path / "a.mp4", times, time_base)
    package = with_video(avatar_package, video, len(times))
    rects = json.loads((package / "crop_rects.json").read_text())
    wanted = source_frames(package)
    assert [number_of(frame) for frame in wanted] == list(range(len(times)))
    with Avatar.open(package, parts=ALL) as avatar:
        assert avatar.source_frame_count == len(times)
        assert len(avatar.rects) == avatar.frame_count
        for index, source in enumerate(shown):
            rect = avatar.rects[index]
            assert [rect.x1, rect.y1, rect.x2, rect.y2] == rects[source]
            assert np.array_equal(avatar.pixels(index, None), wanted[source])
            assert number_of(avatar.pixels(index, None)) == source
        (note,) = avatar.notes
        assert note.startswith("a.mp4 has not 25 frames in each second")
        assert f"of its {len(times)} frames" in note
        assert f"as {avatar.frame_count} frames at 25 a second" in note


@pytest.mark.parametrize(
    ("size", "most"), quick_first([((96, 64), COUNT * 2), ((1920, 1088), COUNT * 5)])
)
def test_walks_beside_each_other_do_not_go_back_for_each_other(
    avatar_package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    most: int,
) -> None:
    """Plainly each piece would be decoded from the only key frame. Large frames have fewer
    decoders."""
    pictures = [marked(number, size) for number in range(COUNT)]
    path = write_video(
        tmp_path / "a.mp4", range(COUNT), frames=pictures, options={"crf": "5", "g": "250"}
    )
    package = with_video(avatar_package, path, COUNT)
    origins = Origins()
    wanted = []
    for source, task in shown_frames(read_package(package).pictures, origins):
        wanted.append(task())
        origins.shown.append(source)
        origins.sums.append(frame_sum(wanted[-1]))
    decoded = 0
    plain = Video.frames

    def counted(video: Video, number: int = 0) -> Iterator[VideoFrame]:
        nonlocal decoded
        for frame in plain(video, number):
            decoded += 1
            yield frame

    monkeypatch.setattr(Video, "frames", counted)
    video = VideoSource(package / "a.mp4", origins)
    for step in range(8):
        for start in (0, COUNT - 8):
            (number,) = numbers = [start + step]
            ((seen, pixels),) = video.read(numbers)
            assert seen == number
            assert np.array_equal(pixels, wanted[number])
    video.close()
    assert decoded <= most


def test_a_frame_of_the_video_that_is_not_shown_needs_its_rectangle(
    avatar_package: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "a.mp4", range(20), Fraction(1, 50))
    package = with_video(avatar_package, video, 10)
    with pytest.raises(AvatarInvalid, match="has 10 rectangles and the video more frames"):
        Avatar.open(package)


def test_another_video_in_its_place_does_no_harm(avatar_package: Path, tmp_path: Path) -> None:
    package = with_video(avatar_package, write_video(tmp_path / "a.mp4", range(COUNT)), COUNT)
    wanted = source_frames(package)
    with Avatar.open(package, parts=ALL) as avatar:
        other = write_video(tmp_path / "b.mp4", range(COUNT), frames=[marked(9)] * COUNT)
        other.replace(package / "a.mp4")
        for index in (5, 20, 3):
            assert np.array_equal(avatar.pixels(index, None), wanted[index])


def test_a_video_that_is_written_over_is_seen(avatar_package: Path, tmp_path: Path) -> None:
    package = with_video(avatar_package, write_video(tmp_path / "a.mp4", range(COUNT)), COUNT)
    with Avatar.open(package, parts=ALL) as avatar:
        other = write_video(tmp_path / "b.mp4", range(COUNT), frames=[marked(9)] * COUNT)
        (package / "a.mp4").write_bytes(other.read_bytes())
        with pytest.raises(AvatarInvalid, match=r"a\.mp4 was changed after it was compiled"):
            avatar.pixels(5, None)


@pytest.mark.parametrize("change", ["other", "gone", "cut"])
def test_an_image_that_was_changed_is_seen(avatar_package: Path, change: str) -> None:
    path = avatar_package / "frames" / "frame_0003.png"
    # Of the process's own cache another test's avatar with the same frames may have part.
    with Avatar.open(avatar_package, parts=ALL, cache=FrameCache(1 << 30)) as avatar:
        if change == "other":
            shutil.copy(avatar_package / "frames" / "frame_0004.png", path)
        elif change == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(AvatarInvalid, match=r"frames/frame_0003\.png "):
            avatar.planes(3, None)
        avatar.planes(2, None)
        assert avatar.jpeg(3, None)
