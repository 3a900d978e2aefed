"""Held-out speech with its mouths."""

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from lipwire.audio import decode_audio
from lipwire.domain import FPS, SAMPLE_RATE_HZ, DependencyMissing, StorageFailed
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import BITE, PRESS, ROUND, WIDE
from studio import heldout
from studio.heldout import SAMPLE, SEQUENCES, Sequence, write_flac, write_sequence
from studio.speech import Utterance
from studio.speech.corpus import ESPEAK_VARIANTS, FLITE_VOICES

PHONES = (Phone("m", 0.1, 0.2), Phone("a", 0.2, 0.5), Phone("f", 0.5, 0.65))


def tone(samples: int) -> Utterance:
    pcm = (8000 * np.sin(np.arange(samples) / 7)).astype(np.int16)
    return Utterance("test", "maf", pcm, PHONES)


def spoken(sequence: Sequence) -> Utterance:
    try:
        return sequence.speak()
    except DependencyMissing as error:
        pytest.skip(f"needs {sequence.engine}: {error}")


@pytest.mark.parametrize(("samples", "frames"), [(640 * 20, 20), (640 * 20 + 1, 21), (639, 1)])
def test_frames_cover_all_of_the_sound(tmp_path: Path, samples: int, frames: int) -> None:
    utterance = tone(samples)
    assert write_sequence(tmp_path / "s", utterance) == frames
    assert np.load(tmp_path / "s" / "controls.npy").shape == (frames, 6)
    with wave.open(str(tmp_path / "s" / "audio.wav")) as sound:
        assert sound.getparams()[:4] == (1, 2, SAMPLE_RATE_HZ, samples)
        assert sound.readframes(samples) == utterance.pcm.tobytes()
    phones = json.loads((tmp_path / "s" / "phones.json").read_text())
    assert phones == [["m", 0.1, 0.2], ["a", 0.2, 0.5], ["f", 0.5, 0.65]]


def test_a_sequence_leaves_only_its_files(tmp_path: Path) -> None:
    write_sequence(tmp_path, tone(6400))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["audio.wav", "controls.npy", "phones.json"]


def test_flac_keeps_every_sample(tmp_path: Path) -> None:
    utterance = tone(10_007)
    write_flac(tmp_path / "new" / "sample.flac", utterance)
    decoded = decode_audio(tmp_path / "new" / "sample.flac")
    np.testing.assert_array_equal(np.round(decoded * 32768).astype(np.int16), utterance.pcm)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot make the folder"):
        write_sequence(tmp_path / "file" / "s", tone(640))


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda s: s.name)
def test_held_out_speech_has_every_kind_of_mouth(tmp_path: Path, sequence: Sequence) -> None:
    utterance = spoken(sequence)
    frames = write_sequence(tmp_path, utterance)
    assert frames == pytest.approx(utterance.duration_s * FPS, abs=1)
    controls = np.load(tmp_path / "controls.npy")
    for control in (PRESS, BITE):
        assert controls[:, control].max() > 0.9
    for control in (ROUND, WIDE):
        assert controls[:, control].max() > 0.5
    phones = json.loads((tmp_path / "phones.json").read_text())
    assert phones[-1][2] <= utterance.duration_s + 0.1


def test_training_never_hears_the_voices() -> None:
    for sequence in SEQUENCES:
        if sequence.engine == "flite":
            assert sequence.voice in FLITE_VOICES["held_out"]
        else:
            assert sequence.voice.partition("+")[2] in ESPEAK_VARIANTS["held_out"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_the_program_writes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldout, "SEQUENCES", (SEQUENCES[0],))
    sample = tmp_path / "assets" / "sample.flac"
    assert heldout.main(["--out", str(tmp_path / "eval"), "--sample", str(sample)]) == 0
    assert (tmp_path / "eval" / SEQUENCES[0].name / "controls.npy").exists()
    assert len(decode_audio(sample)) == len(SAMPLE.speak().pcm)


def test_a_missing_synthesizer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert heldout.main(["--out", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err.strip() == "error: flite is not installed (Debian package: flite)"
    )
