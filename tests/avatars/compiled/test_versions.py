import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.avatars import Avatar
from lipwire.avatars.compiled.versions import package_version
from lipwire.domain import NotFound


def rewrite(path: Path) -> None:
    """The same length and the same time of modification, as `cp -p` would leave it."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_frame(package: Path) -> None:
    (package / "new.png").write_bytes(b"new")
    (package / "new.png").rename(package / "frames" / "frame_0000.png")


def swap_folder(package: Path) -> None:
    package.rename(package.with_name("old"))
    shutil.copytree(package.with_name("old"), package)


@pytest.mark.parametrize(
    "change",
    [
        lambda package: rewrite(package / "checkpoint" / "model_best.onnx"),
        lambda package: rewrite(package / "checkpoint" / "audio_encoder.onnx"),
        lambda package: rewrite(package / "crop_rects.json"),
        lambda package: (package / "avatar.yaml").write_text("name: Anna\n"),
        lambda package: (package / "source_video.mp4").touch(),
        lambda package: (package / "checkpoint" / "audio_encoder.onnx").unlink(),
        lambda package: (package / "frames" / "frame_0007.png").unlink(),
        replace_frame,
        swap_folder,
    ],
)
def test_changes_are_seen(avatar_package: Path, change: Callable[[Path], object]) -> None:
    before = package_version(avatar_package)
    assert package_version(avatar_package) == before
    change(avatar_package)
    assert package_version(avatar_package) != before


def test_compiling_and_opening_is_no_change(avatar_package: Path) -> None:
    before = package_version(avatar_package)
    with Avatar.open(avatar_package, parts=frozenset({"jpeg"})):
        pass
    assert package_version(avatar_package) == before


def test_a_link_that_points_elsewhere_is_a_change(avatar_package: Path, tmp_path: Path) -> None:
    shutil.copytree(avatar_package, tmp_path / "other")
    link = tmp_path / "link"
    link.symlink_to(avatar_package)
    before = package_version(link)
    assert before == package_version(avatar_package)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert package_version(link) != before


@pytest.mark.parametrize("name", ["nothing", "file", "nul\0"])
def test_what_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="is gone"):
        package_version(tmp_path / name)
