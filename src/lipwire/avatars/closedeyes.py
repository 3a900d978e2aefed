"""Which frames show closed eyes: the key ``closed_eyes`` of ``avatar.yaml``.

It is a list of numbers and spans, ``[12, 40-43]``. They are the numbers of the source's frames,
counted from 0 as in a list of rectangles, and the last one of a span belongs to it.
"""

import re
from collections.abc import Sequence
from typing import Final

Spans = tuple[tuple[int, int], ...]
"""First and last number of each span."""

ALLOWED: Final = "a list of frame numbers and spans of them, as [12, 40-43]"

_SPAN: Final = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", re.ASCII)


def parse_spans(entries: Sequence[str]) -> Spans:
    """Return (first, last) frame number of each of ``entries``, which are texts: (12, 12) for "12",
    (40, 43) for "40-43". Raises ValueError for any other text, and for a span that ends
    before it begins."""
    spans = []
    for entry in entries:
        found = _SPAN.fullmatch(entry.strip())
        if found is None:
            raise ValueError(f"{entry} is no frame number and no span")
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise ValueError(f"{entry} begins behind its end")
        spans.append((first, last))
    return tuple(spans)


def beyond(spans: Spans, frames: int) -> str | None:
    """Return a line for a person that says that ``spans``, (first, last) numbers of source frames
    from 0, go beyond the ``frames`` frames that a source has; None where they do not, or there are
    no spans."""
    last = max((last for _, last in spans), default=0)
    if last < frames:
        return None
    return f"closed_eyes names frame {last}; allowed are 0 to {frames - 1}"


def shown_frames_of(spans: Spans, shown: Sequence[int]) -> frozenset[int]:
    """Return which of the frames that an avatar shows, 25 a second, are made of source frames in
    ``spans``: their numbers, from 0.

    Source frames are those of the package's folder or video. ``spans`` are (first, last) numbers
    of these, both included; ``shown`` has, for each frame that is shown, the number of its source
    frame.
    """
    return frozenset(
        number
        for number, source in enumerate(shown)
        if any(first <= source <= last for first, last in spans)
    )
