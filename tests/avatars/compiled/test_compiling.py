import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tests.support.hostmemory import HostMemory

from lipwire.avatars import ALWAYS, Avatar, Part, compile_avatar, read_package
from lipwire.avatars.compiled import keys as part_keys
from lipwire.avatars.compiled.fingerprints import Fingerprints
from lipwire.avatars.compiled.storage import homes
from lipwire.avatars.compiled.versions import package_version
from lipwire.domain import AvatarFiles, AvatarInvalid, InvalidInput, StorageFailed
from lipwire.engine import Engine

ALL: frozenset[Part] = frozenset({"jpeg", "planes", "pixels"})


@pytest.fixture(scope="module")
def compiled_template(package_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package compiled once; its copies need not be compiled again."""
    path = shutil.copytree(package_template, tmp_path_factory.mktemp("compiled") / "anna")
    compile_avatar(read_package(path), parts=ALL | ALWAYS)
    return path


@pytest.fixture
def compiled(compiled_template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(compiled_template, tmp_path / "anna")


def parts(package: Path) -> dict[str, int]:
    """The parts that are there, with the inode by which a rebuilt one is told from the old."""
    home = package / ".lipwire"
    kinds = ("model", "gpu", "patches", "jpeg", "planes", "pixels")
    return {p.name: p.stat().st_ino for p in home.iterdir() if p.name.split("-")[0] in kinds}


def kinds(package: Path) -> list[str]:
    return sorted(name.split("-")[0] for name in parts(package))


def rebuilt(package: Path, before: dict[str, int]) -> list[str]:
    after = parts(package)
    return sorted(name.split("-")[0] for name in after if before.get(name) != after[name])


def compile_parts(package: Path, wanted: frozenset[Part] = ALL, quality: int = 75) -> None:
    compile_avatar(read_package(package), parts=wanted | ALWAYS, quality=quality)


def test_only_what_is_asked_for_is_compiled(avatar_package: Path) -> None:
    compile_parts(avatar_package, frozenset())
    assert kinds(avatar_package) == ["model", "patches"]
    before = parts(avatar_package)
    compile_parts(avatar_package, frozenset({"jpeg"}))
    assert rebuilt(avatar_package, before) == ["jpeg"]


@pytest.mark.slow
def test_what_gpus_need_is_a_part_of_its_own(avatar_package: Path) -> None:
    package = read_package(avatar_package)
    processor = compile_avatar(package, parts=frozenset({"model"}))
    assert kinds(avatar_package) == ["model"]
    assert processor.network_for_gpu is None
    before = parts(avatar_package)
    steps: list[str] = []
    compiled = compile_avatar(
        package, parts=frozenset({"gpu"}), progress=lambda _done, _all, what: steps.append(what)
    )
    assert rebuilt(avatar_package, before) == ["gpu"]
    assert set(steps) == {"optimising the network for GPUs"}
    assert compiled.network == processor.network
    folder = compiled.network_for_gpu
    assert folder is not None
    with Engine(threads=1, memory=HostMemory(1 << 30)) as engine:
        assert engine.load(compiled.network, for_gpu=folder).on_gpu
    (folder / "half.bin").write_bytes(b"damaged")
    assert compile_avatar(package, parts=frozenset({"gpu"})).network_for_gpu == folder
    assert (folder / "half.bin").stat().st_size > 1000


def test_a_network_of_an_older_form_is_swept(
    avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_keys, "NETWORK_FORMAT", 2)
    compile_parts(avatar_package, frozenset())
    before = parts(avatar_package)
    monkeypatch.undo()
    compile_parts(avatar_package, frozenset())
    assert rebuilt(avatar_package, before) == ["model"]
    assert kinds(avatar_package) == ["model", "patches"]


def test_what_the_last_minor_version_made_is_kept(
    avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its servers may still run."""
    monkeypatch.setattr(part_keys, "_FORMAT", part_keys.EARLIER_FORMAT)
    monkeypatch.setattr(part_keys, "NETWORK_FORMAT", part_keys.EARLIER_NETWORK_FORMAT)
    compile_parts(avatar_package, frozenset({"jpeg"}))
    before = parts(avatar_package)
    monkeypatch.undo()
    compile_parts(avatar_package, frozenset({"jpeg"}))
    after = parts(avatar_package)
    assert before.keys() < after.keys()
    assert {name: after[name] for name in before} == before
    (avatar_package / "crop_rects.json").write_text(
        (avatar_package / "crop_rects.json").read_text().replace("[", "[ ", 1)
    )
    compile_parts(avatar_package, frozenset({"jpeg"}))
    kept = parts(avatar_package).keys()
    assert {name.split("-")[0] for name in before.keys() & kept} == {"model"}


def test_whole_frames_are_not_compiled(avatar_package: Path) -> None:
    compile_parts(avatar_package, frozenset({"planes", "pixels"}))
    assert kinds(avatar_package) == ["model", "patches"]


def test_files_of_whole_frames_are_swept(avatar_package: Path) -> None:
    home = avatar_package / ".lipwire"
    home.mkdir()
    for old in ("planes-0123-i420", "pixels-0123-bgr", "patches-0123-raw"):
        (home / old).write_bytes(bytes(10))
    compile_parts(avatar_package)
    assert kinds(avatar_package) == ["jpeg", "model", "patches"]
    assert len(parts(avatar_package)) == 3


def test_progress_is_reported(avatar_package: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    compile_avatar(read_package(avatar_package), progress=lambda *step: steps.append(step))
    assert steps[0] == (0, 1, "optimising the network")
    assert [step for step in steps if step[2] == "compiling frames"] == [
        (done, 8, "compiling frames") for done in range(9)
    ]


def test_a_copy_elsewhere_is_not_compiled_again(compiled: Path) -> None:
    before = parts(compiled)
    compile_parts(compiled)
    assert rebuilt(compiled, before) == []


def test_touched_files_are_not_compiled_again(compiled: Path) -> None:
    before = parts(compiled)
    for path in compiled.rglob("*.png"):
        os.utime(path)
    os.utime(compiled / "checkpoint" / "model_best.onnx")
    compile_parts(compiled)
    assert rebuilt(compiled, before) == []


def test_a_changed_frame_is_compiled_again_even_with_its_old_time(compiled: Path) -> None:
    compile_parts(compiled)
    path = compiled / "frames" / "frame_0003.png"
    times = path.stat()
    pixels = cv2.imread(str(path))
    assert pixels is not None
    path.write_bytes(cv2.imencode(".png", 255 - pixels)[1].tobytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = parts(compiled)
    with Avatar.open(compiled, parts=ALL) as avatar:
        assert np.array_equal(avatar.pixels(3, None), 255 - pixels)
    assert rebuilt(compiled, before) == ["jpeg", "patches"]
    assert len(parts(compiled)) == 3  # the old ones are gone


def test_changed_rectangles_leave_whole_frames_alone(compiled: Path) -> None:
    rects = json.loads((compiled / "crop_rects.json").read_text())
    rects[3][0] += 1
    (compiled / "crop_rects.json").write_text(json.dumps(rects))
    before = parts(compiled)
    with Avatar.open(compiled, parts=ALL) as avatar:
        assert avatar.rects[3].x1 == rects[3][0]
    assert rebuilt(compiled, before) == ["jpeg", "patches"]


def test_a_changed_network_is_compiled_again(compiled: Path, make_package: object) -> None:
    other = make_package(compiled.parent / "other", seed=5)  # type: ignore[operator]
    shutil.copy(other / "checkpoint" / "model_best.onnx", compiled / "checkpoint")
    before = parts(compiled)
    compile_parts(compiled)
    assert rebuilt(compiled, before) == ["model"]
    assert len(parts(compiled)) == 3


def test_changed_settings_compile_nothing(compiled: Path) -> None:
    before = parts(compiled)
    (compiled / "avatar.yaml").write_text("crop_border: 0\nname: Anna\n")
    with Avatar.open(compiled, parts=ALL) as avatar:
        assert (avatar.border_px, avatar.name) == (0, "Anna")
    assert rebuilt(compiled, before) == []


def test_qualities_live_side_by_side(compiled: Path) -> None:
    before = parts(compiled)
    compile_parts(compiled, quality=90)
    compile_parts(compiled, quality=75)
    assert rebuilt(compiled, before) == ["jpeg"]
    assert kinds(compiled).count("jpeg") == 2


def test_external_data_belongs_to_the_network(avatar_package: Path) -> None:
    folder = avatar_package / "checkpoint"
    model = onnx.load(folder / "model_best.onnx")
    onnx.save(
        model,
        folder / "model_best.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    compile_parts(avatar_package, frozenset())
    before = parts(avatar_package)
    revision = compile_avatar(read_package(avatar_package)).revision
    assert rebuilt(avatar_package, before) == []
    version = package_version(avatar_package)
    data = bytearray((folder / "weights.bin").read_bytes())
    data[3] ^= 1
    (folder / "weights.bin").write_bytes(data)
    assert package_version(avatar_package) != version
    changed = compile_avatar(read_package(avatar_package)).revision
    assert rebuilt(avatar_package, before) == ["model"]
    assert changed.frames == revision.frames
    assert not changed.same_model(revision)


def test_only_files_that_hold_weights_are_looked_at_beside_a_network(
    package_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie anywhere: in a folder of thousands of files, whose names are anything."""
    network = tmp_path / "model.onnx"
    shutil.copy(package_template / "checkpoint" / "model_best.onnx", network)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "Conv").write_text("not of the network, though its name is in there")
    opened: list[Path] = []
    read = Fingerprints._read

    def seen(self: Fingerprints, path: Path) -> tuple[tuple[int, int, int, int], int, str]:
        opened.append(path)
        return read(self, path)

    monkeypatch.setattr(Fingerprints, "_read", seen)
    package = read_package(AvatarFiles(model=network), frozenset({"model"}))
    compile_avatar(package, parts=frozenset({"model"}))
    assert set(opened) == {network}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero_start(path: Path) -> None:
    path.write_bytes(bytes(64) + path.read_bytes()[64:])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, empty, zero_start])
@pytest.mark.parametrize("kind", ["patches", "jpeg"])
def test_damaged_parts_are_rebuilt(
    compiled: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    (path,) = (compiled / ".lipwire").glob(f"{kind}-*")
    content = path.read_bytes()
    damage(path)
    compile_parts(compiled)
    assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights.bin", "model.json", "seal.json"])
@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
def test_a_damaged_network_is_rebuilt(
    compiled: Path, name: str, damage: Callable[[Path], None]
) -> None:
    (folder,) = (compiled / ".lipwire").glob("model-*")
    content = (folder / name).read_bytes()
    damage(folder / name)
    compile_parts(compiled, frozenset())
    assert (folder / name).read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("seal", ['{"files":{},"external":{"/dev/zero":"0"}}', "[" * 9999, "7"])
def test_a_forged_seal_is_not_believed(compiled: Path, seal: str) -> None:
    (folder,) = (compiled / ".lipwire").glob("model-*")
    content = (folder / "seal.json").read_bytes()
    (folder / "seal.json").write_text(seal)
    compile_parts(compiled, frozenset())
    assert (folder / "seal.json").read_bytes() == content


@pytest.mark.parametrize("frame", [0, 5])
def test_a_broken_frame_leaves_nothing(avatar_package: Path, frame: int) -> None:
    (avatar_package / "frames" / f"frame_000{frame}.png").write_bytes(b"")
    with pytest.raises(AvatarInvalid, match=f"frames/frame_000{frame}.png is empty"):
        compile_parts(avatar_package)
    assert kinds(avatar_package) == (
        [] if frame == 0 else ["model"]
    )  # the first is looked at first
    assert not list(avatar_package.rglob("*.tmp-*"))


def test_a_rectangle_outside_leaves_nothing(avatar_package: Path) -> None:
    rects = json.loads((avatar_package / "crop_rects.json").read_text())
    rects[6][2] = 321
    (avatar_package / "crop_rects.json").write_text(json.dumps(rects))
    with pytest.raises(AvatarInvalid, match="it has to lie inside the frame of 320x240"):
        compile_parts(avatar_package)
    assert kinds(avatar_package) == []
    assert not list(avatar_package.rglob("*.tmp-*"))


def test_a_broken_network_leaves_nothing(avatar_package: Path) -> None:
    (avatar_package / "checkpoint" / "model_best.onnx").write_bytes(b"no network")
    with pytest.raises(AvatarInvalid):
        compile_parts(avatar_package)
    assert kinds(avatar_package) == []
    assert not list(avatar_package.rglob("*.tmp-*"))


@pytest.mark.slow
def test_a_package_that_changes_meanwhile_is_refused(avatar_package: Path) -> None:
    def meddle(done: int, total: int, what: str) -> None:
        if (done, what) == (4, "compiling frames"):
            shutil.copy(
                avatar_package / "frames" / "frame_0000.png",
                avatar_package / "frames" / "frame_0007.png",
            )

    with pytest.raises(AvatarInvalid, match="anna was changed while it was compiled"):
        compile_avatar(read_package(avatar_package), progress=meddle)
    assert kinds(avatar_package) == ["model"]
    compile_parts(avatar_package)
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        assert np.array_equal(avatar.pixels(0, None), avatar.pixels(7, None))


def test_an_interruption_leaves_the_old_parts(compiled: Path) -> None:
    before = parts(compiled)

    def interrupt(done: int, total: int, what: str) -> None:
        if (done, what) == (3, "compiling frames"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_avatar(read_package(compiled), parts=ALL | ALWAYS, quality=50, progress=interrupt)
    assert parts(compiled) == before
    assert not list(compiled.rglob("*.tmp-*"))


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_quality_has_a_range(avatar_package: Path, quality: int) -> None:
    with pytest.raises(InvalidInput, match=f"JPEG quality is {quality}; allowed are 1 to 100"):
        compile_parts(avatar_package, quality=quality)
    assert not (avatar_package / ".lipwire").exists()


def test_unknown_parts_are_refused(avatar_package: Path) -> None:
    with pytest.raises(InvalidInput, match="parts are gif; allowed are"):
        compile_avatar(read_package(avatar_package), parts=frozenset({"gif"}))  # type: ignore[arg-type]


@pytest.fixture
def no_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make everything below a folder unwritable, in a way that holds for root too."""
    protected: list[Path] = []
    real_open, real_mkdir = Path.open, Path.mkdir

    def check(path: Path) -> None:
        if any(path.is_relative_to(folder) for folder in protected):
            raise PermissionError(13, "Permission denied", str(path))

    def guarded_open(self: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if mode[0] in "wax" or "+" in mode:
            check(self)
        return real_open(self, mode, *rest, **named)  # type: ignore[call-overload]

    def guarded_mkdir(self: Path, *rest: object, **named: object) -> None:
        if not self.exists():
            check(self)
        real_mkdir(self, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", guarded_open)
    monkeypatch.setattr(Path, "mkdir", guarded_mkdir)
    return protected.append


def test_without_permission_the_users_cache_is_used(
    avatar_package: Path, no_writing: Callable[[Path], None]
) -> None:
    no_writing(avatar_package)
    cache = homes(avatar_package)[1]
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        assert avatar.model_path.parent == cache
        assert avatar.jpeg(0, None).startswith(b"\xff\xd8")
    assert not (avatar_package / ".lipwire").exists()
    before = {path.name: path.stat().st_ino for path in cache.iterdir()}
    Avatar.open(avatar_package, parts=ALL).close()
    after = {path.name: path.stat().st_ino for path in cache.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} <= {"inputs.json"}


def test_parts_in_a_package_without_permission_are_used(
    compiled: Path, no_writing: Callable[[Path], None]
) -> None:
    no_writing(compiled)
    with Avatar.open(compiled, parts=ALL) as avatar:
        assert avatar.model_path.parent == compiled / ".lipwire"


def test_nowhere_to_write(
    avatar_package: Path, tmp_path: Path, no_writing: Callable[[Path], None]
) -> None:
    no_writing(avatar_package)
    no_writing(homes(avatar_package)[1].parent.parent)
    with pytest.raises(StorageFailed, match="there is no permission to write"):
        compile_parts(avatar_package)


@pytest.mark.slow
def test_avatars_that_share_a_folder_do_not_share_what_is_compiled(
    avatar_package: Path, make_package: Callable[..., Path], tmp_path: Path
) -> None:
    """Two networks and two files of rectangles beside each other, over the same frames."""
    other = make_package(tmp_path / "other", seed=4)
    shutil.copy(avatar_package / "crop_rects.json", avatar_package / "ben.json")
    shutil.copy(other / "checkpoint" / "model_best.onnx", avatar_package / "ben.onnx")
    ben = AvatarFiles(
        model=avatar_package / "ben.onnx",
        frames=avatar_package / "frames",
        rectangles=avatar_package / "ben.json",
    )
    compile_parts(avatar_package)
    before = parts(avatar_package)
    for _ in range(2):
        with Avatar.open(ben, parts=frozenset({"jpeg"})) as avatar:
            assert avatar.frame_count == 8
            revision = avatar.revision
        assert parts(avatar_package) == before
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        assert avatar.revision.model != revision.model
        assert avatar.revision.frames == revision.frames
    assert parts(avatar_package) == before
    (home,) = [path for path in (avatar_package / ".lipwire").iterdir() if path.is_dir()
               and not path.name.startswith("model-")]  # fmt: skip
    compiled = {path.name.split("-")[0] for path in home.iterdir()}
    assert compiled >= {"model", "patches", "jpeg"}


def test_frames_are_opened_without_their_network(avatar_package: Path) -> None:
    (avatar_package / "checkpoint" / "model_best.onnx").write_bytes(b"broken")
    with Avatar.open(avatar_package, parts=frozenset({"jpeg"}), with_model=False) as avatar:
        assert avatar.jpeg(0, None)[:2] == b"\xff\xd8"
        with pytest.raises(InvalidInput, match="was opened without its network"):
            _ = avatar.model_path
    assert kinds(avatar_package) == ["jpeg", "patches"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("name", ["inputs.json", "patches-*", "jpeg-*", "model-*/seal.json"])
def test_pipes_in_place_of_what_is_compiled_are_not_waited_for(compiled: Path, name: str) -> None:
    (path,) = (compiled / ".lipwire").glob(name)
    path.unlink()
    os.mkfifo(path)
    with Avatar.open(compiled, parts=ALL) as avatar:
        assert avatar.jpeg(0, None)[:2] == b"\xff\xd8"
