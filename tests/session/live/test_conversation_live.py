"""Speech that is spoken while it comes, in virtual time: a microphone, its jitter and its clock."""

import itertools
import math
import random
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from tests.support.liveparts import NoEncoder
from tests.support.livesimulation import (
    FRAME_S,
    FRAME_SAMPLES,
    LOOKAHEAD_SAMPLES,
    RATE_HZ,
    Left,
    Simulation,
    check,
    speech_like,
)

from lipwire.audio import AudioEncoder
from lipwire.domain import Float32Array
from lipwire.session.live import SessionSettings
from lipwire.session.live.hearing import SpeechReader

LOOKAHEAD_S = LOOKAHEAD_SAMPLES / RATE_HZ


def delays_s(simulation: Simulation, begun_s: float, speech: int = 1) -> list[float]:
    """How long after its beginning in the microphone each frame was heard."""
    return [
        frame * FRAME_S - begun_s - number * FRAME_S
        for number, frame in enumerate(simulation.frames_of(speech))
    ]


def jitters(most_s: float, seed: int) -> Iterator[float]:
    source = random.Random(seed)
    return iter(lambda: source.uniform(0, most_s), -1.0)


def with_pauses(seconds: int) -> Float32Array:
    """Speech with half a second of silence in every three."""
    pcm = speech_like(seconds)
    for first in range(0, seconds * RATE_HZ, 3 * RATE_HZ):
        pcm[first + 2 * RATE_HZ : first + 2 * RATE_HZ + RATE_HZ // 2] = 0
    return pcm


@pytest.mark.slow
@pytest.mark.parametrize("piece_s", [0.02, 0.1, 0.01, 0.06])
@pytest.mark.parametrize("processing_s", [0.005, 0.03])
def test_a_microphone_is_heard_at_a_constant_delay(piece_s: float, processing_s: float) -> None:
    simulation = Simulation(processing=lambda now_s: processing_s)
    simulation.send(speech_like(20.0), 1.007, piece_s=piece_s)
    simulation.run(25.0)
    check(simulation)
    # A piece comes when its last sample was spoken.
    delays = delays_s(simulation, 1.007 - piece_s)
    assert max(delays) - min(delays) < 1e-9
    most_s = LOOKAHEAD_S + piece_s + max(processing_s, 0.03) * 1.15 + 0.005 + FRAME_S
    assert delays[0] <= most_s
    assert simulation.conversation.dropped.total == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_speech_waits_for_no_grid_of_frames(seed: int) -> None:
    """Whenever in a frame's time its audio comes, it is shown as soon as it can be."""
    source = random.Random(seed)
    simulation = Simulation()
    begun = [1.0 + 4.0 * index + source.random() for index in range(12)]
    for at_s in begun:
        simulation.send(speech_like(2.0), at_s)
    simulation.run(60.0)
    check(simulation)
    left_s = {left.sounds[-1].frame: left.at_s for left in simulation.left}
    delays = [
        left_s[frame] - (at_s - 0.02) - number * FRAME_S
        for index, at_s in enumerate(begun)
        for number, frame in enumerate(simulation.frames_of(index + 1))
        if index  # how long mouths take is known by then
    ]
    assert max(delays) - min(delays) < 0.01
    assert max(delays) < LOOKAHEAD_S + 0.02 + 0.03 * 1.15 + 0.005
    # Frames stay where they are, but for less than one.
    assert all(abs(at_s - frame * FRAME_S) < FRAME_S for frame, at_s in left_s.items())
    times = sorted(left_s.values())
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.015
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 2 * FRAME_S


@pytest.mark.slow
@pytest.mark.parametrize("piece_s", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_jitter_adds_itself_to_the_delay_once(piece_s: float, seed: int) -> None:
    simulation = Simulation()
    pcm = with_pauses(60)
    simulation.send(pcm, 1.0, piece_s=piece_s, jitter=jitters(0.08, seed))
    simulation.run(65.0)
    check(simulation, jumps=True)
    delays = delays_s(simulation, 1.0 - piece_s)
    assert simulation.conversation.dropped.total == 0
    assert max(delays) <= LOOKAHEAD_S + piece_s + 0.08 * 1.25 + 0.05 + 2 * FRAME_S
    # All of the sound is there, but for corrections in pauses.
    assert abs(len(simulation.said(1)) - len(pcm)) <= 2 * FRAME_SAMPLES
    frames = simulation.frames_of(1)
    loud = [sound.samples.any() for sound in simulation.sounds if sound.speech]
    for number, (frame, after) in enumerate(itertools.pairwise(frames)):
        if number > 25 and loud[number] and loud[number + 1]:
            assert after == frame + 1, "a stall within speech"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.005, 0.995])
