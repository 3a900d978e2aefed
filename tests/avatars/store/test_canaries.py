"""Versions that are shown to a share of those who use an avatar."""

from pathlib import Path
from threading import Event

import pytest
from tests.avatars.store.conftest import NewStored, Weather
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.avatars.store import pushing
from lipwire.domain import AvatarInvalid, NotFound, Unavailable
from lipwire.domain.versions import Chosen, versioned
from lipwire.registry import Loaded, Registry
from lipwire.stores.objects import ObjectStore


def test_a_canary_is_shown_to_its_share_once_it_is_loaded(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    stored, loaded = new_stored(), Event()
    names: list[str] = []

    def load(name: str) -> None:
        with stored.hold(name) as held:
            assert versions[1][:32] in str(held.files.folder)
        loaded.wait(WAIT_S)
        names.append(name)

    stored.canaries.load = load
    with stored.hold("anna"):
        assert stored.choose("anna", "x") == Chosen("anna", "anna")
        pushing.publish(store, "anna", versions[1], 0.5)
        stored.poll()
        whos = [f"session {number}" for number in range(100)]
        before = {stored.choose("anna", who) for who in whos}
        assert before == {Chosen("anna", "anna", "published")}
        loaded.set()
        canary = Chosen("anna", versioned("anna", versions[1]), "canary")
        until(lambda: canary in [stored.choose("anna", who) for who in whos])
        assert names == [canary.name]
        shown = [who for who in whos if stored.choose("anna", who) == canary]
        assert 30 <= len(shown) <= 70
        assert stored.choose("anna", "") == Chosen("anna", "anna", "published")
        others = new_stored()
        others.canaries.load = lambda name: None
        with others.hold("anna"):
            others.poll()
            until(lambda: others.canaries.counts()["shown"])
            assert [who for who in whos if others.choose("anna", who) == canary] == shown
        assert versions[0] in str(stored.version("anna"))
        assert stored.version(canary.name) == ("stored", versions[1])
        pushing.rollback(store, "anna")
        stored.poll()
        assert {stored.choose("anna", who) for who in whos} == {Chosen("anna", "anna")}
        with stored.hold(canary.name) as held:  # sessions that show it go on
            assert versions[1][:32] in str(held.files.folder)


def test_a_canary_that_is_broken_is_shown_to_nobody(
    new_stored: NewStored,
    versions: tuple[str, str],
    store: ObjectStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored = new_stored()
    tries: list[str] = []

    def load(name: str) -> None:
        tries.append(name)
        if len(tries) < 3:
            raise AvatarInvalid("it has no frames")

    stored.canaries.load = load
    with stored.hold("anna"):
        pushing.publish(store, "anna", versions[1], 0.99)
        for count in (1, 2):
            stored.poll()
            until(lambda: stored.canaries.counts() == {"shown": 0, "failed": 1})
            until(lambda: caplog.text.count("is not shown: it has no frames") == count)  # noqa: B023
            assert stored.choose("anna", "someone").kind == "published"
            assert len(tries) == count, "it is left alone for a while"
            clock.now += 31
        stored.poll()
        until(lambda: stored.canaries.counts() == {"shown": 1, "failed": 0})


def test_a_canary_whose_files_cannot_be_had_any_more_is_shown_to_nobody(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, weather: Weather
) -> None:
    stored = new_stored()
    stored.canaries.load = lambda name: None
    name = versioned("anna", versions[1])
    with stored.hold("anna"):
        pushing.publish(store, "anna", versions[1], 0.99)
        stored.poll()
        until(lambda: stored.choose("anna", "someone").name == name)
        weather.away = True
        stored.poll()
        with pytest.raises(Unavailable, match=r"version .* is not in this server's cache"):
            stored.hold(name)
        assert stored.choose("anna", "someone").name == "anna"


def test_a_version_of_what_is_not_published_is_not_there(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore
) -> None:
    stored = new_stored()
    for name in (versioned("zoe", versions[0]), versioned("own", versions[0])):
        with pytest.raises(NotFound):
            stored.version(name)
        with pytest.raises(NotFound):
            stored.hold(name)
    with pytest.raises(NotFound, match="has no version"):
        stored.hold(versioned("anna", "0" * 64))


def test_what_is_forgotten_is_closed_and_removed_although_nobody_asks_for_it(
    new_stored: NewStored, versions: tuple[str, str], store: ObjectStore, tmp_path: Path
) -> None:
    stored = new_stored()

    def load(name: str) -> Loaded[str]:
        held = stored.hold(name)
        return Loaded(str(held.files.folder), 1, held.close)

    with Registry(load, version=stored.version, refresh=stored.refresh) as registry:
        stored.opened_by(registry.evict, registry.unload)
        stored.canaries.load = registry.load
        registry.load("anna")
        pushing.publish(store, "anna", versions[1], 0.5)
        stored.poll()
        until(lambda: stored.canaries.counts()["shown"])
        pushing.forget(store, "anna")
        stored.poll()
        stored.poll()
        assert list((tmp_path / "cache" / "packages").glob("*/*")) == []
        assert stored.canaries.counts() == {"shown": 0, "failed": 0}
