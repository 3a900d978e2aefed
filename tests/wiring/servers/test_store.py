"""Servers that take their avatars from a bucket, behind moto's server."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import PackageFactory
from tests.support.s3server import S3Server
from tests.support.waiting import until
from tests.wiring.servers.asking import ask, loaded
from tests.wiring.servers.everycall import Told

from lipwire.avatars.store import pushing
from lipwire.avatars.store.cacheindex import folder_bytes
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import NotFound, Unavailable
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.connection import CompositingConnection
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

Start = Callable[..., CompositingConnection]
POLL_S = 0.2


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(s3.new_url(), endpoint_url=s3.endpoint_url)


@pytest.fixture
def told() -> Told:
    return {}


@pytest.fixture
def serve(s3: S3Server, store: ObjectStore, tmp_path: Path, told: Told) -> Iterator[Start]:
    """``serve()``: a connection to a server of the store, or of another ``root``; ``close`` closes
    all."""
    with ExitStack() as stack:

        def start(
            root: object = None, *, kind: str = "serve", timeout_s: float = 20
        ) -> CompositingConnection:
            file = tmp_path / "config.yaml"
            settings = (
                f"{{endpoint_url: '{s3.endpoint_url}', cache_folder: cache-{kind},"
                f" poll_seconds: {POLL_S}, timeout_seconds: {timeout_s}}}"
            )
            file.write_text(f"models_root: {root or store.url}\nstore: {settings}\n")
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__ENABLED": "false",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            config = load_compositing_config(file, here)
            tell = told.__setitem__
            if kind == "serve":
                other = load_inference_config(None, {})
                metrics = ServerMetrics()
                server = stack.enter_context(open_serve(config, other, tell=tell, metrics=metrics))
            else:
                mine = load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"})
                inference = stack.enter_context(open_inference_server(mine, tell=tell))
                url = {"LIPWIRE_INFERENCE_SERVER__URL": f"127.0.0.1:{inference.port}"}
                config = load_compositing_config(file, here | url)
                server = stack.enter_context(open_compositing_server(config, tell=tell))
            return stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))

        start.close = stack.close  # type: ignore[attr-defined]
        yield start


def publish(store: ObjectStore, name: str, package: Path) -> str:
    version = pushing.push(store, name, package).version
    pushing.publish(store, name, version)
    return version


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serve", "apart"])
def test_frames_are_those_of_a_folder(
    serve: Start, store: ObjectStore, package_template: Path, tmp_path: Path, kind: str
) -> None:
    publish(store, "anna", package_template)
    stored = serve(kind=kind)
    shutil.copytree(package_template, tmp_path / "plain" / "anna")
    plain = serve(root=tmp_path / "plain")
    assert [model.model_id for model in stored.models(60)] == ["anna"]
    assert ask(stored, "anna", 8) == ask(plain, "anna", 8)
    assert list((tmp_path / f"cache-{kind}" / "packages").glob("anna-*/*/compiled/patches-*"))
    with pytest.raises(NotFound, match="no avatar named zoe is published in the store"):
        ask(stored, "zoe")


@pytest.mark.slow
def test_a_version_that_is_published_is_shown_and_taken_back(
    serve: Start, store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    publish(store, "anna", make_package(tmp_path / "one"))
    connection = serve()
    first = ask(connection, "anna", 2)
    publish(store, "anna", make_package(tmp_path / "two", seed=1))
    until(lambda: ask(connection, "anna", 2) != first)
    second = ask(connection, "anna", 2)
    pushing.rollback(store, "anna")
    until(lambda: ask(connection, "anna", 2) != second)
    assert ask(connection, "anna", 2) == first


@pytest.mark.slow
def test_both_halves_are_of_one_version(
    serve: Start, store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    publish(store, "anna", make_package(tmp_path / "one"))
    connection = serve(kind="apart")
    first = ask(connection, "anna", 2)
    publish(store, "anna", make_package(tmp_path / "two", seed=1))
    seen = {hashlib.sha256(b"".join(first)).digest()}

    def changed() -> bool:
        seen.add(hashlib.sha256(b"".join(ask(connection, "anna", 2))).digest())
        return len(seen) > 1

    until(changed)
    for _ in range(10):
        seen.add(hashlib.sha256(b"".join(ask(connection, "anna", 2))).digest())
    assert len(seen) == 2


@pytest.mark.slow
def test_a_store_that_is_away_leaves_what_is_here(
    s3: S3Server, serve: Start, store: ObjectStore, package_template: Path
) -> None:
    for name in ("anna", "zoe"):
        publish(store, name, package_template)
    first = ask(serve(), "anna", 2)
    serve.close()  # type: ignore[attr-defined]
    s3.hang()
    try:
        connection = serve(timeout_s=1)
        assert ask(connection, "anna", 2) == first
        with pytest.raises(Unavailable, match="zoe is not in this server's cache, and the avatar"):
            ask(connection, "zoe")
    finally:
        s3.go_on()
    until(lambda: _answers(connection, "zoe"))


def _answers(connection: CompositingConnection, name: str) -> bool:
    try:
        ask(connection, name)
    except Unavailable:
        return False
    return True


@pytest.mark.slow
def test_more_avatars_than_the_cache_has_room_for(
    serve: Start, store: ObjectStore, make_package: PackageFactory, tmp_path: Path
) -> None:
    names = "abcde"
    for seed, name in enumerate(names):
        publish(store, name, make_package(tmp_path / name, seed=seed))
    connection = serve()
    first = {name: ask(connection, name) for name in names}
    serve.close()  # type: ignore[attr-defined]
    # Room for two, as they are expected to be; as many as there are may be open.
    connection = _small(serve)
    for _ in range(2):
        for name in names:
            assert ask(connection, name) == first[name]
            assert folder_bytes(tmp_path / "cache-serve" / "packages") <= 20 << 20
    assert len(loaded(connection)) < len(names)


def _small(serve: Start) -> CompositingConnection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lipwire.config.storesettings.StoreSettings.cache_bytes", 20 << 20)
        return serve()


@pytest.mark.slow
def test_an_avatar_that_is_forgotten_is_gone(
    serve: Start, store: ObjectStore, package_template: Path, tmp_path: Path
) -> None:
    publish(store, "anna", package_template)
    connection = serve()
    ask(connection, "anna")
    pushing.forget(store, "anna")

    def gone() -> bool:
        try:
            ask(connection, "anna")
        except NotFound:
            return not list((tmp_path / "cache-serve" / "packages").glob("*/*"))
        return False

    until(gone)
