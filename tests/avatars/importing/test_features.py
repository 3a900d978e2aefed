"""aud_ave.npy beside a recording."""

import gc
import re
from pathlib import Path

import numpy as np
import pytest
from tests.support.foreignavatars import SPEECH, write_wav

from lipwire.audio import AudioEncoder, decode_audio, extract_rows
from lipwire.avatars.importing.features import features_note
from lipwire.bench.randomnetworks import write_tiny_audio_encoder


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    write_wav(tmp_path / "aud.wav", SPEECH)
    return tmp_path / "aud.wav"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows, r"equals what the audio encoder makes of aud.wav \(15 rows"),
        (lambda rows: rows + 0.5, "differs from .* by up to 0.5: the network was trained with an"),
        (lambda rows: rows[:-3], "has 12 rows, and aud.wav gives 15"),
        (lambda rows: rows[:, None], "is 15x1x512 float32; 'ave' features have 512 numbers a row"),
        (lambda rows: rows.astype(object), "cannot be read"),
    ],
)
def test_features_are_compared_with_lipwires_own(
    recording: Path, tmp_path: Path, change: object, told: str
) -> None:
    encoder = tmp_path / "audio_encoder.onnx"
    write_tiny_audio_encoder(encoder, 3)
    rows = extract_rows(decode_audio(recording), AudioEncoder.open(encoder))
    stored = np.concatenate([rows[:1], rows, rows[-1:]])
    np.save(tmp_path / "aud_ave.npy", change(stored), allow_pickle=True)  # type: ignore[operator]
    note = features_note(tmp_path / "aud_ave.npy", recording, encoder)
    assert note.startswith("aud_ave.npy")
    assert re.search(told, note), note


def test_features_without_a_recording_are_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "aud_ave.npy", np.zeros((522, 512), np.float32))
    assert "has 522 rows; they were not compared, as the recording" in features_note(
        tmp_path / "aud_ave.npy", None, None
    )


def test_an_archive_is_no_file_of_features(tmp_path: Path) -> None:
    features = tmp_path / "aud_ave.npy"
    np.savez(tmp_path / "whole.npz", np.zeros((522, 512), np.float32))
    whole = (tmp_path / "whole.npz").read_bytes()
    for data in (whole, whole[:300], b"PK\x03\x04"):  # numpy.load leaves a damaged one open
        features.write_bytes(data)
        assert "cannot be read and was not compared" in features_note(features, None, None)
        gc.collect()
