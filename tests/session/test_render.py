"""From a recording to files, looked at with PyAV and OpenCV."""

import wave
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipwire.api import open_avatar
from lipwire.domain import Float32Array, InvalidInput, StorageFailed
from lipwire.session import Pace

RATE_HZ = 44_100
CLICK_S = 0.8


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """1.5 s: silence, a click after 0.8 s, and a tone from there on."""
    samples = np.zeros(int(1.5 * RATE_HZ))
    click = int(CLICK_S * RATE_HZ)
    tone = np.sin(2 * np.pi * 220 * np.arange(len(samples) - click) / RATE_HZ)
    samples[click:] = 0.25 * tone
    samples[click : click + 20] = 0.9
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).astype(np.int16).tobytes())
    return path


def heard(path: Path) -> tuple[Float32Array, float]:
    """(samples, time in seconds of the first)."""
    with av.open(str(path), "r") as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)
    return samples, frames[0].time or 0.0


def test_a_video_has_every_frame_at_its_time(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    with open_avatar(avatar_package) as avatar:
        result = avatar.render(recording, out)

    with av.open(str(out), "r") as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (320, 240)
        assert video.average_rate == 25
        assert audio.codec_context.sample_rate == RATE_HZ
        times_s = [frame.time for frame in container.decode(video)]
    assert times_s == pytest.approx([i / 25 for i in range(38)])  # 1.5 s cover 37.5 frames
    assert (result.frames, result.path, result.size_bytes) == (38, out, out.stat().st_size)
    assert result.video_s == pytest.approx(1.52)
    assert set(result.stages) == {"audio", "crop", "network", "compose", "encode"}


def test_the_sound_is_at_its_place_within_a_millisecond(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    with open_avatar(avatar_package) as avatar:
        avatar.render(recording, out)
    samples, start_s = heard(out)
    click_s = start_s + int(np.argmax(np.abs(samples) > 0.4)) / RATE_HZ
    assert click_s == pytest.approx(CLICK_S, abs=0.001)
    assert len(samples) / RATE_HZ == pytest.approx(1.5, abs=2048 / RATE_HZ)


def test_the_picture_is_that_of_the_speech_at_its_time(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    with open_avatar(avatar_package) as avatar:
        avatar.render(recording, out, start_frame=2, crf=4)
        frames = list(avatar.speak(recording, start_frame=2))
        expected = [frame.i420 for frame in frames]
    with av.open(str(out), "r") as container:
        shown = [frame.to_ndarray() for frame in container.decode(video=0)]
    for index in (0, 19, 21, 37):
        right = cv2.PSNR(shown[index], expected[index])
        assert right > 38, f"frame {index}"
        # The background walks on and the mouth moves: no other frame fits as well.
        others = [
            cv2.PSNR(shown[index], expected[index + step])
            for step in (-1, 1)
            if 0 <= index + step < len(expected)
        ]
        assert right > max(others) + 6


def test_the_mouth_follows_the_sound_around_its_time(avatar_package: Path) -> None:
    """A frame hears about 0.4 s before it and 0.5 s after it, and nothing else."""
    silence = np.zeros(48_000, np.float32)
    with_click = silence.copy()
    with_click[32_000:32_400] = 0.8  # frame 50
    with open_avatar(avatar_package) as avatar:
        pairs = zip(avatar.speak(silence), avatar.speak(with_click), strict=True)
        changed = [not np.array_equal(a.mouth, b.mouth) for a, b in pairs]
    assert not any(changed[:37])
    assert all(changed[45:55])
    assert not any(changed[61:])


def test_frames_are_jpegs_that_equal_the_avatars(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    with open_avatar(avatar_package, jpeg_quality=80) as avatar:
        result = avatar.render_frames(recording, folder)
        expected = [frame.jpeg() for frame in avatar.speak(recording)]
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"frame_{i:06}.jpg" for i in range(38)]
    assert [file.read_bytes() for file in files] == expected
    assert result.frames == 38
    assert result.size_bytes == sum(map(len, expected))


@pytest.mark.parametrize("rate_hz", [8_000, 11_000, 48_000])
def test_pcm_at_any_rate_becomes_a_video(
    avatar_package: Path, tmp_path: Path, rate_hz: int
) -> None:
    pcm = np.zeros((rate_hz, 2), np.int16)
    pcm[rate_hz // 2] = 30_000
    out = tmp_path / "out.mp4"
    with open_avatar(avatar_package) as avatar:
        assert avatar.render(pcm, out, rate_hz=rate_hz).frames == 25
    with av.open(str(out), "r") as container:
        stream = container.streams.audio[0]
        audio_rate_hz = stream.codec_context.sample_rate
        assert stream.codec_context.channels == 2
    samples, start_s = heard(out)
    assert start_s + np.argmax(np.abs(samples)) / audio_rate_hz == pytest.approx(0.5, abs=0.002)


def test_an_error_half_way_leaves_what_was_there(
    avatar_package: Path, recording: Path, tmp_path: Path, own_threads: Callable[[], list[str]]
) -> None:
    out = tmp_path / "films" / "out.mp4"
    out.parent.mkdir()
    out.write_bytes(b"an earlier film")

    def fail(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with open_avatar(avatar_package) as avatar, pytest.raises(KeyboardInterrupt):
        avatar.render(recording, out, progress=fail)
    assert out.read_bytes() == b"an earlier film"
    assert list(out.parent.iterdir()) == [out]
    assert own_threads() == []


def test_progress_counts_every_frame(avatar_package: Path, recording: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with open_avatar(avatar_package) as avatar:
        avatar.render(
            recording, tmp_path / "out.mp4", progress=lambda *numbers: calls.append(numbers)
        )
    assert calls == [(i, 38) for i in range(1, 39)]


def test_a_folder_that_is_not_there_is_a_storage_error(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    with open_avatar(avatar_package) as avatar:
        with pytest.raises(StorageFailed, match="does not exist"):
            avatar.render(recording, tmp_path / "nowhere" / "out.mp4")
        with pytest.raises(InvalidInput, match=r"\.avi"):
            avatar.render(recording, tmp_path / "out.avi")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("fixed_batch", "cores", "pace"),
    [(None, 2, Pace(2, 2)), (8, 1, Pace(8, 1)), (None, 64, Pace(2, 16))],
)
def test_each_core_works_on_a_batch_of_its_own(
    fixed_batch: int | None, cores: int, pace: Pace
) -> None:
    assert Pace.for_machine(fixed_batch, cores) == pace
