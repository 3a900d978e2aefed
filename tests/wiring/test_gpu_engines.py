"""Servers over engines that work as on a GPU, in memory of the processor's that runs out and fails
like one's. What the driver says is all that is made up."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.hostmemory import HostMemory
from tests.support.waiting import WAIT_S, until

from lipwire.avatars import ALWAYS, Avatar, compile_avatar, read_package
from lipwire.avatars.compiled.parts import FOR_GPU
from lipwire.config import load_inference_config
from lipwire.domain import Call, Float32Array, Unavailable
from lipwire.engine import Device, Engine, GpuInfo, GpuState, HotTier, Tuning
from lipwire.engine.device import DeviceLost
from lipwire.rpc.backends import RemoteBackend
from lipwire.scheduling import Observer
from lipwire.wiring import backends, choosing, registries
from lipwire.wiring.servers import open_inference_server

NAMES = ("a", "b", "c", "d")
SIZE_BYTES = 256 * 2**20
WINDOWS: Float32Array = np.random.default_rng(4).normal(0, 1, (3, 32, 16, 16)).astype(np.float32)


@dataclass
class Gpus:
    """Two GPUs."""

    memories: list[HostMemory] = field(
        default_factory=lambda: [HostMemory(SIZE_BYTES), HostMemory(SIZE_BYTES)]
    )
    tunings: list[Tuning] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return tuple(GpuInfo(index, "NVIDIA A", SIZE_BYTES) for index in range(2))

    def state(self, index: int) -> GpuState:
        if self.memories[index].lost:
            raise DeviceLost(f"GPU {index} is lost")
        free_bytes = self.memories[index].free_bytes()
        return GpuState(SIZE_BYTES - free_bytes, free_bytes, 0.5)

    def make(
        self,
        *,
        threads: int | None = None,
        device: Device,
        tuning: Tuning | None = None,
        hot: HotTier | None = None,
    ) -> Engine:
        """Stands in for ``Engine`` of a GPU."""
        assert device.kind == "cuda"
        assert tuning is not None
        assert hot is None
        self.tunings.append(tuning)
        engine = Engine(threads=threads, tuning=tuning, memory=self.memories[device.index])
        self.engines.append(engine)
        return engine


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    gpus = Gpus()
    monkeypatch.setattr(choosing, "cuda_problem", lambda device: None)
    monkeypatch.setattr(choosing, "open_driver", lambda: gpus)
    monkeypatch.setattr(choosing, "Engine", gpus.make)
    monkeypatch.setattr(registries, "CHECK_GPUS_EVERY_S", 0.05)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return gpus


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for seed, name in enumerate(NAMES):
        make_package(folder / name, frames=4, seed=seed)
    return folder


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, Any]:
    """The mouths of frames 0 to 2, made by such an engine without a server."""
    with Engine(threads=1, memory=HostMemory(SIZE_BYTES)) as engine:
        found = {}
        for name in NAMES:
            with Avatar.open(root / name) as avatar:
                crops = avatar.crops(0, len(WINDOWS))
            compiled = compile_avatar(read_package(root / name), parts=ALWAYS | FOR_GPU)
            model = engine.load(compiled.network, for_gpu=compiled.network_for_gpu)
            found[name] = engine.infer(model, crops, WINDOWS)
    assert len({mouths.tobytes() for mouths in found.values()}) == len(NAMES)
    return found


@pytest.fixture
def serve(gpus: Gpus, root: Path, tmp_path: Path) -> Iterator[Callable[[str], RemoteBackend]]:
    """Inference servers on both GPUs, with what is said of them under ``gpus``."""
    with ExitStack() as stack:

        def start(keys: str) -> RemoteBackend:
            file = tmp_path / "inference.yaml"
            file.write_text(f"models_root: {root}\ngpus: {{{keys}}}\n")
            here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
            server = stack.enter_context(
                open_inference_server(
                    load_inference_config(file, here), tell=lambda heading, facts: None
                )
            )
            return stack.enter_context(
                RemoteBackend([f"127.0.0.1:{server.port}"], max_retries=0, timeout_s=WAIT_S)
            )

        yield start


@pytest.fixture
def backend(serve: Callable[[str], RemoteBackend]) -> RemoteBackend:
    """A server that may use 0.125 GiB of each."""
    return serve("memory_gb_per_gpu: 0.125")


@pytest.mark.slow
def test_networks_are_spread_over_the_gpus_memory(
    gpus: Gpus, backend: RemoteBackend, expected: dict[str, Any]
) -> None:
    for name, index in zip(NAMES, (0, 1, 0, 1), strict=True):
        mouths = backend.mouths(name, 0, WINDOWS)
        assert mouths.gpu_id == index
        np.testing.assert_array_equal(mouths.pixels, expected[name])
    assert all(memory.free_bytes() < SIZE_BYTES for memory in gpus.memories)
    assert [tuning.device_bytes for tuning in gpus.tunings] == [2**27, 2**27]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ("count: 1, crops_gb_per_gpu: 0.5", 4),
        ("count: 1, crops_gb_per_gpu: 0.001", 0),  # 1.07 MB: three crops and a half
        pytest.param("count: 1", 4, marks=pytest.mark.slow),
        pytest.param("count: 1, crops_gb_per_gpu: 0", 0, marks=pytest.mark.slow),
    ],
)
def test_crops_stay_on_the_gpu_as_far_as_they_may(
    gpus: Gpus,
    serve: Callable[[str], RemoteBackend],
    expected: dict[str, Any],
    keys: str,
    kept: int,
) -> None:
    """gpus.crops_gb_per_gpu, of avatars of four frames each."""
    backend = serve(keys)
    for _ in range(2):
        for name in NAMES:
            np.testing.assert_array_equal(backend.mouths(name, 0, WINDOWS).pixels, expected[name])
    stats = gpus.engines[0].crops
    assert stats is not None
    assert (stats.avatars, stats.device_bytes) == (kept, kept * 4 * 320 * 320 * 3)
    assert stats.hits == kept * len(WINDOWS)
    for name in NAMES:
        backend.unload(name)
    use = gpus.engines[0].memory_use
    assert use is not None
    assert use.device == 0


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [("count: 1", True), ("count: 1, kernels: true", True), ("count: 1, kernels: false", False)],
)
def test_engines_use_kernels_of_our_own_unless_told_not_to(
    gpus: Gpus, serve: Callable[[str], RemoteBackend], keys: str, wanted: bool
) -> None:
    serve(keys)
    assert [tuning.kernels for tuning in gpus.tunings] == [wanted]


@pytest.mark.parametrize(("configured", "streams", "workers"), [(8, 2, 3), (2, 2, 2), (1, 1, 1)])
def test_no_worker_takes_what_could_share_a_batch_to_wait_for_a_stream(
    gpus: Gpus, tmp_path: Path, configured: int, streams: int, workers: int
) -> None:
    file = tmp_path / "inference.yaml"
    file.write_text(f"gpus: {{count: 1}}\nserver: {{worker_count_per_gpu: {configured}}}\n")
    (chosen,) = choosing.choose_devices(load_inference_config(file, {})).devices
    with choosing.make_engine(chosen) as engine:
        assert gpus.tunings[-1].streams == streams
        with backends._scheduler(engine, chosen, 10, Observer()) as scheduler:
            assert scheduler.stats().workers == workers


def test_the_share_of_each_process_is_its_part_of_the_crops_too(gpus: Gpus, tmp_path: Path) -> None:
    file = tmp_path / "inference.yaml"
    file.write_text("gpus: {count: 1, crops_gb_per_gpu: 1}\nserver: {workers: 4}\n")
    (chosen,) = choosing.choose_devices(load_inference_config(file, {})).devices
    assert chosen.crop_bytes == 2**28


@pytest.mark.slow
def test_the_least_loaded_gpu_is_that_with_least_on_it_not_beside_it(
    gpus: Gpus, tmp_path: Path, root: Path, make_package: Callable[..., Path]
) -> None:
    """One avatar has many frames, which are mapped into the host's memory: on its GPU it takes no
    more than any other."""
    folder = tmp_path / "root"
    for name in NAMES[1:]:
        shutil.copytree(root / name, folder / name)
    make_package(folder / "a", frames=12, size=(640, 480), seed=0, extension="jpg")
    file = tmp_path / "inference.yaml"
    file.write_text(f"models_root: {folder}\ngpus: {{assignment_strategy: least-loaded}}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    config = load_inference_config(file, here)
    with (
        open_inference_server(config, tell=lambda heading, facts: None) as server,
        RemoteBackend([f"127.0.0.1:{server.port}"], timeout_s=60) as backend,
    ):
        homes = [backend.mouths(name, 0, WINDOWS).gpu_id for name in NAMES]
    assert homes == [0, 1, 0, 1]


@pytest.mark.slow
def test_a_gpu_lost_under_load_costs_no_client_an_error(
    gpus: Gpus, backend: RemoteBackend, expected: dict[str, Any]
) -> None:
    seen: Counter[int] = Counter()
    over = threading.Event()

    def client(number: int) -> None:
        while not over.is_set():
            name = NAMES[number % len(NAMES)]
            number += 1
            mouths = backend.mouths(name, 0, WINDOWS)
            np.testing.assert_array_equal(mouths.pixels, expected[name])
            seen[mouths.gpu_id] += 1

    with ThreadPoolExecutor(6) as threads:
        clients = [threads.submit(client, number) for number in range(6)]
        try:
            until(lambda: min(seen[0], seen[1]) > 5, futures=clients)
            gpus.memories[0].lost = True
            after = seen[1]
            until(lambda: seen[1] > after + 20, futures=clients)
        finally:
            over.set()
        for future in clients:
            future.result(WAIT_S)
    health = backend.health(call=Call(WAIT_S))
    assert (health.healthy, health.gpu_count) == (True, 1)
    gpus.memories[1].lost = True
    with pytest.raises(Unavailable):
        backend.mouths("a", 0, WINDOWS)
    assert not backend.health(call=Call(WAIT_S)).healthy
