"""A server whose much-used networks run in bfloat16."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.bfloat16 import needs_bfloat16
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import Serve

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars import find_avatar
from lipwire.engine.special import hot
from lipwire.rpc.requests import requests_of_windows

pytestmark = [needs_bfloat16, pytest.mark.slow]


@pytest.fixture
def windows(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Those of a sentence, for the demo avatar, which the servers have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hot, "HOT_FRAMES", 60.0)
    demo = shutil.copytree(find_avatar("demo"), root / "demo")
    encoder = AudioEncoder.open(demo / "checkpoint" / "audio_encoder.onnx")
    return extract_windows(sample_speech(), encoder)


def test_a_network_that_is_used_much_runs_in_bfloat16(serve: Serve, windows: np.ndarray) -> None:
    """Its frames go on, and what runs it is told."""
    connection = serve(inference="onnx: {precision: auto}")
    requests = list(requests_of_windows("demo", windows[:240], 24))
    turns = itertools.cycle(requests)

    def asked() -> str:
        assert len(connection.composite(next(turns), WAIT_S).frames) == 24
        (model,) = connection.stats("demo", WAIT_S).models
        return str(model.precision)

    assert asked() == "float32"
    until(lambda: asked() == "bfloat16")
    frames = {connection.composite(requests[0], WAIT_S).frames for _ in range(3)}
    assert len(frames) == 1  # the same each time


def test_float32_stays_float32(serve: Serve, windows: np.ndarray) -> None:
    connection = serve(inference="onnx: {precision: float32}")
    (request,) = requests_of_windows("demo", windows[:24], 24)
    answers = {connection.composite(request, WAIT_S).frames for _ in range(6)}
    assert len(answers) == 1
    for named in ("", "demo"):
        (model,) = connection.stats(named, WAIT_S).models
        assert (model.runner, model.precision) == ("cpu", "float32")
