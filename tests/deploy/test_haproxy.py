"""HAProxy with the configuration of deploy/haproxy, in front of servers of the test's own, with and
without TLS.

It listens on Unix sockets here, so that no port has to be free. tests/deploy/test_balancing.py has
more servers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.cli.conftest import WAIT_S, Served, serving_in
from tests.support.haproxy import (
    CONFIG,
    Haproxy,
    addresses,
    exchanged,
    haproxy,
    program,
    tls_variables,
)
from tests.support.waiting import until

from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.lipwire.v1.renders_pb2 import ListRendersRequest
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceStub
from lipwire.rpc.workers.place import socket_folder
from lipwire.security.devcerts import make_certificates

TOKEN = "a token of sixteen characters or more"
NAME = "sanders"
REQUEST = CompositeBatchRequest(model_id=NAME, audio_features=bytes(32 * 16 * 16 * 4), batch_size=1)


@pytest.mark.parametrize("tls", [False, True])
def test_haproxy_finds_nothing_wrong(tls: bool, tmp_path: Path) -> None:
    make_certificates(tmp_path, ["lipwire"], now=datetime.now(UTC))
    said = subprocess.run(
        [program(), "-c", "-dW", "-q", "-f", CONFIG],
        env={**os.environ, **addresses(tls_variables(tmp_path) if tls else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")


def test_a_name_that_dns_does_not_tell_keeps_its_address() -> None:
    """It took servers out that are in /etc/hosts alone, half a minute after it had started."""
    _, resolvers = CONFIG.read_text().split("resolvers system\n")
    resolvers, _, _ = resolvers.partition("\n\n")
    held = dict(re.findall(r"^    hold (\S+) (\d+)d$", resolvers, re.M))
    assert set(held) == {"nx", "other", "refused", "timeout"}
    assert all(int(days) > 20 for days in held.values())


@dataclass
class Proxied:
    """Two servers behind HAProxy."""

    proxy: Haproxy
    servers: dict[str, Served]
    channel: grpc.Channel
    context: ssl.SSLContext | None

    def ask(self, *, model_id: str | None = NAME) -> None:
        """One frame. Raises grpc.RpcError."""
        metadata = () if model_id is None else (("x-model-id", model_id),)
        stub: Any = CompositingServiceStub(self.channel)
        answer = stub.InferBatchComposite(REQUEST, timeout=WAIT_S, metadata=metadata)
        assert answer.success, answer.error
        assert len(answer.composited_frames) == 1

    def http(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, str]]:
        """The status and the fields of an answer of the HTTP API."""
        at = self.proxy.folder / "http"
        status, fields, _ = exchanged(at, method, path, body, token=TOKEN, context=self.context)
        return status, fields


@pytest.fixture(scope="module", params=["plain", "tls"])
def proxied(
    request: pytest.FixtureRequest,
    compiled_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxied]:
    program()
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(compiled_template, models / NAME)
    certs = tmp_path_factory.mktemp("certs")
    make_certificates(certs, ["lipwire"], now=datetime.now(UTC))
    tls = request.param == "tls"
    options = ["--models-root", models, "--host", "127.0.0.1", "--port", 0, "--web-port", 0]
    environ = {"LIPWIRE_METRICS__PORT": "0", "LIPWIRE_COMPOSITING__WEB__TOKEN": TOKEN}
    variables: dict[str, str] = {}
    if tls:
        environ["LIPWIRE_SERVER__TLS__CERT"] = str(certs / "server.crt")
        environ["LIPWIRE_SERVER__TLS__KEY"] = str(certs / "server.key")
        # The metrics ports are this machine's own here, and have no TLS.
        variables = {**tls_variables(certs), "CHECKS": "proto h1"}
    with ExitStack() as stack:
        folder = stack.enter_context(socket_folder())
        start = serving_in(stack, tmp_path_factory.mktemp("servers"))
        servers = {f"compositing-{n}": start("serve", *options, **environ) for n in (1, 2)}
        for number, served in enumerate(servers.values(), 1):
            page, web = served.wait_for(r"Page: (https?://\S+:\d+)/").rsplit(":", 1)
            assert page.startswith("https:") == tls
            health = served.wait_for(r"Prometheus: http://127.0.0.1:(\d+)/")
            variables[f"COMPOSITING_{number}"] = served.address
            variables[f"COMPOSITING_{number}_HEALTH_PORT"] = health
            variables[f"WEB_{number}"] = f"127.0.0.1:{web}"
        proxy = stack.enter_context(haproxy(folder, variables))
        target = f"unix:{folder}/grpc"
        if tls:
            context = ssl.create_default_context(cafile=certs / "ca.crt")
            credentials = grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes())
            name = [("grpc.ssl_target_name_override", "lipwire")]
            channel = stack.enter_context(grpc.secure_channel(target, credentials, name))
        else:
            context = None
            channel = stack.enter_context(grpc.insecure_channel(target))
        for backend in ("batches", "live", "web"):
            proxy.until_up(backend)
        yield Proxied(proxy, servers, channel, context)


def had_by_each(proxied: Proxied, times: int, model_id: str | None = NAME) -> dict[str, int]:
    """How many of ``times`` batches each server was given."""
    backend = "batches" if model_id is not None else "batches-in-turn"
    before = proxied.proxy.requests(backend)
    for _ in range(times):
        proxied.ask(model_id=model_id)
    now = proxied.proxy.requests(backend)
    return {name: now[name] - before[name] for name in now}


@pytest.mark.slow
def test_an_avatars_batches_go_to_one_server_and_others_to_each_in_turn(proxied: Proxied) -> None:
    assert sorted(had_by_each(proxied, 4).values()) == [0, 4]
    assert set(had_by_each(proxied, 8, model_id=None).values()) == {4}


@pytest.mark.slow
def test_a_session_stays_with_the_server_that_began_it(proxied: Proxied) -> None:
    begun: list[str] = []

    def begin() -> bool:
        status, fields = proxied.http("POST", "/v1/sessions", {"avatar": NAME})
        if status == 201:
            begun.append(fields["location"])
        return status == 201

    for _ in range(2):
        until(begin, timeout_s=WAIT_S)  # a machine that is busy says to come back
    assert min(proxied.proxy.requests("web").values()) >= 1
    for _ in range(3):
        for location in begun:
            assert proxied.http("GET", location)[0] == 200
    for location in begun:
        assert proxied.http("DELETE", location)[0] in (200, 204)
        assert proxied.http("GET", location)[0] == 404


@pytest.mark.slow
def test_orders_for_videos_go_to_one_server(proxied: Proxied) -> None:
    stub: Any = RenderServiceStub(proxied.channel)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as refused:
            stub.List(ListRendersRequest(), timeout=WAIT_S)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED  # it makes no videos
        for path in ("/v1/renders", "/v1/renders/id/video.mp4"):
            assert proxied.http("GET", path)[0] == 404
    assert proxied.proxy.requests("renders") == {"compositing-1": 3}
    assert proxied.proxy.requests("renders-web") == {"compositing-1": 6}


@pytest.mark.slow
def test_what_a_server_that_hangs_has_in_hand_ends(proxied: Proxied) -> None:
    (name,) = (name for name, number in had_by_each(proxied, 1).items() if number)
    process = proxied.servers[name].process
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(grpc.RpcError) as ended:
            proxied.ask()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        proxied.proxy.until_status("batches", name, "DOWN")
        proxied.ask()  # of the other one
    finally:
        process.send_signal(signal.SIGCONT)
    proxied.proxy.until_up("batches")


@pytest.mark.slow
def test_after_a_server_is_killed_no_request_is_lost(proxied: Proxied) -> None:
    (name,) = (name for name, number in had_by_each(proxied, 1).items() if number)
    failures: list[grpc.StatusCode] = []
    asked = 0
    over = threading.Event()

    def ask_on() -> None:
        nonlocal asked
        while not over.is_set():
            try:
                proxied.ask()
            except grpc.RpcError as error:
                failures.append(error.code())
            asked += 1

    client = threading.Thread(target=ask_on, daemon=True)
    client.start()
    until(lambda: asked >= 3, timeout_s=WAIT_S)
    proxied.servers[name].end(signal.SIGKILL)
    proxied.proxy.until_status("batches", name, "DOWN")
    over.set()
    client.join(WAIT_S)
    assert set(failures) <= {grpc.StatusCode.UNAVAILABLE}  # what was in the server is told
    assert len(failures) <= 2  # one in hand, and one that was sent as the connection broke
    for _ in range(5):
        proxied.ask()
    assert proxied.http("GET", "/v1/avatars")[0] == 200
