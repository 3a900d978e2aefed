"""Avatars that the servers' configuration files name, on this machine or by another's paths."""

import shutil
from pathlib import Path

import pytest
from tests.support.foreignavatars import demo_frames, no_checkpoints, write_guide_package

from lipwire.avatars.importing.configs import configured_sources
from lipwire.avatars.importing.examining import examine
from lipwire.avatars.importing.report import Report
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound

WINDOWS = "d:/Projects/webcodecstest/minimal_server/models"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The guide's tree, with one model, and both servers' files as the guide has them."""
    models = tmp_path / "minimal_server" / "models"
    write_guide_package(models / "sanders", demo_frames())
    for kind in ("inference", "compositing"):
        (tmp_path / f"go-{kind}-server").mkdir()
    write(tmp_path, WINDOWS)
    return tmp_path


def write(tree: Path, models: str, *names: str, count: int = 6) -> None:
    inference = (
        'onnx:\n  library_path: "C:/onnxruntime/lib/onnxruntime.dll"\n  use_cuda: true\nmodels:\n'
    )
    compositing = 'output:\n  format: "jpeg"\n  jpeg_quality: 75\nmodels:\n'
    for name in names or ("sanders",):
        inference += f'  {name}:\n    model_path: "{models}/{name}/checkpoint/model_best.onnx"\n'
        compositing += (
            f'  {name}:\n    background_dir: "{models}/{name}/frames"\n'
            f'    crop_rects_path: "{models}/{name}/crop_rects.json"\n    num_frames: {count}\n'
        )
    (tree / "go-inference-server" / "config.yaml").write_text(inference)
    (tree / "go-compositing-server" / "config.yaml").write_text(compositing)


@pytest.mark.slow
@pytest.mark.parametrize("here", [True, False], ids=["this machine's", "another's"])
@pytest.mark.parametrize("given", ["compositing", "inference", "both"])
def test_both_files_together_name_an_avatar(tree: Path, given: str, here: bool) -> None:
    models = tree / "minimal_server" / "models"
    if here:
        write(tree, models.as_posix())
    kinds = ("inference", "compositing") if given == "both" else (given,)
    found = configured_sources([tree / f"go-{kind}-server" / "config.yaml" for kind in kinds])
    (source,) = found.sources
    assert source.name == "sanders"
    assert source.model == models / "sanders" / "checkpoint" / "model_best.onnx"
    assert source.frames == models / "sanders" / "frames"
    assert source.rectangles == models / "sanders" / "crop_rects.json"
    assert source.frame_count == 6
    assert sum(line.startswith(f"{WINDOWS}/sanders") for line in found.told) == (0 if here else 3)
    assert any("belongs to" in line for line in found.told) == (given != "both")
    material = examine(source, no_checkpoints(), Report())
    assert len(material.images) == 6
    assert material.encoder is not None


def test_a_model_that_is_not_there_is_told_and_the_others_are_taken(tree: Path) -> None:
    write(tree, WINDOWS, "sanders", "user_123")
    found = configured_sources([tree / "go-compositing-server" / "config.yaml"])
    assert [source.name for source in found.sources] == ["sanders"]
    (fault,) = found.faults
    assert fault.startswith("user_123 in ")
    assert "user_123/checkpoint/model_best.onnx is not there" in fault


def test_another_number_of_frames_is_refused(tree: Path) -> None:
    write(tree, WINDOWS, count=523)
    (source,) = configured_sources([tree / "go-compositing-server" / "config.yaml"]).sources
    with pytest.raises(AvatarInvalid, match=r"has 6 frames and sanders in .* says 523"):
        examine(source, no_checkpoints(), Report())


def test_files_that_name_no_avatars_are_refused(tree: Path, tmp_path: Path) -> None:
    path = tree / "go-compositing-server" / "config.yaml"
    shutil.rmtree(tree / "go-inference-server")
    path.write_text("output:\n  format: raw\n")
    with pytest.raises(InvalidInput, match="names no avatars"):
        configured_sources([path])
    path.write_text("models:\n  sanders: 3\n")
    with pytest.raises(InvalidInput, match=r"config.yaml line 2"):
        configured_sources([path])
    with pytest.raises(NotFound):
        configured_sources([tmp_path / "none.yaml"])
