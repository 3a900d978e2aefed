"""Against real servers on loopback ports, whose networks are replaced by something predictable."""

import dataclasses
import gc
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import PlainBackend

from lipwire.domain import (
    AvatarChanged,
    AvatarInvalid,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    StorageFailed,
    UInt8Array,
    Unavailable,
)
from lipwire.rpc.backends import (
    BackendHealth,
    GpuStatus,
    ModelStatus,
    Mouths,
    RemoteBackend,
    RetryPolicy,
)
from lipwire.rpc.backends import servers as servers_module
from lipwire.rpc.backends.fleet import FleetPolicy
from lipwire.rpc.calls import Call, Cancelled, _current, current
from lipwire.rpc.inference import InferenceServicer, MouthServicer
from lipwire.rpc.ports import held_port
from lipwire.rpc.serving import RpcServer, ServerOptions, inference_service, mouth_service

WAIT_S = 60.0
"""For what comes in a moment, unless the machine is busy with something else."""

QUICK = RetryPolicy(3, first_pause_s=0.02, longest_pause_s=0.1)


def shade(model_id: str, frame: int) -> int:
    return (sum(model_id.encode()) + 3 * frame) % 256


def drawn(model_id: str, first: int, count: int) -> UInt8Array:
    pixels = np.empty((count, 320, 320, 3), np.uint8)
    for index in range(count):
        pixels[index] = shade(model_id, first + index)
    return pixels


class Network(PlainBackend):
    """A backend in the server: draws one shade a frame, counts what it is asked for, and dawdles
    when told to."""

    def __init__(self) -> None:
        super().__init__(gpu_id=2)
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.left_early = threading.Event()
        self.held: dict[str, int] = {}

    def _work(self, model_id: str, timeout_s: float | None) -> None:
        self.asked.append(model_id)
        self.held[model_id] = self.held.get(model_id, 0) + 1
        super()._work(model_id, timeout_s)
        if self.delay_s:
            gone = threading.Event()
            call = current()
            assert call is not None
            call.on_end(gone.set)
            if gone.wait(self.delay_s):
                self.left_early.set()

    def mouths(
        self,
        model_id: str,
        first: int,
        windows: Float32Array,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> Mouths:
        self.revisions.append(revision)
        self._work(model_id, timeout_s)
        return Mouths(drawn(model_id, first, len(windows)), self.gpu_id, 1.5)

    def load(self, model_id: str, *, timeout_s: float | None = None) -> ModelStatus:
        self._work(model_id, timeout_s)
        return ModelStatus(model_id, self.gpu_id, 1000, 0, 0.0)

    def unload(self, model_id: str, *, timeout_s: float | None = None) -> bool:
        return self.held.pop(model_id, None) is not None

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelStatus, ...]:
        return tuple(
            ModelStatus(name, self.gpu_id, 1000, uses, 0.5) for name, uses in self.held.items()
        )

    def health(self, *, timeout_s: float | None = None) -> BackendHealth:
        gpu = GpuStatus(2, "NVIDIA H200", len(self.held), 150_000_000_000, 9_000_000_000, 0.25)
        return BackendHealth(True, 1, len(self.held), 100, "1.0", "", (gpu,))


class Server:
    """An inference server on a loopback port."""

    def __init__(self, port: int = 0) -> None:
        self.network = Network()
        services = [
            inference_service(InferenceServicer(self.network, names=lambda: ())),
            mouth_service(MouthServicer(self.network)),
        ]
        options = ServerOptions(host="127.0.0.1", port=port, share_port=port != 0)
        self.rpc = RpcServer(services, options)
        self.rpc.start()
        self.url = f"127.0.0.1:{self.rpc.port}"

    def kill(self) -> None:
        self.rpc.stop()


@pytest.fixture(autouse=True)
def patient_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer for a second is not gone here: the machine may be busy."""
    monkeypatch.setattr(servers_module, "_CHECK_TIMEOUT_S", WAIT_S)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Three, whose ports are theirs: one that was killed may be started again."""
    with ExitStack() as stack:
        running = [Server(stack.enter_context(held_port("127.0.0.1", 0))) for _ in range(3)]
        yield running
        for server in running:
            server.kill()


@contextmanager
def backend_over(*servers: Server | str, **options: object) -> Iterator[RemoteBackend]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    options.setdefault("retries", QUICK)
    options.setdefault("check_every_s", 0.1)
    options.setdefault("timeout_s", WAIT_S)
    with RemoteBackend(urls, **options) as backend:  # type: ignore[arg-type]
        yield backend


