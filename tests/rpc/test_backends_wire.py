"""A local backend, asked directly and over the wire."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S

from lipwire.avatars import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.domain import NotFound
from lipwire.engine import Engine, NoDriver
from lipwire.registry import Registry
from lipwire.rpc.backends import RemoteBackend
from lipwire.rpc.requests import visual_frames
from lipwire.rpc.server.server import RpcServer, ServerOptions, inference_service, mouth_service
from lipwire.rpc.services.inference import InferenceServicer, MouthServicer
from lipwire.scheduling import Scheduler
from lipwire.serving import Devices, LocalBackend, Placement, ServerDevice, load_network, run_on


@pytest.mark.slow
def test_over_the_wire_it_gives_the_same(tmp_path: Path, make_package: Callable[..., Path]) -> None:
    for seed, name in enumerate(("anna", "bert")):
        make_package(tmp_path / name, frames=8, seed=seed)
    catalog = Catalog(tmp_path, {})
    windows = np.random.default_rng(0).normal(0, 1, (4, 32, 16, 16)).astype(np.float32)
    with (
        Engine(threads=1) as engine,
        Scheduler(run_on(engine), workers=1, queue_size=2) as scheduler,
        Devices(
            [ServerDevice(engine, scheduler)],
            Placement("round-robin", [0], most=4),
            NoDriver("none"),
        ) as devices,
        Registry(lambda name: load_network(name, catalog.files(name), devices)) as networks,
        LocalBackend(networks, devices) as backend,
    ):
        with Avatar.open(catalog.files("anna")) as avatar:
            crops = np.stack([avatar.crop(6 + index) for index in range(len(windows))])
            pixels = engine.infer(engine.load(avatar.model_path), crops, windows)
        services = [
            inference_service(InferenceServicer(backend, names=catalog.names)),
            mouth_service(MouthServicer(backend)),
        ]
        with (
            RpcServer(services, ServerOptions(host="127.0.0.1")) as server,
            RemoteBackend([f"127.0.0.1:{server.port}"], timeout_s=WAIT_S) as remote,
        ):
            np.testing.assert_array_equal(remote.mouths("anna", 6, windows).pixels, pixels)
            floats = remote.mouths_of("anna", visual_frames(crops), windows)
            np.testing.assert_array_equal(floats.as_mouths().pixels, pixels)
            assert remote.load("bert").memory_bytes > 0
            assert [model.model_id for model in remote.models()] == ["anna", "bert"]
            assert [model.model_id for model in remote.models("bert")] == ["bert"]
            assert remote.models("carl") == ()
            with pytest.raises(NotFound, match="the nearest known is anna"):
                remote.mouths("annna", 0, windows)
            assert remote.unload("anna")
