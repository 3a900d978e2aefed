"""Several servers in this process, each at its place among the others, as processes would be."""

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.plainbackend import PlainBackend
from tests.support.waiting import until

from lipwire.domain import AvatarInvalid, Call, DeadlineExceeded, LipwireError, Overloaded
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.generated import inference_pb2 as pb
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.server.server import RpcServer, ServerOptions, inference_service
from lipwire.rpc.services.inference import InferenceServicer
from lipwire.rpc.transport import connecting_within
from lipwire.rpc.workers import WorkerPlace, sharing, siblings, socket_folder
from lipwire.serving import BackendHealth, ModelStatus
from lipwire.wiring.listening import listening, telling_why_not

NAMES = ("anna", "bert")


@dataclass
class Networks(PlainBackend):
    """Loads when it may, or not at all."""

    may_load: threading.Event | None = None
    refusal: LipwireError | None = None
    asked: list[str] = field(default_factory=list)
    given_up: threading.Event = field(default_factory=threading.Event)

    def load(self, model_id: str, *, call: Call | None = None) -> ModelStatus:
        self.asked.append(model_id)
        if self.refusal is not None:
            raise self.refusal
        if self.may_load is not None:
            assert call is not None
            call.on_end(self.given_up.set)
            assert self.may_load.wait(30)
        return super().load(model_id, call=call)


@dataclass
class Process:
    networks: Networks
    server: RpcServer
    stub: Any
    end: Callable[[], None]


