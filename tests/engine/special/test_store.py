"""Specialised networks on the disk."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S

from lipwire.domain import StorageFailed
from lipwire.domain.newfiles import temporary_name
from lipwire.engine.special import store as module
from lipwire.engine.special.openvino import OpenVinoFailed
from lipwire.engine.special.specialtrial import Verdict
from lipwire.engine.special.store import SpecialStore, folders_made_of, special_folder

PASSED = Verdict("", 2.0, 0.05, 0.9999, 60.0, 1000)
CROPS = np.zeros((1, 320, 320, 3), np.uint8)
WINDOWS = np.zeros((1, 32, 16, 16), np.float32)


class Trials:
    """In place of the processes."""

    def __init__(self) -> None:
        self.verdict = PASSED
        self.blob = b"network"
        self.count = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(
        self,
        source: Path,
        sha256: str,
        crops: np.ndarray,
        windows: np.ndarray,
        lanes: int,
        blob: Path,
        cancelled: object,
    ) -> Verdict:
        self.count += 1
        blob.write_bytes(self.blob)
        self.meanwhile()
        return self.verdict


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    trials = Trials()
    monkeypatch.setattr(module, "try_apart", trials)
    monkeypatch.setattr(module, "openvino_key", lambda: "version|processor")
    module._key.cache_clear()
    yield trials
    module._key.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    package = tmp_path / "anna"
    package.mkdir()
    (package / "unet.onnx").write_text("")
    return package / "unet.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def make(store: SpecialStore, source: Path, sha256: str = "a" * 64, lanes: int = 1) -> Verdict:
    return store.make(source, sha256, CROPS, WINDOWS, lanes)


def files(folder: Path, suffix: str = "") -> list[str]:
    return sorted(path.suffix for path in folder.rglob(f"*{suffix}") if path.is_file())


def test_what_was_made_is_found(trials: Trials, folder: Path, source: Path) -> None:
    store = SpecialStore(folder)
    assert store.verdict("a" * 64, 1) is None
    assert make(store, source) == PASSED
    for each in (store, SpecialStore(folder)):
        assert each.verdict("a" * 64, 1) == PASSED
        assert each.network("a" * 64, 1) == b"network"
    assert store.verdict("b" * 64, 1) is None
    assert store.verdict("a" * 64, 2) is None
    assert SpecialStore(folder, tried_with="sentence").verdict("a" * 64, 1) is None
    assert files(folder) == [".blob", ".json", ".lock"]


def test_another_version_is_tried_anew(
    trials: Trials, folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SpecialStore(folder)
    make(store, source)
    monkeypatch.setattr(module, "openvino_key", lambda: "newer|processor")
    module._key.cache_clear()
    assert store.verdict("a" * 64, 1) is None


def test_what_did_not_pass_is_remembered_without_a_network(
    trials: Trials, folder: Path, source: Path
) -> None:
    trials.verdict = Verdict("it is slow", 0.9)
    store = SpecialStore(folder)
    assert make(store, source) == trials.verdict
    assert store.verdict("a" * 64, 1) == trials.verdict
    assert files(folder, ".blob") == []


def test_what_may_pass_another_time_is_not_remembered(
    trials: Trials, folder: Path, source: Path
) -> None:
    trials.verdict = Verdict("its trial was cancelled", lasting=False)
    store = SpecialStore(folder)
    make(store, source)
    assert store.verdict("a" * 64, 1) is None
    assert files(folder, ".blob") == []


def test_what_another_process_has_made_is_not_made_again(
    trials: Trials, folder: Path, source: Path
) -> None:
    make(SpecialStore(folder), source)
    assert make(SpecialStore(folder), source) == PASSED
    assert trials.count == 1


def test_who_is_closed_does_not_wait_for_another_process(
    trials: Trials, folder: Path, source: Path
) -> None:
    store, cancelled = SpecialStore(folder), threading.Event()
    cancelled.set()

    def another() -> None:
        verdict = store.make(source, "a" * 64, CROPS, WINDOWS, 1, cancelled)
        assert verdict == Verdict("its trial was cancelled", lasting=False)

    def meanwhile() -> None:
        thread.start()
        thread.join(WAIT_S)
        assert not thread.is_alive()

    thread = threading.Thread(target=another)
    trials.meanwhile = meanwhile
    assert make(store, source) == PASSED
    assert trials.count == 1


@pytest.mark.parametrize("spoil", ["cut", "gone", "other"])
def test_a_network_that_is_damaged_is_made_anew(
    trials: Trials, folder: Path, source: Path, spoil: str
) -> None:
    store = SpecialStore(folder)
    make(store, source)
    (blob,) = folder.rglob("*.blob")
    if spoil == "gone":
        blob.unlink()
    else:
        blob.write_bytes(b"netw" if spoil == "cut" else b"another")
    assert store.network("a" * 64, 1) is None
    assert store.verdict("a" * 64, 1) is None
    assert make(store, source) == PASSED
    assert store.network("a" * 64, 1) == b"network"


@pytest.mark.parametrize("said", ["", "1", "[]", '{"verdict": 1}', '{"verdict": {"unknown": 1}}'])
def test_a_verdict_that_is_damaged_is_none(
    trials: Trials, folder: Path, source: Path, said: str
) -> None:
    store = SpecialStore(folder)
    make(store, source)
    next(folder.rglob("*.json")).write_text(said)
    assert store.verdict("a" * 64, 1) is None
    make(store, source)
    assert store.verdict("a" * 64, 1) == PASSED


def test_what_was_not_used_for_longest_makes_room(
    trials: Trials, folder: Path, source: Path
) -> None:
    store = SpecialStore(folder, disk_bytes=20)
    for number, name in enumerate("ab"):
        make(store, source, name * 64)
        (blob,) = (folder / (name * 64)).glob("*.blob")
        os.utime(blob, (number, number))
    assert store.network("a" * 64, 1) is not None  # used now
    make(store, source, "c" * 64)
    there = [store.network(name * 64, 1) is not None for name in "abc"]
    assert there == [True, False, True]


def test_what_a_process_left_unfinished_goes_in_an_hour(
    trials: Trials, folder: Path, source: Path
) -> None:
    store = SpecialStore(folder, disk_bytes=10)
    old, new = (temporary_name(folder / ("b" * 64), ".blob") for _ in range(2))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(bytes(100))
    os.utime(old, (0, 0))
    make(store, source)
    assert not old.exists()
    assert new.exists()  # somebody writes it
    assert store.network("a" * 64, 1) is not None


def test_nothing_is_kept_of_an_avatar_that_is_erased_meanwhile(
    trials: Trials, folder: Path, source: Path
) -> None:
    trials.meanwhile = source.unlink
    make(SpecialStore(folder), source)
    assert files(folder) == [".lock"]


def test_what_was_made_of_a_package_is_found_by_it(
    trials: Trials, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has another network by now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in "ab":
        make(SpecialStore(), source, name * 64)
    next((special_folder() / ("b" * 64)).glob("*.json")).write_text("damaged")
    assert list(folders_made_of(source.parent)) == [special_folder() / ("a" * 64)]
    assert list(folders_made_of(tmp_path / "bert")) == []


@pytest.mark.parametrize("sha256", ["", "../" * 3, "/etc", "A" * 64, "a" * 63])
def test_what_is_no_hash_leads_nowhere(trials: Trials, folder: Path, sha256: str) -> None:
    store = SpecialStore(folder)
    for ask in (store.verdict, store.network):
        with pytest.raises(OpenVinoFailed, match="the SHA-256 of its source is"):
            ask(sha256, 1)


def test_a_full_disk_is_told(trials: Trials, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file"):
        make(SpecialStore(tmp_path / "file"), source)


def test_they_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert special_folder() == tmp_path / "lipwire" / "specialised"
