"""One piece of memory for things that are not all needed at the same time."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from lipwire.engine.gpu.kernels.lowering.offsets import ALIGNMENT_BYTES, Span, arrange

STEPS = 12


@st.composite
def _spans(draw: st.DrawFn) -> Span:
    steps = [draw(st.integers(0, STEPS)) for _ in range(2)]
    return Span(draw(st.integers(0, 5 * ALIGNMENT_BYTES)), min(steps), max(steps))


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _together(spans: Iterable[Span]) -> int:
    """The most bytes that are needed in one step."""
    sizes = [0] * (STEPS + 1)
    for span in spans:
        for step in range(span.first, span.last + 1):
            sizes[step] += span.size_bytes
    return max(sizes)


@given(st.lists(_spans(), max_size=14))
def test_what_is_needed_at_the_same_time_lies_apart(spans: list[Span]) -> None:
    offsets, size_bytes = arrange(spans)
    assert all(offset >= 0 and offset % ALIGNMENT_BYTES == 0 for offset in offsets)
    placed = list(zip(spans, offsets, strict=True))
    assert all(offset + span.size_bytes <= size_bytes for span, offset in placed)
    for number, (one, at) in enumerate(placed):
        for other, there in placed[:number]:
            apart = at + one.size_bytes <= there or there + other.size_bytes <= at
            assert apart or one.last < other.first or other.last < one.first


@given(st.lists(_spans(), max_size=14))
def test_it_is_as_long_as_a_step_needs_and_no_longer_than_all_together(spans: list[Span]) -> None:
    _, size_bytes = arrange(spans)
    assert size_bytes % ALIGNMENT_BYTES == 0
    assert _together(spans) <= size_bytes <= sum(_aligned(span.size_bytes) for span in spans)


@given(st.lists(st.integers(1, 5 * ALIGNMENT_BYTES), max_size=12))
def test_what_is_needed_one_after_another_lies_in_one_place(sizes: list[int]) -> None:
    spans = [Span(size_bytes, step, step) for step, size_bytes in enumerate(sizes)]
    offsets, size_bytes = arrange(spans)
    assert set(offsets) <= {0}
    assert size_bytes == _aligned(max(sizes, default=0))


def test_a_chain_takes_turns_in_two_places() -> None:
    """Each step reads what the one before it made."""
    spans = [Span(1000, step, step + 1) for step in range(7)]
    assert arrange(spans) == ([0, 1024, 0, 1024, 0, 1024, 0], 2048)


def test_what_fits_lies_in_the_gap_between_two_others() -> None:
    spans = [Span(1024, 0, 1), Span(512, 0, 0), Span(768, 0, 1), Span(300, 1, 1), Span(700, 1, 1)]
    offsets, size_bytes = arrange(spans)
    assert offsets == [0, 1792, 1024, 2560, 1792]
    assert size_bytes == 3072


def test_nothing_takes_no_memory() -> None:
    assert arrange([]) == ([], 0)
