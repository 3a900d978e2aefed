"""From a recording to files, looked at with PyAV and OpenCV."""

import io
import wave
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from tests.audio.soundfiles import encoded, tone
from tests.support.decoding import Decoding

from lipwire.api import open_avatar
from lipwire.audio.recordings import clock, passes
from lipwire.domain import Float32Array, InvalidInput, StorageFailed
from lipwire.session import Pace

RATE_HZ = 44_100
CLICK_S = 0.4


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """0.78 s: silence, a click after 0.4 s, and a tone from there on."""
    samples = np.zeros(int(0.78 * RATE_HZ))
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


@pytest.mark.slow
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
    assert times_s == pytest.approx([i / 25 for i in range(20)])  # 0.78 s cover 19.5 frames
    assert (result.frames, result.path, result.size_bytes) == (20, out, out.stat().st_size)
    assert result.video_s == pytest.approx(0.8)
    assert set(result.stages) == {"audio", "crop", "network", "compose", "encode"}


@pytest.mark.slow
def test_the_sound_is_at_its_place_within_a_millisecond(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    with open_avatar(avatar_package) as avatar:
        avatar.render(recording, out)
    samples, start_s = heard(out)
    click_s = start_s + int(np.argmax(np.abs(samples) > 0.4)) / RATE_HZ
    assert click_s == pytest.approx(CLICK_S, abs=0.001)
    assert len(samples) / RATE_HZ == pytest.approx(0.78, abs=2048 / RATE_HZ)


@pytest.mark.slow
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
    for index in (0, 9, 11, 19):
        right = cv2.PSNR(shown[index], expected[index])
        assert right > 38, f"frame {index}"
        # The background walks on and the mouth moves: no other frame fits as well.
        others = [
            cv2.PSNR(shown[index], expected[index + step])
            for step in (-1, 1)
            if 0 <= index + step < len(expected)
        ]
        assert right > max(others) + 6


@pytest.mark.slow
def test_the_mouth_follows_the_sound_around_its_time(avatar_package: Path) -> None:
    """A frame hears about 0.4 s before it and 0.5 s after it, and nothing else."""
    silence = np.zeros(28_800, np.float32)
    with_click = silence.copy()
    with_click[15_360:15_760] = 0.8  # frame 24
    with open_avatar(avatar_package) as avatar:
        pairs = zip(avatar.speak(silence), avatar.speak(with_click), strict=True)
        changed = [not np.array_equal(a.mouth, b.mouth) for a, b in pairs]
    assert not any(changed[:11])
    assert all(changed[19:29])
    assert not any(changed[35:])


@pytest.mark.slow
def test_frames_are_jpegs_that_equal_the_avatars(
    avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    with open_avatar(avatar_package, jpeg_quality=80) as avatar:
        result = avatar.render_frames(recording, folder)
        expected = [frame.jpeg() for frame in avatar.speak(recording)]
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"frame_{i:06}.jpg" for i in range(20)]
    assert [file.read_bytes() for file in files] == expected
    assert result.frames == 20
    assert result.size_bytes == sum(map(len, expected))


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [11_000, 8_000, 48_000])
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


