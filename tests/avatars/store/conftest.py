"""A store in memory of its own, and one behind moto's server; and avatars of the former."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import PackageFactory
from tests.support.s3server import S3Server
from tests.support.waiting import Clock

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.store import pushing
from lipwire.avatars.store.packagecache import PackageCache
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.domain import Unavailable
from lipwire.stores.objects import ObjectStore

_numbers = itertools.count()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(f"memory://store-{next(_numbers)}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


NewStored = Callable[[], StoredAvatars]
POLL_S = 30.0


class Weather:
    """Whether the store can be asked, and how often it was."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Weather:
    now = Weather()
    for name in ("read_range", "listed"):
        method = getattr(ObjectStore, name)

        def asked(self: ObjectStore, *arguments: object, _method: object = method) -> object:
            now.asked += 1
            if now.away:
                raise Unavailable("the avatar store cannot be asked: away")
            return _method(self, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(ObjectStore, name, asked)
    monkeypatch.setattr(ObjectStore, "answers", lambda store, key, limit_s: not now.away)
    return now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_stored(
    store: ObjectStore, tmp_path: Path, clock: Clock, package_template: Path
) -> Iterator[NewStored]:
    made: list[StoredAvatars] = []

    def new() -> StoredAvatars:
        cache = PackageCache(tmp_path / "cache", 1 << 30)
        entries = Catalog(None, {"own": package_template})
        made.append(StoredAvatars(store, cache, entries, poll_s=POLL_S, clock=clock))
        return made[-1]

    yield new
    for each in made:
        each.close()


@pytest.fixture
def versions(store: ObjectStore, make_package: PackageFactory, tmp_path: Path) -> tuple[str, str]:
    """Two of anna, the first of which is published."""
    one = pushing.push(store, "anna", make_package(tmp_path / "a")).version
    two = pushing.push(store, "anna", make_package(tmp_path / "b", seed=1)).version
    pushing.publish(store, "anna", one)
    return one, two
