"""Places in one piece of memory for tensors that are not all needed at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALIGNMENT_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor of ``size_bytes`` that is needed from step ``first`` to step ``last`` of a run,
    inclusive."""

    size_bytes: int
    first: int
    last: int


def arrange(spans: Sequence[Span]) -> tuple[list[int], int]:
    """Return the offset in bytes of each of ``spans`` in one piece of memory, and the size of that
    piece in bytes.

    Spans that are needed at the same time do not overlap. Every offset is a multiple of 256. The
    largest spans are placed first, each at the lowest offset where nothing else is as long as it is
    needed.
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    for index in sorted(range(len(spans)), key=lambda index: -spans[index].size_bytes):
        span = spans[index]
        offset = 0
        for other in sorted(placed, key=lambda other: offsets[other]):
            if spans[other].last < span.first or span.last < spans[other].first:
                continue
            if offset + span.size_bytes <= offsets[other]:
                break
            offset = max(offset, _aligned(offsets[other] + spans[other].size_bytes))
        offsets[index] = offset
        placed.append(index)
    size_bytes = max(
        (offset + span.size_bytes for offset, span in zip(offsets, spans, strict=True)), default=0
    )
    return offsets, _aligned(size_bytes)


def _aligned(size_bytes: int) -> int:
    return size_bytes + -size_bytes % ALIGNMENT_BYTES
