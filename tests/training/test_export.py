"""From trained parts to a package that the engine runs and the evaluation judges."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnxruntime as ort  # noqa: E402
from tests.support.studiofolder import draw_face, rectangle, write_studio_folder  # noqa: E402

from lipwire.audio import decode_audio  # noqa: E402
from lipwire.avatars import validate_package  # noqa: E402
from lipwire.compose import network_crop  # noqa: E402
from lipwire.domain import CropRect, InvalidInput  # noqa: E402
from lipwire.engine import inspect_model  # noqa: E402
from lipwire.evaluation import evaluate, read_material  # noqa: E402
from lipwire.evaluation.renderer import controls_renderer  # noqa: E402
from lipwire.training.audio_model import AudioModel, export_encoder  # noqa: E402
from lipwire.training.dataset import PairDataset  # noqa: E402
from lipwire.training.evaluation_material import moving_box  # noqa: E402
from lipwire.training.export import (  # noqa: E402
    PackageParts,
    export_network,
    write_package,
)
from lipwire.training.train_unet import TrainSettings, UNetRun  # noqa: E402
from lipwire.training.unet import AudioConvolutions, Clipped, LipUNet, UNetConfig  # noqa: E402

torch.set_num_threads(1)

CONFIG = UNetConfig((4, 4, 8, 8))
FRAMES = 6


def stirred(network: LipUNet) -> LipUNet:
    torch.nn.init.normal_(network.leave.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> PackageParts:
    """A drawn studio folder with a held-out sequence, an untrained ear and renderer."""
    folder = tmp_path_factory.mktemp("parts")
    studio = folder / "studio"
    write_studio_folder(studio, frames=FRAMES, pairs=20)
    sequence = studio / "eval" / "anna"
    sequence.mkdir(parents=True)
    controls = np.zeros((10, 6), np.float32)
    controls[3:7, 0] = 0.8
    for index, row in enumerate(controls):
        frame = index if index < FRAMES else 2 * FRAMES - 2 - index
        box = rectangle(frame)
        truth = draw_face(frame, row)[box.y1 : box.y2, box.x1 : box.x2]
        cv2.imwrite(str(sequence / f"{index:04d}.png"), truth)
    np.save(sequence / "controls.npy", controls)
    phones = [["", 0.0, 0.1], ["m", 0.1, 0.2], ["a", 0.2, 0.28]]
    (sequence / "phones.json").write_text(json.dumps(phones))
    _write_wav(sequence / "audio.wav", 6400)

    audio = folder / "audio"
    audio.mkdir()
    torch.manual_seed(3)
    model = AudioModel().eval()
    export_encoder(model.encoder, audio / "audio_encoder.onnx")
    torch.save(model.head.state_dict(), audio / "audio_head.pt")

    run = UNetRun(PairDataset(studio), folder / "run", CONFIG, TrainSettings(steps=1))
    run.average["leave.weight"] = torch.randn_like(run.average["leave.weight"]) * 0.1
    run.save()
    return PackageParts(studio, run.checkpoint, audio, name="drawn")


def _write_wav(path: Path, samples: int) -> None:
    import wave

    noise = np.random.default_rng(0).normal(0, 3000, samples).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise.tobytes())


@pytest.mark.slow
def test_the_exported_network_equals_the_trained_one(tmp_path: Path) -> None:
    network = stirred(LipUNet(CONFIG, AudioConvolutions(6)))
    export_network(network, tmp_path / "model.onnx")

    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    crop, audio = torch.rand(3, 6, 320, 320), torch.randn(3, 32, 16, 16)
    (made,) = session.run(None, {"input": crop.numpy(), "audio": audio.numpy()})

    with torch.no_grad():
        expected = Clipped(network)(crop, audio).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert 0 <= made.min() < made.max() <= 1
    info = inspect_model(tmp_path / "model.onnx")
    assert info.fixed_batch is None
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_the_exported_network_also_paints_from_controls(tmp_path: Path) -> None:
    network = stirred(LipUNet(CONFIG, AudioConvolutions(6)))
    export_network(network, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (320, 320, 3), dtype=np.uint8)
    controls = rng.random(6).astype(np.float32)

    renderer = controls_renderer(tmp_path / "model.onnx")
    assert renderer is not None
    made = renderer(crop, controls)

    masked = crop.copy()
    masked[5:310, 5:315] = 0
    both = torch.from_numpy(np.concatenate([crop, masked], 2)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        painted = network.forward_controls(both, torch.from_numpy(controls)[None])
    expected = (painted[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(made.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_a_package_is_written_that_is_valid_and_can_be_judged(
    parts: PackageParts, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    write_package(parts, out)

    # The network was never trained, and may well not listen.
    assert all("the mouth will not move" in problem.message for problem in validate_package(out))
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]
    material = read_material(out)
    (entry,) = material.index.sequences
    assert entry.name == "anna"
    truth = material.truth(entry)
    assert truth.shape == (35, 120, 120, 3)  # the 10 that were rendered, and a second of rest
    drawn = cv2.imread(str(parts.studio / "eval" / "anna" / "0004.png"))
    assert drawn is not None
    assert cv2.PSNR(truth[4], drawn) > 38
    assert len(decode_audio(material.audio_path(entry))) == 35 * 640
    box = rectangle(1)  # frame 11 of six, back and forth
    rest = draw_face(1, np.zeros(6))[box.y1 : box.y2, box.x1 : box.x2]
    assert cv2.PSNR(truth[11], rest) > 38
    assert entry.pauses[-1][1] == 35
    assert entry.visemes[0].label == "a"
    assert 3 <= entry.visemes[0].frame < 7

    report = evaluate(out, tmp_path / "judged")
    assert report.frames == 35
    assert report.avatar == "drawn"
    assert {"mouth_true_controls_psnr_db", "mouth_speech_psnr_db"} <= set(report.figures["anna"])
    assert all(path.is_file() for path in report.pictures)


@pytest.mark.slow
def test_the_true_controls_reach_the_network_as_in_training(
    parts: PackageParts, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    write_package(parts, out)
    base = draw_face(0, np.zeros(6))

    renderer = controls_renderer(out / "checkpoint" / "model_best.onnx")
    assert renderer is not None
    crop = network_crop(base, rectangle(0), 4)

    assert renderer(crop, np.ones(6, np.float32)).shape == crop.shape


def test_the_lips_box_leaves_out_what_moves_elsewhere() -> None:
    movement = np.zeros((20, 20), np.float32)
    movement[6:10, 5:14], movement[8, 9] = 40, 100
    movement[15, 9] = 60  # a chin
    movement[1, 1:18] = 12  # cheeks
    size = CropRect(0, 0, 240, 240)

    assert moving_box(movement, 0.25, size, joined=True) == (60, 72, 168, 120)
    assert moving_box(movement, 0.1, size) == (12, 12, 216, 192)


@pytest.mark.slow
def test_a_missing_frame_of_the_loop_leaves_no_package(parts: PackageParts, tmp_path: Path) -> None:
    frame = parts.studio / "base" / "frame_0003.png"
    kept = frame.read_bytes()
    frame.unlink()
    try:
        with pytest.raises(InvalidInput, match=r"frame_0003\.png is missing"):
            write_package(parts, tmp_path / "drawn")
    finally:
        frame.write_bytes(kept)

    assert list(tmp_path.iterdir()) == []
