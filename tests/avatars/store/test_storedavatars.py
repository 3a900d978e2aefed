"""Avatars of a store by name: which version is shown, and when."""

import shutil
import unicodedata
from pathlib import Path

import pytest
from tests.avatars.store.conftest import POLL_S, NewStored, Weather
from tests.avatars.store.test_pushing import contents
from tests.support.waiting import Clock, until

from lipwire.avatars.store import pushing
from lipwire.avatars.store.layout import Manifest, file_key, manifest_key, pointer_key
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound, Unavailable
from lipwire.registry import Loaded, Registry
from lipwire.stores.objects import ObjectStore


def test_names_are_those_of_the_store_and_the_entries(
    new_stored: NewStored, versions: tuple[str, str]
) -> None:
    stored = new_stored()
    assert stored.names() == ("anna", "own")
    assert len(stored) == 2
    assert "anna" in stored
    assert "own" in stored
    assert "zoe" not in stored
    assert "../x" not in stored


def test_an_entry_goes_before_the_store(
    new_stored: NewStored, store: ObjectStore, package_template: Path
) -> None:
    version = pushing.push(store, "own", package_template).version
    pushing.publish(store, "own", version)
    stored = new_stored()
    with stored.hold("own") as held:
        assert held.files.folder == package_template
    assert stored.files("own").folder == package_template


def test_files_of_the_store_are_not_for_this_machine_to_remove(
    new_stored: NewStored, versions: tuple[str, str]
) -> None:
    with pytest.raises(InvalidInput, match="lipwire avatar forget anna"):
        new_stored().files("anna")
    with pytest.raises(NotFound, match="no avatar named zoe"):
        new_stored().files("zoe")


