from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from lipwire.avatars import find_avatar, list_avatars, search_folders
from lipwire.avatars.finding import folder_for_new
from lipwire.domain import InvalidInput, NotFound


def avatar(folder: Path, name: str) -> Path:
    (folder / name / "frames").mkdir(parents=True)
    return folder / name


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    anna = avatar(tmp_path, "anna")
    assert find_avatar(str(anna)) == anna
    assert find_avatar("../anna") == Path("../anna")


def test_a_folder_without_a_name_in_its_path_gets_its_own(here: Path) -> None:
    (here / "frames").mkdir()
    for text in (".", "./", "frames/..", "../here/.", "./frames/.."):
        assert find_avatar(text).name == "here"
        assert find_avatar(text).samefile(here)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no avatar at \./bob"):
        find_avatar("./bob")
    with pytest.raises(NotFound):
        find_avatar("a/" + "x" * 5000)


def test_names_are_looked_for_in_order(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_last = avatar(tmp_path / "data" / "lipwire" / "avatars", "anna")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if search_folders()[1] == tmp_path / "data" / "lipwire" / "avatars":  # where XDG is followed
        assert find_avatar("anna") == shipped_last
    local = avatar(here / "avatars", "anna")
    assert find_avatar("anna").resolve() == local
    first = avatar(tmp_path / "first", "anna")
    second = avatar(tmp_path / "second", "anna")
    monkeypatch.setenv("LIPWIRE_AVATARS", f"{tmp_path / 'missing'}:{second.parent}:{first.parent}")
    assert find_avatar("anna") == second


def test_a_folder_here_is_found_by_its_bare_name(here: Path) -> None:
    avatar(here, "anna")
    assert find_avatar("anna") == Path("anna")


def test_the_nearest_name_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    avatar(tmp_path / "shelf", "sanders")
    avatar(tmp_path / "shelf", "anna")
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "shelf"))
    message = r"^no avatar named sander; the nearest known is sanders; looked in "
    with pytest.raises(NotFound, match=message) as caught:
        find_avatar("sander")
    assert str(tmp_path / "shelf") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Anna Smith", "Zo\u00eb \u00c5ngstr\u00f6m", "\u5b89\u5a1c"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_names_of_any_language_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    written: Literal["NFC", "NFD"],
    asked: Literal["NFC", "NFD"],
) -> None:
    folder = avatar(tmp_path / "M\u00fcller avatars", normalize(written, name))
    monkeypatch.setenv("LIPWIRE_AVATARS", str(folder.parent))
    assert find_avatar(normalize(asked, name)) == folder
    assert folder in list_avatars()
    with pytest.raises(NotFound, match=f"; the nearest known is {normalize('NFC', name)}; looked"):
        find_avatar(f"{name}x")


def test_a_folder_that_cannot_be_named_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = avatar(tmp_path / "shelf", ".hidden")
    monkeypatch.setenv("LIPWIRE_AVATARS", str(hidden.parent))
    assert hidden not in list_avatars() + list_avatars()
    (record,) = caplog.records
    line = f"the folder '.hidden' in {hidden.parent} cannot be named; allowed are 1 to 128 letters"
    assert record.getMessage().startswith(line)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/anna", "~/anna"])
def test_a_home_that_is_not_known_is_one_line(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def nobody(_key: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(NotFound, match=f"no avatar at {path}"):
        find_avatar(path)
    monkeypatch.setenv("LIPWIRE_AVATARS", path)
    assert Path(path) in search_folders()


@pytest.mark.parametrize("name", ["", "-rf", ".hidden", "a\n", "x" * 129, "a\0b", "a:b"])
def test_other_characters_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="avatar name is"):
        find_avatar(name)


def test_lists_every_name_once(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = avatar(tmp_path / "shelf", "anna")
    avatar(here / "avatars", "anna")
    avatar(here / "avatars", "bob")
    (here / "avatars" / "notes").mkdir()
    (here / "avatars" / "file").write_text("")
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "shelf"))
    found = {path.name: path for path in list_avatars()}
    assert {"anna", "bob"} <= set(found)
    assert not {"notes", "file"} & set(found)
    assert found["anna"] == first


def test_a_name_longer_than_a_file_system_allows_is_not_found() -> None:
    with pytest.raises(NotFound, match="no avatar named"):
        find_avatar("安" * 128)  # 384 bytes


def test_a_new_avatar_goes_where_it_is_found(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert folder_for_new() == tmp_path / "data" / "lipwire" / "avatars"
    (here / "avatars").mkdir()
    assert folder_for_new() == Path("avatars")
    monkeypatch.setenv("LIPWIRE_AVATARS", f"{tmp_path / 'mine'}:{tmp_path / 'others'}")
    assert folder_for_new() == tmp_path / "mine"
    assert folder_for_new() in search_folders()
