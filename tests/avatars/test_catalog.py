import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lipwire.avatars.catalog import Catalog
from lipwire.domain import InvalidInput, NotFound


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "crop_rects.json").touch()


def test_entries_win_over_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "root", "anna", "ben")
    catalog = Catalog(tmp_path / "root", {"anna": tmp_path / "elsewhere"})
    assert catalog.path("anna") == tmp_path / "elsewhere"
    assert catalog.path("ben") == tmp_path / "root" / "ben"
    assert catalog.names() == ("anna", "ben")
    assert "ben" in catalog
    assert "carl" not in catalog
    assert len(catalog) == 2


def test_without_a_folder_there_are_only_the_entries(tmp_path: Path) -> None:
    catalog = Catalog(None, {"anna": tmp_path})
    assert catalog.names() == ("anna",)
    with pytest.raises(NotFound, match=r"^no avatar named ana; the nearest known is anna$"):
        catalog.path("ana")


def test_a_folder_that_comes_later_is_found(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "root", {})
    assert catalog.names() == ()
    make(tmp_path / "root", "anna")
    assert catalog.names() == ("anna",)


def test_new_avatars_are_found_at_once_and_gone_ones_are_not(tmp_path: Path) -> None:
    make(tmp_path, "anna")
    catalog = Catalog(tmp_path, {})
    assert catalog.names() == ("anna",)
    make(tmp_path, "ben")
    assert catalog.path("ben") == tmp_path / "ben"
    assert catalog.names() == ("anna", "ben")
    (tmp_path / "anna").rename(tmp_path.parent / "moved")
    with pytest.raises(NotFound):
        catalog.path("anna")
    assert catalog.names() == ("ben",)


def test_a_folder_becomes_an_avatar_when_it_has_been_filled(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    # As if the folder had been left alone for long, so that its time says nothing is new.
    os.utime(tmp_path, (1, 1))
    catalog = Catalog(tmp_path, {})
    assert catalog.names() == ()
    (tmp_path / "anna" / "crop_rects.json").touch()
    assert catalog.names() == ("anna",)


def test_the_folder_is_read_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "anna")
    reads: list[object] = []
    scandir = os.scandir

    def counted(path: Path) -> object:
        reads.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    now_ns = time.time_ns() + 10**10
    catalog = Catalog(tmp_path, {}, clock_ns=lambda: now_ns)
    for _ in range(5):
        assert catalog.names() == ("anna",)
    assert len(reads) == 1
    make(tmp_path, "ben")
    assert catalog.names() == ("anna", "ben")
    assert len(reads) == 2


def test_a_change_within_the_clocks_step_is_seen(tmp_path: Path) -> None:
    # File systems stamp coarsely: two changes may have one time.
    make(tmp_path, "anna")
    times = tmp_path.stat()
    catalog = Catalog(tmp_path, {}, clock_ns=lambda: times.st_mtime_ns)
    assert catalog.names() == ("anna",)
    make(tmp_path, "ben")
    os.utime(tmp_path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert catalog.names() == ("anna", "ben")


def test_what_is_no_avatar_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "anna", ".hidden", "with space")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "anna")
    assert Catalog(tmp_path, {}).names() == ("anna", "link")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../anna", "a/b", "/etc", "a\\b", "a\0b", "-a", "ä", "a\n", "x" * 129]
)
def test_names_that_might_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "anna")
    catalog = Catalog(tmp_path / "anna", {})
    with pytest.raises(InvalidInput, match=r"^avatar name is .*; allowed are 1 to 128 of"):
        catalog.path(name)
    assert name not in catalog
    with pytest.raises(InvalidInput):
        Catalog(None, {name: tmp_path})


@pytest.fixture(scope="module")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("many")
    entries = {f"avatar_{number:05d}": folder for number in range(11_000)}
    return Catalog(None, entries | {"anna_kuznetsova": folder})


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("anna_kuznetsov", ["anna_kuznetsova"]),
        ("Ana_Kuznecova", ["anna_kuznetsova"]),
        ("avatar_00123x", ["avatar_00123"]),
        ("avatar-07777", ["avatar_07777"]),
        ("qqqqqqqqqq", [None]),
    ],
)
def test_the_nearest_of_thousands(
    thousands: Catalog, asked: str, meant: Sequence[str | None]
) -> None:
    with pytest.raises(NotFound) as missed:
        thousands.path(asked)
    message = str(missed.value)
    for name in meant:
        assert message == f"no avatar named {asked}" + (
            f"; the nearest known is {name}" if name else ""
        )


def test_asking_for_unknown_names_is_cheap_among_thousands(thousands: Catalog) -> None:
    with pytest.raises(NotFound):
        thousands.path("warm-up")
    best_s = float("inf")
    for number in range(100):
        start_s = time.thread_time()
        with pytest.raises(NotFound):
            thousands.path(f"unknown{number}")
        best_s = min(best_s, time.thread_time() - start_s)
    assert best_s < 0.02  # comparing with all of them takes 0.3 s
