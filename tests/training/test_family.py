"""Checkpoints of the family: read, told apart, converted, and equal to what its inference makes."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tests.fuzz.costs import MIB, measured
from tests.support.foreignavatars import SPEECH, demo_frames, write_synctalk

torch = pytest.importorskip("torch")

from tests.training import familyreference as reference  # noqa: E402

from lipwire.api import open_avatar  # noqa: E402
from lipwire.avatars.importing.examining import examine  # noqa: E402
from lipwire.avatars.importing.networks import Checkpoints  # noqa: E402
from lipwire.avatars.importing.opening import opened_sources  # noqa: E402
from lipwire.avatars.importing.report import Report  # noqa: E402
from lipwire.avatars.importing.writing import Target, write_package  # noqa: E402
from lipwire.domain import AvatarInvalid  # noqa: E402
from lipwire.training.family import convert_checkpoint, describe_checkpoint  # noqa: E402

NARROW = (4, 8, 16, 32, 64)
CHECKPOINTS = Checkpoints(describe_checkpoint, convert_checkpoint)


@pytest.fixture(scope="module")
def weights() -> reference.Weights:
    return reference.unet_weights(1, NARROW)


@pytest.mark.slow
def test_a_network_makes_what_its_checkpoint_makes(
    weights: reference.Weights, tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "195.pth")
    convert_checkpoint(tmp_path / "195.pth", "network", tmp_path / "network.onnx")
    crop, audio = torch.rand(1, 6, 320, 320), torch.randn(1, 32, 16, 16)
    wanted = reference.unet(weights, crop, audio).numpy()
    session = ort.InferenceSession(str(tmp_path / "network.onnx"))
    (made,) = session.run(None, {"input": crop.numpy(), "audio": audio.numpy()})
    assert np.abs(made - wanted).max() < 1e-3
    assert np.abs(made - wanted).mean() < 1e-5
    assert wanted.std() > 0.1


@pytest.mark.slow
def test_weights_are_found_in_what_programs_save_beside_them(
    weights: reference.Weights, tmp_path: Path
) -> None:
    parallel = {f"module.{name}": tensor for name, tensor in weights.items()}
    for saved in (parallel, {"epoch": 9, "state_dict": weights}, {"model_state_dict": parallel}):
        torch.save(saved, tmp_path / "195.pth")
        told = describe_checkpoint(tmp_path / "195.pth", "network")
        assert told == "the family's U-Net (0.2 M parameters, other widths)"


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "audio_encoder."])
def test_an_audio_encoder_makes_what_its_checkpoint_makes(tmp_path: Path, prefix: str) -> None:
    weights = reference.encoder_weights(2)
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", "audio encoder", tmp_path / "encoder.onnx")
    mel = torch.rand(3, 1, 80, 16) * 8 - 4
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"))
    (made,) = session.run(None, {"mel": mel.numpy()})
    wanted = reference.encode(weights, mel).numpy()
    assert np.abs(made - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_form_is_told(tmp_path: Path) -> None:
    mobile = reference.unet_weights(0, (16, 32, 64, 128, 256), calibrated=False)
    torch.save(mobile, tmp_path / "9.pth")
    told = describe_checkpoint(tmp_path / "9.pth", "network")
    assert told == "the family's U-Net (3.1 M parameters, the mobile form)"


def without(prefix: str) -> Callable[[reference.Weights], Any]:
    return lambda weights: {n: t for n, t in weights.items() if not n.startswith(prefix)}


def changed(name: str, *shape: int) -> Callable[[reference.Weights], Any]:
    return lambda weights: {**weights, name: torch.zeros(shape)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: reference.encoder_weights(0), "is an audio encoder; SyncTalk_2D's U-Net"),
        (without("down5."), "is a U-Net of 160 pixels, as Ultralight-Digital-Human's"),
        (changed("audio_model.conv1.conv.0.weight", 512, 256, 1, 1), "hears wenet features"),
        (changed("audio_model.conv1.conv.0.weight", 32, 16, 1, 1), "hears hubert features"),
        (without("up3."), "it has no up3.conv.double_conv.0.conv.0.weight; a fork that differs"),
        (changed("outc.conv.weight", 4, 2, 1, 1), r"outc.conv.weight is \(4, 2, 1, 1\) and not"),
        (changed("attention.weight", 4), "it has 'attention.weight' as well"),
        (changed("down2.maxpool_conv.0.double_conv.0.conv.6.weight", 9, 4, 1, 1), "do not double"),
        (changed("face_encoder.0.conv_block.0.weight", 3), "is a SyncNet, which only training"),
        (changed("face_decoder_blocks.0", 3), "is Wav2Lip's network"),
        (lambda _: {"epoch": 3}, "holds no weights by their names, but 'epoch'"),
        (lambda _: {"layer.weight": torch.zeros(3)}, "it has no down1"),
        (lambda _: torch.nn.Linear(1, 1), "holds more than weights"),
        (lambda _: torch.zeros(3), "holds a Tensor, not a dictionary"),
    ],
)
def test_a_wrong_checkpoint_is_told_in_one_line(
    weights: reference.Weights,
    tmp_path: Path,
    change: Callable[[reference.Weights], Any],
    told: str,
) -> None:
    torch.save(change(weights), tmp_path / "195.pth")
    with pytest.raises(AvatarInvalid, match=told) as raised:
        convert_checkpoint(tmp_path / "195.pth", "network", tmp_path / "network.onnx")
    assert str(raised.value).startswith("195.pth")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "network.onnx").exists()


@pytest.mark.slow
def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_refused(
    weights: reference.Weights, tmp_path: Path
) -> None:
    torch.save({**weights, "outc.more": torch.zeros(25_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "195.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info))
    told = r"^195.pth has \d+ bytes and unpacks to 10\d+; PyTorch does not compress"
    with measured() as cost, pytest.raises(AvatarInvalid, match=told):
        describe_checkpoint(tmp_path / "195.pth", "network")
    assert cost.grown_bytes < 50 * MIB


def test_pytorchs_older_form_is_read(weights: reference.Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "195.pth", _use_new_zipfile_serialization=False)
    assert "U-Net" in describe_checkpoint(tmp_path / "195.pth", "network")


def test_a_network_is_no_audio_encoder(weights: reference.Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "audio.pth")
    with pytest.raises(AvatarInvalid, match=r"audio.pth is a U-Net; the 'ave' encoder .* is need"):
        describe_checkpoint(tmp_path / "audio.pth", "audio encoder")


def test_a_checkpoint_that_is_cut_off_is_told(weights: reference.Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "195.pth")
    (tmp_path / "195.pth").write_bytes((tmp_path / "195.pth").read_bytes()[:50_000])
    with pytest.raises(AvatarInvalid, match=r"^195.pth is damaged"):
        describe_checkpoint(tmp_path / "195.pth", "network")


def write_tree(tree: Path, network: reference.Weights, encoder: reference.Weights) -> Path:
    """SyncTalk_2D's own tree with one person, and that person's data folder."""
    data = write_synctalk(tree / "dataset" / "May", demo_frames())
    shutil.rmtree(data / "checkpoint")
    (data / "audio_visual_encoder.onnx").unlink()
    (tree / "checkpoint" / "May").mkdir(parents=True)
    for epoch in (4, 95, 194):
        torch.save({} if epoch < 194 else network, tree / "checkpoint" / "May" / f"{epoch}.pth")
    (tree / "model" / "checkpoints").mkdir(parents=True)
    torch.save(encoder, tree / "model" / "checkpoints" / "audio_visual_encoder.pth")
    return data


@pytest.mark.slow
@pytest.mark.parametrize("named", ["tree", "data"])
def test_the_best_checkpoint_of_a_tree_is_found(
    weights: reference.Weights, tmp_path: Path, named: str
) -> None:
    data = write_tree(tmp_path / "SyncTalk_2D", weights, reference.encoder_weights(3))
    report = Report()
    with opened_sources(data if named == "data" else tmp_path / "SyncTalk_2D") as (source,):
        material = examine(source, CHECKPOINTS, report)
    assert source.name == "May"
    assert material.network.path == tmp_path / "SyncTalk_2D" / "checkpoint" / "May" / "194.pth"
    assert any("194.pth, of 3 checkpoints: the family's U-Net" in row.found for row in report.rows)
    assert any("audio_visual_encoder.pth: the family's" in row.found for row in report.rows)
    assert any("hubert" in line for line in report.assumed)


@pytest.mark.slow
def test_an_imported_avatar_shows_what_the_familys_inference_shows(
    weights: reference.Weights, tmp_path: Path
) -> None:
    encoder = reference.encoder_weights(3)
    data = write_tree(tmp_path / "SyncTalk_2D", weights, encoder)
    report, target = Report(), Target(tmp_path / "avatars", "May")
    with opened_sources(data) as (source,):
        material = examine(source, CHECKPOINTS, report)
        write_package(material, target, CHECKPOINTS, report, progress=lambda *_: None)
    wanted = list(reference.inference(data, weights, encoder, SPEECH))
    assert len(wanted) == 15  # the loop of six frames turns round twice
    with open_avatar(target.path) as avatar:
        made = [(f.mouth.copy(), f.bgr.copy()) for f in avatar.speak(SPEECH, start_frame=1)]
    for (mouth, frame), (wanted_mouth, wanted_frame) in zip(made[:15], wanted, strict=True):
        assert np.abs(mouth - wanted_mouth).max() <= 1.0
        apart = np.abs(frame.astype(int) - wanted_frame)
        assert apart.max() <= 3  # cut and rounded values, scaled down with overshoot
        assert apart.mean() < 0.1
