import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal
from unicodedata import normalize

import pytest
from tests.support.work import calls_made

from lipwire.avatars.catalog import Catalog
from lipwire.domain import InvalidInput, NotFound

FORMS: Final[tuple[Literal["NFC", "NFD"], ...]] = ("NFC", "NFD")


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "crop_rects.json").touch()


def test_entries_win_over_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "root", "anna", "ben")
    catalog = Catalog(tmp_path / "root", {"anna": tmp_path / "elsewhere"})
    assert catalog.files("anna").folder == tmp_path / "elsewhere"
    assert catalog.files("ben").folder == tmp_path / "root" / "ben"
    assert catalog.names() == ("anna", "ben")
    assert "ben" in catalog
    assert "carl" not in catalog
    assert len(catalog) == 2


def test_without_a_folder_there_are_only_the_entries(tmp_path: Path) -> None:
    catalog = Catalog(None, {"anna": tmp_path})
    assert catalog.names() == ("anna",)
    with pytest.raises(NotFound, match=r"^no avatar named ana; the nearest known is anna$"):
        catalog.files("ana")


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
    assert catalog.files("ben").folder == tmp_path / "ben"
    assert catalog.names() == ("anna", "ben")
    (tmp_path / "anna").rename(tmp_path.parent / "moved")
    with pytest.raises(NotFound):
        catalog.files("anna")
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
    make(tmp_path, "anna", ".hidden")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "anna")
    assert Catalog(tmp_path, {}).names() == ("anna", "link")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../anna", "a/b", "/etc", "a\\b", "a\0b", "-a", "a\n", "x" * 129]
)
def test_names_that_might_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "anna")
    catalog = Catalog(tmp_path / "anna", {})
    with pytest.raises(
        InvalidInput, match=r"^avatar name is .*; allowed are 1 to 128 letters, digits, blanks"
    ):
        catalog.files(name)
    assert name not in catalog
    with pytest.raises(InvalidInput):
        Catalog(None, {name: tmp_path})


NAMES = [
    "Anna Smith",
    "Zo\u00eb \u00c5ngstr\u00f6m",
    "\u5b89\u5a1c",
    "\u0410\u043d\u043d\u0430 (2)",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", ["NFC", "NFD", "mixed"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_name_is_found_however_its_letters_are_written(
    tmp_path: Path, name: str, written: str, asked: Literal["NFC", "NFD"]
) -> None:
    composed, apart = (normalize(form, name) for form in FORMS)
    folder = {"NFC": composed, "NFD": apart, "mixed": apart[:4] + normalize("NFC", apart[4:])}
    make(tmp_path, folder[written])
    catalog = Catalog(tmp_path, {})
    request = normalize(asked, name)
    assert catalog.files(request).folder == tmp_path / folder[written]
    assert catalog.names() == (composed,)
    assert request in catalog
    with pytest.raises(NotFound, match=f"; the nearest known is {re.escape(composed)}$"):
        catalog.files(f"{request} x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("written", FORMS)
def test_an_entry_is_found_however_its_letters_are_written(
    tmp_path: Path,
    name: str,
    given: Literal["NFC", "NFD"],
    written: Literal["NFC", "NFD"],
) -> None:
    make(tmp_path, normalize(written, name))
    catalog = Catalog(None, {normalize(given, name): tmp_path / normalize(given, name)})
    for form in FORMS:
        assert catalog.files(normalize(form, name)).folder == tmp_path / normalize(written, name)
    assert catalog.names() == (normalize("NFC", name),)


def test_what_cannot_be_served_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [".hidden", "-x", "a:b", "line\nend", "x" * 129, os.fsdecode(b"b\xe4d")]
    make(tmp_path, "anna", *bad)
    (tmp_path / ".git").mkdir()
    (tmp_path / "not yet :").mkdir()
    catalog = Catalog(tmp_path, {})
    for number in range(3):
        assert catalog.names() == (*map(str, range(number)), "anna")
        make(tmp_path, str(number))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(bad)
    for name in bad:
        shown = repr(name) if len(name) < 50 else "'xxxxxxxxx"
        (line,) = (each for each in said if each.startswith(f"the folder {shown}"))
        assert f" in {tmp_path} is not served; allowed are 1 to 128 letters" in line
    caplog.clear()
    (tmp_path / "not yet :" / "frames").mkdir()  # an avatar now
    catalog.names()
    (record,) = caplog.records
    assert "the folder 'not yet :' in" in record.getMessage()


def test_of_two_folders_of_one_name_one_is_served_and_the_other_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for form in FORMS:
        make(tmp_path, normalize(form, "Zo\u00eb"))
    catalog = Catalog(tmp_path, {})
    assert catalog.names() == ("Zo\u00eb",)
    assert catalog.files("Zo\u00eb").folder == tmp_path / "Zo\u00eb"
    (record,) = caplog.records
    assert "another folder has the same name" in record.getMessage()


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
        thousands.files(asked)
    message = str(missed.value)
    for name in meant:
        assert message == f"no avatar named {asked}" + (
            f"; the nearest known is {name}" if name else ""
        )


def test_unknown_names_are_not_compared_with_all_of_thousands(thousands: Catalog) -> None:
    def ask() -> None:
        with pytest.raises(NotFound):
            thousands.files("unknown7")

    ask()
    assert calls_made(ask) < 1_000  # comparing with each would take several for each of 11,000
