"""Two devices whose networks are real; only what the driver says of them is made up."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.madeonce import made_once
from tests.support.waiting import WAIT_S

from lipwire.avatars import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.domain import (
    AvatarInvalid,
    Call,
    Cancelled,
    DeadlineExceeded,
    Float32Array,
    LipwireError,
    NotFound,
    Overloaded,
    Unavailable,
)
from lipwire.engine import DeviceLost, Engine, GpuInfo, GpuState
from lipwire.registry import Registry
from lipwire.rpc.requests import visual_frames
from lipwire.scheduling import Scheduler
from lipwire.serving import (
    Devices,
    LoadedAvatar,
    LocalBackend,
    NetworkKey,
    Placement,
    ServerDevice,
    load_network,
    run_on,
)

GPUS = (GpuInfo(2, "NVIDIA Two", 24 * 2**30), GpuInfo(5, "NVIDIA Five", 80 * 2**30))
NAMES = ("anna", "bert", "cora", "dora")


@dataclass
class Told:
    """What the driver says."""

    gone: set[int] = field(default_factory=set)
    silent: bool = False

    def gpus(self) -> tuple[GpuInfo, ...]:
        return GPUS

    def state(self, index: int) -> GpuState:
        if self.silent:
            raise LipwireError("the driver does not say")
        if index in self.gone:
            raise DeviceLost(f"GPU {index} is lost")
        return GpuState(index * 2**30, 2**30, 0.5)


@dataclass
class Held:
    """One device's insides. ``error`` is what runs raise; ``gate`` holds them back."""

    device: ServerDevice
    scheduler: Scheduler[NetworkKey]
    error: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    running: threading.Event = field(default_factory=threading.Event)
    runs: int = 0


@dataclass
class House:
    backend: LocalBackend
    driver: Told
    avatars: Registry[LoadedAvatar]
    checked: Devices
    devices: dict[int, Held]
    placement: Placement

    def home(self, name: str) -> int:
        (found,) = [model.gpu_id for model in self.backend.models() if model.model_id == name]
        return found

    def held(self) -> dict[int, set[str]]:
        models = self.backend.models()
        return {i: {m.model_id for m in models if m.gpu_id == i} for i in self.devices}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        for seed, name in enumerate(NAMES):
            make_package(folder / name, frames=4, seed=seed)

    return made_once(tmp_path_factory, "four-avatars", make)


