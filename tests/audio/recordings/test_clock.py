"""Time stamps to one clock: frames made by hand, so that each case is one line."""

import av
import numpy as np
import pytest

from lipwire.audio.recordings.clock import MAX_HOLE_S, Decoded, on_one_clock
from lipwire.audio.recordings.findings import Findings
from lipwire.domain import Float32Array, InvalidInput

RATE_HZ = 8_000
FRAME_S = 0.02


def frames(
    times_s: list[float | None], format_name: str = "flt", lost_s: dict[int, float] | None = None
) -> list[Decoded]:
    """Frames of 20 ms, full of samples that are not silence."""
    made = []
    for index, time_s in enumerate(times_s):
        dtype = {"flt": np.float32, "s16": np.int16, "u8": np.uint8}[format_name]
        frame = av.AudioFrame.from_ndarray(np.full((1, 160), 1, dtype), format_name, "mono")
        frame.sample_rate = RATE_HZ
        made.append(Decoded(frame, time_s, (lost_s or {}).get(index, 0.0)))
    return made


def clocked(given: list[Decoded], findings: Findings | None = None) -> Float32Array:
    found = list(on_one_clock(given, findings or Findings("a.webm")))
    return np.concatenate([frame.to_ndarray()[0] for frame in found])


def silences(samples: Float32Array, silence: float = 0.0) -> list[tuple[float, float]]:
    """(begin, length) in seconds of every stretch of silence."""
    edges = np.flatnonzero(np.diff(np.r_[0, samples == silence, 0]))
    return [
        (float(a) / RATE_HZ, float(b - a) / RATE_HZ)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def steady(count: int, start_s: float = 0.0) -> list[float | None]:
    return [start_s + FRAME_S * index for index in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        (steady(50), []),
        ([None] * 50, []),  # the container knows no times
        (steady(10) + steady(10, 2.2), [(0.2, 2.0)]),  # a pause
        (steady(10) + steady(10, 0.22), [(0.2, 0.02)]),  # one packet was lost
        (steady(5) + steady(5, 0.5) + steady(5, 1.0), [(0.1, 0.4), (0.6, 0.4)]),
        ([0.0, 0.4, 0.8, 1.2], [(0.02, 0.38), (0.42, 0.38), (0.82, 0.38)]),  # DTX
        ([0.0, 0.021, 0.039, 0.061, 0.08, 0.101], []),  # rounded to milliseconds
        ([FRAME_S * i + (i % 2) * 0.01 for i in range(50)], []),  # jitter
        ([FRAME_S * i * 1.001 for i in range(5000)], []),  # a clock that drifts by 0.1 s
        (steady(10, 0.05), []),  # a codec's delay
        (steady(10, 0.5), [(0.0, 0.5)]),  # sound that begins after the pictures
        (steady(10, -0.3), []),
        ([None, 0.092, 0.112, 0.132], []),  # WMA
        (steady(10) + steady(10), []),  # two files put together
        (steady(10) + steady(10) + steady(10, 1.2), [(0.4, 1.0)]),
        ([*steady(10), FRAME_S * 10 + 300.0, *steady(10, FRAME_S * 11)], []),  # one wrong stamp
        (steady(10) + steady(10, 36_000.0), []),  # a jump of ten hours
        (steady(10) + steady(10, 36_000.0) + steady(10, 36_001.2), [(0.4, 1.0)]),
        (steady(10) + steady(10, 0.2 + MAX_HOLE_S), [(0.2, MAX_HOLE_S)]),
    ],
)
def test_holes_are_silence_and_nothing_else_is(
    times_s: list[float | None], expected: list[tuple[float, float]]
) -> None:
    samples = clocked(frames(times_s))
    found = silences(samples)
    assert found == [pytest.approx(hole, abs=1e-3) for hole in expected]
    assert len(samples) == len(times_s) * 160 + round(sum(s for _, s in found) * RATE_HZ)


@pytest.mark.parametrize(("format_name", "silence"), [("flt", 0), ("s16", 0), ("u8", 128)])
def test_silence_is_in_the_form_of_the_sound(format_name: str, silence: float) -> None:
    samples = clocked(frames(steady(5) + steady(5, 1.1), format_name))
    assert silences(samples, silence) == [pytest.approx((0.1, 1.0))]


def test_no_piece_of_silence_is_longer_than_a_second() -> None:
    found = on_one_clock(frames(steady(5) + steady(5, 60.1)), Findings("a.webm"))
    assert max(frame.samples for frame in found) == RATE_HZ


def test_long_holes_and_jumps_are_noted_with_their_place() -> None:
    findings = Findings("a.webm")
    clocked(frames(steady(10) + steady(10, 2.2) + steady(10, 36_000.0)), findings)
    hole, jump = findings.warnings
    assert hole.startswith("a.webm: nothing is recorded for 2.00 s, 0.20 s after its beginning")
    assert "jumps by 35998 s, 2.40 s after its beginning; up to 600 s" in jump


@pytest.mark.parametrize("timed", [True, False])
def test_damage_is_refused_with_its_place_or_is_silence_of_its_length(timed: bool) -> None:
    times_s: list[float | None] = steady(10) + steady(10, 0.26) if timed else [None] * 20
    given = frames(times_s, lost_s={10: 0.06})
    with pytest.raises(InvalidInput, match=r"a\.webm is damaged 0\.20 s after its beginning"):
        clocked(given)
    allowing = Findings("a.webm", allow_damaged=True)
    assert silences(clocked(given, allowing)) == [pytest.approx((0.2, 0.06))]
    assert allowing.warnings == (
        "a.webm: damaged 0.20 s after its beginning; 0.06 s of silence there",
    )


def test_what_fails_in_front_of_the_first_frame_is_no_damage() -> None:
    assert silences(clocked(frames(steady(10), lost_s={0: 0.5}))) == []


def test_a_fault_that_repeats_does_not_fill_the_screen() -> None:
    findings = Findings("a.mp3")
    for _ in range(1000):
        findings.note("is strange")
    assert len(findings.warnings) == 9
    assert "992 more" in findings.warnings[-1]
