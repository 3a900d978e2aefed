from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from tests.support.foreignavatars import (
    SPEECH,
    assert_same_frames,
    demo_frames,
    demo_rectangles,
    listed,
    spoken_by_hand,
    write_guide_package,
    write_landmarks,
    write_synctalk,
    write_video_package,
    write_wav,
)

from lipwire.domain import UInt8Array

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire

Frames = list[UInt8Array]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return demo_frames()


@pytest.mark.slow
def test_a_folder_becomes_an_avatar_that_is_found_by_its_name(
    lipwire: Lipwire, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "mine"))
    source = write_synctalk(tmp_path / "anna", frames)
    outcome = lipwire("avatar", "import", source, "--no-clip")
    assert outcome.code == 0, outcome.err
    for told in (
        "SyncTalk_2D's data",
        "full_body_img/: 6 of 640x360, 0.jpg to 5.jpg",
        "landmarks/ (110 points a frame): 6",
        "-> checkpoint/model_best.onnx, copied",
        "assumed: it was trained on blue, green, red",
        f"{tmp_path}/mine/anna is valid",
    ):
        assert told in outcome.out
    assert lipwire("avatar", "validate", "anna").code == 0
    again = lipwire("avatar", "import", source)
    assert (again.code, "--force replaces it" in again.err) == (2, True)
    assert lipwire("avatar", "import", source, "--force", "--no-clip").code == 0
    renamed = ("--name", "Zoë", "--no-clip")
    assert lipwire("avatar", "import", tmp_path / "mine" / "anna", *renamed).code == 0
    assert "Zoë" in lipwire("avatar", "info", "Zoë").out


