from collections import Counter

import numpy as np

from lipwire.engine.fairness import FairQueue
from lipwire.engine.jobs import Job, Piece


def job(key: str, frames: int, side: int = 2) -> Job[str]:
    return Job(
        key,
        "pixels",
        np.zeros((frames, side, side, 3), np.uint8),
        np.zeros((frames, 1), np.float32),
        deadline=None,
        submitted_s=0.0,
        withdraw=lambda _: None,
    )


def always(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return True


def never(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return False


def turns(queue: FairQueue[str], most: int = 8) -> list[tuple[str, int]]:
    """Keys and frames in the order in which they come out."""
    out = []
    while pieces := queue.take(most, never):
        out.append((pieces[0].job.key, sum(piece.frames for piece in pieces)))
    return out


def test_a_busy_key_takes_turns_with_the_others() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for _ in range(20):
        queue.push(job("busy", 8))
    queue.push(job("quiet", 8))
    queue.push(job("other", 3))
    assert turns(queue)[:4] == [("busy", 8), ("quiet", 8), ("other", 3), ("busy", 8)]


def test_large_requests_get_no_more_than_small_ones() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for _ in range(10):
        queue.push(job("large", 50))
    for _ in range(500):
        queue.push(job("small", 1))
    frames: Counter[str] = Counter()
    while frames.total() < 400:
        for piece in queue.take(8, never):
            frames[piece.job.key] += piece.frames
    assert abs(frames["large"] - frames["small"]) <= 8


def test_what_a_key_could_not_use_of_its_turn_it_has_next_time() -> None:
    # Requests of 5 cannot be joined, and a turn is 8: 5 and 3, then 2 and 5 and 1, ...
    queue: FairQueue[str] = FairQueue(8)
    for _ in range(16):
        queue.push(job("fives", 5))
        queue.push(job("eights", 8))
    frames: Counter[str] = Counter()
    for _ in range(20):
        for piece in queue.take(8, never):
            frames[piece.job.key] += piece.frames
    assert abs(frames["fives"] - frames["eights"]) <= 8


def test_joins_what_is_alike_up_to_the_limit() -> None:
    queue: FairQueue[str] = FairQueue(8)
    jobs = [job("a", 3), job("b", 1), job("a", 3), job("a", 4), job("a", 1, side=9)]
    for each in jobs:
        queue.push(each)
    pieces = queue.take(8, always)
    assert [(piece.job, piece.start, piece.stop) for piece in pieces] == [
        (jobs[0], 0, 3),
        (jobs[2], 0, 3),
        (jobs[3], 0, 2),
    ]
    assert [piece.job for piece in queue.take(8, always)] == [jobs[1]]
    assert [(p.job, p.start, p.stop) for p in queue.take(8, always)] == [(jobs[3], 2, 4)]
    assert [piece.job for piece in queue.take(8, always)] == [jobs[4]]
    assert queue.take(8, always) == []


def test_counts_what_waits() -> None:
    queue: FairQueue[str] = FairQueue(4)
    first, second = job("a", 6), job("b", 2)
    queue.push(first)
    queue.push(second)
    assert (len(queue), queue.frames, queue.frames_by_key()) == (2, 8, {"a": 6, "b": 2})
    queue.take(4, never)
    assert (len(queue), queue.frames) == (2, 4)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert (len(queue), queue.frames_by_key()) == (1, {"b": 2})
    assert list(queue) == [second]
    assert queue.head() is second


def test_the_longest_line_gives_way_and_only_to_one_that_has_less() -> None:
    queue: FairQueue[str] = FairQueue(4)
    busy = [job("busy", 1) for _ in range(3)]
    for each in busy:
        queue.push(each)
    queue.push(job("quiet", 1))
    assert queue.newest_of_longest_line("quiet") is busy[-1]
    assert queue.newest_of_longest_line("new") is busy[-1]
    assert queue.newest_of_longest_line("busy") is None
    queue.remove(busy[-1])
    assert queue.newest_of_longest_line("quiet") is None, "two each is fair"
