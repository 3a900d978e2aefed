"""The dataset folder: filled, stopped, continued; and the program's refusals. Without Blender."""

import importlib.util
import json
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from tests.support.quickfirst import quick_first

from lipwire.domain import CropRect, InvalidInput, NotFound, UInt8Array
from lipwire.domain.newfiles import TEMPORARY
from lipwire.training.dataset import PairDataset
from studio import folder as folder_module
from studio.folder import StudioFolder, mouth_frames, read_controls, spread_order
from studio.meshes.shapes import Array
from studio.motion import FRAMES
from studio.pictures import WHOLE, faded_into, head_box, over, read_picture
from studio.render import main

LOOP = 4
CONTROLS = np.round(np.random.default_rng(1).random((10, 6)), 3)


class PaintedStage:
    """Shows controls as one colour, see-through on the left; stops when ``shots`` are used up."""

    def __init__(self, shots: int = 1000) -> None:
        self.shots = shots

    def rect(self, frame: int) -> CropRect:
        return CropRect(520 + frame, 330, 760 + frame, 570)

    def shoot(self, frame: int, controls: Array, box: CropRect) -> UInt8Array:
        if not self.shots:
            raise KeyboardInterrupt
        self.shots -= 1
        picture = np.zeros((box.height, box.width, 4), np.uint8)
        picture[..., :3] = 255 * controls[:3]
        picture[:, box.width // 2 :, 3] = 255
        return picture


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a grey room, for a loop of four frames."""
    monkeypatch.setattr(folder_module, "FRAMES", LOOP)
    assert cv2.imwrite(str(tmp_path / "room.png"), np.full((720, 1280, 3), 90, np.uint8))
    return tmp_path


def studio(out: Path, shots: int = 1000) -> StudioFolder:
    return StudioFolder(out, cast(Any, PaintedStage(shots)))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_the_order_visits_each_frame_once() -> None:
    for count in (1, 2, 7, 250):
        assert sorted(spread_order(count)) == list(range(count))


def test_any_beginning_of_the_order_covers_the_loop() -> None:
    order = list(spread_order(FRAMES))
    for part in (10, 40, 100):
        gaps = np.diff(sorted([0, *order[:part], FRAMES]))
        assert gaps.max() < 3 * FRAMES / part


def test_mouths_go_round_the_loop() -> None:
    frames = mouth_frames(2 * FRAMES + 3, per_frame=2)
    assert frames[0] == frames[1] == frames[2 * FRAMES]
    assert set(frames) == set(range(FRAMES))


@pytest.mark.slow
def test_the_loop_is_what_training_reads(out: Path) -> None:
    studio(out).render_loop(CONTROLS, 2)
    dataset = PairDataset(out)
    assert len(dataset) >= len(CONTROLS)
    pairs = json.loads((out / "pairs" / "pairs.json").read_text())
    for number, pair in enumerate(pairs):
        np.testing.assert_allclose(pair["controls"], CONTROLS[number], atol=1e-5)
        truth = read_picture(out / pair["file"], CropRect(0, 0, 240, 240))
        np.testing.assert_array_equal(truth[0, -1], (255 * CONTROLS[number, :3]).astype(np.uint8))
        assert (truth[0, 0] == 90).all()  # the room shows through
    assert len(list((out / "base").iterdir())) == LOOP


@pytest.mark.slow
@pytest.mark.parametrize("shots", [3, 0, 1, 8])
def test_a_stopped_run_goes_on_where_it_was(out: Path, tmp_path: Path, shots: int) -> None:
    def run(shots: int) -> None:
        studio(out, shots).render_loop(CONTROLS, 2)

    with pytest.raises(KeyboardInterrupt):
        run(shots)
    half = contents(out)
    assert not [name for name in half if TEMPORARY in name]
    run(1000)
    whole = contents(out)
    listing = "pairs/pairs.json"
    assert all(whole[name] == data for name, data in half.items() if name != listing)
    for path in (*(out / "pairs").iterdir(), *(out / "base").iterdir()):
        path.unlink()
    run(1000)
    assert contents(out) == whole


@pytest.mark.slow
def test_a_finished_run_renders_nothing_again(out: Path) -> None:
    studio(out).render_loop(CONTROLS, 2)
    studio(out, shots=0).render_loop(CONTROLS, 2)
    (out / "pairs" / "000003.png").unlink()
    studio(out, shots=1).render_loop(CONTROLS, 2)
    assert (out / "pairs" / "000003.png").exists()


@pytest.mark.slow
def test_more_mouths_can_be_added(out: Path) -> None:
    studio(out).render_loop(CONTROLS[:6], 2)
    studio(out, shots=4).render_loop(CONTROLS, 2)
    assert len(json.loads((out / "pairs" / "pairs.json").read_text())) == 10


@pytest.mark.slow
def test_the_mouths_of_another_round_length_are_kept(out: Path) -> None:
    studio(out).render_loop(CONTROLS[:6], 3)
    before = json.loads((out / "pairs" / "pairs.json").read_text())
    (out / before[2]["file"]).unlink()
    studio(out, shots=5).render_loop(CONTROLS, 2)
    assert json.loads((out / "pairs" / "pairs.json").read_text())[:6] == before


@pytest.mark.slow
def test_other_mouths_are_refused(out: Path) -> None:
    studio(out).render_loop(CONTROLS, 2)
    before = contents(out)
    with pytest.raises(InvalidInput, match="pair 0"):
        studio(out).render_loop(CONTROLS[::-1], 2)
    assert contents(out) == before


def test_another_character_is_refused(out: Path) -> None:
    studio(out)
    (out / "crop_rects.json").write_text("[[0, 0, 240, 240]]")
    with pytest.raises(InvalidInput, match="other crop rectangles"):
        studio(out)


@pytest.mark.parametrize(
    "text",
    quick_first(["", '[{"frame": 4}]', "{", '{"frame": 0}', "7", "[7]", '[{"frame": 0}]'], 2),
)
def test_a_damaged_listing_is_refused(out: Path, text: str) -> None:
    folder = studio(out)
    (out / "pairs" / "pairs.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"pairs\.json"):
        folder.render_loop(CONTROLS, 2)


def test_a_held_out_sequence_walks_back_and_forth(out: Path) -> None:
    studio(out, shots=11).render_sequence("rms", CONTROLS)
    names = sorted(path.name for path in (out / "eval" / "rms").iterdir())
    assert names == [*(f"{i:04d}.png" for i in range(10)), "controls.npy"]
    studio(out, shots=0).render_sequence("rms", CONTROLS)
    with pytest.raises(InvalidInput, match="other controls"):
        studio(out).render_sequence("rms", CONTROLS[:5])


def test_a_room_is_needed(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="stage `room`"):
        studio(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "noise", "small"])
def test_a_damaged_room_is_refused(out: Path, damage: str) -> None:
    room = out / "room.png"
    if damage == "small":
        assert cv2.imwrite(str(room), np.zeros((72, 128, 3), np.uint8))
    else:
        room.write_bytes(b"" if damage == "empty" else bytes(range(256)))
    with pytest.raises(InvalidInput, match=r"room\.png"):
        studio(out)


def test_over_mixes_by_alpha() -> None:
    front = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    back = np.full((1, 3, 3), 50, np.uint8)
    assert over(front, back).tolist() == [[[200, 100, 0], [50, 50, 50], [80, 60, 40]]]


def test_the_head_fades_into_the_body() -> None:
    still, box = np.full((720, 1280, 3), 100, np.uint8), CropRect(10, 20, 60, 120)
    picture = faded_into(still, np.full((100, 50, 3), 200, np.uint8), box)
    column = picture[20:120, 30, 0].astype(int)
    assert column[0] == 200
    assert column[-1] == 100
    assert (np.diff(column) <= 0).all()
    picture[20:120, 10:60] = 100
    assert (picture == 100).all()


def test_the_head_box_stays_inside_the_picture() -> None:
    box = head_box(CropRect(0, 0, 240, 240))
    assert (box.x1, box.y1) == (0, 0)
    box = head_box(CropRect(1040, 480, 1280, 720))
    assert (box.x2, box.y2) == (WHOLE.x2, WHOLE.y2)


def with_value(value: float) -> Array:
    changed = CONTROLS.copy()
    changed[3, 2] = value
    return changed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_value(np.nan), "round = nan in row 3"),
        (with_value(1.01), "round = 1.01 in row 3"),
        (with_value(-0.1), "round = -0.1"),
        (CONTROLS[:, :5], r"\(10, 5\)"),
        (CONTROLS[0], r"\(6,\)"),
        (CONTROLS[:0], r"\(0, 6\)"),
        (np.full((2, 6), "a"), "real numbers"),
        (np.full((2, 6), None), "not an .npy file"),
    ],
)
def test_wrong_controls_are_named(tmp_path: Path, values: Any, message: str) -> None:
    path = tmp_path / "controls.npy"
    np.save(path, values)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_controls(path)
    assert "\n" not in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "controls.npy"
    for data in (b"", b"hello", b"\x93NUMPY\x01\x00"):
        path.write_bytes(data)
        with pytest.raises(InvalidInput):
            read_controls(path)
    with path.open("wb") as file:
        np.savez(file, a=CONTROLS)
    with pytest.raises(InvalidInput, match=r"\.npz"):
        read_controls(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loop"], "needs --controls"),
        (["loop", "--controls", "nowhere.npy"], "nowhere.npy is missing"),
        (["loop", "--controls", "{controls}", "--per-frame", "0"], "--per-frame is 0"),
        (["eval", "--controls", "{controls}", "--name", "../x"], "--name is '../x'"),
        (["eval", "--controls", "{controls}", "--name", ".."], "--name is '..'"),
        (["loop", "--controls", "{controls}"], "stage `room` first"),
    ],
)
def test_the_program_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "controls.npy", CONTROLS)
    given = [a.format(controls=tmp_path / "controls.npy") for a in arguments]
    out = tmp_path / "out"
    assert main([*given, "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("bpy") is not None, reason="Blender is installed")
def test_without_blender_the_program_says_what_to_install(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(out / "controls.npy", CONTROLS)
    assert main(["loop", "--controls", str(out / "controls.npy"), "--out", str(out)]) == 1
    assert "requirements/studio.txt" in capsys.readouterr().err