def test_a_request_never_asks_the_store_for_what_is_known(
    new_stored: NewStored, versions: tuple[str, str], weather: Weather, clock: Clock
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        asked = weather.asked
        for _ in range(100):
            clock.now += 10
            stored.version("anna")
        assert weather.asked == asked


def test_a_new_version_is_shown_when_it_is_here(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, weather: Weather
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        before = stored.version("anna")
        pushing.publish(store, "anna", versions[1])
        assert stored.version("anna") == before
        stored.poll()
        until(lambda: stored.version("anna") != before)
        weather.away = True
        with stored.hold("anna") as held:
            assert held.files.folder is not None
            assert versions[1][:32] in str(held.files.folder)


def test_a_new_version_that_is_broken_is_not_shown(
    new_stored: NewStored,
    versions: tuple[str, str],
    store: ObjectStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored = new_stored()
    manifest = pushing.read_manifest(store, "anna", versions[1])
    with stored.hold("anna"):
        before = stored.version("anna")
        for each in manifest.files:
            store.write(f"avatars/anna/files/{each.sha256}", b"hostile")
        pushing.publish(store, "anna", versions[1])
        stored.poll()
        until(lambda: "the older version stays" in caplog.text)
        assert stored.version("anna") == before


def test_the_newest_is_looked_for_where_it_is_needed(
    new_stored: NewStored,
    versions: tuple[str, str],
    store: ObjectStore,
    clock: Clock,
    weather: Weather,
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        before = stored.version("anna")
        pushing.publish(store, "anna", versions[1])
        stored.refresh("anna")
        assert stored.version("anna") == before  # asked less than a second ago
        clock.now += 1.5
        stored.refresh("anna")
        assert stored.version("anna") != before
        asked = weather.asked
        for _ in range(10):
            stored.refresh("anna")
        assert weather.asked == asked


def test_a_registry_goes_on_with_the_new_version_between_requests(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, clock: Clock
) -> None:
    stored = new_stored()

    def load(name: str) -> Loaded[str]:
        held = stored.hold(name)
        return Loaded(str(held.files.folder), 1, held.close)

    with Registry(load, version=stored.version, refresh=stored.refresh, clock=clock) as registry:
        with registry.use("anna") as first:
            assert versions[0][:32] in first
            pushing.publish(store, "anna", versions[1])
            stored.poll()
            until(lambda: versions[1] in str(stored.version("anna")))
            clock.now += 2
            with registry.use("anna") as second:
                assert versions[1][:32] in second
            assert Path(first).is_dir()
        pushing.rollback(store, "anna")
        stored.poll()
        until(lambda: versions[0] in str(stored.version("anna")))
        clock.now += 2
        with registry.use("anna") as third:
            assert third == first


def test_a_store_that_is_away_leaves_what_is_here(
    new_stored: NewStored, versions: tuple[str, str], weather: Weather, tmp_path: Path
) -> None:
    new_stored().hold("anna").close()
    weather.away = True
    stored = new_stored()
    stored.poll()
    assert stored.away is True
    asked = weather.asked
    with stored.hold("anna") as held:
        assert held.files.folder is not None
        assert contents(held.files.folder) == contents(tmp_path / "a")
    assert weather.asked == asked
    with pytest.raises(Unavailable, match=r"zoe is not in this server's cache.*away"):
        stored.hold("zoe")
    with pytest.raises(Unavailable):
        stored.version("zoe")
    assert stored.names() == ("anna", "own")
    weather.away = False
    stored.poll()
    with pytest.raises(NotFound, match="no avatar named zoe"):
        stored.hold("zoe")


def test_a_newer_version_that_cannot_be_had_leaves_the_one_before(
    new_stored: NewStored,
    versions: tuple[str, str],
    store: ObjectStore,
    weather: Weather,
    clock: Clock,
) -> None:
    new_stored().hold("anna").close()
    pushing.publish(store, "anna", versions[1])
    stored = new_stored()
    assert versions[1] in str(stored.version("anna"))
    weather.away = True
    with stored.hold("anna") as held:
        assert versions[0][:32] in str(held.files.folder)
        assert versions[0] in str(stored.version("anna"))
        weather.away = False
        stored.poll()
        until(lambda: versions[1] in str(stored.version("anna")))


def test_a_store_that_is_back_is_noticed_sooner_than_a_new_version(
    new_stored: NewStored, weather: Weather, clock: Clock
) -> None:
    stored = new_stored()
    stored.tick()
    asked = weather.asked
    clock.now += POLL_S - 1
    stored.tick()
    assert weather.asked == asked
    weather.away = True
    clock.now += 2
    stored.tick()
    assert stored.away
    asked = weather.asked
    clock.now += 2
    stored.tick()
    assert stored.away
    assert weather.asked == asked  # a listing of thousands may take longer than it is tried for
    weather.away = False
    clock.now += 2
    stored.tick()
    assert not stored.away


def test_a_name_that_is_not_there_is_asked_for_once_a_second(
    new_stored: NewStored, weather: Weather, clock: Clock
) -> None:
    stored = new_stored()
    for _ in range(5):
        with pytest.raises(NotFound):
            stored.version("zoe")
    assert weather.asked == 1
    clock.now += 1.5
    assert "zoe" not in stored
    assert weather.asked == 2


def test_what_is_held_twice_and_given_up_twice_is_held_once_more(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    stored = new_stored()
    first, second = stored.hold("anna"), stored.hold("anna")
    first.close()
    first.close()
    pushing.forget(store, "anna")
    stored.poll()
    assert second.files.folder is not None
    assert second.files.folder.exists()
    second.close()


def test_an_avatar_that_is_published_no_more_goes_with_all_that_is_here(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, tmp_path: Path
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        pushing.forget(store, "anna")
        stored.poll()
        assert "anna" not in stored
        with pytest.raises(NotFound):
            stored.version("anna")
        with pytest.raises(NotFound):
            stored.hold("anna")
    stored.poll()
    assert list((tmp_path / "cache" / "packages").glob("*/*")) == []
    assert list((tmp_path / "cache" / "pointers").iterdir()) == []


def test_what_was_forgotten_while_no_server_ran_goes_when_one_starts(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, tmp_path: Path
) -> None:
    first = new_stored()
    first.hold("anna").close()
    first.close()
    pushing.forget(store, "anna")
    new_stored().poll()
    assert list((tmp_path / "cache" / "packages").glob("*/*")) == []


def test_a_store_that_is_emptied_by_a_mistake_of_its_listing_keeps_what_is_shown(
    new_stored: NewStored, versions: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        before = stored.version("anna")
        monkeypatch.setattr(ObjectStore, "listed", lambda self, folder: [])
        stored.poll()
        assert stored.version("anna") == before


def test_a_pointer_that_is_none_leaves_what_is_shown(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    stored = new_stored()
    with stored.hold("anna"):
        before = stored.version("anna")
        store.write(pointer_key("anna"), b"{}")
        stored.poll()
        assert stored.version("anna") == before
        assert not stored.away
    with pytest.raises(AvatarInvalid):
        new_stored().hold("anna")


def test_a_cache_that_is_removed_is_filled_again(
    new_stored: NewStored, versions: tuple[str, str], tmp_path: Path
) -> None:
    stored = new_stored()
    stored.hold("anna").close()
    shutil.rmtree(tmp_path / "cache")
    with stored.hold("anna") as held:
        assert held.files.folder is not None
        assert contents(held.files.folder) == contents(tmp_path / "a")


def test_one_pointer_that_is_none_does_not_hold_up_the_others(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    for name in ("aaa", "zzz"):
        pushing.publish(store, name, _copied(store, name, versions[0]))
    stored = new_stored()
    with stored.hold("aaa"), stored.hold("anna"), stored.hold("zzz"):
        before = stored.version("anna")
        for name in ("aaa", "zzz"):
            store.write(pointer_key(name), b"[" * 100_000)
        pushing.publish(store, "anna", versions[1])
        stored.poll()
        until(lambda: stored.version("anna") != before)


def _copied(store: ObjectStore, name: str, version: str) -> str:
    """A version of ``name`` with the files of anna's; returns which it is."""
    manifest = pushing.read_manifest(store, "anna", version)
    for each in manifest.files:
        store.write(file_key(name, each.sha256), store.read(file_key("anna", each.sha256), 1 << 30))
    other = Manifest(name, manifest.files)
    store.write(manifest_key(name, other.version), other.to_bytes())
    return other.version


def test_a_name_is_one_however_its_accents_are_written(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    pushing.publish(store, "zoé", _copied(store, "zoé", versions[0]))
    stored = new_stored()
    apart = unicodedata.normalize("NFD", "zoé")
    assert apart in stored
    assert stored.version(apart) == stored.version("zoé")
    with stored.hold(apart) as held:
        assert held.files.folder is not None
        assert held.files.folder.name == "zoé"
