"""A cut-down run of the mouth renderer's training."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support.studiofolder import draw_face, rectangle, write_studio_folder  # noqa: E402

from lipwire.domain import InvalidInput  # noqa: E402
from lipwire.training.dataset import PairDataset, VideoDataset  # noqa: E402
from lipwire.training.train_unet import (  # noqa: E402
    TrainSettings,
    UNetRun,
    learning_rate_at,
    window_at,
)
from lipwire.training.unet import AudioConvolutions, UNetConfig  # noqa: E402

torch.set_num_threads(1)  # two wait for each other wherever the machine has other work

WINDOW = (176, 96, 96, 128)
CONFIG = UNetConfig((8, 8, 16, 16), window=WINDOW)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    folder = tmp_path_factory.mktemp("studio") / "studio"
    write_studio_folder(folder, frames=4, pairs=40)
    return PairDataset(folder)


def settings(steps: int) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=5,
        ema_decay=0.9,
        checkpoint_every=3,
        sample_every=steps,
        log_every=steps,
    )


@pytest.mark.slow
def test_training_learns_to_draw_the_mouth_and_leaves_pictures(
    dataset: PairDataset, tmp_path: Path
) -> None:
    run = UNetRun(dataset, tmp_path, CONFIG, settings(30))
    before_db, _ = run.measure()

    run.train(progress=False)

    after_db, _ = run.measure()
    assert after_db > before_db + 2
    sheet = cv2.imread(str(tmp_path / "samples" / "000030.png"))
    assert sheet is not None
    assert sheet.shape[1] == 4 * WINDOW[3]
    logged = json.loads((tmp_path / "log.jsonl").read_text())
    assert logged["step"] == 30
    assert logged["held_out_psnr_db"] == pytest.approx(after_db, abs=0.01)


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_unbroken_one(dataset: PairDataset, tmp_path: Path) -> None:
    whole = UNetRun(dataset, tmp_path / "whole", CONFIG, settings(6))
    whole.train(progress=False)

    first = UNetRun(dataset, tmp_path / "parts", CONFIG, settings(6))
    first.train(progress=False, stop=lambda: first.step >= 3)
    second = UNetRun(dataset, tmp_path / "parts", CONFIG, settings(6))
    assert second.step == 3
    second.train(progress=False)

    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


@pytest.mark.slow
def test_another_network_does_not_go_on_from_the_checkpoint(
    dataset: PairDataset, tmp_path: Path
) -> None:
    UNetRun(dataset, tmp_path, CONFIG, settings(1)).save()

    with pytest.raises(InvalidInput, match="another network"):
        UNetRun(dataset, tmp_path, UNetConfig((8, 8, 8, 8)), settings(1))


@pytest.mark.slow
def test_the_same_code_trains_from_a_video_and_its_speech(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [draw_face(i, rng.random(6)) for i in range(12)]
    windows = rng.standard_normal((12, 32, 16, 16), np.float32)
    own = VideoDataset(frames, [rectangle(i) for i in range(12)], windows)
    config = UNetConfig((4, 4, 8, 8), base="masked")

    run = UNetRun(own, tmp_path, config, settings(2), AudioConvolutions(6))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.train(progress=False)

    moved = [n for n, v in run.network.state_dict().items() if not torch.equal(v, before[n])]
    assert any(name.startswith("audio_branch.") for name in moved)
    trained = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.network.train()
    averaged = run.averaged_network()
    assert averaged.audio_branch is not None
    assert all(torch.equal(v, trained[n]) for n, v in run.network.state_dict().items())
    assert all(part.training for part in run.network.modules())


def test_steps_focus_on_the_mouth_and_end_with_everything() -> None:
    plan = TrainSettings(steps=100, focus=(96, 80, 160, 176))
    rng = np.random.default_rng(0)
    early = [window_at(0, (0, 0, 320, 320), plan, rng) for _ in range(200)]
    late = [window_at(90, (0, 0, 320, 320), plan, rng) for _ in range(50)]

    assert set(late) == {(0, 0, 320, 320)}
    assert 20 < early.count((0, 0, 320, 320)) < 60
    parts = set(early) - {(0, 0, 320, 320)}
    assert parts == {(t, c, 160, 176) for t in (80, 96, 112) for c in (64, 80, 96)}
    edge = TrainSettings(steps=100, focus=(0, 144, 160, 176))
    for _ in range(50):
        top, left, height, width = window_at(0, (0, 0, 320, 320), edge, rng)
        assert top >= 0
        assert left + width <= 320
        assert height in (160, 320)


def test_the_learning_rate_warms_up_and_falls() -> None:
    plan = TrainSettings(steps=1000, learning_rate=1e-3, warmup_steps=10)
    rates = [learning_rate_at(step, plan) for step in range(1000)]

    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] < 3e-5
    assert rates[10:] == sorted(rates[10:], reverse=True)
