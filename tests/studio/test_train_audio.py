"""The networks that hear, their ONNX form, and a cut-down training of the same code."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lipwire.audio import (  # noqa: E402
    AudioEncoder,
    frame_count,
    mel_spectrogram,
    rows_from_mel,
    windows_from_rows,
)
from lipwire.domain import AvatarInvalid, InvalidInput  # noqa: E402
from lipwire.training import audio_model  # noqa: E402
from lipwire.training.audio_model import load_head  # noqa: E402
from lipwire.training.coarticulation import Phone, frame_times, mouth_track  # noqa: E402
from studio import evaluate_audio, train_audio  # noqa: E402
from studio.speech import Utterance  # noqa: E402
from studio.speech.windows import SpokenWindows, read_controls, spoken_windows  # noqa: E402

SMALL = train_audio.Plan(steps=3, batch=2, frames=50, warm_up=1, save_every=2, half=False)


def tones(seed: int = 0) -> Utterance:
    """Two seconds of noise bursts as vowels between silences."""
    rng = np.random.default_rng(seed)
    pcm = np.zeros(32000, np.int16)
    phones = []
    for k in range(4):
        start = 2000 + 7000 * k
        pcm[start : start + 4000] = rng.normal(0, 3000, 4000).astype(np.int16)
        phones.append(Phone("ɑ", start / 16000, (start + 4000) / 16000))
    return Utterance("noise", "", pcm, tuple(phones))


def seeded_model() -> "audio_model.AudioModel":
    torch.manual_seed(0)
    model = audio_model.AudioModel()
    model.train()
    model(torch.randn(2, 80, 80), 25)  # batch statistics other than those it was born with
    return model.eval()


def test_sizes_are_what_live_speech_can_afford() -> None:
    flop = 0

    def count(layer: Any, _: object, made: Any) -> None:
        nonlocal flop
        flop += 2 * layer.weight[0].numel() * made.numel()

    model = seeded_model()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    for part, example, most_flop in (
        (model.encoder, torch.zeros(1, 1, 80, 16), 25e6),
        (model.head, torch.zeros(1, 32, 16, 16), 10e6),
    ):
        flop = 0
        part(example)
        assert 0 < flop < most_flop
        assert sum(p.numel() for p in part.parameters()) < 1.5e6


def test_the_training_form_equals_the_deployed_form() -> None:
    """Rows gathered inside the model give what separate windows give, at both ends too."""
    model = seeded_model()
    pcm = np.random.default_rng(1).normal(0, 0.1, 16000 * 2).astype(np.float32)
    mel = mel_spectrogram(pcm)
    rows = rows_from_mel(mel)
    frames = frame_count(len(pcm))
    with torch.inference_mode():
        trained = torch.sigmoid(model(torch.from_numpy(mel)[None], frames))[0].numpy()
        features = model.encoder(torch.from_numpy(rows[:, None])).numpy()
    deployed = read_controls(model.head, windows_from_rows(features, frames))
    assert np.abs(trained - deployed).max() < 1e-5
    assert trained.shape == (frames, 6)


@pytest.mark.slow
def test_the_onnx_encoder_equals_torch_and_does_not_mind_its_batch(tmp_path: Path) -> None:
    model = seeded_model()
    path = tmp_path / "encoder.onnx"
    audio_model.export_encoder(model.encoder, path)
    assert path.stat().st_size < 6_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.onnx"]
    mels = np.random.default_rng(0).uniform(-4, 4, (33, 1, 80, 16)).astype(np.float32)
    opened = AudioEncoder.open(path)
    together = opened.encode(mels)
    with torch.inference_mode():
        expected = model.encoder(torch.from_numpy(mels)).numpy()
    assert np.abs(together - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    for k in range(len(mels)):
        assert np.array_equal(opened.encode(mels[k : k + 1])[0], together[k])


def test_a_perfect_answer_has_the_least_loss() -> None:
    true = torch.from_numpy(mouth_track(tones().phones, frame_times(50)))[None]
    perfect = torch.logit(true.clamp(1e-4, 1 - 1e-4))
    late = perfect.roll(1, dims=1)
    assert train_audio.loss_of(perfect, true) < 0.05 * train_audio.loss_of(late, true)
    assert train_audio.loss_of(torch.zeros_like(true), true) > train_audio.loss_of(late, true)


@pytest.mark.slow
def test_a_stopped_training_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    through = train_audio.Training(SMALL, tmp_path / "through")
    whole = list(through.run([tones()]))
    stopped = train_audio.Training(SMALL, tmp_path / "stopped")
    run = stopped.run([tones()])
    parts = [next(run), next(run)]
    run.close()
    again = train_audio.Training(SMALL, tmp_path / "stopped")
    assert again.step == 2
    parts += list(again.run([tones()]))
    assert parts == pytest.approx(whole, rel=1e-4)
    assert {p.name for p in (tmp_path / "stopped").iterdir()} == {
        train_audio.CHECKPOINT,
        audio_model.ENCODER,
        audio_model.HEAD,
    }


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path) -> None:
    plan = train_audio.Plan(steps=30, batch=2, frames=50, warm_up=3, save_every=99, half=False)
    training = train_audio.Training(plan, tmp_path)
    said = tones(2)  # as it is, where training has noise and rooms
    mel = torch.from_numpy(mel_spectrogram((said.pcm / 32768).astype(np.float32)))[None]
    true = torch.from_numpy(mouth_track(said.phones, frame_times(50)))[None]

    def loss() -> float:
        with torch.inference_mode():
            return float(train_audio.loss_of(training.model(mel, 50), true))

    before = loss()
    assert len(list(training.run([tones(), tones(1)]))) == plan.steps
    assert loss() < 0.7 * before


@pytest.mark.slow
def test_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / train_audio.CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(AvatarInvalid, match="not a checkpoint"):
        train_audio.Training(SMALL, tmp_path)
    (tmp_path / "head.pt").write_bytes(b"nothing")
    with pytest.raises(AvatarInvalid, match="not an audio head"):
        load_head(tmp_path / "head.pt")
    with pytest.raises(InvalidInput, match="train first"):
        train_audio.load_model(tmp_path / "empty")


def test_figures_of_the_truth_are_perfect_and_of_a_late_mouth_are_late(tmp_path: Path) -> None:
    model = seeded_model()
    audio_model.export_encoder(model.encoder, tmp_path / "encoder.onnx")
    heard = spoken_windows(tones(), AudioEncoder.open(tmp_path / "encoder.onnx"), model.head)
    assert heard.windows.shape == (len(heard.true), 32, 16, 16)
    assert heard.predicted.shape == heard.true.shape

    def with_mouth(controls: np.ndarray) -> SpokenWindows:
        return SpokenWindows(
            heard.voice, heard.text, heard.pcm, heard.phones, heard.windows, controls, heard.true
        )

    perfect = evaluate_audio.measure([with_mouth(heard.true)])
    assert perfect.aperture_correlation == pytest.approx(1)
    assert perfect.lag_frames == 0
    assert perfect.silence_aperture < 0.01
    assert perfect.jitter == pytest.approx(1)
    late = evaluate_audio.measure([with_mouth(np.roll(heard.true, 2, axis=0))])
    assert late.lag_frames == 2
    assert late.energy_lag_frames == pytest.approx(perfect.energy_lag_frames + 2, abs=0.3)


@pytest.mark.slow
def test_both_stages_run_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "held_out"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        tones().save(tmp_path / "corpus" / split / "one.npz")
    corpus, folder = str(tmp_path / "corpus"), str(tmp_path / "run")
    assert train_audio.main([corpus, folder, "--steps", "1", "--batch", "1"]) == 0
    assert evaluate_audio.main([corpus, folder]) == 0
    assert {"held_out.png", "figures.json"} <= {p.name for p in Path(folder).iterdir()}
    shutil.rmtree(corpus)
    capsys.readouterr()
    assert train_audio.main([corpus, folder, "--steps", "2"]) == 1
    assert capsys.readouterr().err.startswith("error: no utterances in")
