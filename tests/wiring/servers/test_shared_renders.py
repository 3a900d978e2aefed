"""Servers that share finished videos by Redis and a store."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import until
from tests.wiring.servers.everycall import Told
from tests.wiring.servers.test_renders import Site, buzz

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.observe.metrics import ServerMetrics
from lipwire.renders import sharing
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.generated.lipwire.v1 import renders_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceStub
from lipwire.rpc.transport import open_channel
from lipwire.security import KeyFile
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

pytestmark = needs_redis

PCM = buzz(0.4)
NETWORK = "checkpoint/model_best.onnx"


class Server(Site):
    """A server of the cluster, asked with an API key."""

    def __init__(self, port: int, connection: CompositingConnection, metrics: ServerMetrics):
        super().__init__(port, connection)
        self.metrics = metrics
        self.token = ""

    def ask(self, *given, **named):  # type: ignore[no-untyped-def]
        return super().ask(*given, **{**named, "token": self.token})

    def results(self) -> dict[str, float]:
        """What came of looking into the cache."""
        name = "lipwire_renders_cache_total{result="
        lines = (line for line in self.metrics.read().decode().splitlines() if name in line)
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


Start = Callable[..., Server]


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers look for what others have removed sooner than within ten seconds."""
    monkeypatch.setattr(sharing, "_EVERY_S", 0.1)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def key(keys: KeyFile) -> str:
    return keys.create("one", tenant="acme", operations=["deliver", "manage", "read"])


@pytest.fixture
def other_key(keys: KeyFile) -> str:
    return keys.create("other", tenant="emca", operations=["deliver"])


@pytest.fixture
def start(
    root: Path, tmp_path: Path, keys: KeyFile, key: str, other_key: str, redis: RedisServer
) -> Iterator[Start]:
    """``start("one")``: a server of that name, which shares; with ``inference`` its networks are at
    that address, and it has none itself."""
    with ExitStack() as stack:

        def started(name: str, *, inference: str = "", models: Path = root) -> Server:
            file, told, metrics = tmp_path / f"{name}.yaml", Told(), ServerMetrics()
            file.write_text(
                f"models_root: {models}\n"
                f"redis: {{url: '{redis.url}', retry_seconds: 0.1, timeout_ms: 5000}}\n"
                f"security: {{keys_file: {keys.path}}}\n"
                "web: {enabled: true}\n"
                f"renders: {{folder: {tmp_path / name}, cache: {{url: 'file://{tmp_path}/s'}}}}\n"
                + (f"inference_server: {{url: '{inference}'}}\n" if inference else "")
            )
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__PORT": "0",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            config = load_compositing_config(file, here)
            tell = told.__setitem__
            server = stack.enter_context(
                open_compositing_server(config, tell=tell, metrics=metrics)
                if inference
                else open_serve(config, load_inference_config(None, {}), tell=tell, metrics=metrics)
            )
            assert told["Renders"]["Shared by"] == f"file://{tmp_path}/s"
            port = int(str(told["Web"]["Page"]).rpartition(":")[2].strip("/"))
            security = ClientSecurity(token=key)
            connection = CompositingConnection(f"127.0.0.1:{server.port}", security=security)
            site = Server(port, stack.enter_context(connection), metrics)
            site.token = key
            return site

        yield started


def shared(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "s" / "videos").glob("*"))


@pytest.mark.slow
def test_a_video_of_one_server_is_delivered_by_the_other(
    start: Start, other_key: str, redis: RedisServer, tmp_path: Path
) -> None:
    one, two = start("one"), start("two")
    first = one.ended(one.order(PCM))
    assert "cached" not in first
    until(lambda: redis.names("lipwire:renders:video:*"))
    again = two.ended(two.order(PCM))
    assert (again["state"], again["cached"], again["frames"]) == ("done", True, 10)
    assert again["video"]["sha256"] == first["video"]["sha256"]
    part = two.send("GET", f"{again['video']['url']}", headers={"Range": "bytes=100-199"})
    whole = one.send("GET", first["video"]["url"]).body
    assert (part.status, part.body) == (206, whole[100:200])
    security = ClientSecurity(token=two.token)
    address = two.connection.address
    with open_channel(address, max_message_bytes=1 << 20, security=security) as channel:
        stub: Any = RenderServiceStub(channel)
        assert stub.Get(pb.GetRenderRequest(id=again["id"])).render.cached
    until(lambda: two.results() == {"hit": 1, "miss": 0, "away": 0})
    assert one.results() == {"hit": 0, "miss": 1, "away": 0}

    two.token = other_key
    own = two.ended(two.order(PCM))
    assert "cached" not in own, "what another tenant has had is nobody's business"
    until(lambda: len(shared(tmp_path)) == 2)


@pytest.mark.slow
def test_what_a_tenant_removes_or_an_erased_avatar_is_nowhere_any_more(
    start: Start, key: str, redis: RedisServer, tmp_path: Path
) -> None:
    one, two = start("one"), start("two")
    for remove in ("tenant", "avatar"):
        one.ended(one.order(PCM))
        until(lambda: redis.names("lipwire:renders:video:*"))
        assert two.ended(two.order(PCM))["cached"]
        if remove == "tenant":
            assert two.send("DELETE", "/v1/renders").json == {"removed": 1}
        else:
            security = ClientSecurity(token=key)
            with AvatarConnection(two.connection.address, security=security) as client:
                client.erase("a")
        until(lambda: shared(tmp_path) == [])
        until(lambda: not one.send("GET", "/v1/renders").json["renders"])
        for name in ("one", "two"):
            assert list((tmp_path / name / "videos").glob("*/*.mp4")) == []


@pytest.mark.slow
def test_while_redis_is_away_videos_are_made(start: Start, redis: RedisServer) -> None:
    one, two = start("one"), start("two")
    one.ended(one.order(PCM))
    until(lambda: redis.names("lipwire:renders:video:*"))
    redis.kill()
    assert "cached" not in two.ended(two.order(PCM))
    assert two.results() == {"hit": 0, "miss": 0, "away": 1}
    redis.start()

    def found_again() -> bool:
        return "cached" in two.ended(two.order(PCM))

    until(found_again)


@pytest.mark.slow
def test_servers_without_networks_tell_these_apart(
    start: Start, root: Path, tmp_path: Path, redis: RedisServer
) -> None:
    networks = tmp_path / "networks"
    shutil.copytree(root, networks)
    for network in root.glob(f"*/{NETWORK}"):
        network.unlink()
    file = tmp_path / "inference.yaml"
    file.write_text(f"models_root: {networks}\n")
    config = load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"})
    with open_inference_server(config, tell=Told().__setitem__) as inference:
        address = f"127.0.0.1:{inference.port}"
        one, two = (start(name, inference=address) for name in ("one", "two"))
        one.ended(one.order(PCM))
        until(lambda: redis.names("lipwire:renders:video:*"))
        assert two.ended(two.order(PCM))["cached"]
        renew(networks / "a")
        other = two.ended(two.order(PCM))
        assert other["state"] == "done"
        assert "cached" not in other, "it would be of the network before"
        until(lambda: len(redis.names("lipwire:renders:video:*")) == 2)
        assert one.ended(one.order(PCM))["cached"]


def renew(avatar: Path) -> None:
    """Train the network of ``avatar`` a little further."""
    path = avatar / NETWORK
    model = onnx.load(path)
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype.kind == "f" and values.size > 1:
            weights.CopyFrom(numpy_helper.from_array(values * 1.01, weights.name))
            break
    onnx.save(model, path)