Start = Callable[[int, int], Process]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the sockets are."""
    with socket_folder() as path:
        yield path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """``start(index, count)``: a server at that place, on a port of its own, so that calls can be
    sent to it and no other."""
    with ExitStack() as stack:

        def process(index: int, count: int) -> Process:
            own = stack.enter_context(ExitStack())
            networks = Networks()
            service = inference_service(InferenceServicer(networks, names=lambda: NAMES))
            server = own.enter_context(
                listening(
                    [service],
                    ServerOptions(host="127.0.0.1"),
                    healthy=lambda: True,
                    place=WorkerPlace(folder, index, count),
                    parts=[service],
                )
            )
            channel = own.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
            return Process(networks, server, InferenceServiceStub(channel), own.close)

        yield process


def load(process: Process, name: str = "anna") -> pb.LoadModelResponse:
    answer: pb.LoadModelResponse = process.stub.LoadModel(
        pb.LoadModelRequest(model_id=name), timeout=60
    )
    return answer


def stats(process: Process) -> pb.GetModelStatsResponse:
    answer: pb.GetModelStatsResponse = process.stub.GetModelStats(
        pb.GetModelStatsRequest(), timeout=60
    )
    return answer


Within = Callable[[str, float], None]


@pytest.fixture(autouse=True)
def within(monkeypatch: pytest.MonkeyPatch) -> Within:
    """``within(method, seconds)``: what the other processes have to answer in. A minute, unless a
    test is about being late: machines may be busy."""

    def limit(method: str, longest_s: float) -> None:
        path = f"/inference.InferenceService/{method}"
        kind, how = sharing._METHODS[path]
        limited = dataclasses.replace(how, longest_s=longest_s, share=1.0)
        monkeypatch.setattr(sharing, "_METHODS", {**sharing._METHODS, path: (kind, limited)})

    for method in ("LoadModel", "UnloadModel", "ListModels", "GetModelStats", "Health"):
        limit(method, 60.0)
    return limit


def test_whoever_is_asked_all_do_it_once_and_one_answer_is_about_all(start: Start) -> None:
    processes = [start(index, 3) for index in range(3)]
    for asked in processes:
        for process in processes:
            process.networks.asked.clear()
        answer = load(asked)
        assert (answer.success, answer.model.loaded_in, answer.detail) == (True, 3, "")
        assert [process.networks.asked for process in processes] == [["anna"]] * 3
        (row,) = stats(asked).models
        assert (row.model_id, row.memory_bytes, row.uses, row.loaded_in) == ("anna", 3000, 3, 3)
    gone = processes[1].stub.UnloadModel(pb.UnloadModelRequest(model_id="anna"))
    assert (gone.success, gone.unloaded) == (True, True)
    assert [process.networks.loaded for process in processes] == [set()] * 3


def test_lists_and_health_are_about_all(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)
    second.networks.loaded.add("bert")
    listed = first.stub.ListModels(pb.ListModelsRequest())
    rows = [(row.model_id, row.loaded, row.loaded_in) for row in listed.models]
    assert rows == [("anna", False, 0), ("bert", True, 1)]
    assert listed.workers == 2
    health = first.stub.Health(pb.HealthRequest())
    assert (health.healthy, health.workers) == (True, 2)
    assert (health.loaded_models, health.max_models) == (1, 2000)
    second.networks.is_healthy = False
    assert not first.stub.Health(pb.HealthRequest()).healthy


def test_who_is_not_there_is_named_and_is_asked_again_as_soon_as_it_is(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)
    second.end()
    answer = load(first)
    assert (answer.success, answer.detail) == (True, "worker 1 is not there")
    told = stats(first)
    assert (told.workers, told.loaded_models, told.detail) == (1, 1, "worker 1 is not there")
    again = start(1, 2)
    answer = load(first)
    assert (answer.success, answer.detail) == (True, "")
    assert again.networks.loaded == {"anna"}


def test_a_socket_that_a_killed_process_left_behind_is_taken_over(
    start: Start, folder: Path
) -> None:
    first = start(0, 2)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(WorkerPlace(folder, 1, 2).socket()))
    assert load(first).detail == "worker 1 is not there"
    start(1, 2)
    assert load(first).detail == ""


def test_one_that_fails_is_named_and_the_others_have_done_it(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)
    second.networks.refusal = AvatarInvalid("its network has another shape")
    answer = load(first)
    assert (answer.success, answer.error_code) == (False, "FAILED_PRECONDITION")
    wanted = "worker 1: its network has another shape; it is done in 1 of 2 processes"
    assert answer.error == wanted
    assert load(second).error == wanted
    assert first.networks.loaded == {"anna"}
    unknown = load(first, "zoe")
    assert unknown.error.startswith("worker 0: there is no model 'zoe'")  # others, other reasons


def test_overload_of_one_is_a_status_that_says_when_to_come_back(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)
    second.networks.refusal = Overloaded("everything is in use", retry_after_s=0.75)
    with pytest.raises(grpc.RpcError) as caught:
        load(first)
    error = error_of_call(caught.value)
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 0.75
    assert str(error) == "worker 1: everything is in use; it is done in 1 of 2 processes"


def test_a_defect_in_one_is_told_without_what_is_inside(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)

    def broken(*_: object, **__: object) -> tuple[ModelStatus, ...]:
        raise RuntimeError("secret")

    second.networks.models = broken  # type: ignore[method-assign]
    told = stats(first)
    assert told.detail.startswith("worker 1: INTERNAL: internal error; the server's log has it")
    assert "secret" not in told.detail


@pytest.mark.slow
def test_a_slow_one_is_waited_for_no_longer_than_there_is_time(
    start: Start, within: Within
) -> None:
    within("LoadModel", 0.3)
    within("GetModelStats", 0.3)
    first, second = start(0, 2), start(1, 2)
    second.networks.may_load = threading.Event()
    with pytest.raises(grpc.RpcError) as caught:
        load(first)
    error = error_of_call(caught.value)
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "worker 1: no answer within 0.3 s; it is done in 1 of 2 processes"
    blocked = threading.Event()

    def dawdling(*_: object, **__: object) -> tuple[ModelStatus, ...]:
        assert blocked.wait(30)
        return ()

    second.networks.models = dawdling  # type: ignore[method-assign]
    told = stats(first)
    assert (told.workers, told.loaded_models) == (1, 1)
    assert told.detail == "worker 1: no answer within 0.3 s"
    blocked.set()
    second.networks.may_load.set()


@pytest.mark.slow
def test_one_that_hangs_is_not_taken_for_one_that_is_gone(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_ACCEPTED_WITHIN_S", 0.5)
    monkeypatch.setattr(siblings, "_OPTIONS", (*siblings._OPTIONS[:-1], connecting_within(0.5)))
    first = start(0, 2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(WorkerPlace(folder, 1, 2).socket()))
        silent.listen()
        with pytest.raises(grpc.RpcError) as caught:
            load(first)
    error = error_of_call(caught.value)
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "worker 1: no sign of life within 0.5 s; it is done in 1 of 2 processes"


def test_when_the_caller_goes_the_others_stop_too(start: Start) -> None:
    first, second = start(0, 2), start(1, 2)
    for process in (first, second):
        process.networks.may_load = threading.Event()
    call = first.stub.LoadModel.future(pb.LoadModelRequest(model_id="anna"))
    until(lambda: call.done() or (first.networks.asked and second.networks.asked))
    assert not call.done()
    call.cancel()
    assert second.networks.given_up.wait(30)
    for process in (first, second):
        assert process.networks.may_load is not None
        process.networks.may_load.set()


def test_what_is_asked_on_a_socket_is_not_passed_on(start: Start, folder: Path) -> None:
    first, second = start(0, 2), start(1, 2)
    with grpc.insecure_channel(f"unix:{WorkerPlace(folder, 1, 2).socket()}") as channel:
        stub: Any = InferenceServiceStub(channel)
        assert stub.LoadModel(pb.LoadModelRequest(model_id="anna"), timeout=30).success
    assert (first.networks.asked, second.networks.asked) == ([], ["anna"])


def test_why_no_mouths_can_be_made_is_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    said = iter(["refused", "refused", "no key", "refused", "", "refused"])

    def health() -> BackendHealth:
        detail = next(said)
        return BackendHealth(not detail, 0, 0, 0, "", detail)

    healthy = telling_why_not(health)
    assert [healthy() for _ in range(6)] == [False] * 4 + [True, False]
    assert [record.getMessage() for record in caplog.records] == [
        "no mouths can be made: refused",
        "no mouths can be made: no key",
        "no mouths can be made: refused",
    ]
