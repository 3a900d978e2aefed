"""The deployment guide's own files, and what it says to change in them."""

import os
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from lipwire.config import (
    load_compositing_config,
    load_inference_config,
)
from lipwire.domain import AvatarFiles

GUIDE = Path(__file__).parent / "guide"
REMEDIES = [
    # CUDA out of memory
    ("inference", "capacity: {max_models_per_gpu: 500}", "capacity.max_models_per_gpu", 500),
    ("inference", "capacity: {eviction_policy: lru}", "capacity.eviction_policy", "lru"),
    ("inference", "capacity: {idle_timeout_minutes: 30}", "capacity.idle_timeout_s", 1800),
    # gRPC message too large
    ("inference", "server: {max_message_size_mb: 200}", "server.max_message_bytes", 200 << 20),
    ("compositing", "server: {max_message_size_mb: 200}", "server.max_message_bytes", 200 << 20),
    # slow compositing, and the second step of scaling up
    ("compositing", "output: {jpeg_quality: 65}", "output.jpeg_quality", 65),
    # high latency
    (
        "compositing",
        "inference_server: {timeout_seconds: 30}",
        "inference_server.timeout_seconds",
        30,
    ),
    # several inference servers behind one address
    (
        "compositing",
        "inference_server: {url: 'load-balancer.internal:50051'}",
        "inference_server.url",
        ("load-balancer.internal:50051",),
    ),
    # debug logging
    ("compositing", "logging: {level: debug}", "logging.level", "debug"),
    ("inference", "logging: {level: debug}", "logging.level", "debug"),
    (
        "compositing",
        "logging: {log_compositing_times: true}",
        "logging.log_compositing_times",
        True,
    ),
    ("compositing", "logging: {log_cache_stats: true}", "logging.log_cache_stats", True),
    # the first and the fourth step of scaling up
    ("inference", "server: {worker_count_per_gpu: 16}", "server.worker_count_per_gpu", 16),
    (
        "compositing",
        "capacity: {background_cache_frames: 100}",
        "capacity.background_cache_frames",
        100,
    ),
]
"""What the guide says to write into which server's file, and the value that counts then."""
TUNING = {
    "worker_count_per_gpu": ("inference", "server", (4, 8, 16)),
    "background_cache_frames": ("compositing", "capacity", (50, 600, 1000)),
    "jpeg_quality": ("compositing", "output", (65, 75, 85)),
    "max_message_size_mb": ("compositing", "server", (50, 100, 200)),
}
"""The guide's table: the server, the section, and the values from low-end to high-end."""
LOADS = {"inference": load_inference_config, "compositing": load_compositing_config}


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


@pytest.mark.parametrize(("server", "text", "key", "value"), REMEDIES)
def test_what_the_guide_says_to_change_is_taken(
    server: str, text: str, key: str, value: object, tmp_path: Path
) -> None:
    document = yaml.safe_load((GUIDE / f"{server}.yaml").read_text())
    for section, changes in yaml.safe_load(text).items():
        document[section] = {**document.get(section, {}), **changes}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(document))
    assert attrgetter(key)(LOADS[server](file, {})) == value
    assert attrgetter(key)(LOADS[server](GUIDE / f"{server}.yaml", {})) != value or (
        key == "logging.log_compositing_times"  # which the guide's own file has, too
    )


@pytest.mark.parametrize("preload", [False, True])
def test_avatars_are_preloaded_where_the_guide_says_so(preload: bool, tmp_path: Path) -> None:
    for server, key in (("inference", "preload"), ("compositing", "preload_backgrounds")):
        document = yaml.safe_load((GUIDE / f"{server}.yaml").read_text())
        document["models"]["sanders"][key] = preload
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(document))
        assert getattr(LOADS[server](file, {}).models["sanders"], key) is preload


@pytest.mark.parametrize("key", TUNING)
def test_the_guides_table_of_values_is_taken(key: str, tmp_path: Path) -> None:
    server, section, values = TUNING[key]
    for value in values:
        file = tmp_path / "config.yaml"
        file.write_text(f"{section}: {{{key}: {value}}}\n")
        assert attrgetter(f"{section}.{key}")(LOADS[server](file, {})) == value
