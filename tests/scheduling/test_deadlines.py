from tests.scheduling.schedules import frames

from lipwire.scheduling.deadlines import DeadlineQueue
from lipwire.scheduling.jobs import Job, Piece


def job(key: str, deadline: float | None, *, tenant: str = "", count: int = 1) -> Job[str]:
    return Job(
        key,
        "pixels",
        *frames(count),
        deadline=deadline,
        submitted_s=0.0,
        withdraw=lambda _: True,
        service="live",
        tenant=tenant,
    )


def always(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return True


def never(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return False


def filled(*jobs: Job[str]) -> DeadlineQueue[str]:
    queue: DeadlineQueue[str] = DeadlineQueue()
    for each in jobs:
        queue.push(each)
    return queue


def order(queue: DeadlineQueue[str]) -> list[str]:
    """Keys as they come out, a frame at a time."""
    keys = []
    while pieces := queue.take(1, never):
        keys.append(pieces[0].job.key)
    return keys


def test_the_earliest_deadline_is_first_and_those_without_one_are_last() -> None:
    queue = filled(job("x", None), job("c", 3.0), job("a", 1.0), job("y", None), job("b", 2.0))
    head = queue.head()
    assert head is not None
    assert head.key == "a"
    assert order(queue) == ["a", "b", "c", "x", "y"]


def test_an_earlier_deadline_comes_before_the_rest_of_a_request_that_was_begun() -> None:
    queue = filled(job("long", 2.0, count=3))
    assert queue.take(1, never)[0].job.key == "long"
    queue.push(job("urgent", 1.0))
    assert order(queue) == ["urgent", "long", "long"]


def test_of_equal_deadlines_tenants_have_turns() -> None:
    queue = filled(
        *(job(f"a{number}", 1.0, tenant="a") for number in range(3)),
        job("b0", 1.0, tenant="b"),
        job("c0", 2.0, tenant="c"),
    )
    assert order(queue) == ["a0", "b0", "a1", "a2", "c0"]


def test_a_large_request_takes_turns_with_those_of_its_deadline() -> None:
    queue = filled(job("a", 1.0, tenant="a", count=2), job("b", 1.0, tenant="b", count=2))
    assert order(queue) == ["a", "b", "a", "b"]


def test_without_deadlines_the_order_is_that_of_arrival() -> None:
    queue = filled(*(job(f"a{n}", None, tenant="a") for n in range(3)), job("b", None, tenant="b"))
    assert order(queue) == ["a0", "a1", "a2", "b"]


def test_a_run_is_filled_in_order_from_the_same_key_and_group() -> None:
    def group(key: str) -> str | None:
        return None if key == "alone" else key[0]

    queue = filled(
        job("a1", 1.0, count=2),
        job("b1", 2.0),
        job("a2", 3.0, count=3),
        job("a1", 4.0, count=9),
        job("a3", 5.0),
    )
    pieces = queue.take(8, always, group)
    assert [(piece.job.key, piece.frames) for piece in pieces] == [("a1", 2), ("a2", 3), ("a1", 3)]
    assert (queue.jobs, queue.frames) == (3, 8)
    assert queue.frames_by_key() == {"b1": 1, "a1": 6, "a3": 1}
    assert (
        filled(job("alone", 1.0), job("alone", 2.0), job("a1", 3.0))
        .take(8, always, group)[-1]
        .job.deadline
        == 2.0
    ), "the same key joins where it has no group"


def test_who_may_not_join_is_passed_over() -> None:
    queue = filled(*(job(key, number) for number, key in enumerate("abc")))

    def not_b(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
        return other.key != "b"

    taken = queue.take(8, not_b, lambda key: "all")
    assert [piece.job.key for piece in taken] == ["a", "c"]
    assert queue.frames_by_key() == {"b": 1}


def test_frames_before_are_those_of_earlier_deadlines() -> None:
    queue = filled(job("a", 1.0, count=2), job("a", 2.0, count=3), job("b", 3.0), job("c", None))
    assert queue.frames_before(job("new", 2.0)) == {"a": 5}
    assert queue.frames_before(job("new", None)) == {"a": 5, "b": 1, "c": 1}


def test_the_tenant_with_most_gives_up_its_last_and_only_to_one_that_has_less() -> None:
    jobs = [job(f"a{number}", float(number), tenant="a") for number in range(3)]
    queue = filled(*jobs, job("b", 9.0, tenant="b"))
    assert queue.newest_of_longest_line("new", "b") is jobs[2]
    assert queue.newest_of_longest_line("new", "c") is jobs[2]
    assert queue.newest_of_longest_line("new", "a") is None
    assert queue.remove(jobs[2])
    assert not queue.remove(jobs[2])
    assert queue.newest_of_longest_line("new", "b") is None, "two each is fair"
    assert filled().newest_of_longest_line("new", "a") is None


def test_what_was_begun_stays() -> None:
    begun = job("a0", 1.0, tenant="a", count=2)
    waiting = job("a1", 0.5, tenant="a")
    queue = filled(begun)
    queue.take(1, never)
    queue.push(waiting)
    assert queue.newest_of_longest_line("new", "b") is waiting


def test_tenants_without_jobs_are_forgotten() -> None:
    queue = filled(*(job("a", 1.0, tenant=f"tenant-{number}") for number in range(100)))
    order(queue)
    assert not queue._turns
    assert not queue._jobs_of
    assert list(queue) == []
    assert queue.head() is None
    assert queue.take(1, never) == []
