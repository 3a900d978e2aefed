"""Decoded frames as arrays: every format of samples, and any number of channels."""

from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from tests.audio.soundfiles import encoded, loud, tone

from lipwire.audio import FileRecording
from lipwire.audio.recordings.blocks import SoundForm, read_blocks
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.frames import samples_of, silent_frame
from lipwire.audio.recordings.source import open_source
from lipwire.domain import InvalidInput

DTYPES: dict[str, DTypeLike] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
COUNT = 50


def packed(name: str, channels: int) -> tuple[av.AudioFrame, NDArray[Any]]:
    """A frame of format ``name``, and what it holds, (samples, channels)."""
    values = np.arange(1, COUNT * channels + 1).reshape(COUNT, channels) % 120
    columns = values.astype(DTYPES[name]) / (128 if name in ("flt", "dbl") else 1)
    columns = columns.astype(DTYPES[name])
    frame = av.AudioFrame(name, f"{channels}C", COUNT)
    frame.sample_rate = 8000
    frame.planes[0].update(columns.tobytes())
    return frame, columns


@pytest.mark.parametrize("channels", range(1, 17))
@pytest.mark.parametrize("name", DTYPES)
def test_samples_are_the_same_in_planes_and_side_by_side(name: str, channels: int) -> None:
    frame, columns = packed(name, channels)
    assert np.array_equal(samples_of(frame).reshape(COUNT, channels), columns)
    converter = av.AudioResampler(f"{name}p", frame.layout, frame.sample_rate)
    (in_planes,) = converter.resample(frame)
    found = samples_of(in_planes)
    assert found.dtype == columns.dtype
    assert np.array_equal(found, columns.T)


@pytest.mark.slow
@pytest.mark.parametrize("channels", range(1, 17))
@pytest.mark.parametrize("name", [*DTYPES, *(f"{name}p" for name in DTYPES)])
def test_silence_has_the_form_of_the_sound_around_it(name: str, channels: int) -> None:
    like = av.AudioFrame(name, f"{channels}C", 7)
    like.sample_rate = 12_000
    silence = silent_frame(like, 33)
    assert (silence.samples, silence.sample_rate) == (33, 12_000)
    assert (silence.format.name, silence.layout.nb_channels) == (name, channels)
    found = samples_of(silence)
    assert found.size == 33 * channels
    assert set(found.flat) == {128 if name.startswith("u8") else 0}


def test_samples_of_a_format_that_nobody_knows_are_refused() -> None:
    class Strange:
        format = type("Format", (), {"name": "s24p", "is_planar": True})
        layout = type("Layout", (), {"nb_channels": 1})
        samples = 1

    with pytest.raises(InvalidInput, match="samples of the unknown format s24p"):
        samples_of(Strange())  # type: ignore[arg-type]


MANY_CHANNELS = [
    ("mp4", "aac", "6.1", {}),
    ("mp4", "aac", "7.1", {}),
    ("mp4", "alac", "7.1(wide)", {"strict": "experimental"}),
    ("matroska", "wavpack", "7.1", {}),
    ("ogg", "libopus", "7.1", {}),
    ("ogg", "libopus", "hexadecagonal", {"mapping_family": "255"}),
    ("nut", "pcm_s16le_planar", "7.1", {}),
    ("wav", "pcm_s64le", "stereo", {}),
    ("wav", "pcm_s64le", "7.1", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec", "layout", "options"), MANY_CHANNELS)
def test_both_forms_of_a_recording_with_many_channels(
    container: str, codec: str, layout: str, options: dict[str, str]
) -> None:
    sound = tone(2.5, 48_000)
    content = encoded(container, codec, sound, 48_000, layout, codec_options=options)
    with FileRecording(content) as recording:
        pieces = list(recording.pieces())
    heard = np.concatenate([piece.heard for piece in pieces])
    people = np.concatenate([piece.sound for piece in pieces])
    assert abs(len(heard) - 40_000) < 1600
    assert people.shape[1] == 2
    assert abs(len(people) - 120_000) < 4800
    assert loud(heard, 0.2, 2.3)
    assert loud(people[:, 0], 0.2, 2.3, 48_000)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libopus", "aac"])
def test_a_hole_in_eight_channels_is_silence(codec: str) -> None:
    content = encoded(
        "matroska", codec, tone(3.0, 48_000), 48_000, "7.1", keep=lambda time_s: not 1 < time_s < 2
    )
    with FileRecording(content) as recording:
        heard = np.concatenate(list(recording.heard()))
    assert abs(len(heard) - 48_000) < 1600
    assert loud(heard, 0.1, 0.9)
    assert not loud(heard, 1.2, 1.8)
    assert loud(heard, 2.2, 2.9)


@pytest.mark.parametrize("channels", [9, 11, 17, 64])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_channels_that_have_no_places_are_averaged(channels: int, rate_hz: int) -> None:
    """FFmpeg knows no rule by which to mix them."""
    first, second = tone(1.5, rate_hz, 300), tone(1.5, rate_hz, 700)
    rows = np.stack([first if index % 2 else second for index in range(channels)])
    content = encoded("wav", "pcm_f32le", rows, rate_hz, f"{channels}C")
    with FileRecording(content) as recording:
        pieces = list(recording.pieces())
        assert (recording.rate_hz, recording.channels) == (rate_hz, 2)
    people = np.concatenate([piece.sound for piece in pieces])
    assert len(people) == len(first)
    average = rows.mean(axis=0)
    assert np.abs(people - average[:, None]).max() < 1e-6


def test_channels_without_places_fit_to_a_higher_rate() -> None:
    nine = encoded("wav", "pcm_f32le", tone(1.0, 16_000), 16_000, "9C")
    sound = SoundForm(48_000, 2)
    with open_source(nine) as source:
        blocks = read_blocks(source, None, Findings("a.wav"))
        people = np.concatenate([*(sound.push(block) for block in blocks), sound.flush()])
    assert abs(len(people) - 48_000) < 100
    assert loud(people[:, 1], 0.05, 0.95, 48_000)