@pytest.mark.parametrize("gate", [True, False])
def test_a_microphone_with_another_clock_is_heard_at_a_constant_delay(
    rate: float, gate: bool
) -> None:
    # As far apart after two minutes as clocks that differ by 100 ppm are after two hours.
    simulation = Simulation(SessionSettings(sound_rate_hz=RATE_HZ, gate=gate))
    pcm = with_pauses(120)
    simulation.send(pcm, 1.0, every_s=0.02 / rate)
    simulation.run(140.0)
    check(simulation, jumps=True)
    assert simulation.conversation.dropped.total == 0
    wanted = 120 * abs(rate - 1) / FRAME_S
    said, sent = simulation.said(1), simulation.sent_of(1)
    if rate > 1:
        # Frames are left out, in pauses only.
        assert wanted - 4 <= (len(sent) - len(said)) / FRAME_SAMPLES <= wanted + 2
        assert np.count_nonzero(said) == np.count_nonzero(sent)
        np.testing.assert_array_equal(said[said > 0], sent[sent > 0])
    else:
        # Silence is put in, in pauses only.
        np.testing.assert_array_equal(said, sent)
        frames = simulation.frames_of(1)
        held = [
            number
            for number, (frame, after) in enumerate(itertools.pairwise(frames))
            if after != frame + 1
        ]
        assert wanted - 4 <= len(held) <= wanted + 2
        parts = said.reshape(-1, FRAME_SAMPLES)
        assert not any(parts[number + 1].all() and parts[number].all() for number in held)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.995, 1.005])
def test_hours_of_a_microphone_take_no_more_memory_and_delay(rate: float) -> None:
    # As far apart at the end as clocks that differ by 100 ppm are after twelve hours.
    minutes = 14
    simulation = Simulation(keep=False)
    conversation = simulation.conversation
    pcm = with_pauses(3)
    delays: list[float] = []
    sizes: list[int] = []

    def look(left: Left) -> None:
        if conversation._speeches and left.sounds[-1].frame % 250 == 0:
            (speech,) = conversation._speeches
            simulation.sent.clear()
            delays.append(conversation.buffered_s)
            sizes.append(
                len(speech._weights)
                + len(speech.made)
                + len(speech.waiting)
                + len(speech.incoming)
                + len(speech._sound)
            )

    simulation.on_left = look
    for index in range(minutes * 60 * 10):
        first = index * 1600 % len(pcm)
        piece = pcm[first : first + 1600]
        simulation.at(1.0 + index * 0.1 / rate, lambda piece=piece: simulation.push(piece))  # type: ignore[misc]
    simulation.run(minutes * 60.0)
    assert len(delays) > minutes * 5
    assert max(delays) < delays[1] + 0.2
    assert max(sizes) < 100
    assert conversation.dropped.total == 0


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("piece_s", [0.02, 0.1])
def test_a_microphone_of_another_rate_is_heard_at_a_constant_delay(
    rate_hz: int, piece_s: float
) -> None:
    settings = SessionSettings(sound_rate_hz=RATE_HZ, gate=False)
    encoder = cast("AudioEncoder", NoEncoder())
    simulation = Simulation(settings, reader=lambda: SpeechReader(encoder, settings))
    times_s = np.arange(10 * rate_hz) / rate_hz
    pcm = (0.5 * np.sin(2 * np.pi * 200 * times_s)).astype(np.float32)
    simulation.send(pcm, 1.0, rate_hz=rate_hz, piece_s=piece_s)
    simulation.run(15.0)
    delays = delays_s(simulation, 1.0 - piece_s)
    assert max(delays) - min(delays) < 1e-9
    assert delays[0] <= LOOKAHEAD_S + piece_s + 0.12 + 0.05 + FRAME_S
    assert simulation.conversation.dropped.total == 0
    said = simulation.said(1)
    assert len(said) == 10 * RATE_HZ
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(len(said)) / RATE_HZ)
    assert np.abs(said - expected)[200:-200].max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("lookahead_ms", [0, 200, 30])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_less_look_ahead_is_less_delay(lookahead_ms: float, rate_hz: int) -> None:
    settings = SessionSettings(gate=False, lookahead_ms=lookahead_ms)
    encoder = cast("AudioEncoder", NoEncoder())
    simulation = Simulation(settings, reader=lambda: SpeechReader(encoder, settings))
    pcm = np.full(10 * rate_hz, 0.5, np.float32)
    simulation.send(pcm, 1.0, rate_hz=rate_hz)
    simulation.run(15.0)
    delays = delays_s(simulation, 0.98)
    assert max(delays) - min(delays) < 1e-9
    assert delays[0] <= max(lookahead_ms / 1000, FRAME_S) + 0.02 + 0.04 + 0.05 + FRAME_S
    assert simulation.conversation.dropped.total == 0
    assert len(simulation.said(1)) == 10 * 48_000


def test_an_outage_is_made_up_for_in_the_pauses_behind_it() -> None:
    simulation = Simulation()
    pcm = with_pauses(60)
    hold = itertools.chain([0.0] * 1000, [0.4], itertools.repeat(0.0))
    simulation.send(pcm, 1.0, jitter=hold)
    simulation.run(65.0)
    check(simulation, jumps=True)
    delays = delays_s(simulation, 0.98)
    before, worst = delays[400], max(delays[490:700])
    assert worst > before + 0.2
    # What was left out makes later frames count from further on.
    left_out = (len(pcm) - len(simulation.said(1))) / FRAME_SAMPLES
    assert worst - before - left_out * FRAME_S <= 2 * FRAME_S
    assert math.isclose(left_out, round(left_out))


def test_speech_made_faster_than_it_is_spoken_loses_nothing() -> None:
    simulation = Simulation()
    pcm = with_pauses(60)
    simulation.send(pcm, 1.0, piece_s=0.2, every_s=0.15)
    simulation.run(65.0)
    check(simulation)
    np.testing.assert_array_equal(simulation.said(1), pcm)
