"""Files of video, read back with PyAV."""

import errno
import io
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipwire.compose import VideoWriter, bgr_to_i420
from lipwire.domain import Float32Array, InvalidInput, StorageFailed, UInt8Array

GREY = np.full((64, 96, 3), 128, np.uint8)


def decode_video(path: Path) -> list[av.VideoFrame]:
    with av.open(f"file:{path}") as container:
        return list(container.decode(video=0))


def decode_audio(path: Path) -> Float32Array:
    """(channels, samples), beginning at time 0."""
    with av.open(f"file:{path}") as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).astype(np.float32)


def clicks(rate_hz: int, seconds: float) -> Float32Array:
    """Short bursts of noise in silence: sharp in time, so that a shift shows."""
    rng = np.random.default_rng(0)
    samples = np.zeros(int(rate_hz * seconds), np.float32)
    for start_s in np.arange(0.1, seconds - 0.2, 0.37):
        start = int(start_s * rate_hz)
        burst = rng.normal(0, 0.25, rate_hz // 20)
        samples[start : start + len(burst)] = np.convolve(burst, np.ones(8) / 4, "same")
    return np.clip(samples, -1, 1)


def lag_samples(heard: Float32Array, given: Float32Array) -> int:
    """How much later than ``given`` is ``heard``, by the peak of their cross-correlation."""
    size = 1 << (len(heard) + len(given)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(given, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    return lag - size if lag > size // 2 else lag


@contextmanager
def full_disk(allowed_bytes: int) -> Iterator[None]:
    """No file may grow past ``allowed_bytes``: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_frame_stands_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, fps=Fraction(30000, 1001), preset="ultrafast") as writer:
        for level in range(0, 240, 8):
            writer.write_frame(np.full((64, 96, 3), level, np.uint8))
    frames = decode_video(path)
    assert len(frames) == 30
    for index, frame in enumerate(frames):
        assert frame.time == pytest.approx(index * 1001 / 30000, abs=1e-4)
        assert abs(float(frame.to_ndarray(format="bgr24").mean()) - 8 * index) < 2


@pytest.mark.slow
@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (11_111, 1)])
def test_sound_begins_with_the_first_picture(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = tmp_path / "out.mp4"
    given = clicks(rate_hz, 2.0)
    pcm = given if channels == 1 else np.stack([given, given * 0.5], axis=1)
    with VideoWriter(
        path, 96, 64, audio_rate_hz=rate_hz, audio_channels=channels, preset="ultrafast"
    ) as writer:
        for start in range(0, len(pcm), 777):
            writer.write_audio(pcm[start : start + 777])
        for _ in range(50):
            writer.write_frame(GREY)
    heard = decode_audio(path)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.channels == channels
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(2.0, abs=1e-3)
        file_rate_hz = stream.rate
        assert container.start_time == 0
    if file_rate_hz != rate_hz:  # the oracle for resampling: linear interpolation
        at = np.arange(int(len(given) * file_rate_hz / rate_hz)) * rate_hz / file_rate_hz
        given = np.interp(at, np.arange(len(given)), given).astype(np.float32)
    assert abs(lag_samples(heard[0], given)) <= 1
    compared = min(len(given), heard.shape[1])
    assert np.corrcoef(heard[0, :compared], given[:compared])[0, 1] > 0.95


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    """A player that reads from the front must not have to read all pictures to get sound."""
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, audio_rate_hz=16_000, preset="ultrafast") as writer:
        writer.write_audio(clicks(16_000, 4.0))
        for _ in range(100):
            writer.write_frame(GREY)
    with av.open(str(path)) as container:
        seconds = {"video": 0.0, "audio": 0.0}
        for packet in container.demux():
            if packet.dts is not None:
                seconds[packet.stream.type] = float(packet.dts * packet.time_base)
                assert abs(seconds["video"] - seconds["audio"]) < 1.5


def test_the_index_stands_in_front(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, preset="ultrafast") as writer:
        writer.write_frame(GREY)
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    "bgr",
    [(255, 255, 255), (0, 0, 0), (40, 40, 220), (40, 200, 40), (210, 60, 30), (120, 150, 220)],
)
def test_players_see_the_colours_that_were_given(tmp_path: Path, bgr: tuple[int, int, int]) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, preset="ultrafast", crf=8) as writer:
        writer.write_frame(np.full((64, 96, 3), bgr, np.uint8))
    (frame,) = decode_video(path)
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)  # BT.709
    assert frame.color_range == 1  # limited
    shown = frame.to_ndarray(format="bgr24", src_colorspace="ITU709").reshape(-1, 3).mean(axis=0)
    assert np.abs(shown - bgr).max() < 3


def test_an_odd_size_gains_a_column_and_a_row(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    picture = np.zeros((63, 95, 3), np.uint8)
    picture[:, 60:] = 200
    with VideoWriter(path, 95, 63, preset="ultrafast") as writer:
        writer.write_frame(picture)
        writer.write_planes(bgr_to_i420(picture))
    frames = decode_video(path)
    assert [(frame.width, frame.height) for frame in frames] == [(96, 64)] * 2
    for frame in frames:
        assert abs(int(frame.to_ndarray(format="bgr24")[-1, -1, 0]) - 200) < 5


def test_planes_may_be_used_again_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    planes = bgr_to_i420(GREY)
    with VideoWriter(path, 96, 64, crf=10) as writer:
        for level in range(20, 220, 10):
            planes[:64] = level
            writer.write_planes(planes)
    luma = [float(frame.to_ndarray()[:64].mean()) for frame in decode_video(path)]
    assert np.abs(np.array(luma) - np.arange(20, 220, 10)).max() < 2


def test_another_thread_may_write(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, preset="ultrafast") as writer:

        def write() -> None:
            for _ in range(10):
                writer.write_frame(GREY)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(decode_video(path)) == 10


def test_a_name_that_looks_like_a_protocol(tmp_path: Path) -> None:
    path = tmp_path / "http: 100%.mp4"
    with VideoWriter(path, 96, 64, preset="ultrafast") as writer:
        writer.write_frame(GREY)
    assert len(decode_video(path)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_sound_declared_and_never_given(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 96, 64, audio_rate_hz=16_000, preset="ultrafast") as writer:
        writer.write_frame(GREY)
    assert len(decode_video(path)) == 1


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("frames", [0, 3])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, failure: BaseException, frames: int
) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an earlier video")

    def fail() -> None:
        with VideoWriter(path, 96, 64, audio_rate_hz=16_000, preset="ultrafast") as writer:
            writer.write_audio(clicks(16_000, 0.5))
            for _ in range(frames):
                writer.write_frame(GREY)
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_bytes() == b"an earlier video"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("allowed_bytes", [0, 1_000, 100_000, 350_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, allowed_bytes: int) -> None:
    path = tmp_path / "out.mp4"
    rng = np.random.default_rng(0)
    frames: list[UInt8Array] = [
        rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(3)
    ]

    def write() -> None:
        with VideoWriter(path, 320, 240, audio_rate_hz=16_000, preset="ultrafast") as writer:
            for index in range(60):
                writer.write_audio(np.zeros(640, np.float32))
                writer.write_frame(frames[index % 3])

    with (
        full_disk(allowed_bytes),
        pytest.raises(StorageFailed, match=r"cannot write .*out\.mp4: File too large"),
    ):
        write()
    assert list(tmp_path.iterdir()) == []


class Pipe:
    """Written to and not sought in; takes at most so many bytes at a time, and in all."""

    def __init__(self, at_a_time: int = 1 << 30, in_all: int = 1 << 30) -> None:
        self.content = b""
        self._at_a_time = at_a_time
        self._in_all = in_all

    def write(self, data: bytes | memoryview) -> int:
        if len(self.content) >= self._in_all:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        part = bytes(data[: self._at_a_time])
        self.content += part
        return len(part)


def write_seconds(target: Path | Pipe | io.BytesIO, seconds: int) -> VideoWriter:
    with VideoWriter(target, 96, 64, audio_rate_hz=16_000, preset="ultrafast") as writer:
        writer.write_audio(clicks(16_000, float(seconds)))
        for _ in range(25 * seconds):
            writer.write_frame(GREY)
    return writer


@pytest.mark.parametrize("target", [Pipe(), Pipe(at_a_time=1000), io.BytesIO()])
def test_an_open_file_gets_fragments_that_play(tmp_path: Path, target: Pipe | io.BytesIO) -> None:
    writer = write_seconds(target, 4)
    content = target.content if isinstance(target, Pipe) else target.getvalue()
    assert writer.size_bytes == len(content)
    assert content.index(b"moov") < content.index(b"moof") < content.index(b"mdat")
    assert 4 <= content.count(b"moof") <= 6
    (path := tmp_path / "got.mp4").write_bytes(content)
    assert [frame.time for frame in decode_video(path)] == pytest.approx(
        [i / 25 for i in range(100)], abs=1e-4
    )
    heard = decode_audio(path)[0]
    assert abs(lag_samples(heard, clicks(16_000, 4.0))) <= 1


def test_fragments_go_out_as_they_are_made() -> None:
    pipe = Pipe()
    with VideoWriter(pipe, 96, 64, preset="ultrafast") as writer:
        for _ in range(150):
            writer.write_frame(GREY)
        assert pipe.content.count(b"moof") >= 3
        writer.write_frame(GREY)


@pytest.mark.parametrize("in_all", [0, 2000])
def test_nobody_reading_an_open_file_is_a_broken_pipe(in_all: int) -> None:
    with pytest.raises(BrokenPipeError):
        write_seconds(Pipe(in_all=in_all), 4)


def test_an_open_file_on_a_full_disk_is_a_storage_error() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(StorageFailed, match=r"cannot write /dev/full: .*No space left"),
        VideoWriter(full, 96, 64, preset="ultrafast") as writer,
    ):
        writer.write_frame(GREY)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "out.mp4"
    with pytest.raises(StorageFailed, match=f"folder {path.parent} does not exist"):
        VideoWriter(path, 96, 64).__enter__()


def test_a_video_of_no_frame_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInput, match="not one frame"),
        VideoWriter(tmp_path / "out.mp4", 96, 64),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": Path("out.avi")}, r"ends in '\.avi', allowed are \.mp4"),
        ({"width": 1}, "video of 1x64"),
        ({"fps": 0}, "fps is 0"),
        ({"audio_rate_hz": 10}, "audio rate is 10 Hz"),
        ({"audio_channels": 6}, "6 channels"),
        ({"preset": "turbo"}, "preset is 'turbo'"),
        ({"crf": 52}, "crf is 52"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"path": Path("out.mp4"), "width": 96, "height": 64, **arguments}
    with pytest.raises(InvalidInput, match=message):
        VideoWriter(**given)  # type: ignore[arg-type]


def test_frames_and_sound_that_do_not_fit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 96, 64, audio_rate_hz=16_000) as writer:
        with pytest.raises(InvalidInput, match="the frame is 64x96, this video is 96x64"):
            writer.write_frame(np.zeros((96, 64, 3), np.uint8))
        with pytest.raises(InvalidInput, match="planes are uint8"):
            writer.write_planes(np.zeros((64, 96), np.uint8))
        with pytest.raises(InvalidInput, match="float64"):
            writer.write_audio(np.zeros(10))  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=r"shape \(10, 2\)"):
            writer.write_audio(np.zeros((10, 2), np.float32))
        with pytest.raises(InvalidInput, match="not finite"):
            writer.write_audio(np.full(10, np.nan, np.float32))
        writer.write_frame(GREY)
    with VideoWriter(tmp_path / "silent.mp4", 96, 64) as silent:
        silent.write_frame(GREY)
        with pytest.raises(InvalidInput, match="without sound"):
            silent.write_audio(np.zeros(10, np.float32))


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (6, 6), (64, 11)])
def test_the_encoder_has_a_thread_for_each_core_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("lipwire.compose.video.usable_cores", lambda: cores)
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 1280, 720) as writer:
        writer.write_frame(np.zeros((720, 1280, 3), np.uint8))
    assert f" threads={threads} ".encode() in path.read_bytes()  # x264 writes its settings


ENCODED_ONCE = """
import hashlib, sys
import cv2
import numpy as np
from pathlib import Path
from lipwire.compose import VideoWriter
out = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
luma = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
with VideoWriter(out, 320, 240) as writer:
    for number in range(25):
        planes = np.full((360, 320), 128, np.uint8)
        planes[:240] = luma
        planes[80:160, 100 : 180 + number] += np.uint8(5 * number)
        writer.write_planes(planes)
print(hashlib.sha256(out.read_bytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="fills memory as glibc can")
def test_the_same_frames_give_the_same_file_whatever_was_in_memory(tmp_path: Path) -> None:
    files = {
        subprocess.run(
            [sys.executable, "-P", "-c", ENCODED_ONCE, str(tmp_path / "out.mp4")],
            env={**os.environ, "MALLOC_PERTURB_": filler},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for filler in ("1", "85", "165")
    }
    assert len(files) == 1