def test_a_dry_run_writes_nothing(lipwire: Lipwire, frames: Frames, tmp_path: Path) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "to", "--dry-run")
    assert outcome.code == 0
    assert "nothing was written" in outcome.out
    assert "frames/: 6 of 640x360" in outcome.out
    clip = f"5 seconds at most of the sentence that comes with Lipwire  -> {tmp_path}/to/anna-clip"
    assert clip in outcome.out
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_several_sources_are_taken_and_one_that_is_wrong_is_told(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    first = write_guide_package(tmp_path / "anna", frames)
    second = write_video_package(tmp_path / "bert", frames)
    wrong = write_synctalk(tmp_path / "carl", frames)
    (wrong / "landmarks" / "2.lms").unlink()
    archive = tmp_path / "bert.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in second.rglob("*"):
            made.write(path, path.relative_to(tmp_path))
    to = tmp_path / "to"
    outcome = lipwire("avatar", "import", first, archive, wrong, "--to", to, "--json", "--no-clip")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    assert [each["name"] for each in told["avatars"]] == ["anna", "bert"]
    assert told["avatars"][1]["source"] == "bert.zip"
    assert told["errors"] == [
        f"{wrong}: landmarks/2.lms is missing; each frame needs its landmarks"
    ]
    assert sorted(path.name for path in to.iterdir()) == ["anna", "bert"]
    both = lipwire("avatar", "import", first, second, "--name", "zoe", "--to", to)
    assert (both.code, "--name is for one avatar, and 2 are there" in both.err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--dry-run",), ("--force", "--no-clip")])
def test_two_sources_of_one_name_are_one_avatar_and_an_error(
    lipwire: Lipwire, frames: Frames, tmp_path: Path, options: tuple[str, ...]
) -> None:
    first = write_guide_package(tmp_path / "a" / "anna", frames)
    second = write_video_package(tmp_path / "b" / "Anna", frames)
    outcome = lipwire("avatar", "import", first, second, "--to", tmp_path / "to", *options)
    assert outcome.code == 1
    told = f"{second} has the name of what {first} became, Anna; import it by itself, with --name"
    assert told in outcome.err
    twice = lipwire("avatar", "import", first, f"{first}/.", "--to", tmp_path / "to", *options)
    assert (twice.code, f"{first} is named twice, and taken once" in twice.err) == (1, True)
    if "--force" in options:
        assert [path.name for path in (tmp_path / "to").iterdir()] == ["anna"]
        assert (tmp_path / "to" / "anna" / "frames").is_dir()


@pytest.mark.slow
def test_the_guides_configurations_name_avatars(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    write_guide_package(tmp_path / "minimal_server" / "models" / "sanders", frames)
    there = "d:/Projects/webcodecstest/minimal_server/models/sanders"
    inference = tmp_path / "go-inference-server" / "config.yaml"
    compositing = tmp_path / "go-compositing-server" / "config.yaml"
    for path in (inference, compositing):
        path.parent.mkdir()
    inference.write_text(
        f'models:\n  sanders:\n    model_path: "{there}/checkpoint/model_best.onnx"\n'
        "    preload: false\n"
    )
    compositing.write_text(
        f'models:\n  sanders:\n    background_dir: "{there}/frames"\n'
        f'    crop_rects_path: "{there}/crop_rects.json"\n    num_frames: 6\n'
        "    preload_backgrounds: true\n"
    )
    outcome = lipwire(
        "avatar", "import", "--config", compositing, "--to", tmp_path / "to", "--no-clip"
    )
    assert outcome.code == 0, outcome.err
    assert f"sanders, from sanders in {compositing}" in outcome.out
    assert f"{inference} belongs to {compositing}" in outcome.err
    made = tmp_path / "to" / "sanders"
    assert_same_frames(made, spoken_by_hand())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "nothing to import"),
        (("nowhere",), "no folder nowhere"),
        ((".", "--name", "a/b"), "avatar name is 'a/b'"),
        ((".", "--clip", "out.mkv"), "--clip is out.mkv; allowed are names in .mp4, .m4v, .mov"),
        ((".", "--clip", "out"), "--clip is out; allowed are names in .mp4"),
        ((".", "--clip", "no/out.mp4"), "there is no folder no"),
        ((".", "--clip", "out.mp4", "--no-clip"), "--clip and --no-clip are given"),
        ((".", "--landmarks-size", "640*360"), "'640*360'; allowed is WIDTHxHEIGHT, as 1280x720"),
    ],
)
def test_what_cannot_be_is_told(
    lipwire: Lipwire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lipwire("avatar", "import", *arguments)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_checkpoint_needs_pytorch(
    lipwire: Lipwire, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    (source / "checkpoint" / "model_best.onnx").unlink()
    (source / "checkpoint" / "195.pth").write_bytes(b"not looked at")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "to")
    assert outcome.code == 1
    assert "195.pth is a PyTorch checkpoint, and PyTorch is not there; `pip install" in outcome.err
    assert not (tmp_path / "to").exists()


def frames_in(video: Path) -> int:
    with av.open(str(video)) as opened:
        return sum(1 for _ in opened.decode(video=0))


@pytest.fixture
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.cli.commands.import_clip.CLIP_S", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("short_clips")
def test_a_clip_shows_what_came_of_it(
    lipwire: Lipwire, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    (tmp_path / "to").mkdir()
    monkeypatch.chdir(tmp_path / "to")
    outcome = lipwire("avatar", "import", source, "--to", ".")  # a path of one name: anna
    assert outcome.code == 0, outcome.err
    assert "seconds at most of the sentence that comes with Lipwire" in outcome.out
    assert "-> anna-clip.mp4" in outcome.out
    assert frames_in(tmp_path / "to" / "anna-clip.mp4") == 25
    shutil.rmtree("anna")
    again = lipwire("avatar", "import", source, "--to", ".")
    assert again.code == 0
    assert "note: no clip is rendered: anna-clip.mp4 is there already; --force" in again.out


@pytest.mark.slow
@pytest.mark.usefixtures("short_clips")
def test_the_clip_says_the_recording_that_lies_in_the_source(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    write_wav(source / "aud.wav", np.concatenate([np.zeros(40_000, np.float32), SPEECH]))
    clip = tmp_path / "out.mp4"
    outcome = lipwire(
        *("avatar", "import", source, "--to", tmp_path / "to", "--clip", clip, "--json")
    )
    assert outcome.code == 0, outcome.err
    (told,) = json.loads(outcome.out)["avatars"]
    assert told["clip"] == str(clip)
    assert {row["part"]: row["found"] for row in told["found"]}["clip"].endswith("of aud.wav")
    # It begins with the second of silence in which somebody begins to speak.
    assert len(SPEECH) // 640 <= frames_in(clip) <= 25


def test_a_clip_that_fails_leaves_the_avatar(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    (source / "aud.wav").write_bytes(b"no recording")
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "to")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith(
        f"error: {tmp_path}/to/anna is there, but no clip of it: "
    )
    assert f"{tmp_path}/to/anna is valid" in outcome.out
    assert "  clip " not in outcome.out
    assert "clip.mp4" not in outcome.out
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["anna"]


@pytest.mark.slow
def test_no_clip_is_rendered_without_an_audio_encoder_or_in_the_sandbox(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    sandboxed = lipwire("avatar", "import", source, "--to", tmp_path / "a", "--sandbox")
    assert sandboxed.code == 0, sandboxed.err
    assert "note: no clip is rendered: rendering is not done in the sandbox" in sandboxed.out
    (source / "models" / "audio_encoder.onnx").unlink()
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "b")
    assert outcome.code == 0, outcome.err
    assert "note: no clip is rendered: there is no audio encoder; --audio-encoder" in outcome.out
    clip = tmp_path / "clip.mp4"
    asked = lipwire("avatar", "import", source, "--to", tmp_path / "c", "--clip", clip)
    assert asked.code == 2
    assert "there is no audio encoder" in asked.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "anna", "b"]


def test_a_clip_is_not_put_into_the_source(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    clip = source / "clip.mp4"
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "to", "--clip", clip)
    assert (outcome.code, f"--clip {clip} is in {source}" in outcome.err) == (2, True)
    assert not (tmp_path / "to").exists()
    clip.write_bytes(b"mine")
    outcome = lipwire("avatar", "import", source, "--to", tmp_path / "to", "--clip", clip)
    assert (outcome.code, "is there already; --force" in outcome.err) == (2, True)
    assert clip.read_bytes() == b"mine"


def test_landmarks_of_smaller_pictures_are_scaled(
    lipwire: Lipwire, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    shutil.rmtree(source / "landmarks")
    write_landmarks(source / "landmarks", demo_rectangles(), scale=0.5)
    to = ("--to", tmp_path / "to", "--no-clip")
    refused = lipwire("avatar", "import", source, *to)
    assert (refused.code, "such as 320x180: --landmarks-size says" in refused.err) == (1, True)
    taken = lipwire("avatar", "import", source, *to, "--landmarks-size", "320x180")
    assert taken.code == 0, taken.err
    made = json.loads((tmp_path / "to" / "anna" / "crop_rects.json").read_text())
    assert np.abs(np.subtract(made, listed(demo_rectangles()))).max() <= 1
