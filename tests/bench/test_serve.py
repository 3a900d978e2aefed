import pytest

from lipwire.bench.serve import run, run_besides, run_table


@pytest.mark.slow
def test_the_table_has_a_row_for_each_load() -> None:
    loads = run_table(1, batches=(1, 3), clients=(2,), size=(320, 240), widths=None)
    assert [(load.clients, load.batch, load.requests) for load in loads] == [(2, 1, 2), (2, 3, 2)]
    for load in loads:
        parts = load.inference.p50_ms, load.compositing.p50_ms, load.overhead.p50_ms
        assert sum(parts) > 0
        assert max(parts) < load.total.p99_ms
        assert load.frame_ms == load.total.p50_ms / load.batch
        assert load.fps > 0


@pytest.mark.slow
def test_the_guides_form_is_compared_with_an_echo() -> None:
    (comparison,) = run(1, size=(320, 240))
    assert "59 MB" in comparison.name
    assert comparison.ratio > 0
    assert comparison.notes.endswith("times the echo's time")


@pytest.mark.slow
def test_what_the_network_takes_is_told_apart() -> None:
    besides = run_besides(2, size=(320, 240))
    assert besides.network_ms > 0
    assert besides.besides_ms == besides.frame_ms - besides.network_ms
