"""Real processes that share a port: what is asked of one is true of all."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.cli.conftest import serving_in
from tests.support.waiting import until

from lipwire.cli.servers.process import worker_arguments
from lipwire.domain import DeadlineExceeded, NotFound, Unavailable
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.workers import WorkerPlace

pytestmark = pytest.mark.slow  # three processes each

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire, Served, Serving

WINDOW = bytes(32 * 16 * 16 * 4)


@pytest.fixture(scope="module")
def models_root(compiled_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the avatars ``sanders`` and ``zoe``."""
    root = tmp_path_factory.mktemp("models")
    for name in ("sanders", "zoe"):
        shutil.copytree(compiled_template, root / name)
    return root


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def serve(stack: ExitStack, models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Both servers in one, three processes. Nobody ends any of them."""
    return started(serving_in(stack, tmp_path_factory.mktemp("serve")), models_root, "serve", 3)


def started(serving: Serving, models_root: Path, command: str, workers: int, *more: Any) -> Served:
    served = serving(
        command, "--models-root", models_root, "--workers", workers, *more, "--port", 0
    )
    served.wait_for("Ready", 180)
    return served


def address_of(served: Served) -> str:
    return f"127.0.0.1:{served.wait_for(r'Listening on port ([0-9]+)')}"


def workers_of(served: Served) -> dict[int, int]:
    """Process ids by the numbers of the workers."""
    parent = served.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(socket_of(int(pid)).stem): int(pid) for pid in children}


def socket_of(pid: int) -> Path:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return Path(words[words.index("--worker") + 1])


def parts_of(served: Served) -> dict[int, compositing_pb2.GetModelStatsResponse]:
    """What every process says of itself alone, by its number."""
    found = {}
    for number, pid in workers_of(served).items():
        with grpc.insecure_channel(f"unix:{socket_of(pid)}") as channel:
            stub: Any = CompositingServiceStub(channel)
            request = compositing_pb2.GetModelStatsRequest()
            found[number] = stub.GetModelStats(request, timeout=60)
    return found


def everybody_told(ask: Callable[[], Any]) -> Any:
    """The first answer that is of all processes: on a busy machine one may be late."""
    answers: list[Any] = []

    def whole() -> bool:
        answers.append(ask())
        return not answers[-1].detail

    until(whole)
    return answers[-1]


def test_what_protects_several_processes_is_said_once(serve: Served) -> None:
    assert serve.wait_for(r"Asked by: (.+)") == "anybody"
    assert serve.text.count("Asked by") == 1


def test_an_avatar_is_loaded_and_unloaded_in_every_process(serve: Served) -> None:
    with CompositingConnection(address_of(serve)) as connection:
        connection.load("sanders", 60)
        parts = parts_of(serve)
        assert sorted(parts) == [0, 1, 2]
        for part in parts.values():
            assert ([row.model_id for row in part.models], part.loaded_networks) == (["sanders"], 1)
        assert connection.unload("sanders", 60).unloaded
        for part in parts_of(serve).values():
            assert (part.loaded_models, part.loaded_networks) == (0, 0)
        assert not connection.unload("sanders", 60).unloaded
        with pytest.raises(NotFound, match=r"^no avatar named sandars; the nearest known is"):
            connection.load("sandars", 60)


def test_statistics_are_sums_whoever_is_asked(serve: Served) -> None:
    request = compositing_pb2.CompositeBatchRequest(
        model_id="zoe", audio_features=WINDOW, batch_size=2
    )
    for _ in range(8):  # connections, so that the kernel chooses anew
        with CompositingConnection(address_of(serve)) as connection:
            connection.composite(request, 60)
    parts = parts_of(serve)
    for _ in range(4):
        with CompositingConnection(address_of(serve)) as connection:
            told = everybody_told(lambda: connection.stats(timeout_s=60))
        assert told.workers == 3
        for name in ("hits", "misses", "memory_bytes", "max_models", "loaded_models"):
            assert getattr(told, name) == sum(getattr(part, name) for part in parts.values()), name
        (row,) = (row for row in told.models if row.model_id == "zoe")
        rows = [row for part in parts.values() for row in part.models if row.model_id == "zoe"]
        assert row.uses == sum(row.uses for row in rows) == 8
        assert row.loaded_in == len(rows)
        assert told.loaded_networks == sum(part.loaded_networks for part in parts.values())


def test_the_command_line_says_in_how_many_processes(serve: Served, lipwire: Lipwire) -> None:
    at = ("-a", address_of(serve))
    assert lipwire("models", "load", "sanders", *at).code == 0
    listed = lipwire("models", "list", *at, "--json")
    rows = {row["model_id"]: row["loaded_in"] for row in json.loads(listed.out)}
    assert rows["sanders"] == (2 if listed.err else 3)  # one may be late
    assert "avatars loaded in " in lipwire("models", "stats", *at).out


def test_a_dead_process_is_named_until_another_took_its_place(
    serving: Serving, models_root: Path, lipwire: Lipwire
) -> None:
    served = started(serving, models_root, "serve", 2)
    address = address_of(served)
    with CompositingConnection(address) as connection:
        connection.load("sanders", 60)
    before = workers_of(served)
    # Stopped first: what is started in its place must not be there before it is looked at.
    os.kill(served.process.pid, signal.SIGSTOP)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: missing(address) == "worker 0 is not there")
    with CompositingConnection(address) as connection:
        assert connection.load("zoe", 60).detail == "worker 0 is not there"
        assert lipwire("models", "unload", "zoe", "-a", address).err == (
            "note: worker 0 is not there\n"
        )
        os.kill(served.process.pid, signal.SIGCONT)
        told = everybody_told(lambda: connection.stats(timeout_s=60))
        assert (told.workers, told.loaded_models) == (2, 1)
        connection.load("sanders", 60)
    assert workers_of(served)[0] != before[0]
    assert [part.loaded_models for part in parts_of(served).values()] == [1, 1]
    folder = socket_of(before[1]).parent
    assert served.end() == 0
    assert not folder.exists()


def missing(address: str) -> str:
    """Who is not in the statistics; empty while the kernel still gives connections to the dying."""
    with CompositingConnection(address) as connection, suppress(Unavailable):
        return connection.stats(timeout_s=60).detail
    return ""


def test_a_process_that_hangs_is_named_and_keeps_nobody(
    serving: Serving, models_root: Path
) -> None:
    served = started(serving, models_root, "serve", 2)
    workers = workers_of(served)
    os.kill(workers[1], signal.SIGSTOP)
    try:
        # Asked on the socket of the port that is alive: connections of the other one would hang.
        with ExitStack() as stack:
            connection = awake(address_of(served), stack)
            told = connection.stats(timeout_s=60)
            assert (told.workers, told.detail) == (1, "worker 1: no answer within 2 s")
    finally:
        os.kill(workers[1], signal.SIGCONT)
    with CompositingConnection(address_of(served)) as connection:
        told = everybody_told(lambda: connection.stats(timeout_s=60))
        assert told.workers == 2
    assert served.end() == 0


def awake(address: str, stack: ExitStack) -> CompositingConnection:
    """A connection to a process that answers; the kernel may give us one that does not."""
    while True:
        with ExitStack() as trial:
            connection = trial.enter_context(CompositingConnection(address))
            # Closed before the next one: gRPC's channels to one address share what is open.
            with suppress(DeadlineExceeded, Unavailable):
                connection.health(timeout_s=5)
                stack.push(trial.pop_all())
                return connection


def test_both_servers_apart_with_processes_each(serving: Serving, models_root: Path) -> None:
    inference = started(serving, models_root, "inference-server", 2)
    inference_at = address_of(inference)
    frames = started(serving, models_root, "compositing-server", 2, "--inference", inference_at)
    with (
        CompositingConnection(address_of(frames)) as connection,
        grpc.insecure_channel(inference_at) as channel,
    ):
        networks: Any = InferenceServiceStub(channel)
        connection.load("sanders", 60)
        told = everybody_told(lambda: connection.stats(timeout_s=60))
        assert (told.workers, told.loaded_models) == (2, 2)
        request = inference_pb2.GetModelStatsRequest()
        there = everybody_told(lambda: networks.GetModelStats(request, timeout=60))
        (row,) = there.models
        assert (there.workers, row.model_id, row.loaded_in) == (2, "sanders", 2)
        assert told.loaded_networks == 2
        assert connection.unload("sanders", 60).unloaded
        there = everybody_told(lambda: networks.GetModelStats(request, timeout=60))
        assert there.loaded_models == 0
        assert [part.loaded_models for part in parts_of(frames).values()] == [0, 0]
        health = connection.health(60)
        assert health.healthy
    assert (frames.end(), inference.end()) == (0, 0)


def test_processes_whose_parent_is_killed_leave_no_folder(
    serving: Serving, models_root: Path
) -> None:
    served = started(serving, models_root, "serve", 2)
    folder = socket_of(workers_of(served)[0]).parent
    assert folder.is_dir()
    served.end(signal.SIGKILL)
    until(lambda: not folder.exists())


def test_a_worker_is_told_what_its_parent_found_out() -> None:
    place = WorkerPlace(Path("/run/x"), 1, 3)
    given = [
        "serve",
        "--port",
        "0",
        "--workers",
        "3",
        "--ready-fd=5",
        "--host",
        "h",
        "--web-port",
        "0",
    ]
    assert worker_arguments(given, place, 4711) == [
        *("serve", "--workers", "3", "--host", "h"),
        *("--port", "4711", "--workers", "3", "--worker", "/run/x/1.sock"),
    ]
