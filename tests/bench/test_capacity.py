import pytest

from lipwire.bench.capacity import run_capacity


@pytest.mark.slow
def test_more_avatars_than_there_is_memory_for_are_served() -> None:
    found = run_capacity(
        3.0,
        avatars=60,
        memory_mb=16,
        size=(320, 240),
        widths=(4, 4, 4, 4, 4),
        exponent=0.5,
        warm_rate=20,
        other_rate=40,
    )
    assert (found.errors, found.first_error) == (0, "")
    assert 0 < found.cold_requests <= found.zipf_requests < found.requests
    assert found.evictions > 0
    assert 0 < found.peak_bytes <= found.budget_bytes == 16 * 2**20
    assert 0 < found.peak_network_bytes < found.peak_bytes
    assert found.hit_rate == 1 - found.cold_requests / found.zipf_requests
    assert found.cold.p50_ms > 0
    assert found.warm_alone.p50_ms > 0