@pytest.fixture
def house(root: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield build(stack, Catalog(root, {}), most=2)


def build(stack: ExitStack, catalog: Catalog, *, most: int) -> House:
    driver = Told()
    placement = Placement("round-robin", [gpu.index for gpu in GPUS], most=most)
    insides: dict[int, Held] = {}

    def device(gpu: GpuInfo) -> ServerDevice:
        engine = stack.enter_context(Engine(threads=1))
        infer = run_on(engine)

        def run(key: NetworkKey, faces: Any, windows: Float32Array) -> Any:
            held = insides[gpu.index]
            held.runs += 1
            held.running.set()
            assert held.gate.wait(WAIT_S)
            if held.error is not None:
                raise held.error
            return infer(key, faces, windows)

        scheduler = stack.enter_context(Scheduler(run, workers=1, queue_size=50))
        device = ServerDevice(engine, scheduler, index=gpu.index, gpu=gpu)
        held = insides[gpu.index] = Held(device, scheduler)
        held.gate.set()
        stack.callback(held.gate.set)
        return device

    devices = stack.enter_context(Devices([device(gpu) for gpu in GPUS], placement, driver))
    avatars = stack.enter_context(
        Registry(
            lambda name: load_network(name, catalog.files(name), devices),
            max_items=2 * most,
            kind="model",
        )
    )
    backend = stack.enter_context(LocalBackend(avatars, devices))
    return House(backend, driver, avatars, devices, insides, placement)


def speech(count: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(0, 1, (count, 32, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(root: Path) -> dict[str, Any]:
    """The mouths of frames 0 to 2, by avatar, from an engine asked directly."""
    with Engine(threads=1) as engine:
        found = {}
        for name in NAMES:
            with Avatar.open(root / name) as avatar:
                model = engine.load(avatar.model_path)
                found[name] = engine.infer(model, avatar.crops(0, 3), speech(3))
    return found


def mouths(house: House, name: str) -> Any:
    return house.backend.mouths(name, 0, speech(3), call=Call(WAIT_S))


@pytest.mark.slow
def test_models_are_spread_and_answers_say_where(house: House, drawn: dict[str, Any]) -> None:
    for name, index in zip(NAMES, (2, 5, 2, 5), strict=True):
        answer = mouths(house, name)
        np.testing.assert_array_equal(answer.pixels, drawn[name])
        assert answer.gpu_id == house.home(name) == index
        # And there it stays, however often it is asked for.
        assert mouths(house, name).gpu_id == index
    assert house.held() == {2: {"anna", "cora"}, 5: {"bert", "dora"}}
    assert [model.model_id for model in house.backend.models()] == list(NAMES)


def test_the_guides_form_and_loading_go_home_too(house: House, root: Path) -> None:
    assert house.backend.load("anna").gpu_id == 2
    crops = np.zeros((1, 320, 320, 3), np.uint8)
    assert house.backend.mouths_of("anna", visual_frames(crops), speech(1)).gpu_id == 2
    assert house.backend.load("bert").gpu_id == 5


@pytest.mark.slow
def test_one_avatar_under_load_stays_on_one_device(house: House) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: mouths(house, "anna").gpu_id, range(24)))
    assert set(answers) == {2}
    assert house.devices[5].runs == 0


def test_an_unloaded_model_may_go_elsewhere(house: House) -> None:
    assert mouths(house, "anna").gpu_id == 2
    assert house.backend.unload("anna")
    assert not house.backend.unload("anna")
    assert house.backend.models() == ()
    assert mouths(house, "anna").gpu_id == 5


@pytest.mark.slow
def test_each_device_holds_as_many_as_it_may(house: House) -> None:
    for name in NAMES:
        mouths(house, name)
    assert len(house.backend.models()) == 4
    assert house.backend.health().max_models == 4
    house.backend.unload("dora")
    house.backend.unload("bert")
    # ServerDevice 2 is full and its turn it is: it is passed over.
    assert mouths(house, "dora").gpu_id == mouths(house, "bert").gpu_id == 5


def test_a_device_whose_models_are_all_in_use_passes_new_ones_on(root: Path) -> None:
    with ExitStack() as stack:
        house = build(stack, Catalog(root, {}), most=1)
        mouths(house, "anna")
        mouths(house, "bert")
        house.devices[2].gate.clear()
        house.devices[2].running.clear()
        with ThreadPoolExecutor(1) as clients:
            busy = clients.submit(mouths, house, "anna")
            assert house.devices[2].running.wait(WAIT_S)
            # Both are full; the first in turn cannot evict, the second can.
            assert mouths(house, "cora").gpu_id == 5
            assert house.held() == {2: {"anna"}, 5: {"cora"}}
            house.devices[2].gate.set()
            busy.result(WAIT_S)


def test_what_is_in_use_everywhere_leaves_no_room(root: Path) -> None:
    with ExitStack() as stack:
        house = build(stack, Catalog(root, {}), most=1)
        for held in house.devices.values():
            held.gate.clear()
        with ThreadPoolExecutor(2) as clients:
            busy = [clients.submit(mouths, house, name) for name in ("anna", "bert")]
            assert all(held.running.wait(WAIT_S) for held in house.devices.values())
            with pytest.raises(Overloaded):
                mouths(house, "cora")
            for held in house.devices.values():
                held.gate.set()
            for future in busy:
                future.result(WAIT_S)


def test_errors_of_the_request_take_no_device_out(house: House) -> None:
    with pytest.raises(NotFound, match="nearest known is anna"):
        mouths(house, "annna")
    for held in house.devices.values():
        held.error = AvatarInvalid("the network failed")
    with pytest.raises(AvatarInvalid):
        mouths(house, "anna")
    house.driver.silent = True
    with pytest.raises(AvatarInvalid):
        mouths(house, "anna")
    house.checked.check()
    health = house.backend.health()
    assert (health.healthy, health.gpu_count, health.detail) == (True, 2, "")


@pytest.mark.parametrize(
    ("error", "gone"),
    [(DeviceLost("CUDA failure 719"), False), (AvatarInvalid("the network failed"), True)],
    ids=["the engine says so", "the driver says so"],
)
def test_what_ran_on_a_lost_device_is_run_on_another(
    house: House,
    drawn: dict[str, Any],
    error: Exception,
    gone: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mouths(house, "anna")
    house.devices[2].error = error
    if gone:
        house.driver.gone = {2}
    answer = mouths(house, "anna")
    np.testing.assert_array_equal(answer.pixels, drawn["anna"])
    assert answer.gpu_id == 5
    assert "GPU 2 is out, 1 left" in caplog.text
    health = house.backend.health()
    assert (health.healthy, health.gpu_count, health.loaded_models) == (True, 1, 1)
    assert health.detail.startswith("GPU 2 is out: ")
    assert [bool(gpu.lost) for gpu in health.gpus] == [True, False]
    assert house.placement.devices == (5,)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


@pytest.mark.slow
def test_calls_that_wait_for_a_device_that_hangs_are_moved(
    house: House, drawn: dict[str, Any]
) -> None:
    for name in NAMES:
        mouths(house, name)
    hung = house.devices[2]
    hung.gate.clear()
    hung.running.clear()
    with ThreadPoolExecutor(6) as clients:
        calls: list[tuple[str, Future[Any]]] = [
            (name, clients.submit(mouths, house, name)) for name in ("anna", "cora") * 3
        ]
        assert hung.running.wait(WAIT_S)
        house.driver.gone = {2}
        house.checked.check()
        for name, call in calls:
            answer = call.result(WAIT_S)
            assert answer.gpu_id == 5
            np.testing.assert_array_equal(answer.pixels, drawn[name])
        assert not hung.gate.is_set(), "nobody waited for it"
    hung.gate.set()


def test_what_a_lost_device_held_is_let_go_and_the_frames_stay(house: House) -> None:
    mouths(house, "anna")
    (model,) = house.devices[2].device._on_unload
    with house.avatars.use("anna") as avatar:
        frames = avatar.frames
    house.driver.gone = {2}
    house.checked.check()
    house.checked.close()  # waits for it
    assert model.unloaded
    assert not house.devices[2].device._on_unload
    assert frames is not None
    assert not frames.closed
    assert mouths(house, "anna").gpu_id == 5
    with house.avatars.use("anna") as avatar:
        assert avatar.frames is frames, "the entry is the same; its network has moved"
    assert house.backend.models()[0].gpu_id == 5


def test_a_load_on_a_device_that_hangs_is_moved(
    house: House, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = house.devices[2].device._engine
    inside, going = threading.Event(), threading.Event()
    load = Engine.load

    def hang(engine: Engine, *given: Any, **named: Any) -> Any:
        if engine is hung:
            inside.set()
            assert going.wait(WAIT_S)
        return load(engine, *given, **named)

    monkeypatch.setattr(Engine, "load", hang)
    with ThreadPoolExecutor(1) as clients:
        call = clients.submit(mouths, house, "anna")
        assert inside.wait(WAIT_S)
        house.driver.gone = {2}
        house.checked.check()
        answer = call.result(WAIT_S)
    assert answer.gpu_id == 5
    np.testing.assert_array_equal(answer.pixels, drawn["anna"])
    going.set()  # too late: what comes is let go of


def test_with_no_device_left_the_server_is_not_healthy(house: House) -> None:
    mouths(house, "anna")
    house.driver.gone = {2, 5}
    house.checked.check()
    health = house.backend.health()
    assert (health.healthy, health.gpu_count, health.max_models) == (False, 0, 0)
    assert health.detail == "GPU 2 is out: GPU 2 is lost; GPU 5 is out: GPU 5 is lost"
    with pytest.raises(Unavailable, match="no GPU is left"):
        mouths(house, "anna")
    assert house.backend.models() == ()


def test_listing_and_unloading_go_on_while_a_device_is_taken_out(house: House) -> None:
    for name in ("anna", "bert"):
        mouths(house, name)
    house.placement.lose(2)  # as far as taking out has come
    assert [model.model_id for model in house.backend.models()] == ["bert"]
    assert house.backend.unload("anna")
    assert house.backend.unload("bert")


def test_health_has_what_the_driver_said_last(house: House) -> None:
    mouths(house, "anna")
    house.checked.check()
    house.driver.silent = True
    house.checked.check()
    first, second = house.backend.health().gpus
    assert (first.index, first.name, first.loaded_models) == (2, "NVIDIA Two", 1)
    assert (first.memory_bytes, first.used_bytes, first.utilisation) == (24 * 2**30, 2**31, 0.5)
    assert (second.index, second.loaded_models, second.used_bytes) == (5, 0, 5 * 2**30)


@pytest.mark.slow
def test_deadlines_and_those_who_leave_are_no_loss(house: House) -> None:
    house.backend.load("anna")
    house.devices[2].gate.clear()
    with pytest.raises(DeadlineExceeded):
        house.backend.mouths("anna", 0, speech(1), call=Call(0.2))
    call = Call(None)

    def work() -> None:
        house.backend.mouths("anna", 0, speech(1), call=call)

    with ThreadPoolExecutor(1) as clients:
        future = clients.submit(work)
        threading.Timer(0.2, call.end).start()
        with pytest.raises(Cancelled):
            future.result(WAIT_S)
    house.devices[2].gate.set()
    assert house.backend.health().gpu_count == 2


def test_once_closed_it_refuses(house: House) -> None:
    house.backend.close()
    house.backend.close()
    health = house.backend.health()
    assert (health.healthy, health.detail) == (False, "the server is stopping")
    for ask in (
        lambda: mouths(house, "anna"),
        lambda: house.backend.load("anna"),
        lambda: house.backend.unload("anna"),
        lambda: house.backend.models(),
    ):
        with pytest.raises(Unavailable, match="stopping"):
            ask()


def test_a_load_that_fails_leaves_no_home(house: House, root: Path) -> None:
    with pytest.raises(NotFound):
        mouths(house, "nobody")
    assert all(not house.placement.models_on(gpu.index) for gpu in GPUS)
