import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.audio import MelStream, decode_audio, mel_filterbank, mel_spectrogram
from lipwire.domain import Float32Array, InvalidInput


def librosa_mel(pcm: Float32Array) -> np.ndarray:
    """The spectrogram put together from librosa and SciPy, as users of this family do."""
    import librosa  # takes seconds to import, also where no test of this file is run
    from librosa.filters import mel as mel_bank
    from scipy import signal

    spectrum = librosa.stft(
        y=signal.lfilter([1, -0.97], [1], pcm), n_fft=800, hop_length=200, win_length=800
    )
    bank = mel_bank(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level_db = 20 * np.log10(np.maximum(1e-5, bank @ np.abs(spectrum))) - 20
    return np.asarray(np.clip(8 * (level_db + 100) / 100 - 4, -4, 4).T)


def plain_mel(pcm: Float32Array) -> np.ndarray:
    """As ``librosa_mel``, by the formulas: frames of 800 samples under a Hann window, every 200."""
    emphasised = np.append(pcm[:1], pcm[1:] - 0.97 * pcm[:-1])
    padded = np.pad(emphasised.astype(np.float64), 400)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 800)[::200]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    spectrum = np.abs(np.fft.rfft(frames * hann))
    level_db = 20 * np.log10(np.maximum(1e-5, spectrum @ mel_filterbank().T)) - 20
    return np.asarray(np.clip(8 * (level_db + 100) / 100 - 4, -4, 4))


@pytest.mark.slow
def test_the_filter_bank_is_librosas() -> None:
    from librosa.filters import mel as mel_bank

    bank = mel_bank(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600, dtype=np.float64)
    np.testing.assert_allclose(mel_filterbank(), bank, atol=1e-12)


@pytest.mark.parametrize("samples", [800, 801, 3000, 16_000, 76_600, 100_799])
@pytest.mark.parametrize("oracle", [plain_mel, pytest.param(librosa_mel, marks=pytest.mark.slow)])
def test_the_spectrogram_is_librosas(
    speech: Float32Array, samples: int, oracle: Callable[[Float32Array], np.ndarray]
) -> None:
    pcm = speech[:samples]
    mel = mel_spectrogram(pcm)
    assert mel.dtype == np.float32
    assert mel.shape == (1 + samples // 200, 80)
    np.testing.assert_allclose(mel, oracle(pcm), atol=1e-5)


def test_the_test_speech_has_loud_quiet_and_silent_columns(speech: Float32Array) -> None:
    mel = mel_spectrogram(speech)
    assert mel.max() > 1
    assert (mel == -4).all(axis=1).any()
    assert 0.1 < (mel > -2).mean() < 0.9


@pytest.mark.skipif("LIPWIRE_SPEECH" not in os.environ, reason="no recording of a person given")
def test_the_spectrogram_is_librosas_on_a_real_recording() -> None:
    pcm = decode_audio(Path(os.environ["LIPWIRE_SPEECH"]))
    np.testing.assert_allclose(mel_spectrogram(pcm), librosa_mel(pcm), atol=1e-4)


def test_loud_and_silent_audio_end_at_the_limits() -> None:
    assert (mel_spectrogram(np.zeros(4000, np.float32)) == -4).all()
    rng = np.random.default_rng(0)
    assert mel_spectrogram(rng.standard_normal(4000).astype(np.float32) * 1e4).max() == 4


def test_no_audio_is_one_column_of_silence() -> None:
    assert mel_spectrogram(np.empty(0, np.float32)).tolist() == [[-4.0] * 80]


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 7, 199, 200, 201, 640, 4096, 51_200])
def test_pieces_give_the_bits_of_the_whole(speech: Float32Array, step: int) -> None:
    pcm = speech[:8000] if step == 1 else speech
    stream = MelStream()
    pieces = [stream.push(pcm[start : start + step]) for start in range(0, len(pcm), step)]
    np.testing.assert_array_equal(
        np.concatenate([*pieces, stream.flush()]), mel_spectrogram(pcm), strict=True
    )


@settings(max_examples=examples(40), deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=12))
def test_any_cuts_give_the_bits_of_the_whole(speech: Float32Array, cuts: list[int]) -> None:
    pcm = speech[:20_000]
    stream = MelStream()
    columns = [stream.push(piece) for piece in np.split(pcm, sorted(cuts))]
    np.testing.assert_array_equal(
        np.concatenate([*columns, stream.flush()]), mel_spectrogram(pcm), strict=True
    )


def test_a_long_push_is_the_same_as_many(speech: Float32Array) -> None:
    """Longer than the piece that the stream works on at once."""
    pcm = np.tile(speech, 6)
    stream = MelStream()
    pieces = [stream.push(pcm[start : start + 999]) for start in range(0, len(pcm), 999)]
    np.testing.assert_array_equal(
        np.concatenate([*pieces, stream.flush()]), mel_spectrogram(pcm), strict=True
    )


def test_a_column_comes_with_its_last_sample(speech: Float32Array) -> None:
    stream = MelStream()
    assert len(stream.push(speech[:399])) == 0
    assert len(stream.push(speech[399:400])) == 1
    assert len(stream.push(speech[400:599])) == 0
    assert len(stream.push(speech[599:600])) == 1


def test_a_stream_ends_once_and_begins_again_after_reset(speech: Float32Array) -> None:
    stream = MelStream()
    stream.push(speech[:5000])
    stream.flush()
    with pytest.raises(InvalidInput, match="after the end"):
        stream.push(speech)
    with pytest.raises(InvalidInput, match="flushed already"):
        stream.flush()
    stream.reset()
    again = np.concatenate([stream.push(speech), stream.flush()])
    np.testing.assert_array_equal(again, mel_spectrogram(speech))


def test_refused_audio_leaves_the_stream_as_it_was(speech: Float32Array) -> None:
    stream = MelStream()
    first = stream.push(speech[:5000])
    with pytest.raises(InvalidInput, match="NaN"):
        stream.push(np.array([0.1, np.nan], np.float32))
    rest = [stream.push(speech[5000:]), stream.flush()]
    np.testing.assert_array_equal(np.concatenate([first, *rest]), mel_spectrogram(speech))
