"""Forgetting a person: all that is kept of an avatar here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from tests.support.renderparts import Maker, ended, opened_renders, order

from lipwire.avatars import homes
from lipwire.avatars.erasing import erase, kept_of, package_of
from lipwire.cli.app import app
from lipwire.domain import AvatarFiles, InvalidInput, NotFound, StorageFailed
from lipwire.engine import special_folder


@pytest.fixture
def anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a compiled form in it, and one in the user's caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "avatars"))
    package = tmp_path / "avatars" / "anna"
    for folder in (package / "frames", *homes(package)):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(bytes(100))
    (package / "avatar.yaml").write_text("")
    (tmp_path / "elsewhere").write_text("mine")
    (package / "link").symlink_to(tmp_path / "elsewhere")
    return package


def test_all_that_is_kept_is_told_and_removed(anna: Path, tmp_path: Path) -> None:
    kept = kept_of(anna)
    assert [one.path for one in kept] == [*homes(anna)[1:], anna]
    assert [one.files for one in kept] == [1, 4]
    assert kept[0].size_bytes == 100
    for one in kept:
        erase(one)
    assert not list((tmp_path / "avatars").iterdir())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert (tmp_path / "elsewhere").read_text() == "mine"  # no link was followed
    assert kept_of(anna) == []


def test_what_was_made_of_its_networks_goes_too(anna: Path) -> None:
    """Of the one that is compiled, and of one before, whose compiled form is gone."""
    compiled = anna / ".lipwire" / "model-1"
    compiled.mkdir()
    fields = {"runtime": "", "source_sha256": "a" * 64, "fixed_batch": None, "parameters": 0}
    graphs = {
        form: {"file": f"{form}.onnx", "sha256": "", "shared": True, "reason": "", "weights": []}
        for form in ("pixels", "floats")
    }
    (compiled / "model.json").write_text(
        json.dumps({**fields, "weights_bytes": 0, "graphs": graphs})
    )
    sources = {"a": "/elsewhere", "b": str(anna / "unet.onnx"), "c": "/srv/bert/unet.onnx"}
    folders = {name: special_folder() / (name * 64) for name in sources}
    for name, source in sources.items():
        folders[name].mkdir(parents=True)
        (folders[name] / "1.json").write_text(json.dumps({"source": source}))
        (folders[name] / "1.blob").write_bytes(b"network")
    kept = kept_of(anna)
    assert {folders["a"], folders["b"]} < {one.path for one in kept}
    for one in kept:
        erase(one)
    assert [name for name, folder in folders.items() if folder.exists()] == ["c"]


def test_an_avatar_that_is_a_link_is_told(anna: Path, tmp_path: Path) -> None:
    (tmp_path / "avatars" / "bert").symlink_to(anna)
    with pytest.raises(InvalidInput, match="is a link to"):
        kept_of(tmp_path / "avatars" / "bert")
    assert anna.is_dir()


def test_an_avatar_of_files_in_several_places_is_refused(anna: Path) -> None:
    assert package_of("anna", AvatarFiles(folder=anna)) == anna
    for where in (AvatarFiles(model=anna / "a.onnx"), AvatarFiles(anna, frames=anna / "frames")):
        with pytest.raises(InvalidInput, match="the files of anna lie in several places"):
            package_of("anna", where)


def test_what_cannot_be_removed_is_told(anna: Path) -> None:
    (kept, *_) = reversed(kept_of(anna))
    shutil.rmtree(anna)
    with pytest.raises(StorageFailed):
        erase(kept)


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> str:
        app(["avatar", "erase", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return command


def test_the_command_says_what_goes_and_records_it(anna: Path, tmp_path: Path, run: Run) -> None:
    assert f"{anna}: 4 files" in run("anna", "--dry-run")
    assert anna.is_dir()
    said = run("anna", "--yes", "--audit-file", tmp_path / "audit")
    assert said.endswith("anna: erased\n")
    assert not anna.exists()
    rows = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(row["operation"], row["avatar"]) for row in rows] == [("erase", "anna")] * 2
    with pytest.raises(NotFound):
        run("anna", "--yes")


@pytest.mark.slow
def test_renders_in_a_servers_folder_go_too(anna: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "renders"
    with opened_renders(folder, Maker(tmp_path)) as renders:
        mine = ended(renders, renders.submit(order("of anna"), None, 0))
        other = ended(renders, renders.submit(order("of bert", avatar="bert"), None, 0))
        with pytest.raises(NotFound, match="no folder"):
            run("anna", "--renders", tmp_path / "none", "--yes")
        run("anna", "--renders", folder, "--dry-run")
        assert renders.file(mine).exists()
        assert f"{folder}: 1 renders, 7.0 kB" in run("anna", "--renders", folder, "--yes")
        assert [job.id for job in renders.every()] == [other.id]
        assert len(list((folder / "videos").glob("*/*.mp4"))) == 1


def test_without_a_yes_nothing_goes(anna: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer, "confirm", lambda text, abort: (_ for _ in ()).throw(typer.Abort()))
    with pytest.raises(typer.Abort):
        run("anna")
    assert anna.is_dir()


def test_what_came_with_lipwire_stays(run: Run) -> None:
    with pytest.raises(InvalidInput, match="came with Lipwire"):
        run("demo", "--yes")
