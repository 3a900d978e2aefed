"""Networks on one device; the engine is real, in memory that works as a GPU's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.hostmemory import HostMemory

from lipwire.avatars import ALWAYS, Avatar, compile_avatar, read_package
from lipwire.avatars.compiled.parts import FOR_GPU
from lipwire.domain import Call, Cancelled, Float32Array, LipwireError, Unavailable
from lipwire.engine import DeviceLost, Engine
from lipwire.scheduling import Scheduler
from lipwire.serving.networkfacts import CompiledNetwork
from lipwire.serving.networks import DeviceNetwork, NetworkKey, Placed, ServerDevice, run_on

WAIT_S = 60.0
WINDOWS: Float32Array = np.random.default_rng(0).normal(0, 1, (2, 32, 16, 16)).astype(np.float32)


@dataclass
class Parts:
    """A device, and a network on it. ``gate`` holds runs back while it is not set."""

    device: ServerDevice
    scheduler: Scheduler[NetworkKey]
    engine: Engine
    avatar: Avatar
    compiled: CompiledNetwork
    network: DeviceNetwork
    gate: threading.Event
    running: threading.Event
    closed: list[str]
    """What was said when networks were given up."""


@pytest.fixture
def parts(avatar_package: Path) -> Iterator[Parts]:
    gate, running, closed = threading.Event(), threading.Event(), list[str]()
    gate.set()
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(threads=1, memory=HostMemory(1 << 30)))
        infer = run_on(engine)

        def run(key: NetworkKey, faces: Any, windows: Float32Array) -> Any:
            running.set()
            assert gate.wait(WAIT_S)
            return infer(key, faces, windows)

        def stay(placed: Placed, error: LipwireError) -> Placed:
            raise error

        scheduler = stack.enter_context(Scheduler(run, workers=1, queue_size=5))
        stack.callback(gate.set)
        found = compile_avatar(read_package(avatar_package), parts=ALWAYS | FOR_GPU)
        compiled = CompiledNetwork(found.network, found.network_for_gpu)
        avatar = stack.enter_context(Avatar.open(avatar_package))
        device = ServerDevice(engine, scheduler)
        placed = on(device, compiled, avatar, lambda: closed.append("closed"))
        network = DeviceNetwork(placed, avatar, stay)
        yield Parts(device, scheduler, engine, avatar, compiled, network, gate, running, closed)


def on(
    device: ServerDevice, compiled: CompiledNetwork, avatar: Avatar, on_unload: Callable[[], None]
) -> Placed:
    """The avatar's network, loaded on ``device``."""
    model = device.load(compiled, avatar, on_unload)
    return Placed(device, model, NetworkKey(model))


def test_frames_go_by_number_where_the_device_keeps_crops(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parts.engine.load(parts.compiled.folder, for_gpu=parts.compiled.for_gpu)
    expected = parts.engine.infer(model, parts.avatar.crops(6, 2), WINDOWS)
    monkeypatch.setattr(Avatar, "crops", None)
    np.testing.assert_array_equal(parts.network.mouths(6, WINDOWS).pixels, expected)


def test_crops_may_take_the_place_of_its_own_frames(parts: Parts) -> None:
    crops = np.zeros((2, 320, 320, 3), np.uint8)
    model = parts.engine.load(parts.compiled.folder, for_gpu=parts.compiled.for_gpu)
    expected = parts.engine.infer(model, crops, WINDOWS)
    mouths = parts.network.mouths(0, WINDOWS, crops=lambda: crops)
    np.testing.assert_array_equal(mouths.pixels, expected)


def test_a_network_whose_frames_are_closed_under_a_run_is_unavailable(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Avatar.crop

    def close_and_crop(avatar: Avatar, index: int) -> Any:
        parts.network.close()
        avatar.close()
        return whole(avatar, index)

    monkeypatch.setattr(Avatar, "crop", close_and_crop)
    with pytest.raises(Unavailable, match="unloaded"):
        parts.network.mouths(0, WINDOWS)
    assert parts.closed == ["closed"]


def test_once_closed_it_is_unavailable(parts: Parts) -> None:
    parts.network.close()
    parts.network.close()
    assert parts.closed == ["closed"]
    with pytest.raises(Unavailable, match="unloaded"):
        parts.network.mouths(0, WINDOWS)


def test_an_abandoned_device_takes_nothing_and_keeps_nobody_waiting(parts: Parts) -> None:
    parts.gate.clear()
    with ThreadPoolExecutor(2) as clients:
        calls = [clients.submit(parts.network.mouths, 0, WINDOWS) for _ in range(2)]
        assert parts.running.wait(WAIT_S)
        parts.device.abandon("GPU 0 is lost")
        for call in calls:
            with pytest.raises(DeviceLost, match="GPU 0 is lost"):
                call.result(WAIT_S)
    with pytest.raises(DeviceLost, match="GPU 0 is lost"):
        parts.network.mouths(0, WINDOWS)
    parts.gate.set()
    parts.device.give_up()
    assert parts.closed == ["closed"]


def test_who_goes_while_the_device_is_lost_has_gone(parts: Parts) -> None:
    parts.gate.clear()
    call = Call(None)
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(parts.network.mouths, 0, WINDOWS, call=call)
        assert parts.running.wait(WAIT_S)
        call.end()
        with pytest.raises(Cancelled):
            asked.result(WAIT_S)


def test_a_calls_class_and_tenant_are_the_schedulers(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[tuple[str, str]] = []
    submit = parts.scheduler.submit

    def noted(*given: Any, **named: Any) -> Any:
        submitted.append((named["service"], named["tenant"]))
        return submit(*given, **named)

    monkeypatch.setattr(parts.scheduler, "submit", noted)
    parts.network.mouths(0, WINDOWS)
    parts.network.mouths(0, WINDOWS, call=Call(WAIT_S, service="live", tenant="acme"))
    assert submitted == [("batch", ""), ("live", "acme")]


def test_a_network_moves_once_however_many_were_on_the_lost_device(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[LipwireError] = []
    device = parts.device
    other = ServerDevice(parts.engine, device._scheduler, index=7)

    def move(placed: Placed, error: LipwireError) -> Placed:
        assert placed.device is device
        moved.append(error)
        return on(other, parts.compiled, parts.avatar, lambda: None)

    placed = on(device, parts.compiled, parts.avatar, lambda: None)
    network = DeviceNetwork(placed, parts.avatar, move)
    expected = parts.network.mouths(0, WINDOWS).pixels
    parts.gate.clear()
    with ThreadPoolExecutor(4) as clients:
        calls = [clients.submit(network.mouths, 0, WINDOWS) for _ in range(4)]
        assert parts.running.wait(WAIT_S)
        device.abandon("GPU 0 is lost")
        parts.gate.set()
        answers = [call.result(WAIT_S) for call in calls]
    assert [answer.gpu_id for answer in answers] == [7] * 4
    assert all(np.array_equal(answer.pixels, expected) for answer in answers)
    assert [str(error) for error in moved] == ["GPU 0 is lost"]
