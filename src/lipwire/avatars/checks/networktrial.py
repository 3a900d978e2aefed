"""A package's network, tried on its own first frame: are its answers pictures, and does it listen?

A network may have the right shapes and answer in 0...255, in -1...1, with one colour or whatever is
said. Nothing fails then, and the video is wrong.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

import numpy as np

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.frameloading import frame_tasks
from lipwire.avatars.packagesettings import AvatarSettings
from lipwire.compose import network_crop
from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    SAMPLE_RATE_HZ,
    CropRect,
    DeadlineExceeded,
    Float32Array,
    LipwireError,
    UInt8Array,
)
from lipwire.engine import NetworkTrial

_LIMIT_S: Final = 30.0
"""For one frame. The published network takes a third of a second on a core."""
_OUTSIDE: Final = 0.1
"""How far beyond 0 and 1 single values may go: networks without a bound at their end do so."""
_SHARE: Final = 0.02
"""Of the values; what fewer do is no range."""
_DARK_SHARE: Final = 0.2
_DARK: Final = 0.02
"""So many values so far below 0 are no noise on black, but what is darker than grey in -1...1."""
_STEP: Final = 1 / 255


def try_network(
    trial: NetworkTrial,
    encoder: AudioEncoder | None,
    pictures: Pictures,
    rect: CropRect,
    settings: AvatarSettings,
    findings: Findings,
    waiting: Callable[[], None],
) -> None:
    """Run a package's network on the first frame, for silence and for speech, and put what is wrong
    with its output into ``findings``: errors for an output that is no picture, warnings where it
    takes too long or does not depend on the sound. Returns when that is done; errors of Lipwire are
    put there too, and are not raised.

    ``trial`` runs the network. ``pictures`` and ``settings`` are those of its package. ``rect`` is
    the crop rectangle of the first frame and lies inside it. ``encoder`` makes the audio windows;
    where it is None they are zeros and noise. ``waiting`` is called without arguments now and then
    while the network runs; what it raises is passed on unless it is a LipwireError.
    """
    try:
        crop = _crop(pictures, rect, settings)
        silence, speech = _windows(encoder)
        if not np.isfinite(speech).all():
            findings.error(
                "the audio encoder gives NaN or infinity for speech, allowed are numbers"
            )
            return
        quiet = trial.run(crop, silence, _LIMIT_S, waiting)
        loud = trial.run(crop, speech, _LIMIT_S, waiting)
    except DeadlineExceeded as error:
        findings.warning(f"{error}; what it answers was not looked at")
        return
    except LipwireError as error:
        findings.error(str(error))
        return
    problem = _unlike_a_picture(np.stack([quiet, loud]))
    if problem is not None:
        findings.error(f"{trial.label}: {problem}")
    elif np.array_equal(silence, speech):
        findings.warning("the audio encoder gives the same for silence and for speech")
    elif np.abs(loud - quiet).max() < _STEP / 2:
        findings.warning(
            f"{trial.label}: answers the same for silence and for speech: the mouth will not move"
        )


def _unlike_a_picture(mouths: Float32Array) -> str | None:
    """What is wrong with answers (N, 3, 320, 320), which have to be pictures in 0...1."""
    wrong = mouths.size - int(np.count_nonzero(np.isfinite(mouths)))
    if wrong:
        return (
            f"answers NaN or infinity for the first frame ({wrong} of {mouths.size} numbers),"
            " allowed are finite numbers from 0 to 1"
        )
    low, dark, high = (
        float(value) for value in np.quantile(mouths, [_SHARE, _DARK_SHARE, 1 - _SHARE])
    )
    if low < -_OUTSIDE or high > 1 + _OUTSIDE or dark < -_DARK:
        guess = ""
        if high > 4 and low > -_OUTSIDE * 255:
            guess = ": it seems to answer in 0 to 255, which its last layer has to divide by 255"
        elif low >= -1 - _OUTSIDE and high <= 1 + _OUTSIDE:
            guess = (
                ": it seems to answer in -1 to 1, of which its last layer has to make (x + 1) / 2"
            )
        return f"answers from {low:.3g} to {high:.3g} for the first frame, allowed is 0 to 1{guess}"
    if all(float(np.ptp(channel)) < _STEP for mouth in mouths for channel in mouth):
        return (
            f"answers one colour for the first frame ({mouths.mean():.3g} on average); a picture of"
            " a mouth is needed"
        )
    return None


def _crop(pictures: Pictures, rect: CropRect, settings: AvatarSettings) -> UInt8Array:
    with closing(frame_tasks(pictures)) as tasks:
        crop = network_crop(next(tasks)(), rect, settings.crop_border)
    return np.ascontiguousarray(crop[..., ::-1]) if settings.colour_order == "rgb" else crop


def _windows(encoder: AudioEncoder | None) -> tuple[Float32Array, Float32Array]:
    """Windows (32, 16, 16) of silence and of the loudest there is."""
    if encoder is None:
        noise = np.random.default_rng(0).standard_normal(AUDIO_WINDOW_SHAPE, np.float32)
        return np.zeros(AUDIO_WINDOW_SHAPE, np.float32), noise
    (silence,) = extract_windows(np.zeros(SAMPLE_RATE_HZ // 25, np.float32), encoder)
    spoken = extract_windows(sample_speech()[: 3 * SAMPLE_RATE_HZ], encoder)
    loudest = int(np.argmax([np.square(window - silence).sum() for window in spoken]))
    return silence, spoken[loudest]
