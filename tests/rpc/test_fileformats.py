"""Files that FFmpeg writes, and samples that begin like them."""

import io

import av
import numpy as np
import pytest

from lipwire.domain import InvalidInput
from lipwire.rpc.fileformats import HEAD_BYTES, file_kind
from lipwire.rpc.services.messages import raw_audio_of

Samples = np.ndarray[tuple[int], np.dtype[np.int16]]


def tone(rate_hz: int = 16_000) -> Samples:
    """A second of a tone that swells."""
    at = np.arange(rate_hz) / rate_hz
    return np.asarray(np.sin(2 * np.pi * 313 * at) * at * 20_000, np.int16)


def written(container: str, codec: str, rate_hz: int, **options: str) -> bytes:
    """A second of sound as a file of FFmpeg's ``container``."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(tone(rate_hz)[None], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, stream.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


FILES = [
    ("a WAV file", "wav", "pcm_s16le", 16_000, {}),
    ("a WAV file", "wav", "pcm_f32le", 44_100, {}),
    ("a WAV file", "wav", "pcm_s16le", 48_000, {"rf64": "always"}),
    ("an AVI file", "avi", "pcm_s16le", 48_000, {}),
    ("an AIFF file", "aiff", "pcm_s16be", 48_000, {}),
    ("an MP3 file", "mp3", "mp3", 48_000, {}),
    ("an MP3 file", "mp3", "mp3", 48_000, {"id3v2_version": "3"}),
    ("an MP3 file", "mp3", "mp3", 48_000, {"id3v2_version": "0", "write_xing": "0"}),
    ("an MP3 file", "mp3", "mp3", 24_000, {"id3v2_version": "0"}),
    ("an MP3 file", "mp3", "mp3", 44_100, {"id3v2_version": "0", "write_xing": "0"}),
    ("an Ogg file", "ogg", "libopus", 48_000, {}),
    ("an Ogg file", "ogg", "libopus", 24_000, {}),
    ("a FLAC file", "flac", "flac", 48_000, {}),
    ("an MP4 file", "mp4", "aac", 48_000, {}),
    ("an MP4 file", "ipod", "aac", 48_000, {}),
    ("an MP4 file", "mov", "pcm_s16le", 48_000, {}),
    ("an AAC file", "adts", "aac", 48_000, {}),
    ("an AAC file", "adts", "aac", 22_050, {}),
    ("a Matroska or WebM file", "webm", "libopus", 48_000, {}),
    ("a Matroska or WebM file", "matroska", "pcm_s16le", 48_000, {}),
    ("a CAF file", "caf", "pcm_s16le", 48_000, {}),
    ("a WMA file", "asf", "pcm_s16le", 48_000, {}),
    ("an AU file", "au", "pcm_s16be", 48_000, {}),
    ("a W64 file", "w64", "pcm_s16le", 48_000, {}),
    ("a WavPack file", "wv", "wavpack", 48_000, {}),
    ("a TTA file", "tta", "tta", 48_000, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "container", "codec", "rate_hz", "options"), FILES)
@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
def test_a_file_is_refused_as_what_it_is(
    kind: str, container: str, codec: str, rate_hz: int, options: dict[str, str], odd: bool
) -> None:
    data = written(container, codec, rate_hz, **options)
    data = data[: len(data) - (len(data) % 2) + odd]
    with pytest.raises(InvalidInput) as caught:
        raw_audio_of(data, sample_rate=48_000, channels=0, first_frame=0)
    assert str(caught.value).startswith(
        f"raw_audio begins as {kind} does; allowed are bare samples"
    )
    assert "decode the file before" in str(caught.value)


@pytest.mark.parametrize(
    "beginning",
    [
        b"RIF",
        b"ID3\xff",
        b"ID3\x03\x00\x00\xff\x7f\x7f\x7f",
        b"OggS\x01",
        b"fLaC\x10\x00",
        b"\x00\x00\x00\x20ftyq",
        b"\x20\x20\x00\x20ftyp",
        b"\x1a\x45\xdf\xa3" + bytes(70) + b"webm",
        b"\xff\xfb\x90\x64",  # one frame of MP3, and nothing like it after
        b"\xff\xf1\x50\x80\x02\x1f\xfc",
        b"\xff\xfb" * 4000,
        b"\xff\xf1" * 4000,
        b"\xff" * 8000,
        b"",
    ],
)
def test_samples_that_begin_a_little_like_a_file_are_samples(beginning: bytes) -> None:
    data = beginning + tone().tobytes()
    data = data[: len(data) // 2 * 2]
    audio = raw_audio_of(data, sample_rate=16_000, channels=1, first_frame=0)
    assert audio is not None
    assert audio.samples.tobytes() == data


def test_no_piece_of_sound_or_noise_is_taken_for_a_file() -> None:
    random = np.random.default_rng(8)
    noise = random.bytes(300_000)
    sound = (tone() + random.integers(-2000, 2000, 16_000)).astype("<i2").tobytes()
    for data in (noise, sound * 8, bytes(20_000)):
        for begin in range(0, len(data) - HEAD_BYTES, 14):
            assert file_kind(data[begin : begin + HEAD_BYTES]) is None


@pytest.mark.parametrize("beginning", [b"RIFF", b"RIFF\x24\x00\x00\x00sfbk", b"RIFF\x24\x00"])
def test_whatever_begins_with_riff_is_refused(beginning: bytes) -> None:
    data = beginning + tone().tobytes()
    with pytest.raises(InvalidInput, match="raw_audio begins as a RIFF file does"):
        raw_audio_of(data, sample_rate=16_000, channels=1, first_frame=0)
