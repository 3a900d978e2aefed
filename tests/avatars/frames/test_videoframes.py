"""Videos as players show them, against FFmpeg's autorotation, OpenCV and plain arithmetic."""

import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.avatars.videos import marked, number_of, set_matrix, write_video

from lipwire.avatars.frames.videoframes import opened_video
from lipwire.domain import AvatarInvalid, UInt8Array

FAULTS = Path(__file__).parents[4] / "shared" / "reference" / "faults"


def first_frame(path: Path) -> UInt8Array:
    with opened_video(path) as video:
        return next(video.frames()).pixels()


def as_opencv(path: Path) -> UInt8Array:
    read, frame = cv2.VideoCapture(str(path)).read()
    assert read
    return np.asarray(frame, np.uint8)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda stored: stored),
        ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),
        ((-1, 0, 0, -1), lambda stored: np.rot90(stored, 2)),
        ((0, -1, 1, 0), lambda stored: np.rot90(stored, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda stored: np.rot90(stored, 2).transpose(1, 0, 2)),
    ],
)
def test_the_display_matrix_turns_and_mirrors(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    upright: Callable[[UInt8Array], UInt8Array],
) -> None:
    path = write_video(tmp_path / "a.mp4", range(3))
    stored = first_frame(path)
    set_matrix(path, *matrix)
    assert np.array_equal(first_frame(path), upright(stored))
    turned_only = matrix[0] * matrix[3] - matrix[1] * matrix[2] == 1
    if turned_only:  # OpenCV passes mirrors over
        assert np.array_equal(first_frame(path), as_opencv(path))


def test_another_angle_is_refused_with_a_command(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(3))
    set_matrix(path, 1, 1, -1, 1)
    with pytest.raises(AvatarInvalid, match=r"rotated by .* degrees; allowed are 0, 90.*ffmpeg -i"):
        first_frame(path)


