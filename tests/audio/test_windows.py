import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.audio import (
    LOOKAHEAD_MS,
    AudioEncoder,
    WindowStream,
    extract_rows,
    extract_windows,
    frame_count,
    mel_spectrogram,
)
from lipwire.domain import Float32Array, InvalidInput


def librosa_mel(pcm: Float32Array) -> np.ndarray:
    """(80, columns)."""
    import librosa  # takes seconds to import, also where no test of this file is run
    from librosa.filters import mel as mel_bank
    from scipy import signal

    spectrum = librosa.stft(
        y=signal.lfilter([1, -0.97], [1], pcm), n_fft=800, hop_length=200, win_length=800
    )
    bank = mel_bank(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level_db = 20 * np.log10(np.maximum(1e-5, bank @ np.abs(spectrum))) - 20
    return np.asarray(np.clip(8 * (level_db + 100) / 100 - 4, -4, 4))


def own_mel(pcm: Float32Array) -> np.ndarray:
    """(80, columns); ``test_mel`` compares it with librosa's."""
    return mel_spectrogram(pcm).T


def plain_windows(
    pcm: Float32Array, encoder_path: Path, make_mel: Callable[[Float32Array], np.ndarray]
) -> np.ndarray:
    """The family's pipeline, step by step: a mel spectrogram, a plain ONNX Runtime session,
    loops."""
    samples = len(pcm)
    mel = make_mel(np.pad(pcm, (0, max(0, 3000 - samples))))
    session = ort.InferenceSession(encoder_path, providers=["CPUExecutionProvider"])
    rows = []
    for index in range(int((mel.shape[1] - 16) / 80.0 * 25.0) + 2):
        start = min(int(80.0 * (index / 25.0)), mel.shape[1] - 16)
        part = mel[None, None, :, start : start + 16].astype(np.float32)
        rows.append(session.run(None, {"mel": part})[0][0])
    padded = [rows[0], *rows, rows[-1]]
    windows = []
    for frame in range(max(1, -(-samples // 640))):
        entries = [
            padded[i] if 0 <= i < len(padded) else np.zeros(512)
            for i in range(frame - 8, frame + 8)
        ]
        windows.append(np.stack(entries).reshape(32, 16, 16))
    return np.stack(windows)


def streamed(pcm: Float32Array, encoder: AudioEncoder, step: int) -> np.ndarray:
    stream = WindowStream(encoder)
    pieces = [stream.push(pcm[start : start + step]) for start in range(0, len(pcm), step)]
    return np.concatenate([*pieces, stream.flush()])


# 76 600 samples are 384 columns, where floating point gives one row fewer than whole numbers.
LENGTHS = [1, 640, 2999, 3000, 3001, 3200, 9999, 16_000, 76_600, 100_001]


@pytest.mark.slow
@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("make_mel", [own_mel, pytest.param(librosa_mel, marks=pytest.mark.slow)])
def test_windows_are_those_of_the_family(
    speech: Float32Array,
    encoder: AudioEncoder,
    encoder_path: Path,
    make_mel: Callable[[Float32Array], np.ndarray],
    samples: int,
) -> None:
    windows = extract_windows(speech[:samples], encoder)
    assert windows.dtype == np.float32
    assert windows.shape == (frame_count(samples), 32, 16, 16)
    np.testing.assert_allclose(
        windows, plain_windows(speech[:samples], encoder_path, make_mel), atol=1e-4
    )


@pytest.mark.parametrize("samples", LENGTHS)
def test_a_stream_gives_the_bits_of_the_whole_at_every_length(
    speech: Float32Array, encoder: AudioEncoder, samples: int
) -> None:
    pcm = speech[:samples]
    np.testing.assert_array_equal(
        streamed(pcm, encoder, 501), extract_windows(pcm, encoder), strict=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 160, 640, 16_000, 50_000])
def test_a_stream_gives_the_bits_of_the_whole_for_every_step(
    speech: Float32Array, encoder: AudioEncoder, step: int
) -> None:
    pcm = speech[:12_345] if step == 1 else speech
    np.testing.assert_array_equal(
        streamed(pcm, encoder, step), extract_windows(pcm, encoder), strict=True
    )


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_a_stream_gives_the_bits_of_the_whole_for_any_cuts(
    speech: Float32Array, encoder: AudioEncoder, data: st.DataObject
) -> None:
    samples = data.draw(st.integers(0, 30_000), label="samples")
    cuts = data.draw(st.lists(st.integers(0, samples), max_size=10), label="cuts")
    pcm = speech[:samples]
    stream = WindowStream(encoder)
    windows = [stream.push(piece) for piece in np.split(pcm, sorted(cuts))]
    np.testing.assert_array_equal(
        np.concatenate([*windows, stream.flush()]), extract_windows(pcm, encoder), strict=True
    )


def test_a_stream_is_exact_with_an_encoder_whose_rows_depend_on_the_batch(
    speech: Float32Array, tmp_path: Path, make_encoder: Callable[..., Path]
) -> None:
    encoder = AudioEncoder.open(make_encoder(tmp_path / "mixing.onnx", rows_mix=True))
    pcm = speech[:30_000]
    np.testing.assert_array_equal(streamed(pcm, encoder, 640), extract_windows(pcm, encoder))
    np.testing.assert_array_equal(streamed(pcm, encoder, 30_000), extract_windows(pcm, encoder))


def test_a_window_comes_with_the_last_sample_that_counts_and_within_the_lookahead(
    speech: Float32Array, encoder: AudioEncoder
) -> None:
    stream = WindowStream(encoder)
    given_at = [
        pushed + 10
        for pushed in range(0, 40_000, 10)
        for _ in stream.push(speech[pushed : pushed + 10])
    ]
    latest = max(at - 640 * frame for frame, at in enumerate(given_at))
    assert latest / 16 == LOOKAHEAD_MS
    whole = extract_windows(speech[:40_000], encoder)
    for frame in (0, 3, 7, 25):
        samples = given_at[frame]
        changed = speech[:40_000].copy()
        changed[samples:] = 0.5
        np.testing.assert_array_equal(extract_windows(changed, encoder)[frame], whole[frame])
        changed[samples - 300 :] = 0.5
        assert (extract_windows(changed, encoder)[frame] != whole[frame]).any()


def test_a_long_stream_holds_no_more_than_a_short_one(
    speech: Float32Array, encoder: AudioEncoder
) -> None:
    stream = WindowStream(encoder)
    own = [tracemalloc.Filter(True, "*/lipwire/audio/*")]
    held_bytes = []
    tracemalloc.start()
    try:
        for second in range(40):
            stream.push(np.resize(speech[second:], 16_000))
            if second in (19, 39):
                gc.collect()
                traces = tracemalloc.take_snapshot().filter_traces(own).statistics("filename")
                held_bytes.append(sum(trace.size for trace in traces))
    finally:
        tracemalloc.stop()
    assert held_bytes[1] - held_bytes[0] < 4_000
    assert 40_000 < held_bytes[1] < 60_000


def test_no_audio_is_one_window_of_silence(encoder: AudioEncoder) -> None:
    nothing = np.empty(0, np.float32)
    silence = extract_windows(np.zeros(640, np.float32), encoder)
    np.testing.assert_array_equal(extract_windows(nothing, encoder), silence)
    np.testing.assert_array_equal(WindowStream(encoder).flush(), silence)


def test_reset_forgets_what_was_heard(speech: Float32Array, encoder: AudioEncoder) -> None:
    stream = WindowStream(encoder)
    stream.push(speech[:20_000])
    stream.reset()
    windows = np.concatenate([stream.push(speech[5000:25_000]), stream.flush()])
    np.testing.assert_array_equal(windows, extract_windows(speech[5000:25_000], encoder))
    with pytest.raises(InvalidInput, match="after the end"):
        stream.push(speech)
    with pytest.raises(InvalidInput, match="flushed already"):
        stream.flush()
    stream.reset()
    assert len(stream.push(speech)) > 0


def test_refused_audio_leaves_the_stream_as_it_was(
    speech: Float32Array, encoder: AudioEncoder
) -> None:
    stream = WindowStream(encoder)
    first = stream.push(speech[:20_000])
    with pytest.raises(InvalidInput, match="type int16"):
        stream.push(np.zeros(100, np.int16))
    rest = [stream.push(speech[20_000:]), stream.flush()]
    np.testing.assert_array_equal(np.concatenate([first, *rest]), extract_windows(speech, encoder))


def test_rows_are_the_windows_without_their_overlap(
    speech: Float32Array, encoder: AudioEncoder
) -> None:
    rows = extract_rows(speech, encoder)
    windows = extract_windows(speech, encoder)
    np.testing.assert_array_equal(windows[20].reshape(16, 512), rows[11:27])


@pytest.mark.parametrize("bad", [np.zeros((10, 2), np.float32), np.full(5, np.nan, np.float32)])
def test_bad_audio_is_refused(encoder: AudioEncoder, bad: Float32Array) -> None:
    with pytest.raises(InvalidInput):
        extract_windows(bad, encoder)