def windows(count: int = 1) -> Float32Array:
    return np.zeros((count, 32, 16, 16), np.float32)


def ask(backend: RemoteBackend, model_id: str = "anna", timeout_s: float | None = None) -> Mouths:
    mouths = backend.mouths(model_id, 4, windows(2), timeout_s=timeout_s)
    np.testing.assert_array_equal(mouths.pixels, drawn(model_id, 4, 2))
    return mouths


def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def up(backend: RemoteBackend) -> int:
    """How many servers it knows to be there: before that, models do not go to their own."""
    return len(backend._servers.fleet.up())


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections into its queue, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with ExitStack() as stack:
            for _ in range(2):  # the queue is full: further connections get no answer at all
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_mouths_arrive_as_they_were_drawn(servers: list[Server]) -> None:
    with backend_over(servers[0]) as backend:
        mouths = ask(backend)
        assert mouths.pixels.dtype == np.uint8
        assert (mouths.gpu_id, mouths.inference_ms) == (2, 1.5)


def test_the_guides_form_arrives_as_it_was_made(servers: list[Server]) -> None:
    visual = np.random.default_rng(0).random((2, 6, 320, 320), np.float32)
    with backend_over(servers[0]) as backend:
        mouths = backend.mouths_of("anna", visual, windows(2))
    np.testing.assert_array_equal(mouths.values, visual[:, :3] * np.float32(0.5))
    assert (mouths.gpu_id, mouths.inference_ms) == (2, 2.5)


def test_a_model_always_goes_to_one_server_and_models_spread(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        assert until(lambda: up(backend) == 3)
        for _ in range(3):
            for number in range(12):
                ask(backend, f"user_{number}")
    homes = [set(server.network.asked) for server in servers]
    assert all(homes)
    assert sum(map(len, homes)) == 12, "no model was asked of two servers"
    assert sum(len(server.network.asked) for server in servers) == 36


def test_the_models_name_is_in_the_metadata_for_balancers() -> None:
    seen: list[dict[str, str | bytes]] = []

    class Balancer(grpc.GenericRpcHandler):
        def service(
            self, call: grpc.HandlerCallDetails
        ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
            seen.append(dict(call.invocation_metadata))
            return None

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[Balancer()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with backend_over(f"127.0.0.1:{port}") as backend:
            for model_id in ("anna", "Zoë 100%/x"):
                with pytest.raises(LipwireError):
                    backend.mouths(model_id, 0, windows())
        server.stop(0).wait()
    assert [metadata["x-model-id"] for metadata in seen] == ["anna", "Zo%C3%AB%20100%25/x"]


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("windows is 3"),
        NotFound("there is no model 'annna'; the nearest is 'anna'"),
        AvatarInvalid("the network failed: x"),
        StorageFailed("the disk is full"),
        DeadlineExceeded("0.1 s is too short for 50 frames"),
    ],
)
def test_a_servers_errors_come_back_as_they_were(
    servers: list[Server], error: LipwireError
) -> None:
    servers[0].network.error = error
    with backend_over(servers[0]) as backend:
        with pytest.raises(type(error)) as mouths:
            backend.mouths("anna", 0, windows())
        with pytest.raises(type(error)) as floats:
            backend.mouths_of("anna", np.zeros((1, 6, 320, 320), np.float32), windows())
    assert str(mouths.value) == str(floats.value) == str(error)
    assert len(servers[0].network.asked) == 2, "it was asked again for nothing"


def test_a_full_server_is_asked_again_when_it_said(servers: list[Server]) -> None:
    network = servers[0].network
    network.error, network.fail_times = Overloaded("full", retry_after_s=0.3), 1
    with backend_over(servers[0]) as backend:
        began = time.monotonic()
        ask(backend)
        assert time.monotonic() - began >= 0.3
    assert len(network.asked) == 2


def test_a_full_server_is_spared_where_another_has_room(servers: list[Server]) -> None:
    for server in servers[:2]:
        server.network.error = Overloaded("full", retry_after_s=2 * WAIT_S)
    with backend_over(*servers) as backend:
        assert until(lambda: up(backend) == 3)
        for number in range(8):
            ask(backend, f"user_{number}")  # which has no time to wait for a server that is full
    assert len(servers[2].network.asked) == 8


def test_overload_everywhere_is_said_with_the_time_to_wait(servers: list[Server]) -> None:
    for server in servers:
        server.network.error = Overloaded("50 requests wait", retry_after_s=2 * WAIT_S)
    with backend_over(*servers) as backend:
        began = time.monotonic()
        with pytest.raises(Overloaded, match="50 requests wait") as caught:
            ask(backend, timeout_s=WAIT_S)
        assert time.monotonic() - began < WAIT_S / 2, "waiting would have been for nothing"
    assert caught.value.retry_after_s == 2 * WAIT_S


def test_a_server_killed_under_load_costs_nobody_an_error(servers: list[Server]) -> None:
    stop, errors, done = threading.Event(), [], [0] * 6
    with backend_over(*servers) as backend:

        def client(number: int) -> None:
            choice = random.Random(number)
            while not stop.is_set():
                try:
                    ask(backend, f"user_{choice.randrange(30)}")
                    done[number] += 1
                except Exception as error:
                    errors.append(error)

        for server in servers:
            server.network.delay_s = 0.01
        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        assert until(lambda: sum(done) > 60)
        victim = servers[0]
        victim.kill()
        at_kill = sum(done)
        assert until(lambda: sum(done) > at_kill + 60)
        servers[0] = Server(victim.rpc.port)
        assert until(lambda: len(servers[0].network.asked) > 3), "it is back and gets work again"
        servers[1].kill()
        at_kill = sum(done)
        assert until(lambda: sum(done) > at_kill + 60)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_drained_server_costs_nobody_an_error(servers: list[Server]) -> None:
    with backend_over(*servers) as backend, ThreadPoolExecutor(4) as clients:
        for server in servers:
            server.network.delay_s = 0.02
        calls = [clients.submit(ask, backend, f"user_{number}") for number in range(80)]
        assert servers[1].network.entered.wait(WAIT_S)
        assert servers[1].rpc.drain(WAIT_S)
        for call in calls:
            call.result()


def test_a_call_that_was_lost_half_way_is_done_elsewhere(servers: list[Server]) -> None:
    with backend_over(*servers) as backend, ThreadPoolExecutor(1) as clients:
        assert until(lambda: up(backend) == 3)
        ask(backend)
        home = next(server for server in servers if server.network.asked)
        home.network.entered.clear()
        home.network.delay_s = 30.0
        call = clients.submit(ask, backend)
        assert home.network.entered.wait(WAIT_S)
        home.kill()
        call.result(WAIT_S)


def test_no_server_at_all_is_said_soon_and_without_addresses(servers: list[Server]) -> None:
    for server in servers:
        server.kill()
    with backend_over(*servers) as backend:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"^no inference server answers$"):
            ask(backend)
        assert time.monotonic() - began < WAIT_S / 2
        health = backend.health(timeout_s=WAIT_S)
    assert not health.healthy
    assert all(server.url in health.detail for server in servers)


