"""The queue of sound: what goes in comes out, in frames of 1024."""

import numpy as np
import pytest

from lipwire.compose.sound import AacQueue


def test_pieces_of_any_size_come_out_as_frames_of_1024() -> None:
    pcm = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    queue = AacQueue(16_000, 1)
    for start in range(0, 5000, 333):
        queue.push(pcm[start : start + 333])
    frames = list(queue.take(None))
    assert [start for start, _ in frames] == [0, 1024, 2048, 3072, 4096]
    assert [samples.shape for _, samples in frames] == [(1, 1024)] * 4 + [(1, 904)]
    assert np.array_equal(np.concatenate([samples[0] for _, samples in frames]), pcm)


def test_no_frame_begins_behind_the_limit() -> None:
    queue = AacQueue(16_000, 1)
    queue.push(np.zeros(5000, np.float32))
    assert [start for start, _ in queue.take(640)] == [0]
    assert [start for start, _ in queue.take(1024)] == []
    assert [start for start, _ in queue.take(2049)] == [1024, 2048]


def test_channels_are_planes_and_loud_samples_are_clipped() -> None:
    queue = AacQueue(44_100, 2)
    queue.push(np.array([[0.5, -3.0], [2.0, 0.25]], np.float32))
    ((_, samples),) = queue.take(None)
    assert samples.tolist() == [[0.5, 1.0], [-1.0, 0.25]]
    assert samples.flags.c_contiguous


@pytest.mark.parametrize(
    ("rate_hz", "channels", "expected"),
    [(16_000, 1, 96_000), (48_000, 1, 128_000), (44_100, 2, 256_000), (8_000, 1, 48_000)],
)
def test_the_bit_rate_is_one_that_aac_can_spend(rate_hz: int, channels: int, expected: int) -> None:
    assert AacQueue(rate_hz, channels).bits_a_second == expected


def test_a_rate_that_aac_does_not_know_becomes_48_khz_of_the_same_length() -> None:
    queue = AacQueue(10_000, 1)
    assert queue.rate_hz == 48_000
    for _ in range(10):
        queue.push(np.zeros(1000, np.float32))
    assert sum(samples.shape[1] for _, samples in queue.take(None)) == 48_000
