"""With the demo avatar: a live session shows the mouths that a render shows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.api import open_recording
from lipwire.audio import heard_in_full, silence_window
from lipwire.domain import AudioWindows, Call, CropRect, Float32Array, Mouths, UInt8Array
from lipwire.evaluation.material import Interior
from lipwire.evaluation.opening import openings
from lipwire.serving import RestMouths
from lipwire.session import Performer, animate
from lipwire.session.live import (
    Item,
    LiveAvatar,
    LiveFrame,
    LiveSession,
    LiveThreads,
    Pacer,
    SessionSettings,
)
from lipwire.wiring.performing import open_performer

pytestmark = pytest.mark.slow

SECONDS = 4
LIPS = CropRect(100, 85, 230, 150)
"""In a mouth of the demo avatar."""


@pytest.fixture(scope="module")
def performer() -> Iterator[Performer]:
    with open_performer("demo", parts=frozenset()) as opened:
        yield opened


@pytest.fixture(scope="module")
def speech() -> Float32Array:
    sample = Path(__file__).parents[3] / "src" / "lipwire" / "assets" / "speech" / "sample.flac"
    with open_recording(sample) as recording:
        return heard_in_full(recording)[: SECONDS * 16_000]


@pytest.fixture(scope="module")
def rendered(performer: Performer, speech: Float32Array) -> UInt8Array:
    return np.concatenate([batch.mouths for batch in animate(performer, speech)])


def shown(performer: Performer, speech: Float32Array, **settings: Any) -> UInt8Array:
    """The mouths that a session pastes, (n, 320, 320, 3) uint8; speech comes in odd pieces."""
    avatar, items = performer.avatar, list[Item]()

    def mouths(first: int, windows: AudioWindows, call: Call | None) -> Mouths:
        crops = avatar.crops(first, len(windows))
        return performer.engine.infer(performer.model, crops, windows)

    silence = silence_window(performer.encoder)[None]
    with (
        RestMouths(avatar, mouths, silence) as rest,
        Pacer() as pacer,
        ThreadPoolExecutor(4) as workers,
        ThreadPoolExecutor(1) as composing,
    ):
        live = LiveAvatar(
            "demo",
            avatar.width,
            avatar.height,
            avatar.frame_count,
            lambda position, mouth: b"" if mouth is None else mouth.tobytes(),
            mouths,
            rest,
            performer.encoder,
            lambda: None,
        )
        threads = LiveThreads(pacer, workers, composing)
        with LiveSession(live, SessionSettings(paced=False, **settings), threads) as session:
            session.fill_outbox()
            outbox = session.outbox
            session.start()
            for first in range(0, len(speech), 3333):
                session.push(speech[first : first + 3333], 16_000)
            session.end_of_speech()

            def over() -> bool:
                items.extend(outbox.take(0.01) or [])
                return session.silent

            until(over)
            items.extend(outbox.take(0.0) or [])
    frames = [item for item in items if isinstance(item, LiveFrame)]
    assert [frame.position for frame in frames] == list(range(len(frames)))
    return np.stack([np.frombuffer(frame.data, np.uint8).reshape(320, 320, 3) for frame in frames])


def test_each_mouth_is_the_same_bit_for_bit(
    performer: Performer, speech: Float32Array, rendered: UInt8Array
) -> None:
    live = shown(performer, speech, gate=False, crossfade_frames=0)
    np.testing.assert_array_equal(live, rendered)


def test_with_gate_and_crossfade_it_opens_as_far(
    performer: Performer, speech: Float32Array, rendered: UInt8Array
) -> None:
    live = shown(performer, speech)
    assert len(live) == len(rendered)
    seen, wanted = (openings(mouths, LIPS, Interior()) for mouths in (live, rendered))
    assert wanted.std() > 1  # it speaks
    assert np.corrcoef(seen, wanted)[0, 1] >= 0.99
