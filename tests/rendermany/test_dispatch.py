"""Who renders what."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lipwire.rendermany import Dispatch, RenderJob


def jobs(*avatars: str) -> list[RenderJob]:
    return [
        RenderJob(line, avatar, Path("a.wav"), Path(f"{line}.mp4"))
        for line, avatar in enumerate(avatars, 2)
    ]


def lines(dispatch: Dispatch, worker: str, count: int) -> list[int]:
    """The lines of the next jobs of a worker that finishes each."""
    found = []
    for _ in range(count):
        job = dispatch.give(worker)
        assert job is not None
        found.append(job.line)
        assert dispatch.finished(worker) == job
    return found


def test_a_worker_goes_on_with_the_avatar_that_it_has_open() -> None:
    dispatch = Dispatch(jobs("anna", "bert", "anna", "bert", "anna"))
    assert lines(dispatch, "one", 5) == [2, 4, 6, 3, 5]
    assert dispatch.left == 0
    assert dispatch.give("one") is None


def test_workers_spread_over_avatars() -> None:
    dispatch = Dispatch(jobs(*["anna"] * 6, "bert", "bert"))
    given = [dispatch.give(worker) for worker in ("one", "two", "three", "four")]
    assert Counter(job.avatar for job in given if job) == {"anna": 3, "bert": 1}
    assert (dispatch.left, dispatch.waiting) == (8, 4)


def test_a_job_whose_worker_was_lost_comes_next_and_thrice_at_most() -> None:
    dispatch = Dispatch(jobs("anna", "anna"))
    first, second = jobs("anna", "anna")
    for worker in ("one", "two"):
        assert dispatch.give(worker) == first
        assert dispatch.lost(worker) is None
    assert dispatch.give("three") == first
    assert dispatch.lost("three") == first
    assert dispatch.give("four") == second
    assert dispatch.finished("four") == second
    assert dispatch.left == 0
    assert dispatch.lost("idle") is None


@given(
    st.lists(st.sampled_from(["anna", "bert", "carl"]), max_size=20),
    st.lists(st.tuples(st.sampled_from("xyz"), st.booleans()), max_size=200),
)
def test_every_job_ends_once(avatars: list[str], happens: list[tuple[str, bool]]) -> None:
    dispatch = Dispatch(jobs(*avatars))
    ended: Counter[RenderJob] = Counter()
    has: dict[str, RenderJob] = {}

    def happen(worker: str, well: bool) -> None:
        if worker in has:
            job = has.pop(worker)
            over = dispatch.finished(worker) if well else dispatch.lost(worker)
            assert over in (job, None)
            ended.update([over] if over else [])
        elif (job_given := dispatch.give(worker)) is not None:
            assert job_given not in has.values()
            has[worker] = job_given

    for worker, well in happens:
        happen(worker, well)
    while dispatch.left:
        happen("x", True)
        for worker in list(has):
            happen(worker, True)
    assert ended == Counter(jobs(*avatars))
