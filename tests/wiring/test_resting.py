"""The mouths for silence, made by the network and the audio encoder of a package."""

from pathlib import Path

import numpy as np
import pytest

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar, find_avatar
from lipwire.domain import InvalidInput, UInt8Array
from lipwire.engine import Engine
from lipwire.evaluation.material import read_material
from lipwire.evaluation.opening import openings
from lipwire.evaluation.stage import perform, set_stage
from lipwire.serving import RestMouths
from lipwire.wiring import open_performer
from lipwire.wiring.resting import compile_rest


def psnr(shown: UInt8Array, wanted: UInt8Array) -> float:
    error = shown.astype(np.float64) - wanted
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def test_the_part_is_made_once_of_what_the_network_makes_of_silence(avatar_package: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    with Avatar.open(avatar_package) as frames, Engine(threads=1) as engine:
        assert frames.encoder_path is not None
        compile_rest(frames, lambda *step: steps.append(step))
        assert steps == [(8, 8, "compiling the mouths for silence")]
        compile_rest(frames, lambda *step: steps.append(step))
        assert len(steps) == 1
        window = silence_window(AudioEncoder.open(frames.encoder_path))[None]
        model = engine.load(frames.model_path)
        with RestMouths(frames, lambda *_: pytest.fail("it is compiled"), window) as rest:
            for number in (0, 7):
                raw = engine.infer(model, frames.crop(number)[None], window)[0]
                shown = rest.ready(number)
                assert shown is not None
                assert psnr(shown, raw) > 35  # its mouths are noise


def test_without_an_audio_encoder_nothing_is_made(avatar_package: Path) -> None:
    (avatar_package / "checkpoint" / "audio_encoder.onnx").unlink()
    with (
        Avatar.open(avatar_package) as frames,
        pytest.raises(InvalidInput, match="anna has no audio encoder of its own"),
    ):
        compile_rest(frames, lambda *_: None)


@pytest.mark.slow
def test_the_demos_mouth_is_shut_at_rest_and_keeps_its_quality() -> None:
    path, count = find_avatar("demo"), 40
    material = read_material(path)
    with open_performer(path, parts=frozenset()) as performer:
        frames, engine, model = performer.avatar, performer.engine, performer.model
        window = silence_window(performer.encoder)[None]
        stage = set_stage(path, performer)
        silent = perform(stage, np.zeros(count * 640, np.float32), lambda: None)
        pictures = []
        with RestMouths(
            frames,
            lambda first, windows, _: engine.infer(
                model, frames.crops(first, len(windows)), windows
            ),
            window,
        ) as rest:
            for number in range(count):
                mouth = rest.mouth(number)
                pictures.append(stage.inside(*stage.composited(number, mouth)))
                if number % 10 == 0:
                    raw = engine.infer(model, frames.crop(number)[None], window)[0]
                    assert psnr(mouth[85:235, 85:235], raw[85:235, 85:235]) >= 40
    box, interior = material.lips_box, material.index.interior
    at_rest = openings(np.stack(pictures), box, interior)
    rendered = openings(silent.pictures, box, interior)
    assert at_rest.max() <= max(rendered.max(), interior.closed_below_px)
    assert np.abs(at_rest - rendered).max() < 0.5  # of a pixel
