"""A registry of real avatars over a folder of packages, as a server holds it."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S

from lipwire.avatars import Avatar, Catalog, package_version
from lipwire.domain import AvatarInvalid, NotFound
from lipwire.registry import Loaded, Registry, lookups

MakePackage = Callable[..., Path]


@pytest.fixture(autouse=True)
def patient_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees a change waits for the new form here, however busy the machine is."""
    monkeypatch.setattr(lookups, "_SWAP_WAIT_S", WAIT_S)


@pytest.fixture(scope="module")
def template_root(tmp_path_factory: pytest.TempPathFactory, make_package: MakePackage) -> Path:
    """Compiled for JPEG. Nobody writes to it."""
    root = tmp_path_factory.mktemp("template") / "root"
    for seed, name in enumerate(("anna", "ben", "carl")):
        package = make_package(root / name, seed=seed, frames=3, encoder=False)
        Avatar.open(package, parts=frozenset({"jpeg"})).close()
    return root


@pytest.fixture
def root(template_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template_root, tmp_path / "root")


def registry_of(root: Path, max_items: int) -> Registry[Avatar]:
    catalog = Catalog(root, {})

    def load(name: str) -> Loaded[Avatar]:
        avatar = Avatar.open(catalog.files(name), parts=frozenset({"jpeg"}))
        return Loaded(avatar, 1, avatar.close)

    return Registry(
        load,
        version=lambda name: package_version(catalog.files(name)),
        version_every_s=0.0,
        failure_memory_s=60.0,
        max_items=max_items,
    )


@pytest.fixture
def registry(root: Path) -> Iterator[Registry[Avatar]]:
    with registry_of(root, max_items=2) as made:
        yield made


def own_jpeg(package: Path) -> bytes:
    with Avatar.open(package, parts=frozenset({"jpeg"})) as avatar:
        return avatar.jpeg(0, None)


@pytest.mark.slow
def test_each_name_gives_its_own_avatar_whatever_is_evicted(
    root: Path, registry: Registry[Avatar]
) -> None:
    expected = {name: own_jpeg(root / name) for name in ("anna", "ben", "carl")}
    assert len(set(expected.values())) == 3
    wrong: list[str] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(30):
            name = str(random.choice(["anna", "ben"] if seed else ["carl", "anna"]))
            try:
                with registry.use(name) as avatar:
                    if avatar.jpeg(0, None) != expected[name]:
                        wrong.append(name)
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two users at a time always fit into two places.
    assert wrong == []
    assert registry.stats().evictions > 0


@pytest.mark.slow
def test_a_package_replaced_while_in_use_is_swapped(
    root: Path, registry: Registry[Avatar], make_package: MakePackage, tmp_path: Path
) -> None:
    new = make_package(tmp_path / "new", seed=9, frames=3, encoder=False)
    with registry.use("anna") as old:
        before = old.jpeg(0, None)
        (root / "anna").rename(tmp_path / "old")
        new.rename(root / "anna")
        with registry.use("anna") as swapped:
            assert swapped is not old
            assert swapped.jpeg(0, None) == own_jpeg(root / "anna") != before
        assert old.jpeg(0, None) == before
    assert old.closed


def test_a_package_that_becomes_broken_and_mended_again(
    root: Path, registry: Registry[Avatar]
) -> None:
    rects = root / "ben" / "crop_rects.json"
    sound = rects.read_bytes()
    rects.write_bytes(b"[]")
    for _ in range(2):
        with pytest.raises(AvatarInvalid, match=r"crop_rects\.json"), registry.use("ben"):
            pass
    rects.write_bytes(sound)
    with registry.use("ben") as avatar:
        working = avatar.jpeg(0, None)
    rects.write_bytes(b"{")
    with registry.use("ben") as avatar:
        assert avatar.jpeg(0, None) == working


@pytest.mark.slow
def test_packages_that_come_and_go(
    root: Path, registry: Registry[Avatar], make_package: MakePackage
) -> None:
    with pytest.raises(NotFound, match="no avatar named dora"), registry.use("dora"):
        pass
    make_package(root / "dora", seed=4, frames=3, encoder=False)
    with registry.use("dora") as avatar:
        assert avatar.frame_count == 3
    shutil.rmtree(root / "dora")
    with registry.use("dora"):
        pass  # gone perhaps for a moment only
    with pytest.raises(NotFound), registry.use("dora"):
        pass


def test_evicted_avatars_leave_no_descriptors_and_no_maps(root: Path) -> None:
    def held() -> int:
        return Path("/proc/self/maps").read_text().count(str(root))

    if not Path("/proc/self/maps").exists():
        pytest.skip("there is no /proc here")

    def descriptors() -> list[str]:
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed in the meantime
                found.append(str(link.readlink()))
        return [name for name in found if str(root) in name]

    with registry_of(root, max_items=1) as registry:
        for _ in range(10):
            for name in ("anna", "ben", "carl"):
                with registry.use(name) as avatar:
                    avatar.jpeg(0, None)
        del avatar
        one = held()
        assert registry.stats().evictions == 29
        assert one <= 4, "one avatar's files at most"
    assert held() == 0
    assert descriptors() == []
