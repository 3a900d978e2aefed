"""The deployment guide's own files."""

import os
from pathlib import Path

import pytest

from lipwire.config import (
    load_compositing_config,
    load_inference_config,
)
from lipwire.domain import AvatarFiles

GUIDE = Path(__file__).parent / "guide"


def test_the_guides_inference_file_loads_as_it_stands() -> None:
    config = load_inference_config(GUIDE / "inference.yaml", {})
    assert config.server.address == "127.0.0.1:50051"
    assert config.server.max_message_size_mb == 100
    assert config.server.max_message_bytes == 100 * 1024 * 1024
    assert (config.server.worker_count_per_gpu, config.server.queue_size) == (8, 50)
    assert (config.gpus.enabled, config.gpus.count, config.gpus.memory_gb_per_gpu) == (True, 1, 24)
    assert config.gpus.assignment_strategy == "round-robin"
    assert config.onnx.library_path == "C:/onnxruntime-1.22.0/lib/onnxruntime.dll"
    assert (config.onnx.use_cuda, config.onnx.cuda_device_id) == (True, 0)
    assert (config.wants_cuda, config.requires_cuda) == (True, False)
    assert config.capacity.max_models_per_gpu == 1000
    assert config.capacity.eviction_policy == "lfu"
    assert config.capacity.idle_timeout_s == 3600
    sanders = "d:/Projects/webcodecstest/minimal_server/models/sanders"
    assert str(config.files["sanders"].model) == f"{sanders}/checkpoint/model_best.onnx"
    assert config.models["sanders"].preload is False
    assert config.notes()[0].startswith("onnx.library_path is not used")


def test_the_guides_compositing_file_loads_as_it_stands() -> None:
    config = load_compositing_config(GUIDE / "compositing.yaml", {})
    assert config.server.address == "127.0.0.1:50052"
    assert config.inference_server.url == ("localhost:50051",)
    assert (config.inference_server.timeout_seconds, config.inference_server.max_retries) == (10, 3)
    assert (config.capacity.max_models, config.capacity.background_cache_frames) == (11_000, 600)
    assert (config.capacity.eviction_policy, config.capacity.idle_timeout_minutes) == ("lfu", 60)
    assert (config.output.format, config.output.jpeg_quality) == ("jpeg", 75)
    sanders = config.models["sanders"]
    folder = "d:/Projects/webcodecstest/minimal_server/models/sanders"
    assert str(sanders.background_dir) == f"{folder}/frames"
    assert str(sanders.crop_rects_path) == f"{folder}/crop_rects.json"
    assert (sanders.num_frames, sanders.preload_backgrounds) == (523, True)
    assert config.logging.level == "info"
    assert (config.logging.log_compositing_times, config.logging.log_cache_stats) == (True, False)


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_windows_paths_are_told_of_elsewhere() -> None:
    notes = load_compositing_config(GUIDE / "compositing.yaml", {}).notes()
    assert len(notes) == 1
    assert notes[0].startswith("models.sanders: d:/Projects/")
    assert notes[0].endswith("is a Windows path and leads nowhere on this system")


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_the_guides_files_serve_elsewhere_with_a_root_for_their_models(tmp_path: Path) -> None:
    environ = {"LIPWIRE_MODELS_ROOT": str(tmp_path)}
    for load in (load_inference_config, load_compositing_config):
        config = load(GUIDE / f"{load.__name__.split('_')[1]}.yaml", environ)
        assert config.files == {"sanders": AvatarFiles(folder=tmp_path / "sanders")}
        assert config.notes()[-1].endswith(f"; its name in {tmp_path} is used instead")
    assert (
        load_compositing_config(GUIDE / "compositing.yaml", environ)
        .models["sanders"]
        .preload_backgrounds
    )


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_windows_paths_below_the_root_of_a_file_lead_from_another_root(tmp_path: Path) -> None:
    """Whatever the avatars are called that share them."""
    (tmp_path / "root" / "anna" / "frames").mkdir(parents=True)
    (tmp_path / "root" / "anna" / "model.onnx").touch()
    file = tmp_path / "config.yaml"
    file.write_text(
        "models_root: 'D:\\Avatars'\n"
        "models:\n"
        "  anna1: {model_path: d:/avatars/anna/model.onnx, background_dir: anna/frames}\n"
        "  anna2: {path: 'd:\\avatars\\anna'}\n"
        "  ben: {model_path: d:/avatars/ben/model.onnx}\n"
        "  cleo: {model_path: d:/elsewhere/anna/model.onnx}\n"
    )
    root = tmp_path / "root"
    config = load_inference_config(file, {"LIPWIRE_MODELS_ROOT": str(root)})
    assert config.files == {
        "anna1": AvatarFiles(model=root / "anna/model.onnx", frames=root / "anna/frames"),
        "anna2": AvatarFiles(folder=root / "anna"),
        "ben": AvatarFiles(folder=root / "ben"),
        "cleo": AvatarFiles(folder=root / "cleo"),
    }