@pytest.mark.parametrize("matrix", [None, 1, 5, 6, 9], ids=["none", "709", "470", "601", "2020"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_the_matrix_and_range_of_colours_are_those_of_opencv(
    tmp_path: Path, matrix: int | None, full: bool, pix_fmt: str
) -> None:
    context: dict[str, Any] = {} if matrix is None else {"colorspace": matrix}
    if full:
        context["color_range"] = 2
    path = write_video(tmp_path / "a.mp4", range(3), pix_fmt=pix_fmt, **context)
    assert np.array_equal(first_frame(path), as_opencv(path))


def test_matrices_differ(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    red = [
        first_frame(write_video(tmp_path / f"{matrix}.mp4", range(3), colorspace=matrix))[2, 2]
        for matrix in (1, 6)
    ]
    assert np.abs(red[0].astype(int) - red[1]).max() > 5


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"color_trc": 18}, r"is HDR \(HLG\); allowed is SDR, so convert it: ffmpeg -i .*tonemap"),
        ({"color_trc": 16}, r"is HDR \(PQ\); allowed is SDR, so convert it: ffmpeg -i .*tonemap"),
        ({"color_primaries": 9}, "colours of BT.2020; allowed are .*ffmpeg -i .*p=bt709"),
        (
            {"sample_aspect_ratio": Fraction(4, 3)},
            "has pixels of 4:3; allowed are square ones, so convert it: ffmpeg -i .*setsar=1",
        ),
        ({"sample_aspect_ratio": Fraction(8, 9)}, "has pixels of 8:9; allowed are square"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_not_shown_right_is_refused_with_a_command(
    tmp_path: Path, context: dict[str, Any], message: str, suffix: str
) -> None:
    path = write_video(tmp_path / f"my face{suffix}", range(3), **context)
    with pytest.raises(AvatarInvalid, match=f"^my face{suffix} .*{message}") as caught:
        first_frame(path)
    assert f"-i 'my face{suffix}'" in str(caught.value)


@pytest.mark.parametrize("ratio", [Fraction(1, 1), Fraction(1280, 1281)])
def test_pixels_as_good_as_square_are_shown(tmp_path: Path, ratio: Fraction) -> None:
    path = write_video(tmp_path / "a.mp4", range(3), sample_aspect_ratio=ratio)
    assert first_frame(path).shape == (64, 96, 3)


def test_ten_bits_are_shown_as_eight(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(3), pix_fmt="yuv420p10le")
    assert np.abs(first_frame(path).astype(int) - as_opencv(path)).mean() < 2


def test_alpha_leaves_the_colour_alone(tmp_path: Path) -> None:
    plain, alpha = (
        write_video(
            tmp_path / f"{pix_fmt}.mov", range(2), codec="prores_ks", pix_fmt=pix_fmt, options={}
        )
        for pix_fmt in ("yuv444p10le", "yuva444p10le")
    )
    assert np.abs(first_frame(plain).astype(int) - first_frame(alpha)).max() <= 2
    with opened_video(alpha) as video:
        next(video.frames())
        assert video.alpha


def test_a_video_without_times_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", range(5), options={"bf": "0"})
    with opened_video(path) as video:
        frames = list(video.frames())
    assert [number_of(frame.pixels()) for frame in frames] == list(range(5))


@pytest.mark.parametrize("rate", [25, 30, 50])
def test_the_rate_of_a_video_without_times_is_the_codecs(tmp_path: Path, rate: int) -> None:
    path = write_video(tmp_path / "a.h264", range(5), Fraction(1, rate))
    with opened_video(path) as video:
        assert video.rate == rate


def test_times_of_avi_rise_where_frames_are_out_of_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", range(40), options={"g": "12", "bf": "3"})
    with opened_video(path) as video:
        told = [frame.pts for frame in video.frames()]
        times = [float(pts * video.time_base) for pts in told if pts is not None]
        assert len(times) > 30
        assert np.allclose(np.diff(times), 0.04)
        assert video.rate == 25


def test_a_video_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(8))
    data = bytearray(path.read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov")
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    with pytest.raises(AvatarInvalid, match=r"^a.mp4 cannot be decoded as a video; invalid data"):
        first_frame(path)


PLAYLISTS = {
    "v.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "v.mp4": "ffconcat version 1.0\nfile {target}\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("target", ["{folder}/other.ts", "file://{folder}/other.ts", "other.ts"])
def test_a_playlist_leads_to_no_other_file(tmp_path: Path, name: str, target: str) -> None:
    """FFmpeg would read it, wherever it lies: a package could show any video of this machine."""
    write_video(tmp_path / "other.ts", range(8))
    text = PLAYLISTS[name].format(target=target.format(folder=tmp_path))
    (tmp_path / name).write_text(text)
    with pytest.raises(AvatarInvalid, match=rf"^{name} cannot be decoded as a video"):
        first_frame(tmp_path / name)


def test_a_playlist_asks_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"http://127.0.0.1:{server.getsockname()[1]}/other.ts"
        (tmp_path / "v.m3u8").write_text(PLAYLISTS["v.m3u8"].format(target=target))
        with pytest.raises(AvatarInvalid, match="cannot be decoded as a video"):
            first_frame(tmp_path / "v.m3u8")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_no_decoder_is_known_for_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(8))
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"xyz1\0\0\0\0"))
    with pytest.raises(AvatarInvalid, match="a video stream that no decoder is known for"):
        first_frame(path)


def test_texts_in_old_encodings_do_no_harm(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(8))
    data = path.read_bytes()
    assert b"VideoHandler" in data
    path.write_bytes(data.replace(b"VideoHandler", b"Vid\xe9\xffHandler"))
    assert first_frame(path).shape[2] == 3


def test_a_size_that_is_too_large_is_refused_before_a_frame_is_decoded(tmp_path: Path) -> None:
    wide = np.zeros((64, 8200, 3), np.uint8)
    path = write_video(tmp_path / "a.avi", [0], frames=[wide], codec="png", pix_fmt="rgb24")
    with (
        pytest.raises(AvatarInvalid, match=r"a\.avi is 8200x64; each side has to be 1 to 8192"),
        opened_video(path),
    ):
        pass


def test_frame_times_are_those_of_the_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [0, 3, 4, 9, 11, 12], Fraction(1, 50))
    with opened_video(path) as video:
        decoded = [(frame.number, frame.pts) for frame in video.frames()]
        video.rewind()
        assert [(time.number, time.pts) for time in video.frame_times()] == decoded


def test_the_phones_video_is_upright() -> None:
    path = FAULTS / "video_rot.mp4"
    if not path.exists():
        pytest.skip("only where the reference inputs lie beside the project")
    assert np.array_equal(first_frame(path), as_opencv(path))


def test_the_phones_hlg_is_refused() -> None:
    path = FAULTS / "video_hlg.mp4"
    if not path.exists():
        pytest.skip("only where the reference inputs lie beside the project")
    with pytest.raises(AvatarInvalid, match=r"^video_hlg.mp4 is HDR \(HLG\)"):
        first_frame(path)


def test_marks_are_read_back() -> None:
    assert [number_of(marked(number)) for number in range(300)] == list(range(300))
