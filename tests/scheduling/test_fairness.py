from collections import Counter

import numpy as np

from lipwire.scheduling.fairness import FairQueue
from lipwire.scheduling.jobs import Job, Piece


def job(key: str, frames: int, side: int = 2) -> Job[str]:
    return Job(
        key,
        "pixels",
        np.zeros((frames, side, side, 3), np.uint8),
        np.zeros((frames, 1), np.float32),
        deadline=None,
        submitted_s=0.0,
        withdraw=lambda _: True,
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


def test_what_was_begun_is_not_given_up() -> None:
    queue: FairQueue[str] = FairQueue(2)
    assert queue.newest_of_longest_line("new") is None
    first, second = job("busy", 4), job("busy", 4)
    queue.push(first)
    queue.push(second)
    assert queue.take(2, never)[0].job is first
    assert queue.newest_of_longest_line("new") is second
    queue.remove(second)
    assert queue.newest_of_longest_line("new") is None


def test_frames_and_jobs_are_counted_through_pushes_takes_and_removals() -> None:
    queue: FairQueue[str] = FairQueue(3)
    jobs = [job("a", 4), job("a", 5), job("b", 2), job("a", 1)]
    for each in jobs:
        queue.push(each)
    assert (len(queue), queue.frames_by_key()) == (4, {"a": 10, "b": 2})
    queue.take(3, never)
    assert (len(queue), queue.frames_by_key()) == (4, {"a": 7, "b": 2})
    queue.take(3, never)  # all of b
    assert (len(queue), queue.frames_by_key()) == (3, {"a": 7})
    queue.take(3, never)  # the last frame of the first
    assert (len(queue), queue.frames_by_key()) == (2, {"a": 6})
    assert queue.remove(jobs[1])
    assert (len(queue), queue.frames_by_key()) == (1, {"a": 1})
    assert queue.remove(jobs[3])
    assert (len(queue), queue.frames, list(queue), queue.head()) == (0, 0, [], None)


def test_a_key_in_debt_gets_no_more_than_its_share_in_its_next_turn() -> None:
    # Of the turn of 4, the first take uses 3; what is left is used before another 4 come.
    queue: FairQueue[str] = FairQueue(4)
    for _ in range(4):
        queue.push(job("a", 9))
        queue.push(job("b", 9))
    taken = [(p[0].job.key, sum(x.frames for x in p)) for p in (queue.take(3, never) for _ in "12")]
    assert taken == [("a", 3), ("a", 1)]
    assert [queue.take(3, never)[0].job.key for _ in "123"] == ["b", "b", "a"]


def test_what_may_join_is_asked_with_what_there_is_and_how_many_frames_would_come() -> None:
    queue: FairQueue[str] = FairQueue(8)
    jobs = [job("a", 3), job("a", 2), job("a", 7)]
    for each in jobs:
        queue.push(each)
    asked: list[tuple[list[Job[str]], Job[str], int]] = []

    def ask(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
        asked.append(([piece.job for piece in pieces], other, frames))
        return other is not jobs[2]

    assert [piece.job for piece in queue.take(8, ask)] == jobs[:2]
    assert asked == [(jobs[:1], jobs[1], 2), (jobs[:2], jobs[2], 3)]


def of_group(key: str) -> str | None:
    """Keys that begin with a capital letter run alone; others with those of the same letter."""
    return None if key[0].isupper() else key[0]


def shares(pieces: list[Piece[str]]) -> list[tuple[str, int]]:
    return [(piece.job.key, piece.frames) for piece in pieces]


def test_keys_of_a_group_fill_what_the_first_leaves_in_the_order_of_their_turns() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for key, frames in (("a1", 3), ("b1", 8), ("a2", 2), ("a3", 2), ("a4", 9)):
        queue.push(job(key, frames))
    asked: list[tuple[list[tuple[str, int]], str, int]] = []

    def ask(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
        asked.append((shares(pieces), other.key, frames))
        return True

    assert shares(queue.take(8, ask, of_group)) == [("a1", 3), ("a2", 2), ("a3", 2), ("a4", 1)]
    assert asked == [
        ([("a1", 3)], "a2", 2),
        ([("a1", 3), ("a2", 2)], "a3", 2),
        ([("a1", 3), ("a2", 2), ("a3", 2)], "a4", 1),
    ]
    assert queue.frames_by_key() == {"b1": 8, "a4": 8}
    assert shares(queue.take(8, always, of_group)) == [("b1", 8)]
    # Of its turn of 8 it had used one.
    assert shares(queue.take(8, always, of_group)) == [("a4", 7)]


def test_a_full_run_takes_nothing_of_others_and_keeps_their_turns() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for key, frames in (("a1", 4), ("a2", 4), ("a3", 4)):
        queue.push(job(key, frames))
    assert shares(queue.take(8, always, of_group)) == [("a1", 4), ("a2", 4)]
    assert queue.frames_by_key() == {"a3": 4}


def test_who_may_not_join_is_passed_over_and_keeps_what_it_had() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for key, frames in (("a1", 3), ("a2", 3), ("a3", 3)):
        queue.push(job(key, frames))

    def not_a2(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
        return other.key != "a2"

    assert shares(queue.take(8, not_a2, of_group)) == [("a1", 3), ("a3", 3)]
    assert queue.frames_by_key() == {"a2": 3}


def test_a_key_without_a_group_is_run_alone_and_joins_nobody() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for key, frames in (("A1", 3), ("A2", 3), ("a1", 3)):
        queue.push(job(key, frames))
    assert shares(queue.take(8, always, of_group)) == [("A1", 3)]
    assert shares(queue.take(8, always, of_group)) == [("A2", 3)]
    assert shares(queue.take(8, always, of_group)) == [("a1", 3)]
