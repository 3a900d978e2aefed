"""Turns on two levels: of tenants, and of the keys of each."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scheduling.schedules import frames

from lipwire.domain import SERVICES, Service
from lipwire.scheduling.fairness import FairQueue
from lipwire.scheduling.jobs import Job, Piece


def job(key: str, count: int, tenant: str = "", service: Service = "batch") -> Job[str]:
    return Job(
        key,
        "pixels",
        *frames(count),
        deadline=None,
        submitted_s=0.0,
        withdraw=lambda _: True,
        service=service,
        tenant=tenant,
    )


def always(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return True


def never(pieces: list[Piece[str]], other: Job[str], frames: int) -> bool:
    return False


def filled(*jobs: Job[str], quantum: int = 8) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(quantum)
    for each in jobs:
        queue.push(each)
    return queue


def shares(pieces: list[Piece[str]]) -> list[tuple[str, str, int]]:
    return [(piece.job.tenant, piece.job.key, piece.frames) for piece in pieces]


@given(
    quantum=st.integers(1, 12),
    most=st.lists(st.integers(1, 12), min_size=1, max_size=7),
    tenants=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_tenants_have_equal_shares_and_in_them_their_keys(
    quantum: int, most: list[int], tenants: list[list[int]]
) -> None:
    # Each key of each tenant has requests of one size, and never runs out of them.
    queue: FairQueue[str] = FairQueue(quantum)
    of_tenant = {f"t{number}": 0 for number in range(len(tenants))}
    of_key = {(f"t{n}", f"k{k}"): 0 for n, sizes in enumerate(tenants) for k in range(len(sizes))}
    sizes = {
        (f"t{n}", f"k{k}"): size for n, all_ in enumerate(tenants) for k, size in enumerate(all_)
    }
    for (tenant, key), size in sizes.items():
        for _ in range(2):
            queue.push(job(key, size, tenant))
    for number in range(150):
        for piece in queue.take(most[number % len(most)], never):
            line = piece.job.tenant, piece.job.key
            of_tenant[piece.job.tenant] += piece.frames
            of_key[line] += piece.frames
            if piece.job.left == 0:
                queue.push(job(piece.job.key, sizes[line], piece.job.tenant))
        assert max(of_tenant.values()) - min(of_tenant.values()) <= quantum
        for tenant in of_tenant:
            counts = [count for (name, _), count in of_key.items() if name == tenant]
            assert max(counts) - min(counts) <= quantum


@pytest.mark.slow
@given(st.data())
def test_whatever_is_pushed_comes_out_once_and_in_order(data: st.DataObject) -> None:
    queue: FairQueue[str] = FairQueue(data.draw(st.integers(1, 9)))
    waiting: list[Job[str]] = []
    came: Counter[Job[str]] = Counter()
    pushed: list[Job[str]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        what = data.draw(st.sampled_from(["push", "push", "take", "remove"]))
        if what == "push":
            new = job(
                data.draw(st.sampled_from("abc")),
                data.draw(st.integers(1, 20)),
                data.draw(st.sampled_from("xyz")),
                data.draw(st.sampled_from(SERVICES)),
            )
            pushed.append(new)
            waiting.append(new)
            queue.push(new)
        elif what == "remove" and waiting:
            gone = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            assert queue.remove(gone)
            assert not queue.remove(gone)
        elif what == "take":
            first = min((SERVICES.index(each.service) for each in waiting), default=None)
            head = queue.head()
            most = data.draw(st.integers(1, 12))
            join = data.draw(st.booleans())
            pieces = queue.take(
                most, always if join else never, lambda key: None if key == "c" else "group"
            )
            assert [piece.job for piece in pieces[:1]] == ([head] if head else [])
            assert {SERVICES.index(piece.job.service) for piece in pieces} == (
                set() if first is None else {first}
            )
            assert sum(piece.frames for piece in pieces) <= most
            for piece in pieces:
                assert piece.start == came[piece.job]
                came[piece.job] += piece.frames
            waiting = [each for each in waiting if each.left]
        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        assert queue.frames == sum(each.left for each in waiting)
        for service in SERVICES:
            own = [each for each in waiting if each.service == service]
            assert queue.jobs_of(service) == len(own)
            assert queue.frames_of(service) == sum(each.left for each in own)
    assert all(came[each] == each.frames for each in pushed if not each.left)


def test_a_thousand_keys_of_one_tenant_have_one_turn() -> None:
    queue = filled(*(job(f"a{number}", 8, "large") for number in range(1000)))
    queue.push(job("b", 24, "small"))
    order = [queue.take(8, never)[0].job.tenant for _ in range(6)]
    assert order == ["large", "small"] * 3


def test_a_key_of_two_tenants_has_a_line_in_each() -> None:
    queue = filled(job("shared", 20, "x"), job("shared", 20, "x"), job("shared", 4, "y"))
    assert shares(queue.take(8, never)) == [("x", "shared", 8)]
    assert shares(queue.take(8, never)) == [("y", "shared", 4)]
    assert queue.frames_by_key() == {"shared": 32}


def test_what_a_tenant_could_not_use_of_its_turn_it_has_next_time() -> None:
    queue = filled(
        job("a1", 5, "x"), job("a2", 5, "x"), job("a3", 5, "x"), job("b", 40, "y"), quantum=8
    )
    taken = [shares(queue.take(8, never))[0] for _ in range(6)]
    assert taken == [
        ("x", "a1", 5),
        ("x", "a2", 3),
        ("y", "b", 8),
        ("x", "a2", 2),
        ("x", "a3", 5),
        ("y", "b", 8),
    ]


def test_a_tenant_alone_has_no_turns_to_end() -> None:
    queue = filled(job("a", 5, "x"), job("b", 5, "x"), job("c", 8, "x"))
    assert [shares(queue.take(8, never))[0][2] for _ in "123"] == [5, 5, 8]


def test_other_tenants_fill_a_run_after_the_first_ones_own_keys() -> None:
    queue = filled(
        job("a1", 2, "x"), job("a2", 2, "x"), job("a3", 2, "y"), job("a4", 9, "z"), quantum=8
    )
    taken = shares(queue.take(8, always, lambda key: "all"))
    assert taken == [("x", "a1", 2), ("x", "a2", 2), ("y", "a3", 2), ("z", "a4", 2)]
    assert queue.frames_by_key() == {"a4": 7}


def test_the_tenant_with_most_jobs_gives_up_the_newest_of_its_longest_line() -> None:
    jobs = [job("a", 1, "x"), job("a", 1, "x"), job("b", 1, "x"), job("c", 1, "y")]
    queue = filled(*jobs)
    assert queue.newest_of_longest_line("a", "y") is jobs[1]
    assert queue.newest_of_longest_line("a", "new") is jobs[1]
    assert queue.newest_of_longest_line("a", "x") is None, "it is its own longest line"
    queue.push(job("a", 1, "x"))
    assert queue.newest_of_longest_line("new", "x") is list(queue)[2], "a key of its own tenant"
    few = filled(job("a", 1, "x"), job("b", 1, "x"), job("c", 1, "y"))
    assert few.newest_of_longest_line("d", "y") is None, "two each is fair"


def test_of_many_keys_with_one_job_each_the_last_gives_it_up_unless_it_was_begun() -> None:
    queue = filled(*(job(f"a{number}", 1, "x") for number in range(4)))
    last = queue.newest_of_longest_line("b", "y")
    assert last is not None
    assert last.key == "a3"
    begun = filled(job("a", 4, "x"), job("b", 4, "x"), job("c", 4, "x"), quantum=2)
    for _ in range(3):
        begun.take(2, never)
    assert begun.newest_of_longest_line("d", "y") is None


def test_an_earlier_class_is_given_the_place_of_the_last_class_that_waits() -> None:
    batch, render, begun = job("a", 1), job("b", 1, "x", "render"), job("c", 2, "x", "render")
    queue = filled(batch, begun)
    assert queue.newest_of_longest_line("n", "", "batch") is begun
    assert queue.take(1, never)[0].job is batch
    assert queue.take(1, never)[0].job is begun
    assert queue.newest_of_longest_line("n", "", "live") is begun, "there is no other"
    queue.push(render)
    assert queue.newest_of_longest_line("n", "", "live") is render
    assert queue.newest_of_longest_line("n", "x", "render") is None
    queue.remove(render)
    queue.remove(begun)
    assert queue.newest_of_longest_line("n", "", "live") is None


def test_frames_before_a_request_are_those_of_its_line_and_as_many_of_each_other() -> None:
    queue = filled(
        job("own", 3, "x"),
        job("more", 20, "x"),
        job("less", 2, "x"),
        job("more", 12, "y"),
        job("other", 36, "y"),
        job("few", 1, "z"),
        job("live", 7, "y", "live"),
        job("render", 50, "y", "render"),
    )
    # Its line has 3 and gets 5: 8 of "own", 8 of "more", 2 of "less"; 18 of each other tenant.
    before: Counter[str] = Counter()
    for key, count in queue.frames_before(job("own", 5, "x")):
        before[key] += count  # type: ignore[assignment]
    assert before == {
        "live": 7,
        "own": 3,
        "more": 8 + 18 / 48 * 12,
        "less": 2,
        "other": 18 / 48 * 36,
        "few": 1,
    }
