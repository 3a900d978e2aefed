"""Against real servers on loopback ports, whose networks are replaced by something predictable."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.rpc.inferenceservers import Server, ask, backend_over, black_hole, up, windows
from tests.support.waiting import WAIT_S, until

from lipwire.domain import (
    AvatarChanged,
    AvatarInvalid,
    Call,
    Cancelled,
    CropsNeeded,
    DeadlineExceeded,
    InvalidInput,
    LipwireError,
    NotFound,
    Revision,
    Service,
    StorageFailed,
    UInt8Array,
    Unavailable,
    Visual,
)
from lipwire.domain.tracing import Trace, traced
from lipwire.rpc.backends import RemoteBackend


def test_mouths_arrive_as_they_were_drawn(servers: list[Server]) -> None:
    with backend_over(servers[0]) as backend:
        mouths = ask(backend)
        assert mouths.pixels.dtype == np.uint8
        assert (mouths.gpu_id, mouths.inference_ms) == (2, 1.5)


def test_the_guides_form_arrives_as_it_was_made(servers: list[Server]) -> None:
    visual = np.random.default_rng(0).random((2, 6, 320, 320), np.float32).view(Visual)
    with backend_over(servers[0]) as backend:
        mouths = backend.mouths_of("anna", visual, windows(2))
    np.testing.assert_array_equal(mouths.values, visual[:, :3] * np.float32(0.5))
    assert (mouths.gpu_id, mouths.inference_ms) == (2, 2.5)


@pytest.mark.slow
def test_a_model_always_goes_to_one_server_and_models_spread(servers: list[Server]) -> None:
    with backend_over(*servers) as backend:
        until(lambda: up(backend) == 3)
        for _ in range(3):
            for number in range(40):
                ask(backend, f"user_{number}")
    homes = [set(server.network.asked) for server in servers]
    assert all(homes)
    assert sum(map(len, homes)) == 40, "no model was asked of two servers"
    assert sum(len(server.network.asked) for server in servers) == 120


@pytest.mark.usefixtures("patient_checks")
def test_metadata_has_the_models_name_for_balancers_and_the_requests_id() -> None:
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
            assert not any("x-request-id" in metadata for metadata in seen)
            with traced(Trace("mine-1", 31 * "0" + "1")):
                backend.health()
                for ask in (backend.models, partial(backend.unload, "anna")):
                    with pytest.raises(LipwireError):
                        ask()
        server.stop(0).wait()
    named = [metadata.get("x-model-id") for metadata in seen]
    assert named == ["anna", "Zo%C3%AB%20100%25/x", None, None, "anna"]
    assert [metadata["x-request-id"] for metadata in seen[2:]] == ["mine-1"] * 3


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
            backend.mouths_of(
                "anna", np.zeros((1, 6, 320, 320), np.float32).view(Visual), windows()
            )
    assert str(mouths.value) == str(floats.value) == str(error)
    assert len(servers[0].network.asked) == 2, "it was asked again for nothing"


@pytest.mark.slow
@pytest.mark.parametrize("timeout_s", [0.1, 0.4])
def test_a_deadline_is_kept_whatever_is_in_the_way(servers: list[Server], timeout_s: float) -> None:
    for server in servers:
        server.network.delay_s = 2 * WAIT_S
    with black_hole() as hole:
        for urls in ([servers[0]], servers, [hole]):
            with backend_over(*urls) as backend:
                began_s = time.monotonic()
                with pytest.raises(DeadlineExceeded, match=r"within 0\.\d+ s"):
                    ask(backend, call=Call(timeout_s))
                # Not sooner; and later only because the machine is busy, not for the server.
                assert timeout_s - 0.01 <= time.monotonic() - began_s < WAIT_S
    assert all(
        left_s is not None and left_s <= timeout_s + 0.01  # gRPC rounds up to milliseconds
        for server in servers
        for left_s in server.network.timeouts
    ), "the server knows how long it has"


@pytest.mark.slow
def test_the_configured_timeout_holds_where_the_caller_has_more(servers: list[Server]) -> None:
    servers[0].network.delay_s = 30.0
    with backend_over(servers[0], timeout_s=0.2) as backend:
        for given_s in (None, 20.0):
            with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
                ask(backend, call=Call(given_s))


def test_servers_are_told_the_class_and_the_tenant(servers: list[Server]) -> None:
    told: list[tuple[Service, str]] = [("live", "acme"), ("batch", ""), ("render", "ümlaut")]
    with backend_over(servers[0]) as backend:
        for service, tenant in told:
            ask(backend, call=Call(WAIT_S, service=service, tenant=tenant))
        ask(backend)
    assert servers[0].network.asked_by == [*told, ("batch", "")]


def test_who_cancels_frees_the_server(servers: list[Server]) -> None:
    servers[0].network.delay_s = 30.0
    caller = Call(None)

    def work(backend: RemoteBackend) -> None:
        ask(backend, call=caller)

    with backend_over(servers[0]) as backend, ThreadPoolExecutor(1) as clients:
        call = clients.submit(work, backend)
        assert servers[0].network.entered.wait(WAIT_S)
        caller.end()
        with pytest.raises(Cancelled):
            call.result(WAIT_S)
        assert servers[0].network.left_early.wait(WAIT_S)


def test_an_answer_too_large_is_not_asked_for_again(servers: list[Server]) -> None:
    with backend_over(servers[0], max_message_bytes=2**20) as backend:
        with pytest.raises(InvalidInput, match="does not fit in a message"):
            backend.mouths("anna", 0, windows(8))
        with pytest.raises(InvalidInput, match="does not fit in a message"):
            backend.mouths("anna", 0, windows(40))
        ask(backend)
    assert len(servers[0].network.asked) == 2


@pytest.mark.slow
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
    until(lambda: sockets() <= sockets_before)
    until(lambda: own_threads() <= threads_before)

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
    visual = np.zeros((2, 6, 320, 320), np.float32).view(Visual)
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
        for model_id in ("x" * 300, "\ud800"):
            with pytest.raises(InvalidInput):
                backend.models(model_id)
    assert servers[0].network.asked == []


def test_a_revision_is_asked_for_and_its_refusal_comes_back(servers: list[Server]) -> None:
    network = servers[0].network
    windows = np.zeros((1, 32, 16, 16), np.float32)
    visual = np.zeros((1, 6, 320, 320), np.float32).view(Visual)
    with backend_over(*servers[:1]) as backend:
        backend.mouths("anna", 0, windows, revision=Revision("abc", "d"))
        backend.mouths_of("anna", visual, windows, revision=Revision("def", "g"))
        assert network.revisions == [Revision("abc", "d"), Revision("def", "g")]
        network.error = AvatarChanged("another one is here")
        with pytest.raises(AvatarChanged, match="another one is here"):
            backend.mouths("anna", 0, windows, revision=Revision("abc", "d"))
    assert len(network.asked) == 3, "asking again cannot help"


def test_crops_are_sent_to_servers_that_ask_for_them(servers: list[Server]) -> None:
    """And not to others; a server that has asked is not asked first again."""
    network = servers[0].network
    pixels = np.random.default_rng(1).integers(0, 256, (2, 320, 320, 3), np.uint8)
    made: list[int] = []

    def crops() -> UInt8Array:
        made.append(1)
        return pixels

    with backend_over(*servers[:1]) as backend:
        ask(backend)
        backend.mouths("anna", 4, windows(2), crops=crops)
        assert network.crops == [None, None]
        network.needs_crops = True
        with pytest.raises(CropsNeeded):
            backend.mouths("anna", 4, windows(2))
        for _ in range(2):
            backend.mouths("anna", 4, windows(2), crops=crops)
        sent = [got for got in network.crops if got is not None]
        assert len(made) == len(sent) == 2
        assert all(np.array_equal(got, pixels) for got in sent)
        assert len(network.crops) == 2 + 1 + 2 + 1, "once without, then with"
        backend.mouths("bert", 4, windows(2), crops=crops)
        assert len(made) == 3
        network.needs_crops = False
        backend.mouths("carl", 4, windows(2), crops=crops)
        assert len(made) == 3


def test_crops_of_another_size_are_refused(servers: list[Server]) -> None:
    servers[0].network.needs_crops = True
    with backend_over(*servers[:1]) as backend:
        backend._crops_wanted.add(servers[0].url, "anna")
        with pytest.raises(InvalidInput, match=r"^crops have 307200 bytes; allowed are 614400"):
            backend.mouths(
                "anna", 4, windows(2), crops=lambda: np.zeros((1, 320, 320, 3), np.uint8)
            )
