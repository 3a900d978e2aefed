"""Packages whose files are links to a folder elsewhere, as in Hugging Face's cache."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar, read_package
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.compiled.versions import package_version
from lipwire.config import load_inference_config
from lipwire.config.links import VARIABLE, links_may_lead_out
from lipwire.domain import AvatarInvalid
from lipwire.wiring.registries import open_catalog


def outside_data(package: Path) -> None:
    """Have both networks keep their weights in files beside them."""
    for name in ("model_best", "audio_encoder"):
        path = package / "checkpoint" / f"{name}.onnx"
        model = onnx.load(path)
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location=f"{name}.data",
            size_threshold=0,
        )


def snapshot(package: Path, cache: Path) -> Path:
    """``package`` as a folder of links to blobs that have other names."""
    folder = cache / "snapshots" / "0f"
    (cache / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(package.rglob("*"))):
        if path.is_file():
            blob = shutil.copy(path, cache / "blobs" / f"{number:08x}")
            link = folder / path.relative_to(package)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is taken back


Prepare = Callable[[Path], None]


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda package: None, outside_data], ids=["in", "beside"])
def test_a_package_of_links_opens_where_they_are_allowed(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare
) -> None:
    plain = shutil.copytree(avatar_package, tmp_path / "plain")
    prepare(plain)
    folder = snapshot(plain, tmp_path / "cache")
    with pytest.raises(AvatarInvalid, match=f"leads out of the package; .*{VARIABLE}=1"):
        Avatar.open(folder)
    monkeypatch.setenv(VARIABLE, "1")
    with (
        Avatar.open(folder, parts=frozenset({"jpeg"})) as linked,
        Avatar.open(plain, parts=frozenset({"jpeg"})) as straight,
    ):
        assert linked.revision == straight.revision
        assert linked.jpeg(3, None) == straight.jpeg(3, None)
    encoder = read_package(folder).encoder_path
    assert encoder is not None
    mels = np.zeros((2, 1, 80, 16), np.float32)
    expected = AudioEncoder.open(plain / "checkpoint" / "audio_encoder.onnx").encode(mels)
    np.testing.assert_array_equal(AudioEncoder.open(encoder).encode(mels), expected)


@pytest.mark.slow
def test_a_link_that_leads_to_other_weights_is_a_change(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside_data(avatar_package)
    folder = snapshot(avatar_package, tmp_path / "cache")
    monkeypatch.setenv(VARIABLE, "1")
    with Avatar.open(folder) as avatar:
        before, model = package_version(folder), avatar.model_path
    link = folder / "crop_rects.json"
    (tmp_path / "other").write_bytes(link.read_bytes() + b" ")
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert package_version(folder) != before
    weights = folder / "checkpoint" / "model_best.data"
    data = bytearray(weights.read_bytes())
    data[200] ^= 1
    weights.resolve().write_bytes(data)
    old = (model / "weights.bin").read_bytes()
    with Avatar.open(folder) as avatar:
        assert (avatar.model_path / "weights.bin").read_bytes() != old


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model_best", "audio_encoder"])
def test_weights_behind_a_link_need_the_same_permission(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    outside_data(avatar_package)
    data = avatar_package / "checkpoint" / f"{name}.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")

    def open_both() -> None:
        AudioEncoder.open(avatar_package / "checkpoint" / "audio_encoder.onnx")
        Avatar.open(avatar_package).close()

    with pytest.raises(AvatarInvalid, match=f"a link that leads out of the model's.*{VARIABLE}=1"):
        open_both()
    monkeypatch.setenv(VARIABLE, "1")
    open_both()


@pytest.mark.parametrize("path", ["../ears.onnx", "/etc/passwd", "a/../../ears.onnx"])
def test_a_path_that_leads_out_stays_refused(
    avatar_package: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    (avatar_package.parent / "ears.onnx").touch()
    (avatar_package / "avatar.yaml").write_text(f"audio_encoder: '{path}'\n")
    with pytest.raises(AvatarInvalid, match="leads out of the package; paths are relative"):
        read_package(avatar_package)


@pytest.mark.parametrize(
    ("value", "allowed"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("false", False), ("", False)],
)
def test_the_variable(monkeypatch: pytest.MonkeyPatch, value: str, allowed: bool) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert links_may_lead_out() == allowed
    assert load_inference_config(None, {VARIABLE: value}).allow_links_outside == allowed


@pytest.mark.parametrize("value", ["true", "false"])
def test_the_servers_key(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"models_root: {tmp_path}\nallow_links_outside: {value}\n")
    assert isinstance(open_catalog(load_inference_config(path, {})), Catalog)
    assert links_may_lead_out() == (value == "true")
