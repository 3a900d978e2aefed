"""Training material: what was done to the sound must be done to the mouth's times too."""

import numpy as np
import pytest

from lipwire.audio import mel_spectrogram
from lipwire.domain import SAMPLE_RATE_HZ, InvalidInput
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import OPEN
from studio.speech import Utterance, augment, draw
from studio.speech.mixtures import resampled


def beeps(seconds: float = 1.0) -> Utterance:
    """A tone from 0.4 to 0.6 s, which is an /ɑ/; silence round it."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave = np.where((t >= 0.4) & (t < 0.6), 0.5 * np.sin(2 * np.pi * 500 * t), 0)
    phones = (Phone("", 0, 0.4), Phone("ɑ", 0.4, 0.6), Phone("", 0.6, seconds))
    return Utterance("tone", "", (wave * 32767).astype(np.int16), phones)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_playing_faster_moves_sound_and_phones_together(speed: float) -> None:
    played = resampled(beeps(), speed)
    loud = np.flatnonzero(np.abs(played.pcm) > 3000) / SAMPLE_RATE_HZ
    assert loud[0] == pytest.approx(played.phones[1].start_s, abs=0.003)
    assert loud[-1] == pytest.approx(played.phones[1].end_s, abs=0.003)
    assert played.phones[1].start_s == pytest.approx(0.4 / speed)


def test_a_mixture_has_its_mouth_open_when_it_sounds() -> None:
    open_when_loud, open_when_still = [], []
    for k in range(12):
        rng = np.random.default_rng(k)
        made = draw([beeps()], 75, rng)
        assert (made.pcm.shape, str(made.pcm.dtype)) == ((75 * 640,), "float32")
        assert np.abs(made.pcm).max() <= 1
        assert (made.controls.shape, str(made.controls.dtype)) == ((75, 6), "float32")
        energy = (made.pcm.reshape(75, -1) ** 2).mean(axis=1)
        if made.controls[:, OPEN].max() > 0.5:
            open_when_loud.append(energy[made.controls[:, OPEN] > 0.6].mean())
            open_when_still.append(energy[made.controls[:, OPEN] < 0.05].mean())
    assert len(open_when_loud) > 8
    assert np.mean(np.array(open_when_loud) > np.array(open_when_still)) > 0.9


def test_the_same_generator_draws_the_same_mixture() -> None:
    first, again = (draw([beeps()], 50, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.pcm, again.pcm)
    assert np.array_equal(first.controls, again.controls)


def test_nobody_to_draw_from() -> None:
    with pytest.raises(InvalidInput, match="0 utterances"):
        draw([], 10, np.random.default_rng(0))


@pytest.mark.parametrize("kind", augment.NOISE_KINDS)
def test_noise_has_unit_power(kind: augment.NoiseKind) -> None:
    made = augment.noise(16000, kind, np.random.default_rng(0))
    assert (made.shape, str(made.dtype)) == ((16000,), "float32")
    assert np.mean(made**2) == pytest.approx(1, rel=1e-3)


def test_noise_is_added_at_its_level() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(16000).astype(np.float32) * np.float32(0.1)
    hiss = augment.noise(16000, "pink", rng)
    noisy = augment.add_noise(speech, hiss, 12.0)
    ratio_db = 10 * np.log10(np.mean(speech**2) / np.mean((noisy - speech) ** 2))
    assert ratio_db == pytest.approx(12, abs=0.1)


def test_a_shorter_throat_moves_every_frequency_up() -> None:
    t = np.arange(16000) / SAMPLE_RATE_HZ
    low, high = (
        mel_spectrogram((0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32))
        for hz in (1500, 1800)
    )
    assert np.array_equal(augment.warp_bands(low, 1.0), low)
    moved = augment.warp_bands(low, 1.2)
    assert moved.shape == low.shape
    assert abs(int(moved[40].argmax()) - int(high[40].argmax())) <= 1


def test_a_room_leaves_the_direct_sound_in_place() -> None:
    click = np.zeros(8000, np.float32)
    click[1000] = 1
    for k in range(5):
        wet = augment.reverberate(click, np.random.default_rng(k))
        assert int(np.argmax(np.abs(wet))) == 1000
        assert not np.abs(wet[:1000]).max() > 1e-4
        assert wet[1000:].std() > wet[:1000].std()