def test_a_server_that_comes_while_a_call_waits_is_used(servers: list[Server]) -> None:
    for server in servers[:2]:
        server.kill()
    patient = RetryPolicy(100, first_pause_s=0.5, longest_pause_s=0.5)
    with (
        backend_over(*servers[:2], retries=patient) as backend,
        ThreadPoolExecutor(1) as clients,
    ):
        call = clients.submit(ask, backend)
        time.sleep(0.3)
        assert not call.done()
        servers[0] = Server(servers[0].rpc.port)
        call.result(WAIT_S)


def test_a_black_hole_costs_nobody_their_time(servers: list[Server]) -> None:
    with black_hole() as hole, backend_over(hole, servers[0], servers[1]) as backend:
        assert until(lambda: up(backend) == 2)
        for number in range(10):
            began = time.monotonic()
            ask(backend, f"user_{number}", timeout_s=WAIT_S)
            assert time.monotonic() - began < WAIT_S / 2


@pytest.mark.parametrize("timeout_s", [0.1, 0.4])
def test_a_deadline_is_kept_whatever_is_in_the_way(servers: list[Server], timeout_s: float) -> None:
    for server in servers:
        server.network.delay_s = 30.0

    def overrun_s(*urls: Server | str) -> float:
        with backend_over(*urls) as backend:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=f"within {timeout_s}"):
                ask(backend, timeout_s=timeout_s)
            return time.monotonic() - began - timeout_s

    with black_hole() as hole:
        for urls in ([servers[0]], servers, [hole]):
            overruns_s: list[float] = []
            until_s = time.monotonic() + WAIT_S
            while not overruns_s or (min(overruns_s) >= 0.05 and time.monotonic() < until_s):
                overruns_s.append(overrun_s(*urls))  # a busy machine is late: the best one counts
            assert -0.01 <= min(overruns_s) < 0.05, overruns_s
    assert all(
        left_s is not None and left_s <= timeout_s + 0.01  # gRPC rounds up to milliseconds
        for server in servers
        for left_s in server.network.timeouts
    ), "the server knows how long it has"


