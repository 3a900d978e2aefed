"""How many frames go through a GPU at once.

A GPU wants shapes that stay: a session is made for each of a few batch sizes, and a request is run
in batches of these. The last one may be filled up with frames that nobody asked for, which cost as
much as any other.
"""

import functools

from lipwire.engine.tuning import BATCH_SIZES


@functools.lru_cache(maxsize=4096)
def split(frames: int, sizes: tuple[int, ...] = BATCH_SIZES) -> tuple[int, ...]:
    """Return the sizes of the batches in which ``frames`` (at least 1) are run, largest first.

    ``sizes`` are the allowed sizes, rising. The sum of the result is at least ``frames``, and as
    near to it as these sizes allow; of the ways to reach this sum, one with the fewest batches is
    chosen.
    """
    most = frames + sizes[0] - 1
    # fewest[n]: (number of batches, the largest of them) that make n frames exactly.
    fewest: list[tuple[int, int] | None] = [(0, 0)] + [None] * most
    for total in range(1, most + 1):
        ways = [
            (before[0] + 1, size)
            for size in sizes
            if size <= total and (before := fewest[total - size]) is not None
        ]
        fewest[total] = min(ways, key=lambda way: (way[0], -way[1])) if ways else None
    total = next(n for n in range(frames, most + 1) if fewest[n] is not None)
    batches = []
    while total:
        found = fewest[total]
        assert found is not None  # every step leads to a total that can be made
        batches.append(found[1])
        total -= found[1]
    return tuple(sorted(batches, reverse=True))
