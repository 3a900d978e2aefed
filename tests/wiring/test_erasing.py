"""Avatars that are erased, and sessions whose avatar has gone."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from lipwire.avatars import Catalog
from lipwire.avatars.erasing import Kept
from lipwire.domain import AvatarFiles, Call, StorageFailed, Unavailable
from lipwire.wiring.erasing import GoneAvatars, erasing


class Sessions:
    """Two sessions, of anna and of bert."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def shown(self) -> set[str]:
        return {"anna", "bert"} - set(self.ended)

    def end_all_of(self, model_id: str) -> None:
        self.ended.append(model_id)


class AtOnce:
    """Runs what it is given at once."""

    def submit(self, fn: Any, /, *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*given))
        return done


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def watch(sessions: Sessions, there: set[str]) -> GoneAvatars:
    return GoneAvatars(sessions, there.__contains__, AtOnce())  # type: ignore[arg-type]


def test_the_sessions_of_an_avatar_that_has_gone_end(sessions: Sessions) -> None:
    gone = watch(sessions, {"bert"})
    again_s = gone.on_due(100.0)
    assert 100.0 < again_s <= 105.0
    assert sessions.ended == []  # it may be being replaced
    gone.on_due(again_s)
    gone.on_due(again_s + 2)
    assert sessions.ended == ["anna"]


def test_a_slow_disk_is_asked_once_at_a_time(sessions: Sessions) -> None:
    class Busy:
        submitted = 0

        def submit(self, fn: Any, /, *given: Any) -> None:
            self.submitted += 1

    busy = Busy()
    gone = GoneAvatars(sessions, lambda name: False, busy)  # type: ignore[arg-type]
    for now in range(5):
        gone.on_due(float(now))
    assert busy.submitted == 1


def test_an_avatar_that_is_there_again_is_kept(sessions: Sessions) -> None:
    there = {"bert"}
    gone = watch(sessions, there)
    for now in range(8):
        there ^= {"anna"}
        gone.on_due(float(now))
    assert sessions.ended == []


def test_nothing_is_looked_for_while_nobody_talks(sessions: Sessions) -> None:
    gone = watch(sessions, set())
    sessions.ended = ["anna", "bert"]
    for now in range(4):
        gone.on_due(float(now))
    assert sessions.ended == ["anna", "bert"]


class Unloading:
    """What has avatars in memory: a registry, or a backend whose servers are not there."""

    def __init__(self, *, there: bool = True) -> None:
        self.unloaded: list[str] = []
        self._there = there

    def unload(self, name: str, call: Call | None = None) -> None:
        self.unloaded.append(name)
        if not self._there:
            raise Unavailable("no inference server answers")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "anna"
    folder.mkdir()
    (folder / "avatar.yaml").write_text("")
    return folder


@pytest.mark.parametrize("refuses", [False, True])
def test_whatever_the_disk_says_nobody_is_shown_any_more(
    sessions: Sessions, package: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    def refused(kept: Kept) -> None:
        raise StorageFailed("the disk is read-only")

    if refuses:
        monkeypatch.setattr("lipwire.wiring.erasing.erase", refused)
    catalog = Catalog(package.parent, {"anna": AvatarFiles(folder=package)})
    registry, backend = Unloading(), Unloading(there=False)
    remove = erasing(catalog, registry, backend, sessions)  # type: ignore[arg-type]
    if refuses:
        with pytest.raises(StorageFailed, match="read-only"):
            remove("anna", False)
    else:
        assert remove("anna", True)
        assert sessions.ended == registry.unloaded == backend.unloaded == []
        remove("anna", False)
    assert package.exists() == refuses
    assert sessions.ended == registry.unloaded == backend.unloaded == ["anna"]
