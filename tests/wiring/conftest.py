"""What tests of servers with GPUs share; ``gpumachine`` says what the machine is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.madeonce import made_once
from tests.support.waiting import WAIT_S
from tests.wiring.gpumachine import NAMES, Machine, Running, config

from lipwire.rpc.backends import RemoteBackend
from lipwire.wiring import choosing, registries
from lipwire.wiring.servers import open_inference_server


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with CUDA and three GPUs."""
    machine = Machine()
    monkeypatch.setattr(choosing, "cuda_problem", lambda device: machine.problem)
    monkeypatch.setattr(choosing, "open_driver", lambda: machine.driver)
    monkeypatch.setattr(registries, "CHECK_GPUS_EVERY_S", 0.05)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # else the servers set it for good
    return machine


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    """Avatars a, b, c and d, of which a is larger than the others together, and one as large."""

    def make(folder: Path) -> None:
        for seed, name in enumerate((*NAMES, "large")):
            large = {"frames": 24, "size": (640, 480), "extension": "jpg"}
            make_package(
                folder / name, seed=seed, **(large if name in ("a", "large") else {"frames": 4})
            )

    return made_once(tmp_path_factory, "wiring-root", make)


@pytest.fixture
def serve(machine: Machine, root: Path, tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    with ExitStack() as stack:

        def start(yaml: str = "") -> Running:
            told: dict[str, Mapping[str, object]] = {}
            server = stack.enter_context(
                open_inference_server(
                    config(yaml, tmp_path, root),
                    tell=told.__setitem__,
                    make_engine=machine.make_engine,
                )
            )
            backend = stack.enter_context(
                RemoteBackend([f"127.0.0.1:{server.port}"], timeout_s=WAIT_S)
            )
            return Running(backend, server.port, told)

        yield start
