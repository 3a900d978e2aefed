"""Which channel is heard where channels cancel each other out, in part or behind other sound."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.audio.conftest import speech_like

from lipwire.audio import heard_columns
from lipwire.audio.recordings.channels import ChannelLevels
from lipwire.domain import Float32Array

RATE_HZ = 48_000
TIMES_S = np.arange(8 * RATE_HZ) / RATE_HZ
HUM = (0.2 * np.sin(2 * np.pi * 60 * TIMES_S)).astype(np.float32)
SILENCE = np.zeros(len(TIMES_S), np.float32)


def said(seed: int = 0) -> Float32Array:
    return speech_like(8.0, RATE_HZ, seed)


def noise(below_db: float, seed: int) -> Float32Array:
    rms = float(np.sqrt(np.mean(np.square(said())))) * 10 ** (-below_db / 20)
    drawn = np.random.default_rng(seed).standard_normal(len(TIMES_S)) * rms
    return drawn.astype(np.float32)


def until(end_s: float, first: Float32Array, then: Float32Array) -> Float32Array:
    return np.where(end_s > TIMES_S, first, then)


CASES: dict[str, Callable[[], tuple[list[Float32Array], int | None]]] = {
    "inverted": lambda: ([said(), -said()], 0),
    "inverted, the second louder": lambda: ([said(), -1.2 * said()], 1),
    "inverted in the second half": lambda: ([said(), until(4, said(), -said())], 0),
    "inverted for two seconds": lambda: ([said(), until(5, said(), until(7, -said(), said()))], 0),
    "inverted, and hum on both": lambda: ([said() + HUM, HUM - 1.1 * said()], 1),
    "inverted, and hum on one": lambda: ([said() + 3 * HUM, -said()], 0),
    "inverted, noise 11 dB below": lambda: (
        [said() + noise(11, 0), 1.1 * (noise(11, 1) - said())],
        1,
    ),
    "inverted, noise 8 dB below": lambda: ([said() + noise(8, 0), 1.1 * (noise(8, 1) - said())], 1),
    "inverted among six": lambda: ([said(), -said(), *[SILENCE] * 4], 0),
    # The first channel alone is deaf where the second one speaks.
    "one after the other, then inverted": lambda: (
        [until(3, said(), until(4, SILENCE, said())), until(4, said(), -said())],
        1,
    ),
    "alike": lambda: ([said(), said()], None),
    "on one alone": lambda: ([said(), SILENCE], None),
    "one after the other": lambda: ([until(4, said(), SILENCE), until(4, SILENCE, said())], None),
    "two speakers": lambda: ([said(), said(3)], None),
    "in the centre of six": lambda: ([SILENCE, SILENCE, said(), *[SILENCE] * 3], None),
    "later on the second": lambda: ([said(), np.roll(said(), 24)], None),
    "inverted hum under speech": lambda: ([said() + HUM, said() - HUM], None),
    "soft noise that is inverted": lambda: ([noise(60, 0), -noise(60, 0)], 0),
    # Either channel misses more than the average does.
    "two by turns, inverted for two seconds": lambda: (
        [until(6, until(3, said(), SILENCE), said()), until(6, until(3, SILENCE, said()), -said())],
        None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_the_channel_that_lacks_least_is_heard(name: str, dtype: type) -> None:
    channels, expected = CASES[name]()
    columns = np.stack(channels, axis=1).astype(np.float32)
    if dtype is np.int16:
        columns = np.rint(columns * 20_000).astype(np.int16)
    levels = ChannelLevels(len(channels))
    for start in range(0, len(columns), RATE_HZ):
        levels.add(columns[start : start + RATE_HZ], RATE_HZ)
    assert levels.choice() == expected
    heard = heard_columns(columns, RATE_HZ)
    assert np.array_equal(heard, columns if expected is None else columns[:, [expected]])


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [1000, 8000, 11_025, 16_000, 44_100, 192_000])
def test_seconds_count_at_every_rate(rate_hz: int) -> None:
    speech = speech_like(6.0, rate_hz)
    half = len(speech) // 2
    other = np.concatenate([speech[:half], -speech[half:]])
    levels = ChannelLevels(2)
    levels.add(np.stack([speech, other], axis=1), rate_hz)
    assert levels.choice() == 0
    levels = ChannelLevels(2)
    levels.add(np.stack([speech, speech], axis=1), rate_hz)
    assert levels.choice() is None


def test_what_is_no_sound_chooses_nothing() -> None:
    levels = ChannelLevels(2)
    with np.errstate(invalid="ignore", over="ignore"):
        levels.add(np.full((RATE_HZ, 2), np.nan, np.float32), RATE_HZ)
    assert levels.choice() is None


@pytest.mark.parametrize("rate_hz", [1, 2, 3, 50])
def test_a_rate_that_holds_no_voice_chooses_nothing(rate_hz: int) -> None:
    """A damaged header may say so."""
    levels = ChannelLevels(2)
    columns = np.tile(np.array([[0.5, -0.5]], np.float32), (400, 1))
    with np.errstate(divide="raise", invalid="raise"):
        levels.add(columns, rate_hz)
        levels.choice()