def test_the_configured_timeout_holds_where_the_caller_has_more(servers: list[Server]) -> None:
    servers[0].network.delay_s = 30.0
    with backend_over(servers[0], timeout_s=0.2) as backend:
        for given_s in (None, 20.0):
            with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
                ask(backend, timeout_s=given_s)


def test_who_cancels_frees_the_server(servers: list[Server]) -> None:
    servers[0].network.delay_s = 30.0
    caller = Call(None)

    def work(backend: RemoteBackend) -> None:
        token = _current.set(caller)
        try:
            ask(backend)
        finally:
            _current.reset(token)

    with backend_over(servers[0]) as backend, ThreadPoolExecutor(1) as clients:
        call = clients.submit(work, backend)
        assert servers[0].network.entered.wait(WAIT_S)
        caller.end()
        with pytest.raises(Cancelled):
            call.result(WAIT_S)
        assert servers[0].network.left_early.wait(WAIT_S)


def test_a_silent_server_loses_its_calls_to_others(servers: list[Server]) -> None:
    home = servers[0]
    with backend_over(*servers, check_every_s=3600) as backend, ThreadPoolExecutor(1) as clients:
        assert until(lambda: up(backend) == 3)
        names = (f"user_{number}" for number in range(100))
        model = next(name for name in names if backend._servers.fleet.order(name)[0] == home.url)
        home.network.delay_s = 30.0
        call = clients.submit(ask, backend, model)
        assert home.network.entered.wait(WAIT_S)

        # A process that is stopped: it neither answers checks nor closes its connections.
        connection = backend._servers._connections[home.url]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "check", lambda timeout_s, tell: tell("silent", "no answer"))
            for _ in range(FleetPolicy().silent_checks - 1):
                backend._servers._check(connection)
            assert not call.done(), "it may only be busy"

            def checked_once_more() -> bool:
                backend._servers._check(connection)
                return call.done()

            assert until(checked_once_more)
        call.result()
    assert home.network.left_early.wait(WAIT_S)


def test_an_answer_too_large_is_not_asked_for_again(servers: list[Server]) -> None:
    with backend_over(servers[0], max_message_bytes=2**20) as backend:
        with pytest.raises(InvalidInput, match="does not fit in a message"):
            backend.mouths("anna", 0, windows(8))
        with pytest.raises(InvalidInput, match="does not fit in a message"):
            backend.mouths("anna", 0, windows(40))
        ask(backend)
    assert len(servers[0].network.asked) == 2


