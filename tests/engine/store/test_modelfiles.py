"""Compiled models that were damaged are refused before anything runs."""

import errno
import json
import mmap
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lipwire.domain import AvatarInvalid
from lipwire.engine import Engine
from lipwire.engine.store.files import ALIGNMENT_BYTES
from lipwire.engine.store.modelfiles import map_weights, read_manifest


@pytest.fixture
def folder(pair: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair.folders[0], tmp_path / "copy"))


def _refused(folder: Path, says: str) -> None:
    with Engine(threads=1) as engine, pytest.raises(AvatarInvalid, match=says) as caught:
        engine.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) not in str(caught.value)


def test_every_weight_is_aligned_and_read_only(folder: Path) -> None:
    manifest = read_manifest(folder)
    mapped = map_weights(folder, manifest)
    assert mapped is not None
    assert not mapped.flags.writeable
    for graph in manifest.graphs.values():
        assert graph.weights
        assert all(weight.offset_bytes % ALIGNMENT_BYTES == 0 for weight in graph.weights)


def test_weights_that_are_short_or_missing(folder: Path) -> None:
    weights = folder / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    _refused(folder, "weights.bin has")
    weights.unlink()
    _refused(folder, "weights.bin is missing")


def test_no_room_to_map_weights_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    manifest = read_manifest(folder)
    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(MemoryError):
        map_weights(folder, manifest)


def test_a_graph_that_was_changed_or_is_missing(folder: Path) -> None:
    graph = folder / "pixels.onnx"
    data = bytearray(graph.read_bytes())
    data[50] ^= 1
    graph.write_bytes(data)
    _refused(folder, "not what model.json says")
    graph.unlink()
    _refused(folder, "pixels.onnx is missing")


def _set(*place: str | int, to: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        for step in place[:-1]:
            manifest = manifest[step]
        manifest[place[-1]] = to

    return change


WEIGHT = ("graphs", "pixels", "weights", 0)


@pytest.mark.parametrize(
    "change",
    [
        _set("graphs", "pixels", "file", to="../other/pixels.onnx"),
        _set("graphs", to={}),
        _set("weights_bytes", to=-1),
        _set("fixed_batch", to=0),
        _set("fixed_batch", to="1"),
        _set(*WEIGHT, "offset_bytes", to=-64),
        _set(*WEIGHT, "offset_bytes", to=7),
        _set(*WEIGHT, "offset_bytes", to=1 << 30),
        _set(*WEIGHT, "shape", to=[1 << 39]),
        _set(*WEIGHT, "shape", to=[-1]),
        _set(*WEIGHT, "shape", to="x"),
        _set(*WEIGHT, "element_type", to="object"),
    ],
)
def test_a_manifest_that_says_what_cannot_be(folder: Path, change: Any) -> None:
    path = folder / "model.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    _refused(folder, "model.json is damaged")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "[" * 100_000, "\ud800"])
def test_a_manifest_that_is_not_one(folder: Path, text: str) -> None:
    (folder / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    _refused(folder, "model.json is damaged")


def test_a_weight_of_another_shape_is_one_clear_error(folder: Path, make_inputs: Any) -> None:
    path = folder / "model.json"
    manifest = json.loads(path.read_text())
    manifest["graphs"]["pixels"]["weights"][2]["shape"] = [1]
    path.write_text(json.dumps(manifest))
    inputs = make_inputs(1)
    with Engine(threads=1) as engine:
        model = engine.load(folder)
        with pytest.raises(AvatarInvalid, match="network failed"):
            engine.infer(model, inputs.crops, inputs.windows)
