"""Servers of a store in which an avatar has a canary: who is shown which version."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tests.conftest import PackageFactory
from tests.support.numbers import Read
from tests.support.spoken import spoken
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import WINDOW
from tests.wiring.servers.test_live import EXACT, SPEECH

from lipwire.avatars.store import pushing
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import InvalidInput
from lipwire.domain.versions import in_share, versioned, who_of
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

CLIENTS = [f"client {number}" for number in range(12)]
SHARE = 0.5


class Server:
    """A server, its numbers, and what it shows."""

    def __init__(self, port: int, metrics: ServerMetrics) -> None:
        self.address = f"127.0.0.1:{port}"
        self._metrics = metrics

    @property
    def numbers(self) -> Read:
        return Read(self._metrics.read())

    def frames(self, client: str = "", count: int = 2) -> tuple[bytes, ...]:
        """Of a batch for ``client``, who does not say who it is where the text is empty."""
        request = CompositeBatchRequest(
            model_id="anna", audio_features=count * WINDOW, batch_size=count
        )
        with grpc.insecure_channel(self.address) as channel:
            answer = CompositingServiceStub(channel).InferBatchComposite(
                request, timeout=WAIT_S, metadata=(("x-client-id", client),) if client else ()
            )
        assert answer.success, answer.error
        return tuple(answer.composited_frames)


Start = Callable[[str], Server]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store")


@pytest.fixture
def versions(store: ObjectStore, make_package: PackageFactory, tmp_path: Path) -> tuple[str, str]:
    """Two of anna, the first of which is published."""
    one = pushing.push(store, "anna", make_package(tmp_path / "one")).version
    two = pushing.push(store, "anna", make_package(tmp_path / "two", seed=1)).version
    pushing.publish(store, "anna", one)
    return one, two


@pytest.fixture
def start(store: ObjectStore, tmp_path: Path) -> Iterator[Start]:
    """``start("serve")``, or ``start("apart")`` for a compositing and an inference server."""
    with ExitStack() as stack:

        def started(kind: str) -> Server:
            file = tmp_path / f"{kind}.yaml"
            file.write_text(
                f"models_root: {store.url}\n"
                f"store: {{cache_folder: cache-{kind}, poll_seconds: 0.2}}\n"
            )
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__ENABLED": "false",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            metrics = ServerMetrics()
            if kind == "serve":
                server = stack.enter_context(
                    open_serve(
                        load_compositing_config(file, here),
                        load_inference_config(None, {}),
                        tell=lambda *_: None,
                        metrics=metrics,
                        by_speed=False,
                    )
                )
                return Server(server.port, metrics)
            networks = stack.enter_context(
                open_inference_server(
                    load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"}),
                    tell=lambda *_: None,
                )
            )
            url = {"LIPWIRE_INFERENCE_SERVER__URL": f"127.0.0.1:{networks.port}"}
            frames = stack.enter_context(
                open_compositing_server(
                    load_compositing_config(file, here | url), tell=lambda *_: None, metrics=metrics
                )
            )
            return Server(frames.port, metrics)

        yield started


def shown(server: Server) -> Callable[[], bool]:
    """Whether the server has the canary ready."""
    return lambda: server.numbers("lipwire_store_canaries", state="shown") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serve", "apart"])
def test_a_share_is_shown_the_canary_and_nobody_both(
    start: Start, store: ObjectStore, versions: tuple[str, str], kind: str
) -> None:
    server = start(kind)
    first = server.frames("someone")
    pushing.publish(store, "anna", versions[1], SHARE)
    until(shown(server))
    some = {client: server.frames(client) for client in CLIENTS}
    (second,) = set(some.values()) - {first}
    for client in CLIENTS:
        canary = in_share(SHARE, "anna", versions[1], who_of("", client))
        assert some[client] == (second if canary else first)
        assert {server.frames(client) for _ in range(3)} == {some[client]}
    assert server.frames() == first, "who cannot be told from others"
    lucky = next(client for client in CLIENTS if some[client] == second)

    pushing.rollback(store, "anna")
    until(lambda: server.frames(lucky) == first)
    pushing.publish(store, "anna", versions[1], SHARE)
    until(lambda: server.frames(lucky) == second)
    pushing.publish(store, "anna", versions[1])
    until(lambda: server.frames() == second)
    assert {server.frames(client) for client in CLIENTS} == {second}


@pytest.mark.slow
def test_a_live_session_stays_with_its_version(
    start: Start, store: ObjectStore, versions: tuple[str, str]
) -> None:
    server = start("serve")
    with AvatarConnection(server.address) as client:
        with client.converse("anna", EXACT) as session:
            first = spoken(session, SPEECH)
        pushing.publish(store, "anna", versions[1], SHARE)
        until(shown(server))
        seen: dict[bool, list[bytes]] = {}
        while len(seen) < 2:
            with client.converse("anna", EXACT) as session:
                canary = in_share(SHARE, "anna", versions[1], who_of("", session.id))
                frames = spoken(session, SPEECH)
                assert seen.setdefault(canary, frames) == frames
                if len(seen) == 2:
                    pushing.rollback(store, "anna")
                    until(lambda: not shown(server)())
                    # From its next frame on; both begin with other frames of the idle loop.
                    assert spoken(session, SPEECH)
        assert seen[False] == first != seen[True]


@pytest.mark.slow
def test_versions_are_told_apart_in_numbers(
    start: Start, store: ObjectStore, versions: tuple[str, str]
) -> None:
    server = start("serve")
    server.frames("someone")
    name = "lipwire_version_requests_total"
    assert not server.numbers.has(name), "there is one version"
    pushing.publish(store, "anna", versions[1], SHARE)
    until(shown(server))
    for client in CLIENTS:
        server.frames(client)
    canaries = sum(in_share(SHARE, "anna", versions[1], who_of("", each)) for each in CLIENTS)
    found = server.numbers
    for version, count in (("canary", canaries), ("published", len(CLIENTS) - canaries)):
        assert found(name, version=version, service="batch", code="OK") == count
        assert found("lipwire_version_seconds_count", version=version, service="batch") == count
    labels = {value for sample in found.samples for value in sample.labels.values()}
    assert "anna" not in labels


@pytest.mark.parametrize("kind", ["serve", "apart"])
def test_a_client_cannot_ask_for_a_version(
    start: Start, store: ObjectStore, versions: tuple[str, str], kind: str
) -> None:
    server = start(kind)
    name = versioned("anna", versions[1])
    request = CompositeBatchRequest(model_id=name, audio_features=WINDOW, batch_size=1)
    with CompositingConnection(server.address) as connection:
        with pytest.raises(InvalidInput, match="avatar name is"):
            connection.composite(request, WAIT_S)
        with pytest.raises(InvalidInput, match="avatar name is"):
            connection.load(name, WAIT_S)
    with (
        AvatarConnection(server.address) as client,
        pytest.raises(InvalidInput, match="avatar name is"),
    ):
        client.converse(name)
