"""Turns on two levels: of tenants, and of the keys of each."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scheduling.schedules import frames

from lipwire.domain import SERVICES, Service
from lipwire.scheduling.fairness import FairQueue
from lipwire.scheduling.jobs import Job, Piece


def job(
    key: str,
    count: int,
    tenant: str = "",
    service: Service = "batch",
    deadline: float | None = None,
) -> Job[str]:
    return Job(
        key,
        "pixels",
        *frames(count),
        deadline=deadline,
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


@pytest.mark.slow
@settings(max_examples=25)
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
    settled = False  # at first it counts who has asked for more
    for number in itertools.count():
        for piece in queue.take(most[number % len(most)], never):
            line = piece.job.tenant, piece.job.key
            of_tenant[piece.job.tenant] += piece.frames
            of_key[line] += piece.frames
            if piece.job.left == 0:
                queue.push(job(piece.job.key, sizes[line], piece.job.tenant))
        if not settled and sum(of_tenant.values()) > 3000:
            settled = True
            of_tenant, of_key = dict.fromkeys(of_tenant, 0), dict.fromkeys(of_key, 0)
        if not settled:
            continue
        assert max(of_tenant.values()) - min(of_tenant.values()) <= 2 * quantum
        for tenant in of_tenant:
            counts = [count for (name, _), count in of_key.items() if name == tenant]
            assert max(counts) - min(counts) <= 2 * quantum
        if sum(of_tenant.values()) > 600:
            break


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
    order = [queue.take(8, never)[0].job.tenant for _ in range(5)]
    assert order == ["large", "small", "small", "small", "large"], "it has asked for more"


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


def test_of_live_jobs_the_earliest_deadline_is_first() -> None:
    jobs = [job("a", 1, service="live", deadline=deadline) for deadline in (3.0, 1.0, 2.0)]
    queue = filled(*jobs)
    assert [queue.take(8, never)[0].job.deadline for _ in jobs] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("taken", [True, False])
def test_the_tenant_with_most_jobs_is_the_one_with_most_that_are_left(taken: bool) -> None:
    """Of 5 jobs of one tenant some are taken, or removed; the other has 3."""
    many = [job("a", 1, "many") for _ in range(5)]
    queue = filled(*many, *(job("b", 1, "few") for _ in range(3)))

    def newest() -> str:
        found = queue.newest_of_longest_line("c", "other")
        assert found is not None
        return found.tenant

    def one_less() -> None:
        if taken:
            assert shares(queue.take(1, never)) == [("many", "a", 1)]
        else:
            queue.remove(many.pop())

    one_less()
    queue.push(job("b", 1, "few"))  # 4 and 4: the one whose turn is first
    assert newest() == "many"
    one_less()
    assert newest() == "few"
    one_less()
    assert newest() == "few"


def test_a_tenant_that_has_none_is_let_in_where_another_has_two() -> None:
    queue = filled(job("a", 1, "one"), job("a", 1, "one"))
    refused = queue.newest_of_longest_line("a", "other")
    assert refused is not None
    assert refused.tenant == "one"


def test_a_job_that_was_begun_is_not_refused_where_another_waits() -> None:
    queue = filled(job("begun", 20, service="render"), job("waits", 1, service="render"))
    queue.take(8, never)
    refused = queue.newest_of_longest_line("any", service="batch")
    assert refused is not None
    assert refused.key == "waits"


def test_frames_of_a_key_are_counted_whoever_has_them() -> None:
    queue = filled(job("a", 2, "one"), job("a", 3, "two"), job("a", 4, service="render"))
    assert queue.frames_by_key() == {"a": 9}


def test_before_a_tenants_first_job_each_other_has_as_many_frames() -> None:
    queue = filled(job("a", 5, "one"), job("b", 5, "one"))
    assert dict(queue.frames_before(job("c", 2, "two"))) == {"a": 1.0, "b": 1.0}


def test_before_a_keys_first_job_its_tenants_others_have_as_many_frames() -> None:
    queue = filled(job("a", 10, "one"), job("b", 3, "one"))
    assert dict(queue.frames_before(job("c", 4, "one"))) == {"a": 4, "b": 3}


def spent(queue: FairQueue[str], tenant: str, count: int) -> None:
    """Have ``tenant`` take ``count`` frames while it is alone."""
    queue.push(job("spent", count, tenant))
    while queue.jobs_of("batch"):
        queue.take(8, never)


def order(queue: FairQueue[str], takes: int) -> str:
    """Tenants of the next takes, each of one letter."""
    return "".join(queue.take(8, never)[0].job.tenant for _ in range(takes))


def known(queue: FairQueue[str], *tenants: str) -> None:
    """Have each of ``tenants`` take one frame."""
    for tenant in tenants:
        spent(queue, tenant, 1)


def test_who_asks_for_little_goes_before_who_asks_for_much() -> None:
    queue = filled()
    known(queue, "s")
    spent(queue, "l", 400)
    queue.push(job("a", 400, "l"))
    queue.push(job("b", 24, "s"))
    assert order(queue, 5) == "ssslll"[:5]
    queue.push(job("b", 8, "s"))
    assert order(queue, 2) == "sl"


def test_who_comes_back_does_not_go_before_those_who_were_there() -> None:
    queue = filled()
    spent(queue, "s", 100)
    for _ in range(20):
        for name in "lm":
            spent(queue, name, 200)
    for name in "lms":
        queue.push(job("a", 200, name))
    assert order(queue, 6) == "lmslms"


def test_who_has_asked_for_much_has_half_a_share_all_the_same() -> None:
    queue = filled()
    for name in "lab":
        spent(queue, name, 100)
    for _ in range(40):
        queue.push(job("a", 100, "l"))
        for name in "ab":
            queue.push(job("a", 30, name))
    had = Counter(order(queue, 160))
    assert abs(had["a"] - had["b"]) <= 1, "though they have enough to do for all of the time"
    assert 0.25 <= had["l"] / had["a"] <= 0.45


def test_a_tenant_that_nobody_knows_goes_before_none_by_as_much() -> None:
    queue = filled()
    spent(queue, "l", 400)
    queue.push(job("a", 100, "l"))
    queue.push(job("b", 400, "s"))
    assert order(queue, 6) == "lslsls"


def test_those_who_ask_for_little_take_turns() -> None:
    queue = filled()
    spent(queue, "l", 400)
    for name in "lst":
        queue.push(job(name, 24, name))
    assert order(queue, 9) == "stststlll"


def test_before_a_job_are_all_frames_of_those_who_ask_for_little_and_none_of_others() -> None:
    queue = filled()
    spent(queue, "s", 24)
    spent(queue, "l", 400)
    queue.push(job("a", 400, "l"))
    assert dict(queue.frames_before(job("b", 24, "s"))) == {"a": 0.0}
    queue.push(job("b", 24, "s"))
    before = dict(queue.frames_before(job("c", 8, "l")))
    assert before["b"] == 24
