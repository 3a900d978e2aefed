"""What tests of bfloat16 need: a processor for it, and the demo avatar's network and inputs."""

import functools
from pathlib import Path

import numpy as np
import pytest

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars import Avatar, find_avatar
from lipwire.domain import AudioWindows, Crops
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.sourcemodel import read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.special.openvino import why_not

needs_bfloat16 = pytest.mark.skipif(why_not() is not None, reason=f"no bfloat16: {why_not()}")

FRAMES = 3


def demo_source() -> Path:
    """The ONNX file of the demo avatar's network."""
    return find_avatar("demo") / "checkpoint" / "model_best.onnx"


@functools.cache
def demo_model() -> bytes:
    """That network for one frame as pixels, as an ONNX model."""
    read = read_model(demo_source())
    info = describe(read, "demo")
    data: bytes = wrap(read.proto, info, "pixels", 1).SerializeToString()
    return data


@functools.cache
def demo_inputs() -> tuple[Crops, AudioWindows]:
    """Crops of the demo avatar, (3, 320, 320, 3), and windows of a sentence."""
    with Avatar.open(find_avatar("demo")) as avatar:
        assert avatar.encoder_path is not None
        windows = extract_windows(sample_speech(), AudioEncoder.open(avatar.encoder_path))
        crops = np.concatenate([avatar.crops(20 * number, 1) for number in range(FRAMES)])
    return crops, np.ascontiguousarray(windows[10 : 10 + 20 * FRAMES : 20])
