from random import Random

import pytest

from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from lipwire.rpc.backends.retries import RetryPolicy, Tries

GONE = Unavailable("gone")
FULL = Overloaded("full")


class Rehearsal:
    """A call whose tries all fail, on a clock of its own."""

    def __init__(self, policy: RetryPolicy, deadline: float, servers: int, try_s: float) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._tries = Tries(policy, deadline, Random(7))
        self._order = [f"s{number}" for number in range(servers)]
        self._try_s = try_s
        self.asked: list[str] = []

    def run(self, error: LipwireError) -> int:
        """How many tries there were."""
        for count in range(1, 1000):
            self.asked.append(self._tries.choose(self._order))
            self.now += self._try_s
            pause = self._tries.pause_after(error, order=self._order, now=self.now)
            if pause is None:
                return count
            self.pauses.append(pause)
            self.now += pause
        raise AssertionError("it never ends")


@pytest.mark.parametrize("error", [GONE, FULL])
def test_one_server_is_asked_again_max_retries_times(error: LipwireError) -> None:
    call = Rehearsal(RetryPolicy(3, 0.1, 1.0), 10.0, servers=1, try_s=0.01)
    assert call.run(error) == 4
    for pause, full in zip(call.pauses, (0.1, 0.2, 0.4), strict=True):
        assert full / 2 <= pause <= full


def test_pauses_vary_and_stop_growing() -> None:
    policy = RetryPolicy(20, 0.1, 1.0)
    call = Rehearsal(policy, 1e6, servers=1, try_s=0.0)
    assert call.run(GONE) == 21
    assert max(call.pauses) <= 1.0
    assert len(set(call.pauses)) == 20


def test_a_server_that_is_gone_costs_no_pause_while_another_is_left() -> None:
    call = Rehearsal(RetryPolicy(0), 10.0, servers=5, try_s=0.01)
    assert call.run(GONE) == 5
    assert call.pauses == [0.0] * 4


def test_a_full_server_sends_on_to_the_next_but_that_counts() -> None:
    call = Rehearsal(RetryPolicy(2), 10.0, servers=5, try_s=0.01)
    assert call.run(FULL) == 3
    assert call.pauses == [0.0, 0.0]


def test_a_server_is_not_asked_again_sooner_than_it_said() -> None:
    call = Rehearsal(RetryPolicy(3, 0.1), 10.0, servers=1, try_s=0.01)
    call.run(Overloaded("full", retry_after_s=0.7))
    assert all(0.75 <= pause <= 1.1 for pause in call.pauses)
    assert len(call.pauses) == 3


def test_no_pause_outlasts_the_deadline() -> None:
    call = Rehearsal(RetryPolicy(50, 0.2, 1.0), 2.0, servers=1, try_s=0.1)
    call.run(GONE)
    assert call.now - 0.1 < 2.0, "the last try began in time"
    late = Rehearsal(RetryPolicy(3), 1.0, servers=1, try_s=0.1)
    assert late.run(Overloaded("full", retry_after_s=5.0)) == 1
    assert late.now == pytest.approx(0.1)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("x"),
        NotFound("x"),
        AvatarInvalid("x"),
        DeadlineExceeded("x"),
        LipwireError("x"),
    ],
)
def test_what_cannot_be_mended_by_asking_again_is_told_at_once(error: LipwireError) -> None:
    assert Rehearsal(RetryPolicy(9), 10.0, servers=3, try_s=0.0).run(error) == 1


def test_servers_are_asked_in_their_order_and_again_when_all_were() -> None:
    call = Rehearsal(RetryPolicy(2), 10.0, servers=3, try_s=0.0)
    call.run(GONE)
    assert call.asked == ["s0", "s1", "s2"] * 3
    assert [pause > 0 for pause in call.pauses] == [False, False, True] * 2 + [False, False]


def test_the_order_of_the_moment_counts_and_who_was_asked_waits_for_the_others() -> None:
    tries = Tries(RetryPolicy(0), 10.0, Random(7))
    assert tries.choose(["b", "a"]) == "b"
    assert tries.pause_after(GONE, order=["b"], now=0.0) is None, "nobody else is up"
    assert tries.pause_after(GONE, order=["b", "c"], now=0.0) == 0.0
    assert tries.choose(["c", "b", "a"]) == "c"
    assert tries.choose(["b", "c"]) == "b", "a has gone, and the others had their turn"
    assert tries.choose(["b", "c"]) == "c"
    assert tries.choose(["a", "b"]) == "a"


def test_at_the_deadline_nothing_is_tried() -> None:
    policy = RetryPolicy(3, 0.1)
    pause_s = policy.pause_s(0, Random(7))

    def pause(deadline: float, order: list[str], now: float) -> float | None:
        tries = Tries(policy, deadline, Random(7))
        tries.choose(["a"])
        return tries.pause_after(GONE, order=order, now=now)

    assert pause(1.0, ["a", "b"], now=1.0) is None
    assert pause(1.0, ["a", "b"], now=0.99) == 0.0
    assert pause(pause_s, ["a"], now=0.0) is None
    assert pause(1.01 * pause_s, ["a"], now=0.0) == pause_s


def test_any_sensible_number_of_retries_is_taken() -> None:
    assert [RetryPolicy(number).max_retries for number in (0, 100)] == [0, 100]


@pytest.mark.parametrize("retries", [-1, 101])
def test_unreasonable_retries_are_refused(retries: int) -> None:
    with pytest.raises(InvalidInput, match=f"max_retries is {retries}, allowed are 0 to 100"):
        RetryPolicy(retries)


def test_a_server_whose_disk_is_full_is_asked_once_and_another_one_then() -> None:
    call = Rehearsal(RetryPolicy(3, 0.1, 1.0), 10.0, servers=2, try_s=0.0)
    assert call.run(StorageFailed("no space left on the disk")) == 2
    assert call.asked == ["s0", "s1"]
    assert call.pauses == [0.0]
