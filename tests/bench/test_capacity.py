from pathlib import Path

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
        hot=0,
    )
    assert (found.errors, found.first_error) == (0, "")
    assert 0 < found.cold_requests <= found.zipf_requests < found.requests
    assert found.evictions > 0
    assert 0 < found.peak_bytes <= found.budget_bytes == 16 * 2**20
    assert 0 < found.peak_network_bytes < found.peak_bytes
    assert found.hit_rate == 1 - found.cold_requests / found.zipf_requests
    assert found.cold.p50_ms > 0
    assert found.warm_alone.p50_ms > 0
    assert (found.hot, found.peak_hot_bytes) == ({}, 0)


@pytest.mark.slow
def test_avatars_that_are_used_much_are_asked_for_as_well() -> None:
    found = run_capacity(
        2.0,
        avatars=4,
        memory_mb=256,
        size=(320, 240),
        widths=(4, 4, 4, 4, 4),
        hot=2,
        hot_rate=10,
        hot_memory_mb=50,
    )
    assert (found.errors, found.first_error) == (0, "")
    assert found.hot["float32"].p50_ms > 0
    assert 0 <= found.peak_hot_bytes <= found.hot_budget_bytes == 50 * 2**20


@pytest.mark.slow
def test_more_avatars_than_the_cache_has_room_for_are_served(tmp_path: Path) -> None:
    found = run_capacity(
        3.0,
        avatars=200,
        memory_mb=64,
        exponent=0.5,
        warm_rate=20,
        other_rate=40,
        hot=0,
        store=f"file://{tmp_path}/store",
        cached=60,
    )
    assert (found.errors, found.first_error) == (0, "")
    assert 32 < found.stored < 200
    assert found.cold_requests > 0
    assert 0 < found.peak_cache_bytes <= found.cache_bytes
    assert found.cold.p50_ms > 0
