from collections import deque
from collections.abc import Iterable
from importlib.resources import as_file, files

import numpy as np
import pytest

from lipwire.audio import LOOKAHEAD_MS, AudioEncoder, decode_audio, extract_windows
from lipwire.domain import Float32Array, InvalidInput
from lipwire.session.live import SessionSettings
from lipwire.session.live.hearing import Heard, Pcm, SpeechPiece, SpeechReader, check_piece, joined


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    """The demo avatar's."""
    demo = files("lipwire") / "assets" / "avatars" / "demo"
    with as_file(demo / "checkpoint" / "audio_encoder.onnx") as path:
        return AudioEncoder.open(path)


@pytest.fixture(scope="module")
def speech() -> Float32Array:
    with as_file(files("lipwire") / "assets" / "speech" / "sample.flac") as path:
        return decode_audio(path)[:48_100]


def read(reader: SpeechReader, pieces: Iterable[SpeechPiece]) -> list[Heard]:
    return [*(reader.push(piece) for piece in pieces), reader.flush()]


def sound_of(heard: list[Heard]) -> Float32Array:
    return np.concatenate([each.sound for each in heard])


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1_000, 7, 48_100])
def test_windows_are_those_of_the_whole_recording(
    encoder: AudioEncoder, speech: Float32Array, samples: int
) -> None:
    if samples == 7:
        speech = speech[:9_000]
    reader = SpeechReader(encoder, SessionSettings(sound_rate_hz=16_000))
    heard = read(
        reader,
        (SpeechPiece(speech[at : at + samples], 16_000) for at in range(0, len(speech), samples)),
    )
    windows = np.concatenate([each.windows for each in heard])
    np.testing.assert_array_equal(windows, extract_windows(speech, encoder))
    np.testing.assert_array_equal(sound_of(heard), speech)
    assert [len(each.weights) for each in heard] == [len(each.windows) for each in heard]
    assert max(max(each.weights, default=0) for each in heard) == 1
    assert {each.ahead_s for each in heard} == {LOOKAHEAD_MS / 1000}


def test_without_a_gate_the_mouth_opens_at_once(encoder: AudioEncoder) -> None:
    reader = SpeechReader(encoder, SessionSettings(gate=False, crossfade_frames=3))
    heard = read(reader, [SpeechPiece(np.zeros(8_000, np.float32), 16_000)])
    found = [weight for each in heard for weight in each.weights]
    assert found == [0.25, 0.5, 0.75, *[1.0] * 10]


def test_audio_of_another_rate_and_other_channels_continues_the_speech(
    encoder: AudioEncoder,
) -> None:
    def sine(rate_hz: int, first_s: float, last_s: float, channels: int) -> Pcm:
        times_s = np.arange(round(first_s * rate_hz), round(last_s * rate_hz)) / rate_hz
        mono = (0.5 * np.sin(2 * np.pi * 200 * times_s)).astype(np.float32)
        if channels == 1:
            return (mono * 32767).astype(np.int16)
        return np.stack([1.2 * mono, 0.8 * mono], axis=1)

    reader = SpeechReader(encoder, SessionSettings(sound_rate_hz=48_000))
    pieces = [
        SpeechPiece(sine(rate_hz, first / 50, (first + 1) / 50, channels), rate_hz)
        for rate_hz, channels, begin in ((24_000, 1, 0), (48_000, 2, 25), (16_000, 1, 50))
        for first in range(begin, begin + 25)
    ]
    heard = read(reader, pieces)
    sound = sound_of(heard)
    assert len(sound) == 72_000
    assert sum(len(each.windows) for each in heard) == 38
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(72_000) / 48_000)
    wrong = np.flatnonzero(np.abs(sound - expected) > 0.02)
    # A resampler's filter is as long as this at the ends of what it gets.
    ends = np.array([0, 24_000, 48_000, 72_000])
    assert all(np.abs(ends - place).min() < 100 for place in wrong)
    assert np.abs(sound - expected).max() < 0.3


@pytest.mark.parametrize(
    ("rate_hz", "least_s", "most_s"), [(48_000, 0.01, 0.04), (8_000, 0.02, 0.12)]
)
def test_what_is_being_resampled_is_told(
    encoder: AudioEncoder, rate_hz: int, least_s: float, most_s: float
) -> None:
    reader = SpeechReader(encoder, SessionSettings())
    piece = SpeechPiece(np.zeros(rate_hz // 50, np.float32), rate_hz)
    lags_s = [reader.push(piece).ahead_s - LOOKAHEAD_MS / 1000 for _ in range(50)]
    assert least_s < max(lags_s) < most_s


def test_one_sample_is_a_frame(encoder: AudioEncoder) -> None:
    reader = SpeechReader(encoder, SessionSettings(sound_rate_hz=16_000))
    heard = read(reader, [SpeechPiece(np.ones(1, np.float32), 16_000)])
    assert sum(len(each.windows) for each in heard) == 1
    assert sound_of(heard).tolist() == [1]


def piece(samples: int, *, rate_hz: int = 16_000, value: float = 0.0) -> SpeechPiece:
    return SpeechPiece(np.full(samples, value, np.float32), rate_hz)


def test_small_pieces_are_heard_together_up_to_half_a_second() -> None:
    pieces = deque(piece(320, value=index / 100) for index in range(40))
    first = joined(pieces)
    assert len(first.pcm) == 8_000
    assert len(pieces) == 15
    assert first.pcm[::320].tolist() == pytest.approx([index / 100 for index in range(25)])
    assert len(joined(pieces).pcm) == 15 * 320


def test_pieces_of_another_form_are_heard_apart() -> None:
    stereo = SpeechPiece(np.zeros((100, 2), np.float32), 16_000)
    short = SpeechPiece(np.zeros(100, np.int16), 16_000)
    pieces = deque([piece(100), piece(100, rate_hz=8_000), stereo, short, short])
    assert [len(joined(pieces).pcm) for _ in range(4)] == [100, 100, 100, 200]


def test_a_long_piece_is_heard_alone() -> None:
    pieces = deque([piece(20_000), piece(1)])
    assert len(joined(pieces).pcm) == 20_000


@pytest.mark.parametrize(
    ("pcm", "rate_hz", "message"),
    [
        (np.zeros((2, 2, 2), np.float32), 16_000, "shape"),
        (np.zeros((10, 0), np.float32), 16_000, "shape"),
        (np.zeros(10, np.float64), 16_000, "type float64"),
        (np.array([np.nan], np.float32), 16_000, "size nan"),
        (np.zeros(10, np.float32), 100, "100"),
    ],
)
def test_what_is_no_audio_is_refused(pcm: Pcm, rate_hz: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_piece(pcm, rate_hz)
