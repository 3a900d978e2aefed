"""The benchmark of live sessions: that it runs, and that its figures are about what they say."""

from types import SimpleNamespace
from typing import Any

import pytest

from lipwire.bench.live import Density, Figure, run_density, run_live
from lipwire.bench.live.clients import lateness_ms, missing
from lipwire.session.live import LiveFrame


def client(*came: tuple[float, int]) -> Any:
    """A client that received frames, each at a time (seconds) and with its number."""
    frames = [(at, LiveFrame(number, b"", 1, 1, number, 1)) for at, number in came]
    return SimpleNamespace(frames=frames)


@pytest.mark.slow
def test_every_figure_is_measured() -> None:
    (report,) = [each for each in run_live(1.0, quick=True) if each.runner != "GPU"]
    figures = {figure.what: figure for figure in report.figures}
    for what in ("first frame, cold", "first frame, warm", "interruption"):
        assert 0 < (figures[what].p50_ms or 0) <= (figures[what].p99_ms or 0)
    assert "leases allow" in figures["sessions held"].note
    assert "of a core" in figures["processor time, speaking"].note
    assert any(what.startswith("latency from the last sample") for what in figures)
    assert sum(what.startswith("latency beside") for what in figures) == 2


@pytest.mark.slow
def test_what_a_session_costs_is_measured() -> None:
    (found,) = run_density(1.0, quick=True)
    assert found.runner.startswith("ONNX Runtime")
    assert 0 < found.mouth_ms < 1000
    assert 0 < found.besides_share < found.session_share
    assert found.allowed >= 1


def test_sessions_are_cores_by_what_one_takes() -> None:
    # 25 mouths of 20 ms are half a core, and a tenth is for the rest.
    found = Density("a runner", 4, 15.0, 200.0, 0.1, 6, "", 6)
    assert found.session_share == pytest.approx(0.6)
    assert [found.sessions(cores) for cores in (1, 4, 32)] == [1, 6, 48]


def test_a_figure_is_the_median_and_the_99th_percentile() -> None:
    figure = Figure.of("latency", [float(number) for number in range(1, 101)])
    assert (figure.p50_ms, figure.p99_ms) == (50.0, 99.0)


def test_frames_are_late_by_the_clock_of_their_session() -> None:
    on_time = [(5.0 + 0.04 * number, number) for number in range(1, 20)]
    late = lateness_ms(client((0.0, 0), *on_time, (5.9, 20)), 1)
    assert late[:-1] == pytest.approx([0.0] * 19, abs=1e-6)
    assert late[-1] == pytest.approx(100.0)


def test_frames_that_did_not_come_are_counted() -> None:
    came = client((0.0, 0), (0.04, 1), (0.16, 4), (9.0, 5))
    assert missing(came, 0, until_s=0.2) == pytest.approx(2 / 5)
    # Nothing for long: what was due since then did not come, but for two that may be on their way.
    assert missing(came, 0, until_s=0.97) == pytest.approx(1 - 3 / (5 + 18))
    assert missing(came, 0, until_s=0.0) == 1.0
