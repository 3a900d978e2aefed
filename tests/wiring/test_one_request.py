"""The way of one small request through ``lipwire serve``, as docs/architecture.md has it."""

import re
import shutil
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import lipwire
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.wiring.servers import open_serve

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = Path(lipwire.__file__).parent
MOST = 19
"""Stations that a small request may have; fewer are better."""
WAIT_S = 120.0
MEASURING = {"wiring/measuring", "observe/metrics"}
"""Told of what happens; they do nothing for a request."""
HANDED_IN = {("scheduling/scheduler", "serving/networks"), ("domain/calls", "serving/networks")}
"""What a scheduler is to run, and what a call is to tell of its end."""


class Trace:
    """Which modules of Lipwire run functions in the threads that work for requests, and which
    module calls which."""

    def __init__(self) -> None:
        self.on = False
        self.modules: list[str] = []
        """In the order in which they are first reached."""
        self.calls: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if (
            not self.on
            or event != "call"
            or not threading.current_thread().name.startswith(
                ("lipwire-rpc", "lipwire-run", "Thread-")
            )
        ):
            return
        module = module_of(frame)
        if module is None:
            return
        if module not in self.modules:
            self.modules.append(module)
        above = frame.f_back
        while above is not None and (caller := module_of(above)) is None:
            above = above.f_back
        if above is not None and caller is not None and caller != module:
            self.calls.add((caller, module))


def module_of(frame: FrameType) -> str | None:
    """As ``rpc/calls``; None for what is not Lipwire's own."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(SOURCE) or "generated" in path.parts:
        return None
    return path.relative_to(SOURCE).with_suffix("").as_posix()


@pytest.fixture(scope="module")
def traces(compiled_template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    """Of some requests of one frame each, for an avatar that is loaded."""
    folder = tmp_path_factory.mktemp("one_request")
    shutil.copytree(compiled_template, folder / "root" / "anna")
    (folder / "c.yaml").write_text(f"models_root: {folder}/root\n")
    (folder / "i.yaml").write_text("onnx: {use_cuda: false}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    window = np.random.default_rng(3).standard_normal((32, 16, 16)).astype(np.float32)
    request = CompositeBatchRequest(model_id="anna", audio_features=window.tobytes(), batch_size=1)
    return list(traced(folder, here, request))


def traced(folder: Path, here: dict[str, str], request: CompositeBatchRequest) -> Iterator[Trace]:
    now = Trace()
    before = sys.getprofile()
    threading.setprofile(lambda *given: now(*given))  # of threads that begin from now on
    try:
        with (
            open_serve(
                load_compositing_config(folder / "c.yaml", here),
                load_inference_config(folder / "i.yaml", {}),
                tell=lambda *_: None,
            ) as server,
            CompositingConnection(f"127.0.0.1:{server.port}") as connection,
        ):
            connection.composite(request, WAIT_S)  # loads the avatar
            for _ in range(5):
                now = Trace()
                now.on = True
                connection.composite(request, WAIT_S)
                now.on = False
                yield now
    finally:
        threading.setprofile(before)


@pytest.fixture(scope="module")
def trace(traces: list[Trace]) -> Trace:
    """Of a request during which nobody looks whether the avatar has changed, once a second."""
    return min(traces, key=lambda each: len(each.modules))


def documented() -> list[str]:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    section = text.partition("### One request's way")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+)\.py`", section, re.MULTILINE)


@pytest.mark.slow
def test_the_stations_of_a_request_are_those_that_are_documented(trace: Trace) -> None:
    stations = [
        module
        for module in trace.modules
        if not module.startswith("domain/") and module not in MEASURING
    ]
    assert stations == documented()
    assert len(stations) <= MOST


def test_no_station_calls_a_layer_above_its_own(trace: Trace) -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    depth = {
        package.strip().removeprefix("lipwire."): number
        for number, layer in enumerate(layers)
        for package in layer.split("|")
    }
    upwards = {
        (caller, called)
        for caller, called in trace.calls
        if depth[called.partition("/")[0]] < depth[caller.partition("/")[0]]
        and called not in MEASURING
    }
    assert upwards <= HANDED_IN