@pytest.fixture
def little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recording so little is read ahead that the rest is read in the render."""
    monkeypatch.setattr(passes, "AHEAD_S", 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mp4", "wav"])
@pytest.mark.parametrize("into", ["video", "frames"])
def test_a_render_decodes_its_recording_once(
    avatar_package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    little_ahead: None,
    container: str,
    into: str,
) -> None:
    codec = {"wav": "pcm_s16le", "mp4": "aac"}[container]
    content = encoded(container, codec, tone(1.2, 48_000), 48_000, "stereo")
    with open_avatar(avatar_package) as avatar, Decoding(monkeypatch) as decoding:
        if into == "video":
            result = avatar.render(content, tmp_path / "out.mp4")
        else:
            result = avatar.render_frames(content, tmp_path / "frames")
    assert result.frames == pytest.approx(30, abs=1)
    assert decoding.once()


@pytest.mark.slow
def test_a_recording_that_changes_on_its_way_is_rendered_as_if_that_had_been_known(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More channels, a higher rate, and then channels that cancel each other out."""
    loud = tone(0.6, 48_000)
    content = encoded("flac", "flac", tone(0.4, 16_000) * np.float32(0.01), 16_000)
    content += encoded("flac", "flac", np.stack([loud, -loud]), 48_000, "stereo")
    folders, videos = [], []
    with open_avatar(avatar_package) as avatar:
        for ahead_s in (60.0, 0.2):
            monkeypatch.setattr(passes, "AHEAD_S", ahead_s)
            videos.append(tmp_path / f"{ahead_s}.mp4")
            folders.append(tmp_path / f"{ahead_s}")
            assert avatar.render(content, videos[-1]).frames == 25
            assert avatar.render_frames(content, folders[-1]).frames == 25
    assert len({sha256(video.read_bytes()).digest() for video in videos}) == 1
    for name in ("frame_000000.jpg", "frame_000012.jpg", "frame_000024.jpg"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([avatar_package, *folders, *videos])


def damaged_in_the_middle() -> bytes:
    content = bytearray(encoded("mp4", "aac", tone(2.0, 44_100), 44_100))
    middle = len(content) // 2
    content[middle : middle + 500] = b"\xff" * 500
    return bytes(content)


@pytest.mark.slow
def test_damage_that_is_met_on_the_way_ends_the_render_and_leaves_what_was_there(
    avatar_package: Path, tmp_path: Path, little_ahead: None, own_threads: Callable[[], list[str]]
) -> None:
    (out := tmp_path / "films" / "out.mp4").parent.mkdir()
    out.write_bytes(b"an earlier film")
    done: list[int] = []
    with open_avatar(avatar_package) as avatar:
        with pytest.raises(InvalidInput, match=r"is damaged [01]\.\d\d s after its beginning"):
            avatar.render(
                damaged_in_the_middle(), out, progress=lambda number, _: done.append(number)
            )
        with pytest.raises(InvalidInput, match="is damaged"):
            avatar.render_frames(damaged_in_the_middle(), out.parent / "frames")
    assert done
    assert out.read_bytes() == b"an earlier film"
    assert list(out.parent.iterdir()) == [out]
    assert own_threads() == []


@pytest.mark.slow
def test_an_open_file_gets_nothing_of_a_damaged_recording(
    avatar_package: Path, little_ahead: None
) -> None:
    out = io.BytesIO()
    with open_avatar(avatar_package) as avatar:
        with pytest.raises(InvalidInput, match="is damaged"):
            avatar.render(damaged_in_the_middle(), out)
        assert out.getvalue() == b""
        result = avatar.render(damaged_in_the_middle(), out, allow_damaged=True)
    assert any("s of silence there" in line for line in result.warnings)
    assert out.getvalue()[4:8] == b"ftyp"


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


@pytest.mark.slow
def test_progress_counts_every_frame(avatar_package: Path, recording: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with open_avatar(avatar_package) as avatar:
        avatar.render(
            recording, tmp_path / "out.mp4", progress=lambda *numbers: calls.append(numbers)
        )
    assert calls == [(i, 20) for i in range(1, 21)]


@pytest.mark.slow
def test_progress_ends_with_the_frames_that_there_are(
    avatar_package: Path, tmp_path: Path, little_ahead: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1.6 s that the container counts, a part is closed up."""
    monkeypatch.setattr(clock, "MAX_HOLE_S", 6.0)
    content = encoded(
        "matroska",
        "flac",
        tone(1.6, 48_000),
        48_000,
        keep=lambda at_s: at_s < 1.4,
        move_s=lambda at_s: 7.0 if at_s > 1.2 else 0.0,
    )
    calls: list[tuple[int, int]] = []
    with open_avatar(avatar_package) as avatar:
        result = avatar.render(
            content, tmp_path / "out.mp4", progress=lambda *numbers: calls.append(numbers)
        )
    assert [done for done, _ in calls] == list(range(1, result.frames + 1))
    assert all(total >= done for done, total in calls)
    assert calls[0][1] > 25 * 7
    assert calls[-1] == (result.frames, result.frames)


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
