import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.audio import extract_windows
from lipwire.domain import AvatarInvalid, Float32Array, InvalidInput, UInt8Array
from lipwire.engine import Engine
from lipwire.session import Performer, Stopwatch, animate

OwnThreads = Callable[[], list[str]]


def expected_mouths(performer: Performer, speech: Float32Array, start_frame: int) -> UInt8Array:
    windows = extract_windows(speech, performer.encoder)
    crops = np.stack([performer.avatar.crop(start_frame + i) for i in range(len(windows))])
    return performer.engine.infer(performer.model, crops, windows)


def with_engine(performer: Performer, infer: Any) -> Performer:
    return replace(performer, engine=cast(Engine, SimpleNamespace(infer=infer)))


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "lanes"), [(5, 2), (1, 1), (2, 3), (100, 1)])
def test_mouths_come_in_order_and_equal_those_of_the_whole_speech(
    performer: Performer, speech: Float32Array, batch_size: int, lanes: int
) -> None:
    batches = list(animate(performer, speech, start_frame=3, batch_size=batch_size, lanes=lanes))

    mouths = np.concatenate([batch.mouths for batch in batches])
    assert len(mouths) == 33  # 20900 samples of 640 a frame
    np.testing.assert_array_equal(mouths, expected_mouths(performer, speech, 3))
    assert [batch.first for batch in batches] == list(range(0, 33, batch_size))
    assert all(batch.background == batch.first + 3 for batch in batches)


def test_one_sample_is_one_frame(performer: Performer) -> None:
    batches = list(animate(performer, np.zeros(1, np.float32)))
    assert [len(batch.mouths) for batch in batches] == [1]


def test_threads_end_with_the_iterator(
    performer: Performer, speech: Float32Array, own_threads: OwnThreads
) -> None:
    list(animate(performer, speech, lanes=2))
    assert own_threads() == []


def test_closing_half_way_ends_the_threads(
    performer: Performer, speech: Float32Array, own_threads: OwnThreads
) -> None:
    with closing(animate(performer, speech, lanes=2)) as batches:
        next(batches)
        assert own_threads() != []
    assert own_threads() == []


def test_an_error_of_the_network_comes_out_and_ends_the_threads(
    performer: Performer, speech: Float32Array, own_threads: OwnThreads
) -> None:
    calls = []

    def infer(model: object, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        calls.append(1)
        if len(calls) == 3:
            raise AvatarInvalid("the network failed")
        return crops

    batches = animate(with_engine(performer, infer), speech)
    with pytest.raises(AvatarInvalid, match="the network failed"):
        list(batches)
    assert own_threads() == []


def test_an_error_of_the_audio_encoder_comes_out_and_ends_the_threads(
    performer: Performer,
    speech: Float32Array,
    own_threads: OwnThreads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encode(self: object, mels: Float32Array) -> Float32Array:
        raise AvatarInvalid("the encoder failed")

    monkeypatch.setattr("lipwire.audio.encoder.AudioEncoder.encode", encode)
    with pytest.raises(AvatarInvalid, match="the encoder failed"):
        list(animate(performer, speech, lanes=2))
    assert own_threads() == []


def test_nothing_is_computed_far_ahead_of_who_takes_it(
    performer: Performer, speech: Float32Array
) -> None:
    lock = threading.Lock()
    started = taken = 0
    ahead: set[int] = set()

    def infer(model: object, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        nonlocal started
        with lock:
            started += 1
            ahead.add(started - taken)
        return crops

    def all_have_begun_that_may() -> bool:
        return started >= min(17, taken + 3)  # 17 batches; lanes + 1 beside the one that is taken

    for _ in animate(with_engine(performer, infer), speech, batch_size=2, lanes=2):
        taken += 1
        until(all_have_begun_that_may)
    assert 2 + 1 <= max(ahead) <= 2 + 2  # lanes + 2, the one that is taken among them


def test_lanes_work_side_by_side(performer: Performer, speech: Float32Array) -> None:
    both = threading.Barrier(2, timeout=60)

    def infer(model: object, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        both.wait()  # breaks unless two are in here at once
        return crops

    batches = animate(with_engine(performer, infer), speech[: 640 * 8], batch_size=1, lanes=2)
    assert sum(len(batch.mouths) for batch in batches) == 8


def test_every_stage_is_timed(performer: Performer, speech: Float32Array) -> None:
    watch = Stopwatch()
    list(animate(performer, speech, stopwatch=watch))
    assert set(watch.times()) == {"audio", "crop", "network"}
    assert all(spent.wall_ms > 0 for spent in watch.times().values())


@pytest.mark.parametrize(
    ("pcm", "arguments", "message"),
    [
        (np.zeros((2, 2), np.float32), {}, r"shape \(2, 2\)"),
        (np.zeros(0, np.float32), {}, "0 samples"),
        (np.array([0, np.nan], np.float32), {}, "not numbers"),
        (np.zeros(9, np.float32), {"start_frame": -1}, "start_frame is -1"),
        (np.zeros(9, np.float32), {"batch_size": 0}, "batch_size is 0"),
        (np.zeros(9, np.float32), {"lanes": 0}, "lanes is 0"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    performer: Performer, pcm: Float32Array, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        animate(performer, pcm, **arguments)
