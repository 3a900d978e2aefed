from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.avatars.videos import with_video, write_video

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire


@pytest.fixture
def avatar_package(package_template: Path, tmp_path: Path) -> Path:
    """As everywhere, and not compiled yet."""
    return shutil.copytree(package_template, tmp_path / "anna")


def test_info_shows_what_an_avatar_consists_of(
    lipwire: Lipwire, avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (avatar_package / "avatar.yaml").write_text(
        "name: Anna\nlicence: CC0-1.0\nconsent: made by a program\n"
    )
    outcome = lipwire("avatar", "info", avatar_package)
    assert outcome.code == 0
    for fact in (
        "Anna",
        "CC0-1.0",
        "made by a program",
        "8 images, 320x240, 25 fps",
        "120 wide",
        "M parameters",
        "audio_encoder.onnx",
        "nothing yet",
    ):
        assert fact in outcome.out


@pytest.mark.slow
def test_info_is_json_for_scripts(lipwire: Lipwire, avatar_package: Path) -> None:
    assert lipwire("avatar", "compile", avatar_package, "--for", "serve").code == 0
    outcome = lipwire("avatar", "info", avatar_package, "--json")
    facts = json.loads(outcome.out)
    assert (facts["width"], facts["height"], facts["frames"], facts["fps"]) == (320, 240, 8, 25)
    assert facts["model"]["inputs"] == ["input", "audio"]
    assert {part["part"]: part["variant"] for part in facts["compiled"]}["jpeg"] == "q75"
    assert all(part["size_bytes"] > 0 for part in facts["compiled"])


@pytest.mark.parametrize(("rate", "frames", "seconds"), [(25, 8, 0.32), (50, 4, 0.16)])
def test_info_counts_the_frames_of_a_video_as_they_are_shown(
    lipwire: Lipwire,
    avatar_package: Path,
    tmp_path: Path,
    rate: int,
    frames: int,
    seconds: float,
) -> None:
    """Whatever the number of its rectangles is."""
    video = write_video(tmp_path / "a.mp4", range(8), Fraction(1, rate))
    package = with_video(avatar_package, video, 20)
    facts = json.loads(lipwire("avatar", "info", package, "--json").out)
    assert (facts["frames"], facts["source_frames"], facts["seconds"]) == (frames, 8, seconds)
    shown = "8 video, 96x64" if rate == 25 else "4 video, resampled from 8, 96x64"
    assert shown in lipwire("avatar", "info", package).out


def test_a_package_cannot_write_to_the_terminal(lipwire: Lipwire, avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").write_text('description: "a[bold]b[/bold]"\n')
    assert "a[bold]b[/bold]" in lipwire("avatar", "info", avatar_package).out
    (avatar_package / "checkpoint" / "model_best.onnx").write_bytes(b"no network")
    named = avatar_package.rename(avatar_package.parent / "anna\x1b[31m\u202e")
    for command in ("validate", "compile", "info", "erase"):
        outcome = lipwire("avatar", command, named)
        assert "\x1b" not in outcome.out + outcome.err, command
        assert "\u202e" not in outcome.out + outcome.err, command


def test_a_sound_avatar_is_valid(lipwire: Lipwire, avatar_package: Path) -> None:
    outcome = lipwire("avatar", "validate", avatar_package)
    assert (outcome.code, outcome.out) == (0, f"{avatar_package} is valid\n")


@pytest.mark.parametrize("place", [".", "frames/.."])
def test_the_current_folder_is_called_by_its_name(
    lipwire: Lipwire, avatar_package: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(avatar_package)
    outcome = lipwire("avatar", "validate", place)
    assert (outcome.code, outcome.out) == (0, f"{avatar_package} is valid\n")
    outcome = lipwire("avatar", "evaluate", place, "--out", avatar_package.parent / "out")
    assert outcome.err.startswith("error: anna ")


def test_validate_lists_every_problem_and_fails(lipwire: Lipwire, avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").write_text("[[0,0,100,100]]")
    (avatar_package / "frames" / "frame_0002.png").write_bytes(b"no picture")
    (avatar_package / "checkpoint" / "model_best.onnx").write_bytes(b"no network")
    outcome = lipwire("avatar", "validate", avatar_package)
    assert outcome.code == 1
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 3
    assert lines[-1] == f"{avatar_package} cannot be used: 3 errors"

    document = json.loads(lipwire("avatar", "validate", avatar_package, "--json").out)
    assert document["valid"] is False
    assert [problem["severity"] for problem in document["problems"]] == ["error"] * 3


def test_a_warning_alone_is_no_failure(lipwire: Lipwire, avatar_package: Path) -> None:
    rects = json.loads((avatar_package / "crop_rects.json").read_text())
    (avatar_package / "crop_rects.json").write_text(json.dumps([*rects, rects[-1]]))
    outcome = lipwire("avatar", "validate", avatar_package)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"{avatar_package} is valid: 1 warning"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("purposes", "parts"),
    [
        (["serve"], {"jpeg"}),
        (["render", "gpu"], {"gpu"}),
        (["render"], set()),
        (["raw"], set()),
        (["all"], {"jpeg"}),
        (["cpu"], {"jpeg"}),
        (["gpu"], {"jpeg", "gpu"}),
        (["render", "live"], {"rest"}),
        (["live"], {"jpeg", "rest"}),
    ],
)
def test_compile_makes_what_the_purpose_needs(
    lipwire: Lipwire, avatar_package: Path, purposes: list[str], parts: set[str]
) -> None:
    asked = [word for purpose in purposes for word in ("--for", purpose)]
    outcome = lipwire("avatar", "compile", avatar_package, *asked)
    assert outcome.code == 0
    assert outcome.out.startswith(f"anna: 8 frames are compiled for {', '.join(purposes)} (")
    made = {path.name.split("-")[0] for path in (avatar_package / ".lipwire").glob("*-*-*")}
    assert made == parts | {"model", "patches"}
    shown = json.loads(lipwire("avatar", "info", avatar_package, "--json").out)["compiled"]
    assert {part["part"] for part in shown} == made


def test_mouths_for_silence_need_an_audio_encoder(lipwire: Lipwire, avatar_package: Path) -> None:
    (avatar_package / "checkpoint" / "audio_encoder.onnx").unlink()
    outcome = lipwire("avatar", "compile", avatar_package, "--for", "live")
    assert outcome.code == 2
    assert "avatar anna has no audio encoder of its own" in outcome.err


def test_avatars_are_listed_by_name(
    lipwire: Lipwire, avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPWIRE_AVATARS", str(avatar_package.parent))
    assert f"anna  {avatar_package}" in lipwire("avatar", "list").out
    listed = json.loads(lipwire("avatar", "list", "--json").out)
    assert {"name": "anna", "path": str(avatar_package)} in listed


@pytest.mark.parametrize("command", ["info", "validate", "compile"])
@pytest.mark.parametrize("avatar", ["nobody", "no/body", "bad name!"])
def test_an_avatar_that_is_not_there_is_one_line(
    lipwire: Lipwire, command: str, avatar: str
) -> None:
    outcome = lipwire("avatar", command, avatar)
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")


@pytest.mark.slow
def test_in_the_sandbox_it_says_the_same(lipwire: Lipwire, avatar_package: Path) -> None:
    plainly = lipwire("avatar", "validate", avatar_package)
    apart = lipwire("avatar", "validate", avatar_package, "--sandbox")
    assert (apart.code, apart.out) == (plainly.code, plainly.out)
    made = lipwire("avatar", "compile", avatar_package, "--for", "serve", "--sandbox")
    assert made.code == 0
    assert made.out.startswith("anna: 8 frames are compiled for serve")
    again = lipwire("avatar", "compile", avatar_package, "--for", "serve")
    assert again.code == 0
    os.truncate(avatar_package / "frames" / "frame_0003.png", 100)
    broken = lipwire("avatar", "compile", avatar_package, "--for", "serve", "--sandbox")
    plainly = lipwire("avatar", "compile", avatar_package, "--for", "serve")
    assert broken.code == plainly.code == 1
    assert broken.err.splitlines()[-1] == plainly.err.splitlines()[-1]


def test_the_sandbox_does_not_run_the_network_for_live(
    lipwire: Lipwire, avatar_package: Path
) -> None:
    outcome = lipwire("avatar", "compile", avatar_package, "--for", "live", "--sandbox")
    assert outcome.code == 2
    assert "--sandbox and --for live are given" in outcome.err
    assert not (avatar_package / ".lipwire").exists()
