"""Files in a store: a bucket behind moto's server, a folder, memory."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.s3server import S3Server

from lipwire.domain import DependencyMissing, InvalidInput, NotFound, Unavailable
from lipwire.stores.objects import ObjectStore


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return ObjectStore(s3.new_url(), endpoint_url=s3.endpoint_url)
    return ObjectStore(f"file://{tmp_path}/store")


@pytest.mark.slow
def test_what_was_written_is_read(store: ObjectStore) -> None:
    store.write("a/b c.json", b"first")
    store.write("a/b c.json", b"second")
    assert store.read("a/b c.json", 6) == b"second"


def test_a_file_is_sent_whole_and_read_in_pieces(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 100)
    store.upload("files/x", source)
    assert store.read_range("files/x", 25_000, 25_700) == source.read_bytes()[25_000:]
    assert store.read_range("files/x", 25_600, 25_700) == b""


def test_what_is_not_there_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="a/b is not in the store"):
        store.read("a/b", 10)
    with pytest.raises(NotFound, match="cannot be read"):
        store.upload("a/b", tmp_path / "nothing")
    assert store.listed("a") == []
    store.remove("a/b")


def test_more_than_is_wanted_is_refused(store: ObjectStore) -> None:
    store.write("large", b"x" * 11)
    with pytest.raises(InvalidInput, match="more than 10 bytes"):
        store.read("large", 10)


def test_a_listing_has_the_files_of_a_folder_alone(store: ObjectStore) -> None:
    for key in ("a/2", "a/1", "a/below/3", "b"):
        store.write(key, key.encode())
    assert [(each.name, each.size_bytes) for each in store.listed("a")] == [("1", 3), ("2", 3)]
    store.remove("a/1")
    assert [each.name for each in store.listed("a")] == ["2"]


def test_a_token_changes_when_a_file_is_replaced(store: ObjectStore) -> None:
    store.write("a/1", b"one")
    store.write("a/2", b"two")
    one, two = store.listed("a")
    store.write("a/1", b"ONE")
    again = store.listed("a")
    assert again[0].token != one.token
    assert again[1].token == two.token


@pytest.mark.slow
def test_a_store_that_hangs_is_given_up_in_time(s3: S3Server) -> None:
    store = ObjectStore(s3.new_url(), endpoint_url=s3.endpoint_url, timeout_s=0.3)
    s3.hang()
    try:
        with pytest.raises(Unavailable, match=r"does not answer within 0\.3 s"):
            store.read("a", 10)
    finally:
        s3.go_on()


@pytest.mark.slow
def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    with S3Server(tmp_path) as server:
        store = ObjectStore(server.new_url(), endpoint_url=server.endpoint_url, timeout_s=60)
    with pytest.raises(Unavailable, match="the avatar store cannot be asked"):
        store.read("a", 10)


@pytest.mark.slow
def test_a_store_answers_also_where_it_has_nothing(store: ObjectStore) -> None:
    assert store.answers("published/nothing", 30)
    store.write("published/nothing", b"")
    assert store.answers("published/nothing", 30)


@pytest.mark.slow
def test_a_store_that_hangs_or_is_away_does_not_answer(s3: S3Server) -> None:
    hanging = ObjectStore(s3.new_url(), endpoint_url=s3.endpoint_url)
    s3.hang()
    try:
        assert not hanging.answers("x", 0.2)
    finally:
        s3.go_on()
    assert hanging.answers("x", 30)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = ObjectStore(s3.new_url(), endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert not away.answers("x", 30)


def test_a_store_that_may_not_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"a file")
    with pytest.raises(Unavailable, match="the avatar store cannot be asked"):
        ObjectStore(f"file://{tmp_path}/store").write("a/b", b"")


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DependencyMissing, match=r"pip install 'lipwire\[s3\]'"):
        ObjectStore("s3://bucket/avatars")


@pytest.mark.slow
def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="s4"):
        ObjectStore("s4://bucket/avatars")