def test_loading_goes_to_the_models_server_and_unloading_to_all(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        assert until(lambda: up(backend) == 3)
        status = backend.load("anna")
        ask(backend)
        holders = [server for server in servers if "anna" in server.network.held]
        assert [status.server] == [server.url for server in holders]
        for server in servers:
            server.network.held["anna"] = 1
        assert len(backend.models()) == 3
        assert backend.unload("anna")
        assert not any(server.network.held for server in servers)
        assert not backend.unload("anna")
        assert backend.models() == ()


def test_unloading_does_not_wait_for_a_server_that_is_gone(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        servers[2].kill()
        assert until(lambda: up(backend) == 2)
        servers[0].network.held["anna"] = 1
        assert backend.unload("anna")


def test_unloading_does_not_fail_with_a_server_that_just_went(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        assert until(lambda: up(backend) == 3)
        servers[0].network.held["anna"] = 1
        servers[2].kill()
        assert backend.unload("anna")
        assert up(backend) == 2


def test_a_server_that_came_back_is_told_again_to_unload(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    with backend_over(*servers) as backend:
        assert until(lambda: up(backend) == 3)
        servers[2].network.held["anna"] = 1
        tell_all, told = backend._servers.tell_all, 0

        def once_out(*arguments: Any) -> Any:
            nonlocal told
            told += 1
            if told == 1:
                return {server.url: Unavailable("was out") for server in servers}
            return tell_all(*arguments)

        monkeypatch.setattr(backend._servers, "tell_all", once_out)
        assert backend.unload("anna")
        assert (told, servers[2].network.held) == (2, {})


def test_health_is_the_sum_of_all_servers(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        health = backend.health(timeout_s=WAIT_S)
        assert (health.healthy, health.gpu_count, health.loaded_models) == (True, 3, 1)
        assert (health.max_models, health.version) == (300, "1.0")
        servers[0].kill()
        health = backend.health(timeout_s=WAIT_S)
        assert (health.healthy, health.gpu_count) == (True, 2)
        assert servers[0].url in health.detail


def test_health_tells_the_gpus_of_every_server_that_answers(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        ask(backend)
        gpus: tuple[GpuStatus, ...] = ()

        def all_told() -> bool:  # on a busy machine one may be late
            nonlocal gpus
            gpus = backend.health().gpus
            return len(gpus) == 3

        assert until(all_told)
        assert [gpu.server for gpu in gpus] == [server.url for server in servers]
        assert sorted(gpu.loaded_models for gpu in gpus) == [0, 0, 1]
        wanted = GpuStatus(
            2, "NVIDIA H200", 0, 150_000_000_000, 9_000_000_000, 0.25, server=servers[0].url
        )
        assert dataclasses.replace(gpus[0], loaded_models=0) == wanted
        servers[0].kill()
        left = [server.url for server in servers[1:]]
        assert until(lambda: [gpu.server for gpu in backend.health().gpus] == left)


def test_closing_ends_calls_and_leaves_no_thread_and_no_socket(servers: list[Server]) -> None:
    def sockets() -> int:
        count = 0
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed in the meantime
                count += "socket" in str(link.readlink())
        return count

    def own_threads() -> set[threading.Thread]:
        # The servers are in this process too, and their pools grow with what comes at one time.
        return {each for each in threading.enumerate() if "lipwire-rpc" not in each.name}

    def cycle() -> None:
        with backend_over(*servers) as backend:
            ask(backend)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    cycle()
    gc.collect()
    threads_before, sockets_before = own_threads(), sockets()
    for _ in range(5):
        cycle()
    assert until(lambda: sockets() <= sockets_before)
    assert until(lambda: own_threads() <= threads_before)

    servers[0].network.delay_s = 30.0
    with ThreadPoolExecutor(1) as clients:
        backend = RemoteBackend([servers[0].url])
        call = clients.submit(ask, backend)
        assert servers[0].network.entered.wait(WAIT_S)
        backend.close()
        backend.close()
        with pytest.raises(Unavailable, match="closed"):
            call.result(WAIT_S)
        with pytest.raises(Unavailable, match="closed"):
            ask(backend)
        assert not backend.health().healthy


@pytest.mark.parametrize(
    "urls",
    [[], ["http://a:1"], ["a"], ["a:0"], ["a:99999"], [":50051"], ["a:1", "a:1"], [" a:1"]],
)
def test_addresses_that_cannot_be_are_refused(urls: list[str]) -> None:
    with pytest.raises(InvalidInput, match="inference server"):
        RemoteBackend(urls)


def test_requests_that_cannot_be_are_refused_before_they_are_sent(servers: list[Server]) -> None:
    visual = np.zeros((2, 6, 320, 320), np.float32)
    with backend_over(servers[0]) as backend:
        for model_id, first, wrong in (
            ("", 0, windows()),
            ("x" * 300, 0, windows()),
            ("\ud800", 0, windows()),
            ("anna", -1, windows()),
            ("anna", 2**63, windows()),
            ("anna", 0, windows()[:0]),
            ("anna", 0, windows().astype(np.float64)),
            ("anna", 0, windows()[0]),
        ):
            with pytest.raises(InvalidInput):
                backend.mouths(model_id, first, wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            backend.mouths_of("anna", visual, windows(3))
    assert servers[0].network.asked == []


def test_a_revision_is_asked_for_and_its_refusal_comes_back(servers: list[Server]) -> None:
    network = servers[0].network
    windows = np.zeros((1, 32, 16, 16), np.float32)
    visual = np.zeros((1, 6, 320, 320), np.float32)
    with backend_over(*servers[:1]) as backend:
        backend.mouths("anna", 0, windows, revision="abc")
        backend.mouths_of("anna", visual, windows, revision="def")
        assert network.revisions == ["abc", "def"]
        network.error = AvatarChanged("another one is here")
        with pytest.raises(AvatarChanged, match="another one is here"):
            backend.mouths("anna", 0, windows, revision="abc")
    assert len(network.asked) == 3, "asking again cannot help"
