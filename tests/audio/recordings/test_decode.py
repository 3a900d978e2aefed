import os
import struct
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.audio.stream import AudioStream
from tests.support.quickfirst import quick_first

from lipwire.audio import StreamResampler, decode_audio
from lipwire.audio.recordings import passes
from lipwire.domain import Float32Array, InvalidInput


def save(path: Path, codec: str, pcm: Float32Array, rate_hz: int, layout: str = "stereo") -> Path:
    """Encode mono float32 ``pcm`` into every channel of ``layout``."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, AudioStream)
        converter = av.AudioResampler(stream.format, layout, rate_hz)
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(pcm), size):
            channels = [pcm[start : start + size]] * stream.layout.nb_channels
            frame = av.AudioFrame.from_ndarray(np.stack(channels), "fltp", layout)
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = start
            for converted in converter.resample(frame):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def save_wav(path: Path, samples: npt.NDArray[np.generic], rate_hz: int, tag: int) -> Path:
    """A WAV file of (n, channels) samples, written byte by byte; tag 1 is integers, 3 floats."""
    data = samples.tobytes()
    block = samples.itemsize * samples.shape[1]
    form = struct.pack(
        "<HHIIHH", tag, samples.shape[1], rate_hz, rate_hz * block, block, samples.itemsize * 8
    )
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode_audio(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def sound(make_speech: Callable[..., Float32Array]) -> Float32Array:
    """2 s at 48 kHz."""
    return make_speech(2.0, 48_000) * np.float32(0.8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec", "least_correlation"),
    [
        ("a.wav", "pcm_s16le", 0.999_99),
        ("a24.wav", "pcm_s24le", 0.999_99),
        ("a8.wav", "pcm_u8", 0.99),
        ("a64.wav", "pcm_f64le", 0.999_99),
        ("a.flac", "flac", 0.999_99),
        ("a.aiff", "pcm_s16be", 0.999_99),
        ("a.mka", "flac", 0.999_99),
        ("a.mp3", "libmp3lame", 0.98),
        ("a.m4a", "aac", 0.98),
        ("a.ogg", "libopus", 0.9),
    ],
)
@pytest.mark.parametrize("layout", ["stereo", "mono", "5.1"])
def test_files_of_all_kinds_give_the_sound_they_hold(
    tmp_path: Path,
    sound: Float32Array,
    name: str,
    codec: str,
    least_correlation: float,
    layout: str,
) -> None:
    if layout == "5.1" and codec in ("libmp3lame", "libopus"):
        pytest.skip("not a layout that this codec is given here")
    pcm = decode_audio(save(tmp_path / name, codec, sound, 48_000, layout))
    resampler = StreamResampler(48_000)
    expected = np.concatenate([resampler.push(sound), resampler.flush()])
    assert pcm.dtype == np.float32
    assert pcm.ndim == 1
    assert abs(len(pcm) - len(expected)) <= 1600
    assert np.abs(pcm).max() <= 1
    common = min(len(pcm), len(expected))
    assert np.corrcoef(pcm[:common], expected[:common])[0, 1] > least_correlation


@pytest.mark.parametrize("rate_hz", quick_first([8000, 16_000, 22_050, 44_100, 96_000], 2))
def test_a_file_gives_the_bits_of_its_samples_streamed(
    tmp_path: Path, make_speech: Callable[..., Float32Array], rate_hz: int
) -> None:
    pcm = (make_speech(1.0, rate_hz) * 32767).astype(np.int16)
    resampler = StreamResampler(rate_hz)
    expected = np.concatenate([resampler.push(pcm), resampler.flush()])
    path = save_wav(tmp_path / "a.wav", pcm[:, None], rate_hz, tag=1)
    np.testing.assert_array_equal(decode_audio(path), expected, strict=True)


def test_different_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], axis=1).astype(np.float32)
    pcm = decode_audio(save_wav(tmp_path / "a.wav", stereo, 16_000, tag=3))
    np.testing.assert_array_equal(pcm, np.full(1600, 0.125, np.float32))


def test_the_sound_of_a_video_is_taken(tmp_path: Path, sound: Float32Array) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        for _ in range(50):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.sample_rate = 48_000
        fifo = av.AudioFifo()
        fifo.write(frame)
        for part in fifo.read_many(1024):
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    assert abs(len(decode_audio(path)) - 32_000) <= 1600


def test_missing_files_folders_and_devices_are_named(tmp_path: Path) -> None:
    assert f"no file {tmp_path / 'none.wav'}" in refusal(tmp_path / "none.wav")
    assert f"{tmp_path} is not a file" in refusal(tmp_path)
    assert "/dev/zero is not a file" in refusal(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "a.wav").write_bytes(b"x")
    path.chmod(0)
    assert "cannot be read: Permission denied" in refusal(path)


@pytest.mark.parametrize("content", [b"RIFF", b"not audio at all. " * 500, b"\0" * 5000])
def test_what_is_no_audio_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "a.wav").write_bytes(content)
    assert "not audio that can be decoded" in refusal(path) or "no audio track" in refusal(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.wav").touch()
    assert "is empty (0 bytes)" in refusal(path)


def test_a_picture_has_no_audio_track(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(video.encode(picture))
        container.mux(video.encode(None))
    assert "holds no audio track, only video" in refusal(path)


def test_a_track_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    assert "audio track of zero length" in refusal(path)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("b.wav", "pcm_f32le"),
        ("a.flac", "flac"),
        ("a.aiff", "pcm_s16be"),
        ("a.m4a", "aac"),
        ("a.mka", "flac"),
    ],
)
def test_a_truncated_file_is_refused(
    tmp_path: Path, sound: Float32Array, name: str, codec: str
) -> None:
    path = save(tmp_path / name, codec, sound, 48_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    message = refusal(path)
    assert "truncated" in message or "not audio that can be decoded" in message


def test_damage_inside_is_refused(tmp_path: Path, sound: Float32Array) -> None:
    path = save(tmp_path / "a.m4a", "aac", sound, 48_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = b"\xff" * 600
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_tags_in_an_old_encoding_do_no_harm(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", np.zeros((1600, 1), np.int16), 16_000, tag=1)
    data = path.read_bytes()
    artist = b"INFOIART" + struct.pack("<I", 4) + b"Bj\xf6\0"
    tags = b"LIST" + struct.pack("<I", len(artist)) + artist
    path.write_bytes(data[:36] + tags + data[36:])
    assert len(decode_audio(path)) == 1600


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_wav_written_into_a_pipe_is_as_long_as_it_is(tmp_path: Path, size: int) -> None:
    path = save_wav(tmp_path / "a.wav", np.zeros((16_000, 1), np.int16), 16_000, tag=1)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(decode_audio(path)) == 16_000


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "size nan"), (-np.inf, "size inf"), (1e300, "size inf"), (30_000, "size 30000")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_that_are_no_sound_are_refused(
    tmp_path: Path, value: float, message: str, dtype: type[np.floating]
) -> None:
    samples = np.zeros((16_000, 1), np.float64)
    samples[9000] = value
    with np.errstate(over="ignore"):
        path = save_wav(tmp_path / "a.wav", samples.astype(dtype), 16_000, tag=3)
    assert message in refusal(path)


def test_too_long_a_recording_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MAX_AUDIO_S", 60)
    samples = np.zeros((61 * 1000, 1), np.uint8)
    path = save_wav(tmp_path / "a.wav", samples, 1000, tag=1)
    assert "longer than 60 s, the most allowed" in refusal(path)


def test_an_absurd_rate_is_refused(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", np.zeros((100, 1), np.int16), 10, tag=1)
    assert "10 Hz; allowed: 1000 to 768000" in refusal(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile '{}'\n"),
    ],
)
def test_a_playlist_leads_nowhere(
    tmp_path: Path, sound: Float32Array, name: str, text: str
) -> None:
    target = save(tmp_path / "a.aac", "aac", sound, 48_000)
    assert len(decode_audio(target)) > 0
    for address in (str(target), target.name):
        (path := tmp_path / name).write_text(text.format(address))
        assert "not audio that can be decoded" in refusal(path)


def test_names_are_never_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no file" in refusal(Path("concat:a.wav|b.wav"))
    path = save_wav(Path("data:,x.wav"), np.zeros((1600, 1), np.int16), 16_000, tag=1)
    assert len(decode_audio(path)) == 1600
