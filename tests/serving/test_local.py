"""With real networks, small ones; the oracle is the engine called directly."""

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.hostmemory import HostMemory
from tests.support.quickfirst import quick_first
from tests.support.waiting import WAIT_S, until

from lipwire.avatars import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.compiled.versions import package_version
from lipwire.domain import (
    AvatarChanged,
    AvatarFiles,
    Call,
    Cancelled,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    Visual,
)
from lipwire.engine import Engine, NoDriver
from lipwire.registry import Registry
from lipwire.rpc.requests import visual_frames
from lipwire.scheduling import Job, Scheduler
from lipwire.serving import (
    Devices,
    DrawnFloatMouths,
    FrameCost,
    LoadedAvatar,
    LocalBackend,
    NetworkKey,
    Placement,
    ServerDevice,
    load_network,
    run_on,
)

FRAMES = 8


@dataclass
class House:
    """A local backend and what it is made of. ``gate`` holds runs back while it is not set."""

    backend: LocalBackend
    engine: Engine
    device: ServerDevice
    networks: Registry[LoadedAvatar]
    scheduler: Scheduler[NetworkKey]
    catalog: Catalog
    gate: threading.Event
    running: threading.Event


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("avatars")
    for seed, name in enumerate(("anna", "bert")):
        make_package(folder / name, frames=FRAMES, seed=seed)
    return folder


@pytest.fixture
def house(root: Path) -> Iterator[House]:
    gate, running = threading.Event(), threading.Event()
    gate.set()
    catalog = Catalog(root, {})
    with Engine(threads=1) as engine:
        infer = run_on(engine)

        def run(key: NetworkKey, faces: Any, windows: Float32Array) -> Any:
            running.set()
            assert gate.wait(WAIT_S)
            return infer(key, faces, windows)

        with (
            Scheduler(run, workers=1, queue_size=2) as scheduler,
            one_device(engine, scheduler) as devices,
            Registry(
                lambda name: load_network(name, catalog.files(name), devices), max_items=4
            ) as networks,
            LocalBackend(networks, devices) as backend,
        ):
            yield House(
                backend, engine, devices.left[0], networks, scheduler, catalog, gate, running
            )
            gate.set()


def one_device(engine: Engine, scheduler: Scheduler[NetworkKey]) -> Devices:
    """The processor, with room for four networks."""
    driver = NoDriver("there is none")
    return Devices([ServerDevice(engine, scheduler)], Placement("round-robin", [0], most=4), driver)


