"""What is compiled, shared by a store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lipwire.avatars import Avatar, Part
from lipwire.avatars.compiled import compiling
from lipwire.avatars.store import compiledparts, pushing
from lipwire.avatars.store.layout import Manifest, StoredFile, compiled_folder, file_key
from lipwire.avatars.store.packagecache import HeldPackage, PackageCache
from lipwire.domain import AvatarInvalid, Overloaded, Unavailable
from lipwire.stores.objects import ObjectStore

NewCache = Callable[[str], PackageCache]
PARTS: frozenset[Part] = frozenset({"jpeg"})
HASH = "ab" * 32


@pytest.fixture
def new_cache(tmp_path: Path) -> Iterator[NewCache]:
    """``new_cache("one")``: that of a machine."""
    made: list[PackageCache] = []

    def new(machine: str) -> PackageCache:
        made.append(PackageCache(tmp_path / machine, 1 << 30, shares_compiled=True))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


@pytest.fixture
def version(store: ObjectStore, avatar_package: Path) -> str:
    return pushing.push(store, "anna", avatar_package).version


def open_there(held: HeldPackage, quality: int = 75) -> list[bytes]:
    with Avatar.open(held.files, parts=PARTS, quality=quality) as avatar:
        held.measure()
        return [avatar.jpeg(number, None) for number in range(avatar.frame_count)]


def compile_on(cache: PackageCache, store: ObjectStore, version: str) -> list[bytes]:
    with cache.hold(store, "anna", version) as held:
        frames = open_there(held)
    cache.close()  # which waits for what is brought
    return frames


def parts_of(store: ObjectStore, version: str) -> list[str]:
    found = (each.name for each in store.listed(compiled_folder("anna", version)))
    return [name.partition("-")[0] for name in found]


@pytest.mark.slow
def test_of_two_machines_one_compiles(
    store: ObjectStore, version: str, new_cache: NewCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = compile_on(new_cache("one"), store, version)
    assert parts_of(store, version) == ["jpeg", "model", "patches"]

    def never(*arguments: object) -> None:
        raise AssertionError("compiled once more")

    monkeypatch.setattr(compiling, "_build", never)
    two = new_cache("two")
    with two.hold(store, "anna", version) as held:
        assert open_there(held) == frames
        with Avatar.open(held.files, parts=PARTS) as avatar:
            assert avatar.model_path.is_relative_to(two.folder)


def test_where_too_much_is_open_what_was_compiled_is_brought_later(
    store: ObjectStore, version: str, new_cache: NewCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = new_cache("one")

    def full(*arguments: object) -> None:
        raise Overloaded("too much is open")

    with cache.hold(store, "anna", version) as held:
        with monkeypatch.context() as patch:
            patch.setattr(cache.index, "pin", full)
            open_there(held)
        assert parts_of(store, version) == []
        open_there(held)
    cache.close()
    assert parts_of(store, version) == ["jpeg", "model", "patches"]


@pytest.mark.slow
def test_what_was_brought_is_not_brought_again(
    store: ObjectStore, version: str, new_cache: NewCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_on(new_cache("one"), store, version)
    sent: list[str] = []
    monkeypatch.setattr(ObjectStore, "write", lambda self, key, data: sent.append(key))
    compile_on(new_cache("one"), store, version)
    compile_on(new_cache("two"), store, version)
    assert sent == []


@pytest.mark.slow
def test_parts_of_other_machines_are_left(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    compile_on(new_cache("one"), store, version)
    folder = compiled_folder("anna", version)
    model = next(each.name for each in store.listed(folder) if each.name.startswith("model-"))
    data = store.read(f"{folder}/{model}", 1 << 20)
    store.write(f"{folder}/{model[:-15]}0000000000.json", data)
    store.write(f"{folder}/..json", data)
    with new_cache("two").hold(store, "anna", version) as held:
        assert held.files.compiled is not None
        found = sorted(each.name.partition("-")[0] for each in held.files.compiled.iterdir())
        assert found == ["jpeg", "model", "patches"]


@pytest.mark.slow
def test_another_quality_is_compiled_beside(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    compile_on(new_cache("one"), store, version)
    cache = new_cache("two")
    with cache.hold(store, "anna", version) as held:
        open_there(held, quality=90)
    cache.close()
    assert parts_of(store, version) == ["jpeg", "jpeg", "model", "patches"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        [StoredFile("../x", 1, HASH)],
        [StoredFile("seal.json", 1, HASH)],
        [StoredFile("model-other/graph.onnx", 1, HASH)],
    ],
)
def test_a_hostile_part_is_refused_and_compiled_here(
    store: ObjectStore, version: str, new_cache: NewCache, files: list[StoredFile]
) -> None:
    frames = compile_on(new_cache("one"), store, version)
    folder = compiled_folder("anna", version)
    for each in store.listed(folder):
        store.write(f"{folder}/{each.name}", Manifest("anna", tuple(files)).to_bytes())
    cache = new_cache("two")
    with cache.hold(store, "anna", version) as held:
        with pytest.raises(AvatarInvalid):
            compiledparts.take(store, "anna", version, held.files)
        assert open_there(held) == frames
        assert not (cache.folder / "x").exists()


@pytest.mark.slow
def test_a_part_that_is_damaged_in_the_store_is_compiled_here(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    frames = compile_on(new_cache("one"), store, version)
    own = {each.sha256 for each in pushing.read_manifest(store, "anna", version).files}
    for each in store.listed("avatars/anna/files"):
        if each.name not in own:
            store.write(file_key("anna", each.name), b"x" * each.size_bytes)
    with new_cache("two").hold(store, "anna", version) as held:
        assert open_there(held) == frames


def test_a_store_that_may_not_be_written_to_is_no_harm(
    store: ObjectStore,
    version: str,
    new_cache: NewCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refused(*arguments: object) -> None:
        raise Unavailable("the avatar store refuses access")

    monkeypatch.setattr(ObjectStore, "upload", refused)
    assert compile_on(new_cache("one"), store, version)
    assert "refuses access" in caplog.text
    assert parts_of(store, version) == []


@pytest.mark.slow
def test_an_avatar_that_is_forgotten_leaves_nothing_compiled(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    compile_on(new_cache("one"), store, version)
    pushing.forget(store, "anna")
    assert parts_of(store, version) == []
    assert store.listed("avatars/anna/files") == []
