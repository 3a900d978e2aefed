"""`lipwire avatar push`, `pull`, `publish`, `rollback`, `versions` and `forget`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.avatars.store.test_pushing import contents
from tests.conftest import PackageFactory

from lipwire.avatars import read_package
from lipwire.cli.app import app
from lipwire.domain import InvalidInput, NotFound

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("push", "anna")``: what the command prints, of a store in a folder."""
    monkeypatch.setenv("LIPWIRE_MODELS_ROOT", f"file://{tmp_path}/store")

    def command(*arguments: object) -> str:
        app(["avatar", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return command


def test_a_package_goes_into_a_store_and_comes_back(
    run: Run, avatar_package: Path, tmp_path: Path
) -> None:
    version = run("push", "anna", "--from", avatar_package, "--publish").strip()
    assert len(version) == 64
    assert "anna" in run("pull", "anna", "--into", tmp_path / "here")
    assert contents(tmp_path / "here" / "anna") == contents(avatar_package)
    read_package(tmp_path / "here" / "anna")
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["anna"]
    with pytest.raises(InvalidInput, match="--force replaces it"):
        run("pull", "anna", "--into", tmp_path / "here")
    run("pull", "anna", "--into", tmp_path / "here", "--force")


def test_a_pull_goes_on_with_what_is_there(
    run: Run, avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = run("push", "anna", "--from", avatar_package).strip()
    partial = tmp_path / "here" / f".lipwire-pull-{version[:16]}"
    partial.mkdir(parents=True)
    (partial / "crop_rects.json").write_bytes((avatar_package / "crop_rects.json").read_bytes())
    number = (partial / "crop_rects.json").stat().st_ino
    run("pull", "anna", "--version", version[:8], "--into", tmp_path / "here")
    assert (tmp_path / "here" / "anna" / "crop_rects.json").stat().st_ino == number
    assert not partial.exists()


def test_versions_are_listed_with_what_they_are(
    run: Run, make_package: PackageFactory, tmp_path: Path
) -> None:
    packages = [make_package(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    one, two, three = (run("push", "anna", "--from", each).strip() for each in packages)
    run("publish", "anna", one)
    assert f"{two[:12]} is shown" in run("publish", "anna", two)
    rows = {row["version"]: row["state"] for row in json.loads(run("versions", "anna", "--json"))}
    assert rows == {
        one: "published before",
        two: "published",
        three: "",
    }
    assert f"{one[:12]} is shown\n" in run("rollback", "anna")
    assert sum(line.endswith("published") for line in run("versions", "anna").splitlines()) == 1


def test_an_avatar_is_forgotten(run: Run, avatar_package: Path) -> None:
    run("push", "anna", "--from", avatar_package, "--publish")
    assert "anna: " in run("forget", "anna", "--yes")
    for command in (("versions", "anna"), ("pull", "anna"), ("forget", "anna", "--yes")):
        with pytest.raises(NotFound, match="anna"):
            run(*command)


@pytest.mark.parametrize("store", ["/srv/avatars", "s3:bucket", "https://example.org/avatars"])
def test_what_is_no_store_is_refused(run: Run, store: str) -> None:
    with pytest.raises(InvalidInput, match=r"the store is .*allowed is a URL"):
        run("versions", "anna", "--store", store)


def test_a_version_is_published_for_a_share(
    run: Run, make_package: PackageFactory, tmp_path: Path
) -> None:
    packages = [make_package(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    one, two = (run("push", "anna", "--from", each).strip() for each in packages)
    run("publish", "anna", one)
    said = run("publish", "anna", two, "--share", "2.5%")
    assert said == (f"anna: {one[:12]} is shown, and {two[:12]} to 2.5% of those who use it\n")
    rows = {row["version"]: row["state"] for row in json.loads(run("versions", "anna", "--json"))}
    assert rows == {one: "published", two: "canary, 2.5%"}
    assert run("rollback", "anna") == f"anna: {one[:12]} is shown\n"
    run("publish", "anna", two, "--share", "5%")
    assert run("publish", "anna", two, "--share", "100%") == f"anna: {two[:12]} is shown\n"


@pytest.mark.slow
@pytest.mark.parametrize("share", ["5", "0%", "0.001%", "101%", "nan%", "-5%", "x%", "%"])
def test_a_share_that_is_none_is_refused(run: Run, avatar_package: Path, share: str) -> None:
    version = run("push", "anna", "--from", avatar_package, "--publish").strip()
    with pytest.raises(InvalidInput, match=r"--share is .*allowed are 0.01% to 100%"):
        run("publish", "anna", version, "--share", share)