def speech(count: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(0, 1, (count, 32, 16, 16)).astype(np.float32)


def drawn(house: House, name: str, first: int, windows: Float32Array) -> Any:
    """What the engine draws when asked directly."""
    with Avatar.open(house.catalog.files(name)) as avatar:
        model = house.engine.load(avatar.model_path)
        crops = np.stack([avatar.crop(first + index) for index in range(len(windows))])
        return crops, house.engine.infer(model, crops, windows)


@pytest.mark.parametrize(("first", "count"), quick_first([(0, 1), (3, 12), (10**9, 2)]))
def test_mouths_are_the_engines_for_the_avatars_own_crops(
    house: House, first: int, count: int
) -> None:
    windows = speech(count)
    mouths = house.backend.mouths("anna", first, windows)
    np.testing.assert_array_equal(mouths.pixels, drawn(house, "anna", first, windows)[1])
    assert mouths.gpu_id == 0
    assert mouths.inference_ms > 0
    with Avatar.open(house.catalog.files("anna")) as avatar:
        assert mouths.revision == avatar.revision.model != ""


@pytest.mark.slow
def test_the_guides_form_gives_the_same_mouths(house: House) -> None:
    windows = speech(3)
    crops, pixels = drawn(house, "bert", 2, windows)
    mouths = house.backend.mouths_of("bert", visual_frames(crops), windows)
    assert mouths.values.shape == (3, 3, 320, 320)
    assert mouths.values.dtype == np.float32
    np.testing.assert_array_equal(mouths.as_mouths().pixels, pixels)


@pytest.mark.slow
def test_a_compiled_form_that_was_removed_is_made_anew(
    house: House, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a server of another version does, which sweeps what it does not know."""
    windows = speech(3)
    crops, _ = drawn(house, "bert", 2, windows)
    before = house.backend.mouths("bert", 2, windows).pixels
    shutil.rmtree(root / "bert" / ".lipwire")
    mouths = house.backend.mouths_of("bert", visual_frames(crops), windows)
    np.testing.assert_array_equal(mouths.as_mouths().pixels, before)
    assert "avatar bert is loaded again: compiled model: floats.onnx is missing" in caplog.text
    np.testing.assert_array_equal(house.backend.mouths("bert", 2, windows).pixels, before)


def test_mouths_are_of_the_revision_that_is_asked_for(
    root: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    shutil.copytree(root / "anna", tmp_path / "root" / "anna")
    catalog = Catalog(tmp_path / "root", {})
    with (
        Engine(threads=1) as engine,
        Scheduler(run_on(engine), workers=1, queue_size=2) as scheduler,
        one_device(engine, scheduler) as devices,
        Registry(
            lambda name: load_network(name, catalog.files(name), devices),
            version=lambda name: package_version(catalog.files(name)),
            version_every_s=1000.0,
        ) as networks,
        LocalBackend(networks, devices) as backend,
    ):
        with Avatar.open(catalog.files("anna")) as avatar:
            old = avatar.revision
        before = backend.mouths("anna", 0, speech(1), revision=old)
        make_package(tmp_path / "other", frames=FRAMES, seed=7)
        (tmp_path / "root" / "anna").rename(tmp_path / "gone")
        (tmp_path / "other").rename(tmp_path / "root" / "anna")
        again = backend.mouths("anna", 0, speech(1), revision=old)
        np.testing.assert_array_equal(again.pixels, before.pixels)
        with Avatar.open(catalog.files("anna")) as avatar:
            new = avatar.revision
        after = backend.mouths("anna", 0, speech(1), revision=new)
        assert not np.array_equal(after.pixels, before.pixels)
        with pytest.raises(AvatarChanged, match=rf"revision {new.model}; asked for is {old.model}"):
            backend.mouths("anna", 0, speech(1), revision=old)
        with pytest.raises(AvatarChanged):
            backend.mouths_of(
                "anna", np.zeros((1, 6, 320, 320), np.float32).view(Visual), speech(1), revision=old
            )
        assert np.array_equal(backend.mouths("anna", 0, speech(1)).pixels, after.pixels)


@pytest.mark.slow
def test_a_changed_package_shows_no_crops_of_before(
    root: Path, tmp_path: Path, make_package: Callable[..., Path]
) -> None:
    """On a device that keeps crops: the same network with other frames, which differ in everything
    but their number."""
    shutil.copytree(root / "anna", tmp_path / "root" / "anna")
    catalog = Catalog(tmp_path / "root", {})
    memory = HostMemory(1 << 30)
    windows = speech(3)
    with (
        Engine(threads=1, memory=memory) as engine,
        Scheduler(run_on(engine), workers=1, queue_size=2) as scheduler,
        one_device(engine, scheduler) as devices,
        Registry(
            lambda name: load_network(name, catalog.files(name), devices),
            version=lambda name: package_version(catalog.files(name)),
        ) as networks,
        LocalBackend(networks, devices) as backend,
    ):
        revisions, made = [], []
        for seed in (0, 7):
            if seed:
                make_package(tmp_path / "other", frames=FRAMES, seed=seed)
                model = Path("checkpoint") / "model_best.onnx"
                shutil.copy(tmp_path / "root" / "anna" / model, tmp_path / "other" / model)
                (tmp_path / "root" / "anna").rename(tmp_path / "gone")
                (tmp_path / "other").rename(tmp_path / "root" / "anna")
            with Avatar.open(catalog.files("anna")) as avatar:
                revisions.append(avatar.revision)
                crops = np.stack([avatar.crop(index) for index in range(3)])
            alone = load_network("alone", catalog.files("anna"), devices)
            given = crops
            wanted = alone.value.network.mouths(0, windows, crops=lambda: given).pixels  # noqa: B023
            alone.close()
            for _ in range(3):
                mouths = backend.mouths("anna", 0, windows, revision=revisions[-1])
                np.testing.assert_array_equal(mouths.pixels, wanted)
            made.append(wanted)
            stats = engine.crops
            assert stats is not None
            assert (stats.avatars, stats.device_bytes) == (1, FRAMES * 320 * 320 * 3)
        assert revisions[0] != revisions[1]
        assert not np.array_equal(made[0], made[1])
        assert stats is not None
        assert stats.hits == 2 * 2 * 3
        assert backend.unload("anna")
        assert engine.crops is not None
        assert engine.crops.device_bytes == 0


def test_floats_become_bytes_rounded_and_clipped() -> None:
    values = np.zeros((1, 3, 320, 320), np.float32)
    values[0, 0, 0, :6] = np.array([-1, 0.5 / 255, 1.5 / 255, 1, 7, np.nan], np.float32)
    pixels = DrawnFloatMouths(values, 1, 2.0).as_mouths().pixels
    assert pixels[0, 0, :6, 0].tolist() == [0, 0, 2, 255, 255, 0]
    assert pixels.shape == (1, 320, 320, 3)
    assert pixels.flags.c_contiguous


@pytest.mark.slow
def test_many_at_once_get_their_own_mouths(house: House) -> None:
    house.scheduler._dispatcher.queue_size = 100
    cases = [
        (name, first, speech(count, first))
        for first in range(4)
        for name, count in (("anna", 2), ("bert", 3))
    ]
    with ThreadPoolExecutor(8) as clients:
        answers = [
            clients.submit(house.backend.mouths, name, first, windows)
            for name, first, windows in cases
        ]
        for answer, (name, first, windows) in zip(answers, cases, strict=True):
            expected = drawn(house, name, first, windows)[1]
            np.testing.assert_array_equal(answer.result(WAIT_S).pixels, expected)


def test_unknown_models_and_names_that_are_none_are_told_apart(house: House) -> None:
    with pytest.raises(NotFound, match="no avatar named annna; the nearest known is anna"):
        house.backend.mouths("annna", 0, speech(1))
    with pytest.raises(InvalidInput, match=r"\.\./anna"):
        house.backend.mouths("../anna", 0, speech(1))


def test_bad_requests_are_refused_and_harm_nobody(house: House) -> None:
    nothing, noise = speech(1)[:0], speech(1)
    noise[0, 0, 0, 0] = np.nan
    for first, windows in ((-1, speech(1)), (0, nothing), (0, noise), (0, speech(1)[:, :3])):
        with pytest.raises(InvalidInput):
            house.backend.mouths("anna", first, windows)
    assert [model.in_use for model in house.backend.models()] == [0]
    house.backend.mouths("anna", 0, speech(1))


def test_a_deadline_is_kept_while_a_run_goes_on(house: House) -> None:
    house.backend.load("anna")
    house.gate.clear()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        house.backend.mouths("anna", 0, speech(1), call=Call(0.2))
    assert 0.19 <= time.monotonic() - began < WAIT_S / 2
    house.gate.set()
    house.backend.mouths("anna", 0, speech(1), call=Call(WAIT_S))


def wait_queued(house: House, count: int) -> None:
    try:
        until(lambda: house.scheduler.stats().queued >= count)
    except AssertionError:
        house.gate.set()  # else nobody who waits would ever end
        raise


def test_who_goes_leaves_the_queue_and_the_network(house: House) -> None:
    house.backend.load("anna")
    house.gate.clear()
    calls = [Call(None), Call(None)]

    def work(call: Call) -> None:
        house.backend.mouths("anna", 0, speech(1), call=call)

    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(work, calls[0])
        assert house.running.wait(WAIT_S)
        second = clients.submit(work, calls[1])
        wait_queued(house, 1)
        for call, future in zip(calls, (first, second), strict=True):
            call.end()
            with pytest.raises(Cancelled):
                future.result(WAIT_S)
    assert house.scheduler.stats().queued == 0
    assert [model.in_use for model in house.backend.models()] == [0]


def test_a_full_queue_refuses_and_says_when_to_come_back(house: House) -> None:
    house.backend.load("anna")
    house.gate.clear()
    with ThreadPoolExecutor(3) as clients:
        # The first has to have left the queue before the others fill it.
        waiting = [clients.submit(house.backend.mouths, "anna", 0, speech(1))]
        assert house.running.wait(WAIT_S)
        waiting += [clients.submit(house.backend.mouths, "anna", i, speech(1)) for i in (1, 2)]
        wait_queued(house, 2)
        with pytest.raises(Overloaded) as caught:
            house.backend.mouths("anna", 0, speech(1))
        assert caught.value.retry_after_s is not None
        house.gate.set()
        for future in waiting:
            future.result(WAIT_S)
    assert [model.in_use for model in house.backend.models()] == [0]


def test_unloading_lets_calls_under_way_finish(house: House) -> None:
    house.backend.load("anna")
    expected = drawn(house, "anna", 0, speech(2))[1]
    house.gate.clear()
    with ThreadPoolExecutor(1) as clients:
        call = clients.submit(house.backend.mouths, "anna", 0, speech(2))
        assert house.running.wait(WAIT_S)
        assert house.backend.unload("anna")
        assert house.backend.models() == ()
        house.gate.set()
        np.testing.assert_array_equal(call.result(WAIT_S).pixels, expected)
    assert not house.backend.unload("anna")


def test_who_has_an_answer_finds_the_network_free(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    called_back = threading.Event()
    # What a future does once it has woken who waits for it.
    call_back: Callable[[Job[NetworkKey]], None] = vars(Future)["_invoke_callbacks"]

    def late(job: Job[NetworkKey]) -> None:
        assert called_back.wait(WAIT_S)
        call_back(job)

    monkeypatch.setattr(Job, "_invoke_callbacks", late)
    house.backend.mouths("anna", 0, speech(1))
    in_use = [model.in_use for model in house.backend.models()]
    called_back.set()
    assert in_use == [0]


@pytest.mark.slow
def test_the_weights_of_an_unloaded_network_are_gone_from_memory(house: House) -> None:
    house.backend.mouths("anna", 0, speech(1))
    with house.networks.use("anna") as avatar:
        frames = avatar.frames
    (model,) = house.device._on_unload
    weights = weakref.ref(model)
    del model, avatar
    house.backend.unload("anna")

    def gone() -> bool:
        gc.collect()
        return weights() is None

    # A worker may be on its last line. Remembered are how long the network took and how often it
    # was used, not itself.
    until(gone)
    assert frames is not None
    assert frames.closed


def test_what_is_loaded_is_listed_with_its_measure(house: House) -> None:
    status = house.backend.load("bert")
    house.backend.mouths("anna", 0, speech(1))
    house.backend.mouths("anna", 0, speech(1))
    models = house.backend.models()
    assert [model.model_id for model in models] == ["anna", "bert"]
    with Avatar.open(house.catalog.files("bert")) as avatar:
        weights = house.engine.load(avatar.model_path).weights_bytes
        assert status.memory_bytes == models[1].memory_bytes == weights + avatar.mapped_bytes
        assert weights > 0
        assert avatar.mapped_bytes > 0
        assert models[1].revision == status.revision == avatar.revision.model != ""
    assert models[0].use_count >= 2
    health = house.backend.health()
    assert (health.healthy, health.loaded_models, health.max_models) == (True, 2, 4)


def test_once_closed_it_refuses(house: House) -> None:
    house.backend.close()
    house.backend.close()
    assert not house.backend.health().healthy
    for ask in (
        lambda: house.backend.mouths("anna", 0, speech(1)),
        lambda: house.backend.load("anna"),
        lambda: house.backend.unload("anna"),
        lambda: house.backend.models(),
    ):
        with pytest.raises(Unavailable):
            ask()


def test_one_network_is_told_of_alone(house: House) -> None:
    for name in ("anna", "bert"):
        house.backend.load(name)
    assert [status.model_id for status in house.backend.models()] == ["anna", "bert"]
    assert [status.model_id for status in house.backend.models("bert")] == ["bert"]
    assert house.backend.models("carl") == ()


def test_a_lease_loads_and_measures_the_network_that_it_is_for(house: House) -> None:
    backend = house.backend
    assert (backend.health().live_sessions, backend.health().live_capacity) == (0, 0)
    backend.acquire("session", "anna", Call(WAIT_S))
    assert [status.model_id for status in backend.models()] == ["anna"]
    health = backend.health()
    assert health.live_sessions == 1
    assert health.live_capacity >= 1
    measured = house.scheduler.stats().classes["live"].frames
    assert measured > 0
    backend.acquire("session", "anna", Call(WAIT_S))
    assert house.scheduler.stats().classes["live"].frames == measured
    backend.release("session")
    assert backend.health().live_sessions == 0


def test_composing_counts_where_it_takes_time_of_the_networks(house: House) -> None:
    cost = FrameCost()
    for _ in range(30):
        cost.took(10.0)  # a frame takes so many seconds that there is room for one session alone
    with (
        one_device(house.engine, house.scheduler) as devices,
        Registry(
            lambda name: load_network(name, house.catalog.files(name), devices), max_items=1
        ) as networks,
        LocalBackend(networks, devices, besides=cost) as backend,
    ):
        backend.acquire("first", "anna", Call(WAIT_S))
        with pytest.raises(Overloaded, match=r"1 fit, as a frame of avatar anna takes 1e\+04 ms"):
            backend.acquire("second", "anna", Call(WAIT_S))


def test_a_network_without_its_frames_is_measured_too(
    house: House, root: Path, tmp_path: Path
) -> None:
    model = shutil.copy(root / "anna" / "checkpoint" / "model_best.onnx", tmp_path)
    with one_device(house.engine, house.scheduler) as devices:
        loaded = load_network("alone", AvatarFiles(model=Path(model)), devices)
        network = devices.network_of("alone")
        assert loaded.value.frames is None
        assert network is not None
        assert network.speed() is None
        assert network.measure(Call(WAIT_S, service="live")).frame_s > 0
        loaded.close()
        with pytest.raises(Unavailable):
            network.measure(Call(WAIT_S, service="live"))


def test_no_lease_is_given_for_what_is_not_there_nor_once_closed(house: House) -> None:
    with pytest.raises(NotFound):
        house.backend.acquire("session", "carl", Call(WAIT_S))
    assert house.backend.health().live_sessions == 0
    house.backend.close()
    with pytest.raises(Unavailable):
        house.backend.acquire("session", "anna", Call(WAIT_S))
