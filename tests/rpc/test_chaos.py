"""Both servers under cancellation, short deadlines, unloading, eviction: every frame is right."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.avatars import Avatar
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import Float32Array, ping_pong
from lipwire.engine import Engine
from lipwire.rpc.backends import servers as servers_module
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.server.server import RpcServer
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

NAMES = ("ann", "ben", "cat", "dan")
FRAMES = 4
CLIENTS = 4
SECONDS = 1.5
LATEST_S = 60.0
"""It goes on until enough was seen: on a busy machine that takes longer."""
WINDOWS: Float32Array = np.random.default_rng(2).normal(0, 1, (3, 32, 16, 16)).astype(np.float32)
HERE = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}

Expected = dict[tuple[str, int, int], bytes]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("chaos")
    for seed, name in enumerate(NAMES):
        make_package(folder / name, frames=FRAMES, seed=20 + seed)
    return folder


@pytest.fixture(scope="module")
def expected(root: Path) -> Expected:
    """(avatar, frame, window) -> JPEG, made without servers."""
    frames: Expected = {}
    with Engine(threads=1) as engine:
        for name in NAMES:
            with Avatar.open(root / name, parts=frozenset({"jpeg"})) as avatar:
                model = engine.load(avatar.model_path)
                for i in range(FRAMES):
                    crops = np.repeat(avatar.crop(i)[None], len(WINDOWS), axis=0)
                    for k, mouth in enumerate(engine.infer(model, crops, WINDOWS)):
                        frames[name, i, k] = avatar.jpeg(i, mouth)
    assert len(set(frames.values())) == len(frames)
    return frames


@contextmanager
def one_process(root: Path, tmp_path: Path) -> Iterator[RpcServer]:
    (tmp_path / "c.yaml").write_text(f"models_root: {root}\ncapacity: {{max_models: 3}}\n")
    (tmp_path / "i.yaml").write_text("capacity: {max_models_per_gpu: 3}\n")
    compositing = load_compositing_config(tmp_path / "c.yaml", HERE)
    inference = load_inference_config(tmp_path / "i.yaml", {})
    with open_serve(compositing, inference, tell=lambda heading, facts: None) as server:
        yield server


@contextmanager
def servers_apart(root: Path, tmp_path: Path) -> Iterator[RpcServer]:
    (tmp_path / "i.yaml").write_text(f"models_root: {root}\ncapacity: {{max_models_per_gpu: 3}}\n")
    inference = load_inference_config(tmp_path / "i.yaml", HERE)
    with ExitStack() as stack:
        urls = []
        for _ in range(2):
            server = open_inference_server(inference, tell=lambda heading, facts: None)
            urls.append(f'"127.0.0.1:{stack.enter_context(server).port}"')
        (tmp_path / "c.yaml").write_text(
            f"models_root: {root}\ncapacity: {{max_models: 3}}\n"
            f"inference_server: {{url: [{', '.join(urls)}]}}\n"
        )
        compositing = load_compositing_config(tmp_path / "c.yaml", HERE)
        yield stack.enter_context(
            open_compositing_server(compositing, tell=lambda heading, facts: None)
        )


def client(port: int, seed: int, expected: Expected, seen: Counter[str]) -> None:
    """Ask, cancel, give too little time, load and unload; ``seen`` counts what came of it."""
    chance = random.Random(seed)
    begun_s = time.monotonic()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = CompositingServiceStub(channel)
        while time.monotonic() < begun_s + (SECONDS if seen["right"] > 20 else LATEST_S):
            name, draw = chance.choice(NAMES), chance.random()
            first, count = chance.randrange(20), chance.randrange(1, 7)
            heard = [chance.randrange(len(WINDOWS)) for _ in range(count)]
            request = pb.CompositeBatchRequest(
                model_id=name,
                audio_features=WINDOWS[heard].tobytes(),
                batch_size=count,
                start_frame_idx=first,
            )
            try:
                if draw < 0.1:
                    stub.UnloadModel(pb.UnloadModelRequest(model_id=name), timeout=LATEST_S)
                elif draw < 0.15:
                    stub.LoadModel(pb.LoadModelRequest(model_id=name), timeout=LATEST_S)
                elif draw < 0.3:
                    begun = stub.InferBatchComposite.future(request, timeout=LATEST_S)
                    time.sleep(0.02 * chance.random())  # it may wait, run or be done
                    begun.cancel()
                else:
                    short = draw < 0.4
                    timeout_s = 0.03 * chance.random() if short else LATEST_S
                    answer = stub.InferBatchComposite(request, timeout=timeout_s)
                    assert answer.success, answer.error
                    for i, k in enumerate(heard):
                        right = expected[name, ping_pong(first + i, FRAMES), k]
                        seen["right" if answer.composited_frames[i] == right else "wrong"] += 1
            except grpc.RpcError as failed:
                status: Any = failed
                seen[status.code().name] += 1


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself opens one


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files as Linux lists them")
@pytest.mark.parametrize("opened", [one_process, servers_apart])
def test_every_frame_is_right_and_nothing_is_left_behind(
    opened: Callable[[Path, Path], Any],
    root: Path,
    tmp_path: Path,
    expected: Expected,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A server that does not answer for a second is not gone: the machine may be busy.
    monkeypatch.setattr(servers_module, "_CHECK_TIMEOUT_S", LATEST_S)
    with opened(root, tmp_path):
        pass  # what gRPC opens the first time, and keeps
    threads_before, files_before = set(threading.enumerate()), open_files()
    seen: Counter[str] = Counter()
    with opened(root, tmp_path) as server:
        clients = [
            threading.Thread(target=client, args=(server.port, seed, expected, seen))
            for seed in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert server.drain(LATEST_S)
        assert server.in_hand == 0
    assert seen["right"] > 20
    assert seen["wrong"] == 0
    # A registry whose every place is in use refuses, and time may be too short; nothing else fails.
    assert set(seen) <= {"right", "wrong", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}, seen
    # gRPC keeps a few files of its own.
    until(lambda: open_files() <= files_before + 5)
    until(lambda: set(threading.enumerate()) <= threads_before)
